"""Items that nobody had met when the models were fitted: `python -m benchmarks.cold_items [SET ...] [--quick]`.

For each data set: Recall@10 and NDCG@10 on items first seen after the last cut, over the whole catalogue of the moment
(and among new items alone), of random lists, popularity by category, content k-NN, the content models by each encoder
and by all, and the same models without content. Then NDCG@10 on items that were trained on, with content against
without, as a paired difference; and NDCG@10 by the length of the history, over everything after the cut. Users judged
on new items have a history; how many had none is told.

Neighbours, power and decay of content k-NN, and the id dropout of the content model, are chosen by NDCG@10 on the
validation part of the new items; epochs of both networks by the items withheld for that. The test parts choose nothing.
Prints tables and writes results/cold_items.json; sets that are not named keep what it says.
"""

import os

if __name__ == "__main__":
    # Read when the libraries load, which the imports below do.
    os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")

import argparse
import itertools
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.cold_items.data import DATA_SETS, DataSet, Prepared, prepare
from benchmarks.report import RESULTS, facts, write_results
from recops.data.interactions import Interactions, read_interactions
from recops.evaluation.bootstrap import mean_intervals, paired_bootstrap
from recops.evaluation.judging import Judging, read_judging
from recops.evaluation.protocol import metric_values
from recops.params import EvaluateParams, TrainParams
from recops.release.export import torch_scorer
from recops.runtime import Scorer
from recops.stages.train import fit

METRICS = ("recall@10", "ndcg@10")
CHOICE = "ndcg@10"
SAMPLES = 1000
MODELS = {
    "two_tower": {"embedding_dim": 64, "epochs": 8},
    "ligr": {"embedding_dim": 64, "num_blocks": 1, "epochs": 8, "max_history": 100},
}
QUICK = {"embedding_dim": 16, "epochs": 2}
ID_DROPOUTS = (0.1, 0.5)
NEIGHBOURS = {
    "num_neighbors": (20, 200),
    "power": (1.0, 3.0),
    "link_decay": (None, 5.0),
}
LENGTHS = {"0": (0, 0), "1": (1, 1), "2-4": (2, 4), "5-9": (5, 9), "10+": (10, np.inf)}


@dataclass(frozen=True)
class Parts:
    """Who is judged on what: of new items (`cold_*`) users with a history alone."""

    train: Interactions
    cold_valid: Judging
    cold_test: Judging
    warm_valid: Judging
    warm_test: Judging
    later: Judging
    without_history: int


def read_parts(found: Prepared, max_users: int) -> Parts:
    items = found.project.tables / "items.parquet"
    train = read_interactions(found.cold / "train.parquet", items, found.project.encoded)
    settings = EvaluateParams(k=[10], metric=CHOICE, max_users=max_users)

    def part(folder: Path, name: Any) -> Judging:
        return read_judging(folder, name, train, settings, True, items)

    def with_history(judging: Judging) -> Judging:
        return judging.of(np.flatnonzero([len(history) > 0 for history in judging.histories]))

    cold = part(found.cold, "test")
    return Parts(
        train=train,
        cold_valid=with_history(part(found.cold, "valid")),
        cold_test=with_history(cold),
        warm_valid=part(found.warm, "valid"),
        warm_test=part(found.warm, "test"),
        later=part(found.later, "test"),
        without_history=len(cold) - len(with_history(cold)),
    )


def among_new(judging: Judging, num_trained: int) -> Judging:
    """The same users, whose candidates are the items that were never trained on."""
    trained = np.arange(1, num_trained + 1)
    refused = judging.refused or [np.empty(0, np.int64)] * len(judging)
    return replace(judging, refused=[np.union1d(trained, rows) for rows in refused])


def fitted(parts: Parts, model: str, settings: Mapping[str, Any]) -> Scorer:
    params = TrainParams(model=model, seed=1, threads=1, models={model: dict(settings)})
    steered_by = parts.warm_valid if model in MODELS else None
    return torch_scorer(fit(model, parts.train, params, steered_by, CHOICE)[0].parts())


def at_random(parts: Parts) -> Scorer:
    """Another list for each user: what one list for all would find depends on which items happen to lead it."""
    generator = np.random.default_rng(1)
    vectors = generator.standard_normal((len(parts.train.all_items) + 1, 32), np.float32)

    def draw(histories: np.ndarray) -> np.ndarray:
        return generator.standard_normal((len(histories), 32), np.float32)

    return Scorer(len(vectors) - 1, encode=draw, item_vectors=vectors)


def nearest(parts: Parts, encoders: Sequence[str], quick: bool) -> tuple[Scorer, dict[str, Any], float]:
    """Content k-NN with the settings that are best on validation, and how good they are there."""
    found: list[tuple[float, dict[str, Any], Scorer]] = []
    grid = {key: values[:1] if quick else values for key, values in NEIGHBOURS.items()}
    for chosen in itertools.product(*grid.values()):
        settings = {"content": list(encoders), **dict(zip(grid, chosen, strict=True))}
        scorer = fitted(parts, "content_knn", settings)
        found.append((parts.cold_valid.mean(scorer, CHOICE), settings, scorer))
    value, settings, scorer = max(found, key=lambda one: one[0])
    return scorer, settings, value


def network(parts: Parts, model: str, encoders: Sequence[str], quick: bool) -> tuple[Scorer, dict[str, Any], float]:
    """The content model with the id dropout that is best on validation; without encoders there is nothing to choose."""
    found: list[tuple[float, dict[str, Any], Scorer]] = []
    for id_dropout in ID_DROPOUTS[: 1 if quick or not encoders else None]:
        settings = {**MODELS[model], "content": list(encoders), "id_dropout": id_dropout, **(QUICK if quick else {})}
        scorer = fitted(parts, model, settings)
        found.append((parts.cold_valid.mean(scorer, CHOICE), settings, scorer))
    value, settings, scorer = max(found, key=lambda one: one[0])
    return scorer, settings, value


def values_of(judging: Judging, scorer: Scorer) -> dict[str, np.ndarray]:
    ranked = judging.rank(scorer, 10)
    return {metric: metric_values(ranked, metric) for metric in METRICS}


def measure(found: DataSet, parts: Parts, models: Sequence[str], quick: bool) -> dict[str, Any]:
    """The tables of one data set as JSON values; prints each row as it is done."""
    every = list(found.encoders)
    subsets = [*([name] for name in every if len(every) > 1), every]
    rows: dict[str, dict[str, Any]] = {}
    kept: dict[str, tuple[Scorer, dict[str, np.ndarray]]] = {}
    new_alone = among_new(parts.cold_test, parts.train.num_items)

    def row(name: str, scorer: Scorer, settings: Mapping[str, Any], validation: float, seconds: float) -> None:
        whole = values_of(parts.cold_test, scorer)
        alone = values_of(new_alone, scorer)
        columns = np.column_stack([*whole.values(), *alone.values()])
        labels = [*METRICS, *(f"{metric} among new" for metric in METRICS)]
        intervals = mean_intervals(columns, SAMPLES, seed=0)
        rows[name] = {"settings": dict(settings), "validation": validation, "cpu_seconds": seconds}
        for label, interval in zip(labels, intervals, strict=True):
            rows[name][label] = dict(zip(("value", "low", "high"), map(float, interval[:3]), strict=True))
        kept[name] = scorer, whole
        cells = " ".join("{value:.4f} [{low:.4f}, {high:.4f}]".format(**rows[name][label]) for label in labels)
        print(f"  {name:<34} {validation:.4f} {cells} {seconds:.0f} s", flush=True)

    def timed(name: str, make: Any, *arguments: Any) -> None:
        started = time.process_time()
        made = make(*arguments)
        chosen = made if isinstance(made, tuple) else (made, {}, parts.cold_valid.mean(made, CHOICE))
        row(name, *chosen, time.process_time() - started)

    print(f"  {'':<34} valid  {METRICS[0]:<24} {METRICS[1]:<24} the same among new items alone", flush=True)
    timed("random", at_random, parts)
    timed("category_popular", fitted, parts, "category_popular", {})
    for encoders in subsets:
        timed(f"content_knn {'+'.join(encoders)}", nearest, parts, encoders, quick)
    for model in models:
        timed(f"{model} without content", network, parts, model, [], quick)
        for encoders in subsets:
            timed(f"{model} {'+'.join(encoders)}", network, parts, model, encoders, quick)

    # Both sides take what was best on validation.
    def best(*kinds: str) -> str:
        names = [name for name in rows if name.split()[0] in kinds and "without" not in name]
        return max(names, key=lambda name: rows[name]["validation"])

    model, rival = best(*models), best("content_knn", "category_popular")
    plain = f"{model.split()[0]} without content"
    numbers = {"rows": rows, "model": model, "rival": rival, "plain": plain, **about(parts)}
    numbers["above_rival"] = paired(kept[model][1][CHOICE], kept[rival][1][CHOICE])
    warm = [values_of(parts.warm_test, kept[name][0])[CHOICE] for name in (model, plain)]
    numbers["warm"] = {"with": float(np.nanmean(warm[0])), "without": float(np.nanmean(warm[1])), **paired(*warm)}
    numbers["by_length"] = by_length(parts.later, kept[model][0], kept[plain][0])
    return numbers


def about(parts: Parts) -> dict[str, int]:
    return {
        "train_events": len(parts.train),
        "items": parts.train.num_items,
        "new_items": len(parts.train.all_items) - parts.train.num_items,
        "users": len(parts.cold_test),
        "users_without_history": parts.without_history,
        "targets": int(sum(map(len, parts.cold_test.targets))),
        "warm_users": len(parts.warm_test),
    }


def paired(own: np.ndarray, other: np.ndarray) -> dict[str, float]:
    return dict(zip(("difference", "low", "high"), paired_bootstrap(own, other, SAMPLES, seed=0), strict=True))


def by_length(judging: Judging, model: Scorer, plain: Scorer) -> dict[str, dict[str, Any]]:
    """NDCG@10 of both on everything after the cut, by how many events the user had before."""
    lengths = np.array([len(history) for history in judging.histories])
    own, other = (values_of(judging, scorer)[CHOICE] for scorer in (model, plain))
    found = {}
    for label, (low, high) in LENGTHS.items():
        inside = (lengths >= low) & (lengths <= high)
        if inside.sum() > 1:
            found[label] = {
                "users": int(inside.sum()),
                "with": float(np.nanmean(own[inside])),
                "without": float(np.nanmean(other[inside])),
                **paired(own[inside], other[inside]),
            }
    return found


def told(numbers: Mapping[str, Any]) -> list[str]:
    spread = "{difference:+.4f} [{low:+.4f}, {high:+.4f}]"
    warm, rows = numbers["warm"], numbers["rows"]
    reached = rows[numbers["model"]][CHOICE]["low"] > rows[numbers["rival"]][CHOICE]["high"]
    lines = [
        f"  {numbers['model']} above {numbers['rival']}: {spread.format(**numbers['above_rival'])}, paired; intervals "
        f"{'apart' if reached else 'not apart'}",
        f"  trained items, {CHOICE}: {warm['with']:.4f} with content, {warm['without']:.4f} without: "
        f"{spread.format(**warm)}, paired, {numbers['warm_users']} users",
    ]
    for label, found in numbers["by_length"].items():
        lines.append(
            f"  history of {label:>4}: {found['with']:.4f} with, {found['without']:.4f} without, "
            f"{spread.format(**found)}, {found['users']} users"
        )
    return lines


def main() -> None:
    known = {one.name: one for one in DATA_SETS}
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.cold_items", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("sets", nargs="*", metavar="SET", help=f"any of {', '.join(known)}; all when none is named")
    parser.add_argument("--quick", action="store_true", help="some hundred users, a small network, nothing chosen")
    parser.add_argument("--work", type=Path, default=Path(".recops/cold_items"), help="keeps tables and vectors")
    parser.add_argument("--max-users", type=int, default=1000, help="judged of each part at most, seeded")
    parser.add_argument("--models", default=",".join(MODELS), help="content models, comma-separated")
    arguments = parser.parse_args()
    models = arguments.models.split(",")
    if unknown := set(models) - set(MODELS):
        parser.error(f"--models: there are {', '.join(MODELS)}; found {', '.join(sorted(unknown))}")
    for name in arguments.sets:
        if name not in known:
            parser.error(f"no data set named {name!r}: there are {', '.join(known)}")
    data = Path(os.environ.get("RECOPS_TEST_DATA", Path(__file__).parents[3] / "shared" / "data"))
    torch.set_num_threads(1)
    path = RESULTS / f"cold_items{'-quick' if arguments.quick else ''}.json"
    for name in arguments.sets or known:
        found = known[name]
        parts = read_parts(prepare(found, data, arguments.work.resolve(), arguments.quick), arguments.max_users)
        print(f"\n{name}: {found.about}. {about(parts)}", flush=True)
        measured = {**measure(found, parts, models, arguments.quick), **facts("benchmarks.cold_items")}
        print("\n".join(told(measured)))
        earlier = json.loads(path.read_text(encoding="utf-8"))["numbers"] if path.exists() else {}
        numbers = {one: earlier[one] for one in known if one in earlier} | {name: measured}
        print(write_results("cold_items", numbers, arguments.quick), flush=True)


if __name__ == "__main__":
    main()
