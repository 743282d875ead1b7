"""Items that nobody had met when the models were fitted: `python -m benchmarks.cold_items [SET ...] [--quick]`.

For each data set: Recall@10 and NDCG@10 on items first seen after the last cut, over the whole catalogue of the moment
and among new items alone, of random lists, popularity by category, content k-NN, each model without content, by each
encoder and by all, and a fusion of the best model with content k-NN. Among new items alone nothing can be gained by
showing new items more often, over the whole catalogue it can: so beside it stands NDCG@10 on everything after the cut.
Then, with content against without as paired differences: NDCG@10 on items that were trained on, and on everything after
the cut by the length of the history. Users judged on new items have a history; how many had none is told.

All is chosen on validation, which is judged on items first seen after an earlier cut. Content k-NN: neighbours, power
and decay, by NDCG@10 over the whole catalogue, and again among new items alone. Content of a model: sharpness and ridge
of the map by NDCG@10 among new items; then the weight of new items by NDCG@10 over the whole catalogue, of those that
cost trained items no more than 1 % (the lower end of the paired interval) and everything after the cut no more (its
mean) there. The joint training of a network: its id
dropout. Epochs of networks by the items withheld for that. The test parts choose nothing. Prints tables and writes
results/cold_items.json; sets that are not named keep what it says.
"""

import os

if __name__ == "__main__":
    # Read when the libraries load, which the imports below do.
    os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")

import argparse
import itertools
import json
import operator
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
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
from recops.training.loop import new_model

METRICS = ("recall@10", "ndcg@10")
CHOICE = "ndcg@10"
SAMPLES = 1000
MODELS: dict[str, dict[str, Any]] = {
    "spectral": {"num_factors": 128, "degree_exponent": 0.3},
    "two_tower": {"embedding_dim": 64, "epochs": 8, "max_history": 100},
    "ligr": {"embedding_dim": 64, "num_blocks": 1, "epochs": 8, "max_history": 100},
}
QUICK = {"embedding_dim": 16, "epochs": 2}
JOINT = "two_tower"  # also trained together with its projection of content, by all encoders
ID_DROPOUTS = (0.1, 0.5)
NEIGHBOURS = {"num_neighbors": (20, 50, 200), "power": (1.0, 3.0), "link_decay": (None, 5.0, 20.0)}
MAPS = {"content_sharpness": (1.0, 3.0), "content_ridge": (0.03, 0.3)}
WEIGHTS = (1.0, 1.5, 2.0, 2.5, 3.0, 4.0)
MOST_LOSS = 0.01  # of the validation figures that a weight of new items may cost
VALIDATION_USERS = 1000
LENGTHS = {"0": (0, 0), "1": (1, 1), "2-4": (2, 4), "5-9": (5, 9), "10+": (10, np.inf)}


@dataclass(frozen=True)
class Parts:
    """Who is judged on what: of new items (`cold_*`) users with a history alone."""

    train: Interactions
    cold_valid: Judging
    cold_test: Judging
    warm_valid: Judging
    warm_test: Judging
    later_valid: Judging
    later: Judging
    without_history: int

    @cached_property
    def new_valid(self) -> Judging:
        return among_new(self.cold_valid, self.train.num_items)


def read_parts(found: Prepared, max_users: int) -> Parts:
    items = found.project.tables / "items.parquet"
    train = read_interactions(found.cold / "train.parquet", items, found.project.encoded)

    def part(folder: Path, name: Any) -> Judging:
        users = min(max_users, VALIDATION_USERS) if name == "valid" else max_users
        settings = EvaluateParams(k=[10], metric=CHOICE, max_users=users)
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
        later_valid=part(found.later, "valid"),
        later=part(found.later, "test"),
        without_history=len(cold) - len(with_history(cold)),
    )


def among_new(judging: Judging, num_trained: int) -> Judging:
    """The same users, whose candidates are the items that were never trained on."""
    trained = np.arange(1, num_trained + 1)
    refused = judging.refused or [np.empty(0, np.int64)] * len(judging)
    return replace(judging, refused=[np.union1d(trained, rows) for rows in refused])


@dataclass(frozen=True)
class Made:
    """A fitted model and how good it is on the new items of validation, over the whole catalogue and among them."""

    model: Any
    parts: ServingParts
    settings: dict[str, Any]
    valid: float
    valid_new: float

    @cached_property
    def scorer(self) -> Scorer:
        return torch_scorer(self.parts)


def made(parts: Parts, model: Any, settings: Mapping[str, Any]) -> Made:
    found = model.parts()
    scorer = torch_scorer(found)
    valid, valid_new = parts.cold_valid.mean(scorer, CHOICE), parts.new_valid.mean(scorer, CHOICE)
    return Made(model, found, dict(settings), valid, valid_new)


def fitted(parts: Parts, model: str, settings: Mapping[str, Any]) -> Made:
    params = TrainParams(model=model, seed=1, threads=1, models={model: dict(settings)})
    steered_by = parts.warm_valid if model in MODELS else None
    return made(parts, fit(model, parts.train, params, steered_by, CHOICE)[0], settings)


def at_random(parts: Parts) -> Scorer:
    """Another list for each user: what one list for all would find depends on which items happen to lead it."""
    generator = np.random.default_rng(1)
    vectors = generator.standard_normal((len(parts.train.all_items) + 1, 32), np.float32)

    def draw(histories: np.ndarray) -> np.ndarray:
        return generator.standard_normal((len(histories), 32), np.float32)

    return Scorer(len(vectors) - 1, encode=draw, item_vectors=vectors)


def combinations(grid: Mapping[str, Sequence[Any]], quick: bool) -> list[dict[str, Any]]:
    kept = [values[:1] if quick else values for values in grid.values()]
    return [dict(zip(grid, chosen, strict=True)) for chosen in itertools.product(*kept)]


def nearest(parts: Parts, encoders: Sequence[str], quick: bool) -> tuple[Made, Made]:
    """Content k-NN with the settings that are best over the whole catalogue, and those best among new items."""
    found = [
        fitted(parts, "content_knn", {"content": list(encoders), **chosen})
        for chosen in combinations(NEIGHBOURS, quick)
    ]
    return max(found, key=lambda one: one.valid), max(found, key=lambda one: one.valid_new)


def with_content(parts: Parts, plain: Made, encoders: Sequence[str], quick: bool) -> Made:
    """A model that was fitted without content, with the map from content to vectors that is best on validation."""

    def mapped(**settings: Any) -> Made:
        config = {**plain.settings, "content": list(encoders), **settings}
        kind = type(plain.model)
        model = new_model(kind, kind.Config(**config), parts.train, seed=1)
        model.load_state(plain.model.state())
        return made(parts, model, config)

    def costs_little(one: Made) -> bool:
        (warm, plain_warm), (later, plain_later) = (
            [values_of(part, scorer)[CHOICE] for scorer in (one.scorer, plain.scorer)]
            for part in (parts.warm_valid, parts.later_valid)
        )
        is_kept = paired(warm, plain_warm)["low"] >= -MOST_LOSS * np.nanmean(plain_warm)
        return bool(is_kept and np.nanmean(later) >= (1 - MOST_LOSS) * np.nanmean(plain_later))

    found = max((mapped(**chosen) for chosen in combinations(MAPS, quick)), key=lambda one: one.valid_new)
    best = {key: found.settings[key] for key in MAPS}
    for weight in WEIGHTS[1 : 2 if quick else None]:
        heavier = mapped(**best, new_item_weight=weight)
        if heavier.valid > found.valid and costs_little(heavier):
            found = heavier
    return found


def trained_jointly(parts: Parts, model: str, encoders: Sequence[str], quick: bool) -> Made:
    """A network trained with its projection of content, with the id dropout that is best among new items."""
    settings = settings_of(model, quick) | {"content": list(encoders), "content_fit": "joint"}
    found = [fitted(parts, model, settings | chosen) for chosen in combinations({"id_dropout": ID_DROPOUTS}, quick)]
    return max(found, key=lambda one: one.valid_new)


def settings_of(model: str, quick: bool) -> dict[str, Any]:
    return MODELS[model] | {key: value for key, value in QUICK.items() if quick and key in MODELS[model]}


def fused(parts: Parts, members: Mapping[str, ServingParts]) -> Made:
    """Several models together, their weights from the new items of validation, over the whole catalogue."""
    model = Fusion(Fusion.Config(members=list(members), edges=[]), 0, 0, seed=1)
    model.attach(members, parts.train)
    model.blend({name: torch_scorer(part) for name, part in members.items()}, parts.cold_valid)
    found = model.parts()
    assert found.fusion is not None
    weights = zip((name for name, _ in found.members), found.fusion.weights[0].tolist(), strict=True)
    return made(parts, model, dict(weights))


def values_of(judging: Judging, scorer: Scorer) -> dict[str, np.ndarray]:
    ranked = judging.rank(scorer, 10)
    return {metric: metric_values(ranked, metric) for metric in METRICS}


@dataclass(frozen=True)
class Row:
    """A line of the table: what it says, the model over the whole catalogue, and NDCG@10 of each user on new items,
    over the whole catalogue and among new items."""

    told: dict[str, Any]
    made: Made
    whole: np.ndarray
    alone: np.ndarray


def row_of(parts: Parts, whole: Made, alone: Made, seconds: float) -> Row:
    on_whole = values_of(parts.cold_test, whole.scorer)
    on_new = values_of(among_new(parts.cold_test, parts.train.num_items), alone.scorer)
    everything = values_of(parts.later, whole.scorer)[CHOICE]
    labels = [*METRICS, *(f"{metric} among new" for metric in METRICS)]
    intervals = mean_intervals(np.column_stack([*on_whole.values(), *on_new.values()]), SAMPLES, seed=0)
    told: dict[str, Any] = {"settings": whole.settings, "validation": whole.valid, "validation_new": alone.valid_new}
    if alone is not whole:
        told["settings_new"] = alone.settings
    for label, interval in zip(labels, intervals, strict=True):
        told[label] = dict(zip(("value", "low", "high"), map(float, interval[:3]), strict=True))
    told |= {"everything": float(np.nanmean(everything)), "cpu_seconds": seconds}
    return Row(told, whole, on_whole[CHOICE], on_new[CHOICE])


def measure(found: DataSet, parts: Parts, models: Sequence[str], quick: bool) -> dict[str, Any]:
    """The tables of one data set as JSON values; prints each row as it is done."""
    every = list(found.encoders)
    subsets = [*([[name] for name in every] if len(every) > 1 else []), every]
    rows: dict[str, Row] = {}
    compared: dict[str, dict[str, Any]] = {}

    def add(name: str, make: Callable[..., Made | tuple[Made, Made]], *arguments: Any) -> Made:
        started = time.process_time()
        result = make(parts, *arguments)
        whole, alone = result if isinstance(result, tuple) else (result, result)
        rows[name] = row_of(parts, whole, alone, time.process_time() - started)
        told = rows[name].told
        shown = [*METRICS, *(f"{metric} among new" for metric in METRICS)]
        cells = " ".join("{value:.4f} [{low:.4f}, {high:.4f}]".format(**told[label]) for label in shown)
        print(f"  {name:<36} {cells} {told['everything']:.4f} {told['cpu_seconds']:.0f} s", flush=True)
        return whole

    def best(measure: Callable[[Made], float], *kinds: str) -> str:
        """What is best on validation of some kinds of models."""
        names = [name for name in rows if name.split()[0] in kinds]
        return max(names, key=lambda name: measure(rows[name].made))

    print(f"  {'':<36} {METRICS[0]:<24} {METRICS[1]:<24} the same among new items alone; {CHOICE} of everything later")
    add("random", random_lists)
    add("category_popular", fitted, "category_popular", {})
    for encoders in subsets:
        add(f"content_knn {'+'.join(encoders)}", nearest, encoders, quick)
    for model in models:
        plain = add(f"{model} without content", fitted, model, settings_of(model, quick))
        for encoders in subsets:
            name = f"{model} {'+'.join(encoders)}"
            add(name, with_content, plain, encoders, quick)
        compared[name] = against(parts, rows[name].made, plain)
        if model == JOINT:
            name += " joint"
            compared[name] = against(parts, add(name, trained_jointly, model, every, quick), plain)
    rivals = ("content_knn", "category_popular")
    members = [best(lambda one: one.valid, "content_knn"), best(lambda one: one.valid_new, *models)]
    add("fusion of the best of each", fused, {name: rows[name].made.parts for name in members})

    above = {}
    for label, measured, column in (("whole", "valid", "whole"), ("among new", "valid_new", "alone")):
        value = operator.attrgetter(measured)
        model, rival = best(value, *models), best(value, *rivals)
        own, other = (getattr(rows[name], column) for name in (model, rival))
        key = CHOICE if label == "whole" else f"{CHOICE} among new"
        apart = rows[model].told[key]["low"] > rows[rival].told[key]["high"]
        above[label] = {"model": model, "rival": rival, "apart": apart, **paired(own, other)}
    return {"rows": {name: row.told for name, row in rows.items()}, **about(parts), "above": above, "models": compared}


def random_lists(parts: Parts) -> Made:
    scorer = at_random(parts)
    valid, valid_new = parts.cold_valid.mean(scorer, CHOICE), parts.new_valid.mean(scorer, CHOICE)
    found = Made(None, ServingParts(), {}, valid, valid_new)
    found.__dict__["scorer"] = scorer  # has no parts
    return found


def against(parts: Parts, own: Made, plain: Made) -> dict[str, Any]:
    """A model with content compared with the same without, on trained items and on everything after the cut."""
    found = {}
    for name, judging in (("trained items", parts.warm_test), ("everything", parts.later)):
        values = [values_of(judging, one.scorer)[CHOICE] for one in (own, plain)]
        found[name] = {"with": float(np.nanmean(values[0])), "without": float(np.nanmean(values[1])), **paired(*values)}
    return {**found, "by_length": by_length(parts.later, own.scorer, plain.scorer)}


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
    lines = [
        f"  {label}: {found['model']} above {found['rival']} by {spread.format(**found)}, paired; intervals "
        f"{'apart' if found['apart'] else 'not apart'}"
        for label, found in numbers["above"].items()
    ]
    for name, compared in numbers["models"].items():
        by_length = {f"history of {length}": found for length, found in compared["by_length"].items()}
        told_of = {key: compared[key] for key in ("trained items", "everything")} | by_length
        for label, found in told_of.items():
            lines.append(
                f"  {name}, {label}: {found['with']:.4f}, without content {found['without']:.4f}, "
                f"{spread.format(**found)}"
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
    parser.add_argument("--max-users", type=int, default=2000, help="judged of each test part at most, seeded")
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
