"""Remakes tables of published records: `python -m benchmarks.quality [TABLE ...] [--quick] [--seeds 1,2,3]`.

Every table of the files `recipes_*.py`, or those named. Each model is fitted as the stage `train` fits it, chosen on
validation and told by the test part. Seconds are CPU seconds of one thread, from an unfitted model to the kept one,
validation included. Prints each table and writes results/quality_TABLE.json; `--only` measures some rows anew and keeps
the others, each of which says which command, commit and machine made it.
"""

import os

if __name__ == "__main__":
    # Read when the libraries load, which the imports below do.
    os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")

import argparse
import importlib
import json
import pkgutil
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

import benchmarks.quality
from benchmarks.quality.report import differences, intervals, is_beaten, lines, to_beat
from benchmarks.quality.tasks import Recipe, Table, Task, rank
from benchmarks.report import RESULTS, facts, write_results
from recops.errors import RefusedError, TooLargeError
from recops.evaluation.judging import metric_k
from recops.evaluation.protocol import metric_values
from recops.params import TrainParams
from recops.protocols import FitReport, Recommender
from recops.release.export import torch_scorer
from recops.stages.task import model_config
from recops.stages.train import fit

# What `--quick` makes of any model that has these settings.
QUICK = {"epochs": 1, "embedding_dim": 16, "num_blocks": 1, "num_heads": 1}
MODULE = "benchmarks.quality"


@dataclass(frozen=True)
class Fitted:
    """A model as validation judged it, the one that the test part tells of, and the CPU seconds of both together."""

    chosen: Recommender
    told: Recommender
    report: FitReport
    cpu_seconds: float


Done = dict[str, Fitted]  # what one task has fitted, by model, seed and settings


def tables() -> dict[str, Table]:
    """Every table by name, in the order of the files and of the tables in each."""
    found = [m.name for m in pkgutil.iter_modules(benchmarks.quality.__path__) if m.name.startswith("recipes_")]
    modules = [importlib.import_module(f"{MODULE}.{name}") for name in sorted(found)]
    return {table.name: table for module in modules for table in module.TABLES}


def members_of(model: str, settings: Mapping[str, Mapping[str, Any]]) -> tuple[str, ...]:
    """The models that `model` is made of; none for one that is no ensemble. Raises CallError for a wrong setting."""
    _, config = model_config(model, TrainParams(models=dict(settings)))
    return tuple(getattr(config, "members", ()))


def settings_of(recipe: Recipe, quick: bool) -> dict[str, dict[str, Any]]:
    """`train.models` for one recipe: its settings, made small by `quick`."""
    settings = {name: dict(values) for name, values in recipe.settings.items()}
    for name in (recipe.model, *members_of(recipe.model, settings)) if quick else ():
        fields = model_config(name, TrainParams(models=settings))[0].Config.model_fields
        settings[name] = {**settings.get(name, {}), **{key: value for key, value in QUICK.items() if key in fields}}
    return settings


def params_of(recipe: Recipe, seed: int, quick: bool) -> TrainParams:
    return TrainParams(model=recipe.model, seed=seed, threads=1, models=settings_of(recipe, quick))


def fit_once(task: Task, name: str, params: TrainParams, done: Done) -> Fitted:
    """Fits a model and its members, on the train part and, where the task has one, on the whole log after that: as many
    epochs as were best, with the weights found on validation. Takes from `done` what stands there."""
    members = members_of(name, params.models)
    settings = {part: params.models.get(part, {}) for part in (name, *members)}
    key = json.dumps([name, params.seed, settings], sort_keys=True)
    if key in done:
        return done[key]
    parts: dict[str, Fitted] = {}
    for member in members:
        # The stage tries it again, and leaves it out.
        with suppress(TooLargeError, RefusedError):
            parts[member] = fit_once(task, member, params, done)
    started = time.process_time()
    ready = {member: (part.chosen, part.report) for member, part in parts.items()}
    chosen, report = fit(name, task.train, params, task.valid, task.metrics[0], progress=True, fitted=ready)
    told = chosen
    if task.whole is not None:
        if hasattr(chosen, "loss"):
            longest = {**params.models, name: {**params.models.get(name, {}), "epochs": report.best_epoch}}
            params = params.model_copy(update={"models": longest})
        ready = {member: (part.told, part.report) for member, part in parts.items()}
        told, _ = fit(name, task.whole, params, None, task.metrics[0], progress=True, fitted=ready)
        if members:
            told.load_state(chosen.state())
    seconds = time.process_time() - started + sum(part.cpu_seconds for part in parts.values())
    done[key] = Fitted(chosen, told, report, seconds)
    return done[key]


def measure(task: Task, recipe: Recipe, seeds: Sequence[int], quick: bool, done: Done) -> dict[str, Any]:
    """Fits one recipe and judges it on validation. `done` saves fitting what another recipe has fitted."""
    runs, choice = [], task.metrics[0]
    for seed in seeds if recipe.is_random else seeds[:1]:
        found = fit_once(task, recipe.model, params_of(recipe, seed, quick), done)
        scorer = torch_scorer(found.chosen.parts())
        values = metric_values(rank(task.valid, scorer, metric_k(choice), task.valid_candidates), choice)
        run = {"seed": seed, "validation": float(np.nanmean(values)), "epoch": found.report.best_epoch}
        runs.append({**run, "cpu_seconds": found.cpu_seconds})
    return {
        "model": recipe.label,
        "settings": settings_of(recipe, quick),
        "validation": float(np.mean([run["validation"] for run in runs])),
        "cpu_seconds": float(np.mean([run["cpu_seconds"] for run in runs])),
        "seeds": runs,
        **facts(MODULE),
    }


def tell(task: Task, recipe: Recipe, seeds: Sequence[int], quick: bool, done: Done) -> list[dict[str, np.ndarray]]:
    """What the test part says of a recipe: the values of each metric by user, one dictionary a seed."""
    values = []
    for seed in seeds if recipe.is_random else seeds[:1]:
        found = fit_once(task, recipe.model, params_of(recipe, seed, quick), done)
        scorer = torch_scorer(found.told.parts())
        ranked = rank(task.test, scorer, max(map(metric_k, task.metrics)), task.test_candidates)
        values.append({metric: metric_values(ranked, metric) for metric in task.metrics})
    return values


def earlier_rows(name: str, quick: bool) -> dict[str, dict[str, Any]]:
    """Rows of the last results of a table by model; none where there are no results."""
    path = RESULTS / f"{name}{'-quick' if quick else ''}.json"
    if not path.exists():
        return {}
    return {row["model"]: row for row in json.loads(path.read_text(encoding="utf-8"))["numbers"]["rows"]}


def run(table: Table, data: Path, seeds: Sequence[int], quick: bool, only: Sequence[str], valid_only: bool) -> None:
    """Measures the rows of one table, printing each as it is done, and writes it after each unless `valid_only`."""
    task = table.load(data, quick)
    best = to_beat(table.published, task.metrics)
    name = f"quality_{table.name}"
    rows = earlier_rows(name, quick) if only else {}
    done: Done = {}
    told: dict[str, list[dict[str, np.ndarray]]] = {}
    print(f"\n{table.name}: {table.protocol}", flush=True)
    for recipe in table.recipes:
        if only and recipe.label not in only:
            continue
        row = measure(task, recipe, seeds, quick, done)
        cost = f"{row['cpu_seconds']:.1f} CPU s"
        print(f"  {recipe.label}: {task.metrics[0]} {row['validation']:.4f} on validation, {cost}", flush=True)
        if valid_only:
            continue
        values = tell(task, recipe, seeds, quick, done)
        metrics = intervals(values, task.metrics)
        row |= {"metrics": metrics, "beaten": is_beaten(metrics, best)}
        if members_of(recipe.model, recipe.settings):
            row["better_than"] = differences(values, told, task.metrics[0])
        rows[recipe.label], told[recipe.label] = row, values
        numbers: dict[str, Any] = {
            "protocol": table.protocol,
            "users": len(task.test),
            "items": task.train.num_items,
            "train_events": len(task.train),
            "published": [{**vars(p), "metrics": dict(p.metrics)} for p in table.published],
            "rows": [rows[recipe.label] for recipe in table.recipes if recipe.label in rows],
        }
        path = write_results(name, numbers, quick, MODULE)
    if not valid_only:
        print("\n".join(lines(numbers["rows"], task.metrics, table.published)))
        for row in numbers["rows"]:
            for other, found in row.get("better_than", {}).items():
                spread = "{difference:+.4f} [{low:+.4f}, {high:+.4f}]".format(**found)
                print(f"{row['model']} above {other}: {task.metrics[0]} {spread}, paired")
        print(path, flush=True)


def main() -> None:
    known = tables()
    parser = argparse.ArgumentParser(prog=f"python -m {MODULE}", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("tables", nargs="*", metavar="TABLE", help=f"any of {', '.join(known)}; all when none is named")
    parser.add_argument("--quick", action="store_true", help="some hundred users, small networks, one epoch")
    parser.add_argument("--seeds", default="1,2,3", help="comma-separated; models without chance take the first")
    parser.add_argument("--only", default="", metavar="MODEL,...", help="rows to measure; the others are kept")
    parser.add_argument(
        "--valid-only", action="store_true", help="validation figures alone, nothing is written: to choose settings"
    )
    arguments = parser.parse_args()
    only = [label for label in arguments.only.split(",") if label]
    for name in arguments.tables:
        if name not in known:
            parser.error(f"no table named {name!r}: there are {', '.join(known)}")
    chosen = [known[name] for name in arguments.tables or known]
    labels = {recipe.label for table in chosen for recipe in table.recipes}
    if unknown := [label for label in only if label not in labels]:
        parser.error(f"--only: no model named {unknown[0]!r} in these tables: there are {', '.join(sorted(labels))}")
    data = Path(os.environ.get("RECOPS_TEST_DATA", Path(__file__).parents[3] / "shared" / "data"))
    seeds = [int(seed) for seed in arguments.seeds.split(",")]
    torch.set_num_threads(1)
    for table in chosen:
        if not only or any(recipe.label in only for recipe in table.recipes):
            seeds_used = seeds[:1] if arguments.quick else seeds
            run(table, data, seeds_used, arguments.quick, only, arguments.valid_only)


if __name__ == "__main__":
    main()
