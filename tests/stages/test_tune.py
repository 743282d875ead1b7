"""`recops tune`: trials on the validation part, kept through kills, and the best written back."""

import itertools
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from recops import cli
from recops.data.interactions import SPLIT_COLUMNS
from recops.errors import CallError, RefusedError
from recops.evaluation.protocol import ranked_lists
from recops.params import EvaluateParams, TrainParams
from recops.stages import tune as module
from recops.stages.project import Project, open_project
from recops.stages.tune import Tuned, line, seconds, tune
from recops.training.search import Ended

from .conftest import made_up_log

SETTINGS = """\
train:
  model: {model}   # what is served
  seed: 1
  threads: 1
  models: {{{models}}}  # by name
tune:
  space: {{{space}}}
evaluate: {{k: [10], bootstrap_samples: 100}}
"""
KNN = "shrinkage: {low: 1, high: 100, log: true}, num_neighbors: {low: 1, high: 30}"


def write_part(project: Project, name: str, rows: list[list[str]]) -> None:
    events = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row").with_columns(
        pl.col("timestamp").str.to_datetime("%Y-%m-%dT%H:%M:%S%z", time_unit="us", time_zone="UTC"),
        event=pl.lit("click"),
        value=pl.lit(None, pl.Float32),
        signal=pl.lit("positive"),
        weight=pl.lit(1.0, pl.Float32),
    )
    events.select(SPLIT_COLUMNS).write_parquet(project.split / f"{name}.parquet")


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A made-up log without a test part: users 0 to 59, each with the last event for validation."""
    return made(tmp_path)


def made(folder: Path) -> Project:
    folder.mkdir(exist_ok=True)
    configure(folder)
    project = open_project(folder)
    project.split.mkdir(parents=True)
    rows = made_up_log(num_events=700, num_users=60, num_items=60)
    last = {user: place for place, (user, _, _) in enumerate(rows)}
    write_part(project, "train", [row for place, row in enumerate(rows) if last[row[0]] != place])
    write_part(project, "valid", [row for place, row in enumerate(rows) if last[row[0]] == place])
    items = sorted({item for _, item, _ in rows})
    seen = {"item_id": items, "timestamp": [datetime(2024, 1, 1, tzinfo=UTC)] * len(items)}
    pl.DataFrame(seen, schema_overrides={"timestamp": pl.Datetime("us", "UTC")}).write_parquet(
        project.split / "first_seen.parquet"
    )
    return project


def configure(folder: Path, model: str = "item_knn", models: str = "", space: str = KNN) -> None:
    (folder / "params.yaml").write_text(SETTINGS.format(model=model, models=models, space=space))


def quietly(project: Project, **arguments: Any) -> Tuned:
    return tune(project, say=lambda _: None, **arguments)


def rows(found: Tuned) -> list[dict[str, Any]]:
    """The table without its times."""
    return pl.read_parquet(found.table).drop("seconds").to_dicts()


class Interrupting:
    """`fit` that is interrupted when it is called for the trial of that number."""

    def __init__(self, at: int, by: Callable[[], None]) -> None:
        self.calls, self.at, self.by, self.fit = itertools.count(), at, by, module.fit

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        if next(self.calls) == self.at:
            self.by()
        return self.fit(*arguments, **named)


def press_ctrl_c() -> None:
    raise KeyboardInterrupt


def test_every_trial_is_a_row_and_the_first_is_what_is_set(project: Project) -> None:
    lines: list[str] = []
    found = tune(project, trials=6, say=lines.append)
    table = pl.read_parquet(project.reports / "tune.parquet")
    assert table.columns == ["trial", "state", "value", "epochs", "seconds", "reason", "shrinkage", "num_neighbors"]
    assert table["trial"].to_list() == [0, 1, 2, 3, 4, 5]
    assert table["state"].unique().to_list() == ["complete"]
    assert table.row(0, named=True)["num_neighbors"] == 50  # beyond what is tried, and tried all the same
    assert table["num_neighbors"][1:].max() <= 30
    assert found.best is not None and found.best.value == table["value"].max()
    assert [text.partition("  ")[0] for text in lines[3:]] == [f"trial {n}" for n in range(6)]
    assert "as set now: shrinkage=10.0 num_neighbors=50" in lines[3]
    assert found.ended_by == "the study has 6 trials"
    assert not found.written


def test_values_are_those_of_a_fit_judged_on_validation(project: Project) -> None:
    from recops.data.interactions import read_interactions
    from recops.evaluation.judging import read_judging
    from recops.evaluation.protocol import metric_values
    from recops.release.export import torch_scorer

    found = quietly(project, trials=4)
    assert found.best is not None and found.best.trial > 0 and found.gain is not None
    train = read_interactions(project.split / "train.parquet")
    valid = read_judging(project.split, "valid", train, EvaluateParams(k=[10]), True)

    def values(settings: dict[str, Any]) -> np.ndarray:
        model, _ = module.fit("item_knn", train, TrainParams(models={"item_knn": settings}), None, "ndcg@10")
        return metric_values(valid.rank(torch_scorer(model.parts()), 10), "ndcg@10")

    assert found.trials[0].value == pytest.approx(values({}).mean())
    assert found.best.value == pytest.approx(values(found.best.settings).mean())
    gain, low, high = found.gain
    assert gain == pytest.approx((values(found.best.settings) - values({})).mean())
    assert low < gain < high


def test_a_second_call_goes_on_and_gives_what_one_would(project: Project, tmp_path: Path) -> None:
    whole = quietly(made(tmp_path / "whole"), trials=8)
    quietly(project, trials=3)
    lines: list[str] = []
    found = tune(project, trials=8, say=lines.append)
    assert lines[0] == "tune: going on after 3 trials"
    assert [list(trial.settings) for trial in found.trials] == [["shrinkage", "num_neighbors"]] * 8
    assert rows(found) == rows(whole)
    assert found.gain == whole.gain


def test_ctrl_c_ends_with_what_is_known_and_loses_one_trial(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(module, "fit", Interrupting(3, press_ctrl_c))
        found = quietly(project, trials=6)
    assert found.ended_by.startswith("interrupted")
    assert found.best is not None and len(found.trials) == pl.read_parquet(found.table).height == 3
    assert rows(quietly(project, trials=6)) == rows(quietly(made(tmp_path / "whole"), trials=6))


@pytest.mark.process
def test_a_kill_within_a_trial_loses_that_trial_alone(project: Project, tmp_path: Path) -> None:
    script = (
        "import os, signal, sys; from pathlib import Path; from recops.stages import tune as module\n"
        "from recops.stages.project import Project; fit, calls = module.fit, []\n"
        "def dying(*a, **k):\n"
        "    calls.append(1)\n"
        "    return os.kill(os.getpid(), signal.SIGKILL) if len(calls) == 4 else fit(*a, **k)\n"
        "module.fit = dying; module.tune(Project(Path(sys.argv[1])), trials=6)\n"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    killed = subprocess.run([sys.executable, "-c", script, project.root], env=environment, capture_output=True)
    assert killed.returncode == -signal.SIGKILL
    assert pl.read_parquet(project.reports / "tune.parquet").height == 3
    assert rows(quietly(project, trials=6)) == rows(quietly(made(tmp_path / "whole"), trials=6))


def test_another_goal_is_another_study_and_says_why(project: Project) -> None:
    quietly(project, trials=2)
    configure(project.root, models="item_knn: {max_history: 5}", space="shrinkage: {choice: [1, 2, 3]}")
    lines: list[str] = []
    found = tune(project, trials=2, say=lines.append)
    assert lines[0] == "tune: a new study, since this has changed: train.models.item_knn, tune.space"
    assert len(found.trials) == 2
    configure(project.root)
    assert len(quietly(project, trials=1).trials) == 2, "the first goal has its trials still"


def test_a_changed_train_part_is_another_study(project: Project) -> None:
    quietly(project, trials=2)
    path = project.split / "train.parquet"
    pl.read_parquet(path)[:-5].write_parquet(path)
    lines: list[str] = []
    tune(project, trials=1, say=lines.append)
    assert lines[0].startswith("tune: a new study, since this has changed: the train part")


def test_the_best_is_written_and_comments_stay(project: Project) -> None:
    before = project.params_file.read_text()
    found = quietly(project, trials=5, write=True)
    assert found.written and found.best is not None
    told = ", ".join(f"{key}: {value}" for key, value in found.best.settings.items())
    assert project.params_file.read_text() == before.replace("models: {}", f"models: {{item_knn: {{{told}}}}}")
    assert project.params.train.models == {"item_knn": found.best.settings}


def test_write_alone_tries_nothing_more(project: Project) -> None:
    with pytest.raises(CallError, match="no trial is complete; give --budget or --trials"):
        quietly(project, write=True)
    quietly(project, trials=4)
    found = quietly(project, write=True)
    assert found.written and len(found.trials) == 4


def test_what_is_set_stays_when_nothing_is_better(project: Project) -> None:
    configure(project.root, space="max_history: {choice: [1]}")
    before = project.params_file.read_text()
    found = quietly(project, trials=2, write=True)
    assert found.best is not None and found.best.trial == 0
    assert found.gain == (0.0, 0.0, 0.0)
    assert (found.written, project.params_file.read_text()) == (False, before)


def test_the_budget_ends_the_search(project: Project) -> None:
    clock = itertools.count()  # read before each trial but the first, at its start and at its end
    found = quietly(project, budget_s=11, now=lambda: float(next(clock)))
    assert found.ended_by == "the budget is spent: no time is left for another trial"
    assert [trial.seconds for trial in found.trials] == [1.0] * 4


def test_the_number_of_trials_may_stand_in_the_settings(project: Project) -> None:
    configure(project.root, space=KNN + "}\n  trials: 2  # {")
    assert len(quietly(project).trials) == 2
    assert len(quietly(project, budget_s=1e9).trials) == 2
    assert len(quietly(project, write=True).trials) == 2


def test_a_space_that_is_tried_out_ends_the_search(project: Project) -> None:
    configure(project.root, space="num_neighbors: {choice: [1, 2]}")
    found = quietly(project, budget_s=1e9)
    assert found.ended_by == "the space holds nothing that has not been tried"
    assert sorted(trial.settings["num_neighbors"] for trial in found.trials) == [1, 2, 50]


TINY = "embedding_dim: 8, num_blocks: 1, num_heads: 1, max_history: 10, epochs: 4, batch_size: 512, precision: float32"


def fake_epochs(curves: Callable[[int], list[float]]) -> Callable[..., Any]:
    """`fit` that shows, epoch by epoch, the lists of which the curve of its call says how many users they please."""
    calls = itertools.count()

    def fit(name: str, train: Any, recipe: TrainParams, valid: Any, metric: str) -> None:
        for share in curves(next(calls)):
            top_idx = np.zeros((len(valid), 10), np.int64)
            pleased = range(round(share * len(valid)))
            top_idx[pleased, 0] = [valid.targets[row][0] for row in pleased]
            valid.watch(ranked_lists(top_idx, valid.targets, item_counts=valid.item_counts))

    return fit


def test_a_hopeless_trial_is_stopped_early(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    configure(project.root, "sasrec", f"sasrec: {{{TINY}}}", "dropout: {low: 0.1, high: 0.5}")
    good, bad = [0.4, 0.5, 0.6, 0.7], [0.1, 0.1, 0.9, 0.9]
    monkeypatch.setattr(module, "fit", fake_epochs(lambda call: bad if call == 6 else good))
    found = quietly(project, trials=8)
    states = [trial.state for trial in found.trials]
    assert states == ["complete"] * 6 + ["pruned", "complete"]
    assert len(found.trials[6].curve) == 1
    assert found.best is not None and found.best.trial == 0, "of equal values the first"


def test_the_budget_ends_a_trial_between_its_epochs(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    configure(project.root, "sasrec", f"sasrec: {{{TINY}}}", "dropout: {low: 0.1, high: 0.5}")
    monkeypatch.setattr(module, "fit", fake_epochs(lambda _: [0.1, 0.2, 0.3, 0.4]))
    clock = itertools.count()
    found = quietly(project, budget_s=3, now=lambda: float(next(clock)))
    assert found.ended_by == "the budget is spent: trial 0, cut short after epoch 2 of 4, starts anew next time"
    assert found.trials == []


def test_epochs_that_are_tried_are_not_compared(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    configure(
        project.root, "sasrec", f"sasrec: {{{TINY}}}", "epochs: {low: 1, high: 4}, dropout: {low: 0.1, high: 0.5}"
    )
    monkeypatch.setattr(module, "fit", fake_epochs(lambda call: [0.1 if call == 6 else 0.5] * 4))
    assert [trial.state for trial in quietly(project, trials=8).trials] == ["complete"] * 8


def test_a_network_is_searched_the_same_way_twice(project: Project, tmp_path: Path) -> None:
    quick = TINY.replace("epochs: 4", "epochs: 2")
    space = "learning_rate: {low: 5e-4, high: 5e-2, log: true}, embedding_dim: {choice: [8, 16]}"
    configure(project.root, "sasrec", f"sasrec: {{{quick}}}", space)
    found = quietly(project, trials=2)
    again = made(tmp_path / "again")
    configure(again.root, "sasrec", f"sasrec: {{{quick}}}", space)
    assert rows(quietly(again, trials=2)) == rows(found)
    assert [len(trial.curve) for trial in found.trials] == [2, 2]


def test_settings_that_do_not_go_together_are_a_failed_trial(project: Project) -> None:
    configure(project.root, "sasrec", f"sasrec: {{{TINY}}}", "num_heads: {choice: [3]}")
    found = quietly(project, trials=2)
    assert [row["state"] for row in rows(found)] == ["complete", "failed"]
    assert "embedding_dim 8 is not a multiple of num_heads 3" in rows(found)[1]["reason"]
    assert "failed" in line(found.trials[1], found.best)


def test_what_is_set_has_to_work(project: Project) -> None:
    configure(project.root, models="item_knn: {shrinkage: -1}")
    with pytest.raises(CallError, match=r"train\.models\.item_knn\.shrinkage"):
        quietly(project, trials=2)
    assert not list((project.state / "tune").glob("*.json"))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({}, "say when to stop: --budget 30m"),
        ({"trials": 1, "model": "moon"}, "no models named 'moon'"),
        ({"trials": 1, "model": "most_popular"}, r"tune\.space\.shrinkage: most_popular has no such setting"),
    ],
)
def test_a_wrong_call_is_told(project: Project, change: dict[str, Any], told: str) -> None:
    with pytest.raises(CallError, match=told):
        quietly(project, **change)


@pytest.mark.parametrize(
    ("space", "told"),
    [
        ("shrinkage: {low: 3, high: 1}", r"tune\.space\.shrinkage: .*low 3 is above high 1"),
        ("shrinkage: {choice: []}", r"tune\.space\.shrinkage\.choice: .*at least 1"),
        ("shrinkage: {low: 1}", r"tune\.space\.shrinkage: .*give choice, or low and high"),
        ("shrinkage: {low: 0, high: 1, log: true}", r"tune\.space\.shrinkage: .*log needs a low above 0"),
        ("shrinkage: {choice: [1], low: 1}", r"tune\.space\.shrinkage: .*either choice"),
    ],
)
def test_a_wrong_range_is_told_by_its_key(project: Project, space: str, told: str) -> None:
    configure(project.root, space=space)
    with pytest.raises(CallError, match=told):
        quietly(project, trials=1)


def test_without_a_split_the_command_that_makes_it_is_told(project: Project) -> None:
    (project.split / "valid.parquet").unlink()
    with pytest.raises(CallError, match=r"valid\.parquet: no such file; `recops run`"):
        quietly(project, trials=1)


def test_without_anybody_to_judge_by_nothing_is_tried(project: Project) -> None:
    path = project.split / "valid.parquet"
    pl.read_parquet(path).clear().write_parquet(path)
    with pytest.raises(RefusedError, match="no user to judge by"):
        quietly(project, trials=1)


def test_two_searches_at_once_are_refused(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    def second() -> None:
        with pytest.raises(CallError, match="another recops tune is at work"):
            quietly(project, trials=1)

    monkeypatch.setattr(module, "fit", Interrupting(0, second))
    assert len(quietly(project, trials=1).trials) == 1


@pytest.mark.parametrize(("text", "found"), [("30m", 1800), ("2h", 7200), ("90s", 90), ("1h30m", 5400)])
def test_a_time_is_read(text: str, found: float) -> None:
    assert seconds(text) == found


@pytest.mark.parametrize("text", ["", "30", "m", "-1m", "1.5h", "0s", "30 minutes"])
def test_no_time_is_told(text: str) -> None:
    with pytest.raises(CallError, match=f"--budget: expected a time such as 30m, 2h or 90s, found '{text}'"):
        seconds(text)


def test_mixed_and_listed_settings_stand_as_json(tmp_path: Path) -> None:
    settings: list[dict[str, Any]] = [
        {"dims": [64, 32], "decay": None, "rate": 1},
        {"dims": [8], "decay": 2.5, "rate": 0.5},
    ]
    trials = [Ended(n, "complete", 0.5, given) for n, given in enumerate(settings)]
    module.write_table(trials, dict.fromkeys(settings[0]), tmp_path / "t.parquet")  # type: ignore[arg-type]
    table = pl.read_parquet(tmp_path / "t.parquet")
    assert table["dims"].to_list() == ["[64, 32]", "[8]"]
    assert (table["decay"].to_list(), table["rate"].to_list()) == ([None, 2.5], [1.0, 0.5])


def test_the_command_tells_the_gain_and_what_to_do_next(
    project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def call(*words: str) -> str:
        monkeypatch.setattr(sys, "argv", ["recops", "tune", "-C", str(project.root), *words])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert not ended.value.code
        return capsys.readouterr().out

    assert call("--trials", "5").endswith(f"Next     recops tune -C {project.root} --write\n")
    out = call("--budget", "1s", "--write")
    assert "Gain     +" in out and "95 %" in out
    assert f"Wrote    train.models.item_knn of {project.params_file}: " in out
    assert json.loads(next((project.state / "tune").glob("*.json")).read_text())["trials"]
    monkeypatch.setattr(module, "fit", Interrupting(0, press_ctrl_c))
    out = call("--trials", "5")
    assert "a new study, since this has changed: train.models.item_knn" in out
    assert out.endswith("Best     none: no trial is complete\n")


def test_of_a_fusion_the_first_member_is_tuned(project: Project) -> None:
    configure(project.root, "fusion", "fusion: {members: [item_knn, ease]}")
    assert quietly(project, trials=1).model == "item_knn"
    with pytest.raises(CallError, match="made of fitted models; tune one of them: --model item_knn"):
        quietly(project, trials=1, model="fusion")
