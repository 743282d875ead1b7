"""Items that nobody had met when the models were fitted: `python -m benchmarks.cold_items [SET ...] [--quick]`.

For each data set: Recall@10 and NDCG@10 on items first seen after the last cut, over the whole catalogue of the moment
(and among new items alone), of random lists, popularity by category, content k-NN, the content models by each encoder
and by all, the same models without content, and a fusion of the best of each. Then NDCG@10 on items that were trained
on, of the best network with content against without, as a paired difference; and NDCG@10 by the length of the history,
over everything after the cut. Users judged on new items have a history; how many had none is told.

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
from collections.abc import Callable, Mapping, Sequence
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
from recops.models.fusion import Fusion
from recops.params import EvaluateParams, TrainParams
from recops.protocols import ServingParts
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


Made = tuple[
    ServingParts, dict[str, Any], float
]  # a model, its settings, and how good it is on new items of validation


def fitted(parts: Parts, model: str, settings: Mapping[str, Any]) -> Made:
    params = TrainParams(model=model, seed=1, threads=1, models={model: dict(settings)})
    steered_by = parts.warm_valid if model in MODELS else None
    found = fit(model, parts.train, params, steered_by, CHOICE)[0].parts()
    return found, dict(settings), parts.cold_valid.mean(torch_scorer(found), CHOICE)


def at_random(parts: Parts) -> Scorer:
    """Another list for each user: what one list for all would find depends on which items happen to lead it."""
    generator = np.random.default_rng(1)
    vectors = generator.standard_normal((len(parts.train.all_items) + 1, 32), np.float32)

    def draw(histories: np.ndarray) -> np.ndarray:
        return generator.standard_normal((len(histories), 32), np.float32)

    return Scorer(len(vectors) - 1, encode=draw, item_vectors=vectors)


def nearest(parts: Parts, encoders: Sequence[str], quick: bool) -> Made:
    """Content k-NN with the settings that are best on validation."""
    grid = {key: values[:1] if quick else values for key, values in NEIGHBOURS.items()}
    settings = [dict(zip(grid, chosen, strict=True)) for chosen in itertools.product(*grid.values())]
    found = [fitted(parts, "content_knn", {"content": list(encoders), **chosen}) for chosen in settings]
    return max(found, key=lambda made: made[2])


def network(parts: Parts, model: str, encoders: Sequence[str], quick: bool) -> Made:
    """A content model with the id dropout that is best on validation; without encoders there is nothing to choose."""
    settings = {**MODELS[model], "content": list(encoders), **(QUICK if quick else {})}
    tried = ID_DROPOUTS[: 1 if quick or not encoders else None]
    found = [fitted(parts, model, {**settings, "id_dropout": id_dropout}) for id_dropout in tried]
    return max(found, key=lambda made: made[2])


def fused(parts: Parts, members: Mapping[str, ServingParts]) -> Made:
    """Several models together, their weights from the new items of validation, where the figure is cross-fitted."""
    model = Fusion(Fusion.Config(members=list(members), edges=[]), 0, 0, seed=1)
    model.attach(members, parts.train)
    report = model.blend({name: torch_scorer(part) for name, part in members.items()}, parts.cold_valid)
    found = model.parts()
    assert found.fusion is not None and report.best_metric is not None
    weights = dict(zip((name for name, _ in found.members), found.fusion.weights[0].tolist(), strict=True))
    return found, weights, report.best_metric


def values_of(judging: Judging, scorer: Scorer) -> dict[str, np.ndarray]:
    ranked = judging.rank(scorer, 10)
    return {metric: metric_values(ranked, metric) for metric in METRICS}


def measure(found: DataSet, parts: Parts, models: Sequence[str], quick: bool) -> dict[str, Any]:
    """The tables of one data set as JSON values; prints each row as it is done."""
    every = list(found.encoders)
    subsets = [*([name] for name in every if len(every) > 1), every]
    rows: dict[str, dict[str, Any]] = {}
    kept: dict[str, tuple[ServingParts | None, Scorer, np.ndarray]] = {}
    new_alone = among_new(parts.cold_test, parts.train.num_items)

    def add(
        name: str, scorer: Scorer, made: ServingParts | None, settings: Any, validation: float, seconds: float
    ) -> None:
        whole, alone = values_of(parts.cold_test, scorer), values_of(new_alone, scorer)
        labels = [*METRICS, *(f"{metric} among new" for metric in METRICS)]
        intervals = mean_intervals(np.column_stack([*whole.values(), *alone.values()]), SAMPLES, seed=0)
        rows[name] = {"settings": settings, "validation": validation, "cpu_seconds": seconds}
        for label, interval in zip(labels, intervals, strict=True):
            rows[name][label] = dict(zip(("value", "low", "high"), map(float, interval[:3]), strict=True))
        kept[name] = made, scorer, whole[CHOICE]
        cells = " ".join("{value:.4f} [{low:.4f}, {high:.4f}]".format(**rows[name][label]) for label in labels)
        print(f"  {name:<34} {validation:.4f} {cells} {seconds:.0f} s", flush=True)

    def timed(name: str, make: Callable[..., Made], *arguments: Any) -> None:
        started = time.process_time()
        made, settings, validation = make(parts, *arguments)
        add(name, torch_scorer(made), made, settings, validation, time.process_time() - started)

    def best(*kinds: str) -> str:
        """What is best on validation of some kinds of models that know content."""
        names = [name for name in rows if name.split()[0] in kinds and "without" not in name]
        return max(names, key=lambda name: rows[name]["validation"])

    print(f"  {'':<34} valid  {METRICS[0]:<24} {METRICS[1]:<24} the same among new items alone", flush=True)
    scorer = at_random(parts)
    add("random", scorer, None, {}, parts.cold_valid.mean(scorer, CHOICE), 0.0)
    timed("category_popular", fitted, "category_popular", {})
    for encoders in subsets:
        timed(f"content_knn {'+'.join(encoders)}", nearest, encoders, quick)
    for model in models:
        timed(f"{model} without content", network, model, [], quick)
        for encoders in subsets:
            timed(f"{model} {'+'.join(encoders)}", network, model, encoders, quick)
    members = [best(kind) for kind in ("content_knn", *models)]
    timed("fusion of the best of each", fused, {name: kept[name][0] for name in members})

    model, rival = best(*models, "fusion"), best("content_knn", "category_popular")
    # What has content is compared with the network without it, on items that both know.
    network_of, plain = best(*models), f"{best(*models).split()[0]} without content"
    warm = [values_of(parts.warm_test, kept[name][1])[CHOICE] for name in (network_of, plain)]
    return {
        "rows": rows,
        **{"model": model, "rival": rival, "network": network_of, "plain": plain},
        **about(parts),
        "above_rival": paired(kept[model][2], kept[rival][2]),
        "warm": {"with": float(np.nanmean(warm[0])), "without": float(np.nanmean(warm[1])), **paired(*warm)},
        "by_length": by_length(parts.later, kept[network_of][1], kept[plain][1]),
    }


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
        f"  {numbers['network']} on trained items, {CHOICE}: {warm['with']:.4f}, without content "
        f"{warm['without']:.4f}: {spread.format(**warm)}, paired, {numbers['warm_users']} users",
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
