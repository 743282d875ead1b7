"""The tables of published records: who is judged on what, and what counts as beaten."""

import gzip
from pathlib import Path

import numpy as np
import pytest

from benchmarks.quality import __main__ as quality
from benchmarks.quality.report import intervals, is_beaten, to_beat
from benchmarks.quality.sequences import read_lines, read_pairs
from benchmarks.quality.tasks import Published, Recipe, Table, Task, leave_last_out, rank
from recops.evaluation.protocol import metric_values
from recops.runtime import Scorer

SEQUENCES = {"long": list("abcde"), "mid": list("bcax"), "short": ["a", "e"]}


def fixed_scores(task: Task, order: str) -> Scorer:
    """Scores everybody alike: the first letter of `order` is the best item."""
    scores = np.zeros(task.train.num_items + 1, np.float32)
    scores[task.train.items.to_idx(list(order))] = np.arange(len(order), 0, -1)
    return Scorer(num_items=task.train.num_items, item_scores=scores, needs_history=False)


def test_the_last_two_items_are_held_out_and_short_users_only_train() -> None:
    task = leave_last_out("some", SEQUENCES)
    assert task.train.items.ids == ["a", "b", "c", "e"]
    assert task.valid.user_ids == task.test.user_ids == ["mid", "long"]
    to_ids = task.train.items.to_ids
    assert [to_ids(history) for history in task.valid.histories] == [["b", "c"], ["a", "b", "c"]]
    # d was never trained on: no target of validation that could be hit, and no item of the history at test.
    assert [target.tolist() for target in task.valid.targets] == [[1], [0]]
    assert [to_ids(history) for history in task.test.histories] == [["b", "c", "a"], ["a", "b", "c"]]
    assert [target.tolist() for target in task.test.targets] == [[0], [4]]
    assert task.valid.users is not None and task.train.users.to_ids(task.valid.users) == ["mid", "long"]


def test_a_target_never_trained_on_is_a_miss_and_seen_items_are_no_candidates() -> None:
    task = leave_last_out("some", SEQUENCES)
    scorer = fixed_scores(task, "abce")
    assert metric_values(rank(task.test, scorer, 10), "hit_rate@1").tolist() == [0.0, 1.0]
    assert metric_values(rank(task.valid, scorer, 10), "hit_rate@1").tolist() == [1.0, 0.0]


def test_among_candidates_nothing_else_is_ranked() -> None:
    """Row 2 is b, row 4 is e: b is ranked although it was seen, twice given it counts once, row 0 never counts."""
    task = leave_last_out("some", SEQUENCES)
    ranked = rank(task.test, fixed_scores(task, "abce"), 3, [np.array([2, 0, 2]), np.array([4, 2])])
    assert ranked.top_idx.tolist() == [[2, 0, 0], [2, 4, 0]]


def test_files_are_read_in_their_order(tmp_path: Path) -> None:
    (tmp_path / "pairs").write_bytes(gzip.compress(b"2 7\n1 5\n2 6\n"))
    (tmp_path / "lines").write_bytes(gzip.compress(b"2 7 6\n1 5\n"))
    expected = {"2": ["7", "6"], "1": ["5"]}
    assert read_pairs(tmp_path / "pairs") == read_lines(tmp_path / "lines") == expected


def test_intervals_are_of_users_and_means_of_seeds() -> None:
    found = intervals([{"ndcg@10": np.array([0.0, 1.0])}, {"ndcg@10": np.array([0.5, 0.5])}], ["ndcg@10"])["ndcg@10"]
    assert found["value"] == 0.5 and found["seeds"] == [0.5, 0.5]
    assert found["low"] == 0.25 and found["high"] == 0.75


def test_beaten_means_above_the_best_comparable_figure_in_every_metric() -> None:
    published = (
        Published("one", {"ndcg@10": 0.1, "hit_rate@10": 0.3}, "here"),
        Published("two", {"ndcg@10": 0.2}, "there"),
        Published("sampled", {"ndcg@10": 0.9}, "there", is_comparable=False),
    )
    best = to_beat(published, ["ndcg@10", "hit_rate@10", "mrr@10"])
    assert {metric: value for metric, (value, _) in best.items()} == {"ndcg@10": 0.2, "hit_rate@10": 0.3}
    assert is_beaten({"ndcg@10": {"value": 0.21}, "hit_rate@10": {"value": 0.31}}, best) is True
    assert is_beaten({"ndcg@10": {"value": 0.21}, "hit_rate@10": {"value": 0.3}}, best) is False
    assert is_beaten({}, to_beat(published[2:], ["ndcg@10"])) is None


def test_a_run_writes_its_rows_and_only_keeps_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("benchmarks.report.RESULTS", tmp_path)
    monkeypatch.setattr("benchmarks.report.commit", lambda: "a commit")
    monkeypatch.setattr(quality, "RESULTS", tmp_path)
    table = Table(
        name="made_up",
        protocol="leave-last-out",
        load=lambda data, quick: leave_last_out("made_up", SEQUENCES),
        recipes=(
            Recipe("popular", "most_popular", is_random=False),
            Recipe("both", "fusion", {"fusion": {"members": ["slist", "most_popular"]}}),
        ),
        published=(Published("someone", {"ndcg@10": 0.01}, "a paper"),),
    )
    quality.run(table, Path(), [1, 2], False, [], True)
    assert "popular: ndcg@10" in capsys.readouterr().out and not list(tmp_path.iterdir())
    quality.run(table, Path(), [1, 2], False, [], False)
    rows = quality.earlier_rows("quality_made_up", False)
    assert [len(row["seeds"]) for row in rows.values()] == [1, 2]
    assert all({"command", "commit", "machine", "cpu_seconds", "beaten"} <= set(row) for row in rows.values())
    quality.run(table, Path(), [3], False, ["both"], False)
    again = quality.earlier_rows("quality_made_up", False)
    assert list(again) == ["popular", "both"] and again["popular"] == rows["popular"]
    assert [run["seed"] for run in again["both"]["seeds"]] == [3]


def test_the_chosen_model_is_fitted_again_on_the_whole_log() -> None:
    """Train knows two as, the whole log two bs more: the model that the test part tells of has seen them."""
    task = leave_last_out("some", SEQUENCES)
    whole = leave_last_out("some", {**SEQUENCES, "more": list("bbbbaa")}).train
    task = Task(**{**vars(task), "whole": whole})
    params = quality.params_of(Recipe("popular", "most_popular"), 1, False)
    found = quality.fit_once(task, "most_popular", params, {})
    assert found.chosen.parts().item_scores.tolist() == [0, 2, 2, 2, 1]
    assert found.told.parts().item_scores.tolist() == [0, 2, 6, 2, 1]


@pytest.mark.parametrize("quick", [False, True])
def test_every_recipe_names_settings_that_its_models_have(quick: bool) -> None:
    for table in quality.tables().values():
        assert len({recipe.label for recipe in table.recipes}) == len(table.recipes)
        for recipe in table.recipes:
            settings = quality.settings_of(recipe, quick)
            for name in quality.members_of(recipe.model, settings):
                quality.members_of(name, settings)
