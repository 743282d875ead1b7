"""`recops tune`: searches for better hyper-parameters of one model, judged on the validation part alone.

In: params.yaml (group `tune`; the model's settings as they stand are trial 0) and the parts train and valid of the
split. Out: `reports/tune.parquet`, one row a trial that has ended, and on request the best settings in params.yaml.

The study lies in `.recops/tune/`, a file that is replaced by rename whenever a trial ends: a kill costs the trial that
it hits, and the next call draws that one again. Knows no test part.
"""

import fcntl
import hashlib
import json
import math
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from recops.bundle import canonical_json, sha256_file, sync_folder, write_atomically
from recops.data.interactions import Interactions
from recops.errors import CallError, RecopsError, RefusedError
from recops.evaluation.bootstrap import paired_bootstrap
from recops.evaluation.judging import Judging
from recops.evaluation.protocol import RankedUsers, metric_values
from recops.params import TrainParams
from recops.stages import closure
from recops.stages.params_file import set_values
from recops.stages.project import Project
from recops.stages.task import model_config, read_train, validation_users
from recops.stages.train import fit, make_model
from recops.training import search
from recops.training.search import Ended

Say = Callable[[str], None]
Clock = Callable[[], float]


@dataclass(frozen=True)
class Tuned:
    """What is known when a call ends. `best` is None where no trial is complete.

    `gain`: mean of best less trial 0 over the validation users, low and high end of its 95 % interval. `table` is
    `reports/tune.parquet`; `written` says that params.yaml changed.
    """

    model: str
    metric: str
    num_users: int
    trials: list[Ended]
    best: Ended | None
    gain: tuple[float, float, float] | None
    ended_by: str
    table: Path
    written: bool


class _Spent(Exception):
    """The budget ended within a trial."""


class _Hopeless(Exception):
    """The trial is not worth going on with."""


@dataclass(frozen=True)
class _Watched(Judging):
    """A judging that shows every ranking to `watch` before it is returned: once an epoch."""

    watch: Callable[[RankedUsers], None] = lambda _: None

    def rank(self, *arguments: Any, **named: Any) -> RankedUsers:
        ranked = super().rank(*arguments, **named)
        self.watch(ranked)
        return ranked


def tune(
    project: Project,
    *,
    model: str | None = None,
    trials: int | None = None,
    budget_s: float | None = None,
    write: bool = False,
    say: Say = print,
    now: Clock = time.monotonic,
) -> Tuned:
    """Goes on with the study of these data and settings until it has `trials` trials (None: `tune.trials`) or
    `budget_s` seconds are over.

    A trial that the budget or Ctrl-C cuts short does not count, and is the next to be tried. `write` puts the best
    settings into params.yaml; alone, it tries nothing more. Raises CallError where there is nothing to fit on, neither
    end is given, or a setting is wrong, RefusedError where nobody can be judged; and what trial 0 raises.
    """
    params = project.params
    name = model or params.tune.model or params.train.model
    if trials is None and (budget_s is not None or not write):
        trials = params.tune.trials
    if trials is None and budget_s is None and not write:
        raise CallError("say when to stop: --budget 30m, --trials 20, or tune.trials in params.yaml")
    if params.train.task == "rating":
        raise CallError(
            "train.task: recops tune searches by ranking metrics alone, found rating; set train.models by hand"
        )
    kind, config = model_config(name, params.train)
    if hasattr(kind, "blend"):
        if model is not None:
            raise CallError(f"{name} is made of fitted models; tune one of them: --model {config.members[0]}")
        name = config.members[0]
    until = math.inf if budget_s is None else now() + budget_s
    wanted = trials if trials is not None else 0 if budget_s is None else math.inf
    with _alone(project):
        task = _Task.of(project, name)
        study = _Study.open(project.state / "tune", name, task.goal(project), say)
        say(f"tune {name}: {task.metric} of {len(task.valid)} validation users")
        for key, dimension in task.space.items():
            say(f"  {key}: now {task.now_set[key]}, tried {dimension}")
        table = project.reports / "tune.parquet"
        write_table(study.trials, task.space, table)
        ended_by = _search(task, study, table, wanted, until, say, now)
        best = study.best
        written = write and best is not None and best.trial > 0
        if write and best is None:
            raise CallError(
                f"{project.params_file}: not changed, since no trial is complete; give --budget or --trials"
            )
        if written and best is not None:
            set_values(project.params_file, ("train", "models", name), best.settings)
        gain = study.gain(params.evaluate.bootstrap_samples, params.evaluate.seed)
    return Tuned(name, task.metric, len(task.valid), study.trials, best, gain, ended_by, table, written)


def _search(task: "_Task", study: "_Study", table: Path, wanted: float, until: float, say: Say, now: Clock) -> str:
    """Adds trials to the study until it has `wanted`, time is up, or it is interrupted; tells which it was."""
    try:
        while len(study.trials) < wanted:
            shortest = min((t.seconds for t in study.trials if t.state == "complete"), default=0.0)
            if study.trials and now() + shortest >= until:
                return "the budget is spent: no time is left for another trial"
            done = task.next(study.trials, until, now)
            if done is None:
                return "the space holds nothing that has not been tried"
            study.add(*done)
            write_table(study.trials, task.space, table)
            say(line(done[0], study.best))
    except _Spent as spent:
        return f"the budget is spent: {spent}"
    except KeyboardInterrupt:
        return "interrupted; the same call goes on from here"
    return f"the study has {len(study.trials)} trials"


@dataclass(frozen=True)
class _Task:
    """What all trials of a study share."""

    name: str
    train: Interactions
    valid: Judging
    metric: str
    recipe: TrainParams
    seed: int
    config: Any  # of the model, as set now
    space: search.Space

    @classmethod
    def of(cls, project: Project, name: str) -> "_Task":
        """Reads the parts and checks the space. Raises CallError and RefusedError (see `tune`)."""
        params = project.params
        for part in ("train", "valid", "first_seen"):
            if not (path := project.split / f"{part}.parquet").exists():
                raise CallError(f"{path}: no such file; `recops run` or `dvc repro split` makes it")
        train = read_train(project)
        valid = validation_users(project, train, params.train, [name])
        if not len(valid):
            raise RefusedError(f"{project.split / 'valid.parquet'}: no user to judge by; see split in params.yaml")
        assert isinstance(valid, Judging), "tune refuses a task of ratings before"
        config = make_model(name, train, params.train, params.recommend.remove_seen).config
        space = search.make_space(params.tune.space, config, name)
        return cls(name, train, valid, params.evaluate.metric, params.train, params.tune.seed, config, space)

    @property
    def now_set(self) -> dict[str, Any]:
        """The settings of trial 0."""
        values = self.config.model_dump(mode="json")
        return {key: values[key] for key in self.space}

    @property
    def epochs(self) -> int | None:
        """Of a model that is judged after each, and can be stopped early; None for all others."""
        return self.config.epochs if hasattr(model_config(self.name, self.recipe)[0], "loss") else None

    def goal(self, project: Project) -> dict[str, Any]:
        """All that the value of a trial depends on, by the name that a message gives it: JSON values."""
        goal = {
            "the code of recops": closure.code_hash("train"),
            "evaluate.metric": self.metric,
            "tune.space": {key: asdict(dimension) for key, dimension in self.space.items()},
            "tune.seed": self.seed,
            f"train.models.{self.name}": self.config.model_dump(mode="json"),
            "train.seed": self.recipe.seed,
            "train.threads": self.recipe.threads,
            "the train part": sha256_file(project.split / "train.parquet"),
            "the validation part or evaluate": self.valid.fingerprint(),
        }
        return json.loads(canonical_json(goal))

    def next(self, ended: list[Ended], until: float, now: Clock) -> tuple[Ended, np.ndarray | None] | None:
        """Runs the trial after those that have `ended`, with the values of single users where it is complete.

        None where the space holds no more. Raises _Spent where time is up, and for trial 0 what its fit raises: the
        settings as they stand have to work.
        """
        if not ended:
            return self._run(0, self.now_set, None, until, now)
        # Not within the first quarter: a low learning rate starts slowly.
        drawn = search.draw(self.space, ended, self.seed, warmup=max(1, (self.epochs or 0) // 4))
        if drawn is None:
            return None
        try:
            return self._run(len(ended), drawn.settings, drawn, until, now)
        except RecopsError as error:
            return Ended(len(ended), "failed", None, drawn.settings, reason=str(error)), None

    def _run(
        self, number: int, settings: dict[str, Any], drawn: search.Draw | None, until: float, now: Clock
    ) -> tuple[Ended, np.ndarray | None]:
        started = now()
        curve: list[float | None] = []
        best_U: np.ndarray | None = None
        # Epochs of a longer and a shorter training cannot be compared, so where they are tried nothing is pruned.
        epochs = self.epochs if "epochs" not in self.space else settings["epochs"]

        def watch(ranked: RankedUsers) -> None:
            nonlocal best_U
            values_U = metric_values(ranked, self.metric)
            value = float(np.nanmean(values_U)) if np.isfinite(values_U).any() else None
            if value is not None and value > max((v for v in curve if v is not None), default=-math.inf):
                best_U = values_U
            curve.append(value)
            if epochs is None or len(curve) >= epochs:
                return
            if drawn is not None and "epochs" not in self.space and drawn.is_hopeless(len(curve), value):
                raise _Hopeless
            if now() >= until:
                raise _Spent(f"trial {number}, cut short after epoch {len(curve)} of {epochs}, starts anew next time")

        judged = {about.name: getattr(self.valid, about.name) for about in fields(Judging)}
        models = {**self.recipe.models, self.name: {**self.recipe.models.get(self.name, {}), **settings}}
        # Watched from within, epoch by epoch, which other processes are not.
        recipe = self.recipe.model_copy(update={"models": models, "workers": 1})
        try:
            fit(self.name, self.train, recipe, _Watched(**judged, watch=watch), self.metric)
            pruned = False
        except _Hopeless:
            pruned = True
        reached = [value for value in curve if value is not None]
        if not reached:
            raise RefusedError(f"{self.metric} is undefined for every validation user")
        ended = Ended(number, "pruned" if pruned else "complete", max(reached), settings, curve, now() - started)
        return ended, None if pruned else best_U


@dataclass
class _Study:
    """The trials of one goal that have ended, and the file that keeps them.

    Of single users only the values of trial 0 and of the best trial are kept, in files beside it.
    """

    file: Path
    goal: dict[str, Any]
    trials: list[Ended]

    @classmethod
    def open(cls, folder: Path, name: str, goal: dict[str, Any], say: Say) -> "_Study":
        """The study of this goal, new where there is none; says which it is, and why the last one does not go on."""
        key = hashlib.sha256(canonical_json(goal).encode()).hexdigest()[:16]
        file = folder / f"{name}-{key}.json"
        if file.exists():
            trials = [Ended(**trial) for trial in json.loads(file.read_text(encoding="utf-8"))["trials"]]
            say(f"tune: going on after {len(trials)} trials")
            return cls(file, goal, trials)
        if others := sorted(folder.glob(f"{name}-*.json"), key=lambda path: path.stat().st_mtime):
            last = json.loads(others[-1].read_text(encoding="utf-8"))["goal"]
            changed = [key for key in goal if goal[key] != last.get(key)]
            say(f"tune: a new study, since this has changed: {', '.join(changed)}")
        return cls(file, goal, [])

    @property
    def best(self) -> Ended | None:
        """The complete trial of the highest value, of equal ones the first."""
        complete = [trial for trial in self.trials if trial.state == "complete"]
        return max(complete, key=lambda trial: (trial.value, -trial.trial), default=None)

    def add(self, trial: Ended, values_U: np.ndarray | None) -> None:
        """Keeps a trial that has ended; nothing of it counts before."""
        self.trials.append(trial)
        kept = {0, self.best.trial if self.best else 0}
        if values_U is not None and trial.trial in kept:
            _replace(self._values(trial.trial), partial(_save, values_U))
        facts = {"goal": self.goal, "trials": [asdict(trial) for trial in self.trials]}
        write_atomically(self.file, json.dumps(facts, indent=1, allow_nan=False))
        for number in range(1, trial.trial):
            if number not in kept:
                self._values(number).unlink(missing_ok=True)

    def gain(self, samples: int, seed: int) -> tuple[float, float, float] | None:
        """Best less trial 0, paired by user, with its interval; None where no trial is complete."""
        if self.best is None or self.best.trial == 0:
            return None if self.best is None else (0.0, 0.0, 0.0)
        first_U, best_U = (np.load(self._values(number)) for number in (0, self.best.trial))
        return paired_bootstrap(best_U, first_U, samples, seed)

    def _values(self, number: int) -> Path:
        return self.file.with_suffix(f".{number}.npy")


def seconds(text: str) -> float:
    """1800.0 for `30m`; also `2h`, `90s`, `1h30m`. Raises CallError for anything else, and for no time at all."""
    found = re.fullmatch(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?", text.strip())
    total = sum(int(part or 0) * size for part, size in zip(found.groups(), (3600, 60, 1), strict=True)) if found else 0
    if total == 0:
        raise CallError(f"--budget: expected a time such as 30m, 2h or 90s, found {text!r}")
    return float(total)


def described(settings: Mapping[str, Any]) -> str:
    """Settings on one line."""
    return " ".join(f"{key}={json.dumps(value)}" for key, value in settings.items())


def line(trial: Ended, best: Ended | None) -> str:
    """One trial and the best so far, on one line."""
    value = "failed" if trial.value is None else f"{trial.value:.5f}"
    pruned = f" pruned after epoch {len(trial.curve)}" if trial.state == "pruned" else ""
    so_far = f"  best {best.value:.5f} (trial {best.trial})" if best else ""
    why = f"  {trial.reason}" if trial.reason else ""
    as_set = "as set now: " if trial.trial == 0 else ""
    return (
        f"trial {trial.trial}  {value}{pruned}{so_far}  {trial.seconds:.1f} s  {as_set}{described(trial.settings)}{why}"
    )


def write_table(trials: list[Ended], space: search.Space, path: Path) -> None:
    """Replaces the Parquet table: trial, state (complete, pruned, failed), value, epochs, seconds, reason (of a
    failure, else empty), and one column a hyper-parameter; settings of mixed kinds, or lists, as JSON text."""
    columns: dict[str, pl.Series] = {
        "trial": pl.Series([t.trial for t in trials], dtype=pl.Int64),
        "state": pl.Series([t.state for t in trials], dtype=pl.String),
        "value": pl.Series([t.value for t in trials], dtype=pl.Float64),
        "epochs": pl.Series([len(t.curve) for t in trials], dtype=pl.Int64),
        "seconds": pl.Series([t.seconds for t in trials], dtype=pl.Float64),
        "reason": pl.Series([t.reason for t in trials], dtype=pl.String),
    }
    natural = {bool: pl.Boolean, int: pl.Int64, float: pl.Float64, str: pl.String}
    for key in space:
        values = [t.settings[key] for t in trials]
        kinds = {type(value) for value in values if value is not None}
        kind = float if kinds == {int, float} else kinds.pop() if len(kinds) == 1 else None
        if kind in natural:
            columns[key] = pl.Series(values, dtype=natural[kind], strict=False)
        else:
            columns[key] = pl.Series([None if v is None else json.dumps(v) for v in values], dtype=pl.String)
    path.parent.mkdir(parents=True, exist_ok=True)
    _replace(path, pl.DataFrame(columns).write_parquet)


def _replace(path: Path, write: Callable[[Path], Any]) -> None:
    """Replaces a file by rename once it is whole on disk."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    write(temporary)
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    temporary.replace(path)
    sync_folder(path.parent)


def _save(values_U: np.ndarray, path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, values_U)


@contextmanager
def _alone(project: Project) -> Iterator[None]:
    """Keeps a second search out of the same project; the kernel frees the lock of one that was killed."""
    folder = project.state / "tune"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CallError(f"{project.root}: another recops tune is at work here; wait for it, or stop it") from None
        yield
