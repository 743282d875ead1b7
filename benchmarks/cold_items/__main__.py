"""Items that nobody had met when the models were fitted: `python -m benchmarks.cold_items [SET ...] [--quick]`.

For each data set: Recall@10 and NDCG@10 on items first seen after the last cut, over the whole catalogue of the moment
and among new items alone, of random lists, popularity by category, content k-NN, each model without content, by each
encoder and by all, and a fusion of the best of each. Among new items alone nothing can be gained by
showing new items more often, over the whole catalogue it can: so beside it stands NDCG@10 on everything after the cut.
Then, with content against without as paired differences: NDCG@10 on items that were trained on, and on everything after
the cut by the length of the history. Users judged on new items have a history; how many had none is told.

All is chosen on validation, which is judged on items first seen after an earlier cut. Content k-NN: neighbours, power
and decay, by NDCG@10 over the whole catalogue, and again among new items alone. Content of a model: sharpness and ridge
of the map by NDCG@10 among new items; then the weight of new items by NDCG@10 over the whole catalogue, of those that
cost trained items no more than 1 % (the lower end of the paired interval) and users with a history no more on
everything after the cut (the mean) there. The joint training of a network: its id
dropout. Epochs of networks by the items withheld for that. The test parts choose nothing. Prints tables and writes
results/cold_items.json; sets that are not named keep what it says.
"""

import os

if __name__ == "__main__":
    # Read when the libraries load, which the imports below do.
    os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")

import argparse
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.cold_items.chosen import (
    CHOICE,
    METRICS,
    MODELS,
    SAMPLES,
    Made,
    Parts,
    among_new,
    fitted,
    fused,
    nearest,
    paired,
    random_lists,
    read_parts,
    settings_of,
    trained_jointly,
    values_of,
    with_content,
)
from benchmarks.cold_items.data import DATA_SETS, DataSet, prepare
from benchmarks.report import RESULTS, facts, write_results
from recops.evaluation.bootstrap import mean_intervals
from recops.evaluation.judging import Judging
from recops.runtime import Scorer

JOINT = "two_tower"  # also trained together with its projection of content, by all encoders
LENGTHS = {"0": (0, 0), "1": (1, 1), "2-4": (2, 4), "5-9": (5, 9), "10+": (10, np.inf)}


@dataclass(frozen=True)
class Row:
    """A line of the table: what it says, the model over the whole catalogue and among new items, which may have other
    settings, and NDCG@10 of each user on new items of either."""

    told: dict[str, Any]
    whole: Made
    alone: Made
    on_whole: np.ndarray
    on_new: np.ndarray


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
    return Row(told, whole, alone, on_whole[CHOICE], on_new[CHOICE])


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

    def best(measured: str, *kinds: str) -> str:
        """What is best on validation of some kinds of models."""
        names = [name for name in rows if name.split()[0] in kinds]
        return max(
            names, key=lambda name: getattr(rows[name].alone if measured == "valid_new" else rows[name].whole, measured)
        )

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
        compared[name] = against(parts, rows[name].whole, plain)
        if model == JOINT:
            name += " joint"
            compared[name] = against(parts, add(name, trained_jointly, model, every, quick), plain)
    rivals = ("content_knn", "category_popular")
    members = [best("valid_new", kind) for kind in ("content_knn", *models)]
    add("fusion of the best of each", fused, {name: rows[name].alone.parts for name in members})

    above = {}
    for label, measured, column in (("whole", "valid", "on_whole"), ("among new", "valid_new", "on_new")):
        model, rival = best(measured, *models, "fusion"), best(measured, *rivals)
        own, other = (getattr(rows[name], column) for name in (model, rival))
        key = CHOICE if label == "whole" else f"{CHOICE} among new"
        apart = rows[model].told[key]["low"] > rows[rival].told[key]["high"]
        above[label] = {"model": model, "rival": rival, "apart": apart, **paired(own, other)}
    return {"rows": {name: row.told for name, row in rows.items()}, **about(parts), "above": above, "models": compared}


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
