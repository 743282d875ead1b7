"""Users of whom nothing but attributes is known: `python -m benchmarks.cold_users [SET ...] [--quick]`.

Split by one moment (`global_time`); judged are users whose first event comes after it, on all that they went on to
choose. NDCG@10 and Recall@10 over the whole catalogue of the popularity that they are served without attributes
(`most_popular`, the fallback), of recent popularity, of `attribute_popular`, and of `two_tower` by their attributes,
with the paired difference to the fallback. Beside it what attributes cost users who have a history: the same network
with and without, paired.

Strength and smoothing of `attribute_popular`, and the share of targets that attributes predict (`history_dropout`), are
chosen by NDCG@10 of new users on validation. The test part chooses nothing. With --only attribute_popular the rows of
the network stay what results/cold_users.json says. Prints tables and writes results/cold_users.json.
"""

import os

if __name__ == "__main__":
    # Read when the libraries load, which the imports below do.
    os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")

import argparse
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from benchmarks.cold_items.chosen import CHOICE, METRICS, SAMPLES, combinations, paired, values_of
from benchmarks.cold_items.data import DATA_SETS, DataSet, sample_users, source_of
from benchmarks.report import RESULTS, facts, write_results
from recops.data.interactions import Interactions, read_interactions
from recops.data.split import split_events
from recops.evaluation.bootstrap import mean_intervals
from recops.evaluation.judging import Judging, read_judging
from recops.params import EvaluateParams, TrainParams
from recops.protocols import ServingParts
from recops.release.export import torch_scorer
from recops.stages.encode import encode
from recops.stages.project import Project
from recops.stages.train import fit

SETS = {"ml1m": (0.1, 0.4), "kuairand": (0.15, 0.3)}  # shares of validation and test
NETWORK: dict[str, Any] = {"embedding_dim": 64, "epochs": 8, "max_history": 100}
SHARES = {"history_dropout": (0.1, 0.3)}
POPULAR = {"strength": (0.1, 0.25, 0.5, 1.0), "smoothing": (0.003, 0.01, 0.03, 0.1)}
VALIDATION_USERS, TEST_USERS = 1000, 3000


@dataclass(frozen=True)
class Parts:
    """Users of each part without a history (`new_*`) and with one."""

    train: Interactions
    valid: Judging
    new_valid: Judging
    new_test: Judging
    old_test: Judging


def prepare(found: DataSet, data: Path, work: Path, quick: bool) -> Parts:
    project = Project(work / f"{found.name}{'-quick' if quick else ''}")
    project.tables.mkdir(parents=True, exist_ok=True)
    valid, test = SETS[found.name]
    params = {
        **found.params,
        "encode": {"users": True, "threads": 1},
        "split": {"name": "global_time", "valid_fraction": valid, "test_fraction": test},
        "source": {**found.params["source"], "path": str(source_of(found, data, project))},
    }
    project.params_file.write_text(yaml.safe_dump(params), encoding="utf-8")
    found.tables(data, project)
    if quick:
        sample_users(project.tables / "events.parquet")
    settings = project.params
    split_events(project.tables / "events.parquet", project.split, settings.split, settings.ingest.events, True)
    encode(project)
    train = read_interactions(project.split / "train.parquet", None, project.encoded)

    def judged(name: Any) -> tuple[Judging, np.ndarray]:
        whole = read_judging(project.split, name, train, EvaluateParams(k=[10], metric=CHOICE), True)
        return whole, np.array([len(history) == 0 for history in whole.histories])

    def some(judging: Judging, rows: np.ndarray, most: int) -> Judging:
        return judging.of(np.sort(np.random.default_rng(0).permutation(rows)[:most]))

    (on_valid, is_new_valid), (on_test, is_new) = judged("valid"), judged("test")
    return Parts(
        train,
        some(on_valid, np.arange(len(on_valid)), VALIDATION_USERS),
        some(on_valid, np.flatnonzero(is_new_valid), VALIDATION_USERS),
        some(on_test, np.flatnonzero(is_new), TEST_USERS),
        some(on_test, np.flatnonzero(~is_new), TEST_USERS),
    )


def fitted(parts: Parts, model: str, settings: dict[str, Any]) -> ServingParts:
    params = TrainParams(model=model, seed=1, threads=1, models={model: settings})
    return fit(model, parts.train, params, parts.valid, CHOICE)[0].parts()


def measure(parts: Parts, quick: bool, earlier: dict[str, Any] | None) -> dict[str, Any]:
    """The table as JSON values; what `earlier` says of the network is not measured again."""
    settings = {**NETWORK, **({"embedding_dim": 16, "epochs": 2} if quick else {})}
    rows: dict[str, dict[str, Any]] = {}
    values: dict[str, np.ndarray] = {}

    def add(name: str, found: ServingParts, told: dict[str, Any], seconds: float) -> None:
        on_new = values_of(parts.new_test, torch_scorer(found))
        values[name] = on_new[CHOICE]
        intervals = mean_intervals(np.column_stack(list(on_new.values())), SAMPLES, seed=0)
        rows[name] = {"settings": told, "cpu_seconds": seconds}
        for label, interval in zip(METRICS, intervals, strict=True):
            rows[name][label] = dict(zip(("value", "low", "high"), map(float, interval[:3]), strict=True))
        if name != "most_popular":
            rows[name]["above_fallback"] = paired(values[name], values["most_popular"])
        cells = " ".join("{value:.4f} [{low:.4f}, {high:.4f}]".format(**rows[name][label]) for label in METRICS)
        print(f"  {name:<28} {cells} {seconds:.0f} s {rows[name].get('above_fallback', '')}", flush=True)

    def best(model: str, tried: list[dict[str, Any]]) -> ServingParts:
        started = time.process_time()
        found = [(fitted(parts, model, told), told) for told in tried]
        judged = [parts.new_valid.mean(torch_scorer(one), CHOICE) for one, _ in found]
        chosen, told = found[int(np.argmax(judged))]
        add(f"{model} by attributes", chosen, told, time.process_time() - started)
        return chosen

    print(f"  {'':<28} {METRICS[0]:<24} {METRICS[1]}", flush=True)
    for name in ("most_popular", "recent_popular"):
        add(name, fitted(parts, name, {}), {}, 0.0)
    best("attribute_popular", combinations(POPULAR, quick))
    about = {"train_events": len(parts.train), "train_users": parts.train.num_users, "new_users": len(parts.new_test)}
    if earlier is not None:
        kept = {name: row for name, row in earlier["rows"].items() if name.startswith("two_tower")}
        return {"rows": rows | kept, "with_history": earlier["with_history"], **about}
    started = time.process_time()
    plain = fitted(parts, "two_tower", settings)
    add("two_tower without attributes", plain, settings, time.process_time() - started)
    tried = [{**settings, "user_attributes": True, **one} for one in combinations(SHARES, quick)]
    found = best("two_tower", tried)
    own, other = (values_of(parts.old_test, torch_scorer(one))[CHOICE] for one in (found, plain))
    compared = {"with": float(np.nanmean(own)), "without": float(np.nanmean(other)), **paired(own, other)}
    return {"rows": rows, "with_history": {"users": len(parts.old_test), **compared}, **about}


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.cold_users", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("sets", nargs="*", metavar="SET", help=f"any of {', '.join(SETS)}; all when none is named")
    parser.add_argument("--quick", action="store_true", help="some hundred users, a small network, nothing chosen")
    parser.add_argument("--only", choices=["attribute_popular"], help="keeps what was measured of the network")
    parser.add_argument("--work", type=Path, default=Path(".recops/cold_users"), help="keeps tables and vectors")
    arguments = parser.parse_args()
    if unknown := set(arguments.sets) - set(SETS):
        parser.error(f"no data set named {', '.join(sorted(unknown))}: there are {', '.join(SETS)}")
    data = Path(os.environ.get("RECOPS_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))
    torch.set_num_threads(1)
    known = {one.name: one for one in DATA_SETS}
    path = RESULTS / f"cold_users{'-quick' if arguments.quick else ''}.json"
    for name in arguments.sets or SETS:
        parts = prepare(known[name], data, arguments.work.resolve(), arguments.quick)
        print(f"\n{name}: {len(parts.train)} events of {parts.train.num_users} users, {len(parts.new_test)} new users")
        earlier = json.loads(path.read_text(encoding="utf-8"))["numbers"] if path.exists() else {}
        kept = earlier.get(name) if arguments.only else None
        measured = {**measure(parts, arguments.quick, kept), **facts("benchmarks.cold_users")}
        spread = "{difference:+.4f} [{low:+.4f}, {high:+.4f}], paired"
        print("  users with a history: {with:.4f}, without attributes {without:.4f}".format(**measured["with_history"]))
        print("    " + spread.format(**measured["with_history"]))
        numbers = {one: earlier[one] for one in SETS if one in earlier} | {name: measured}
        print(write_results("cold_users", numbers, arguments.quick), flush=True)


if __name__ == "__main__":
    main()
