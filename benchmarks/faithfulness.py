"""Whether the reasons given are what moved the model: `python -m benchmarks.faithfulness [--quick] [--only PART]`.

MovieLens-1M, leave-last-out (the file of the SASRec authors). Models are fitted, exported and loaded as served: the
linear part of the default fusion, its sequence model alone, the default fusion, and the default reranker. For each of
500 users one item is drawn from the ten that are recommended; the items of the history that its reasons name (three at
most, found for the ten together, as /recommend does) are taken out of the history, and the item's rank among all that
the user has not seen is told before and after. Beside it: as many taken out at random (mean of 20 draws), the latest
ones, and those nearest by links or item vectors. Deleted items stay out of the ranking, and an item stands before its
equals, which makes falls smaller. Mean and median fall in places, with 95 % bootstrap intervals over users.

Part `falls` is that. Part `cost` is CPU time of the real service for a list of ten, with reasons over without, by
length of history; the network is trained for one epoch for it. To reach: at most 5. Prints tables and writes
results/faithfulness.json; a part that is not measured keeps the figures it has there.
"""

import os

if __name__ == "__main__":
    # Read when the libraries load, which the imports below do.
    os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")

import argparse
import json
import statistics
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.quality.sequences import read_pairs
from benchmarks.quality.tasks import Task, leave_last_out
from benchmarks.report import RESULTS, facts, write_results
from benchmarks.serving.servers import ONE_THREAD, round_ms, server
from recops.attribution import Account, shares
from recops.bundle import Bundle, load_bundle
from recops.histories import Histories
from recops.params import TrainParams
from recops.ports import free_port
from recops.protocols import FitReport, Recommender, ServingParts
from recops.release.export import export_bundle
from recops.runtime import Scorer
from recops.serving.reasons import NUM_REASONS
from recops.stages.train import fit
from recops.topk import top_k

NUM_USERS, QUICK_USERS, NUM_DRAWS, K, TO_REACH = 500, 60, 20, 10, 5.0
LENGTHS = (0, 20, 50, 100, 200)  # histories from so many events on
LEAST_TIMED = 50  # requests: CPU time is counted in hundredths of a second
LINEAR = ["slist", "ease"]
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "fusion of slist, ease": ("fusion", {"fusion": {"members": LINEAR}}),
    "ligr": ("ligr", {"ligr": {"epochs": 5}}),
    "fusion of ligr, slist, ease": ("fusion", {"ligr": {"epochs": 5}, "fusion": {"members": ["ligr", *LINEAR]}}),
    "rerank of ligr, slist, ease": ("rerank", {"ligr": {"epochs": 5}, "rerank": {"members": ["ligr", *LINEAR]}}),
}
ONE_EPOCH = {"ligr": {"epochs": 1}}  # what a call costs does not depend on what was learnt
QUICK = {"ligr": {"epochs": 1, "embedding_dim": 16, "num_blocks": 1, "num_heads": 1}}


def load(data: Path, quick: bool) -> Task:
    """The log; every twentieth user of it for the small form."""
    sequences = read_pairs(data / "sasrec-bert4rec" / "ml-1m.txt.gz")
    return leave_last_out("ml1m", dict(list(sequences.items())[:: 20 if quick else 1]))


def serve(parts: ServingParts, task: Task, folder: Path) -> Bundle:
    """A model as the service has it."""
    nulls = [None] * task.train.num_items
    columns = ("title", "categories", "price", "available", "published_at")
    known = {"params": {}, "metrics": {}, "validation": {}, "inputs": {}, "data_watermark": None, "remove_seen": True}
    export_bundle(
        parts,
        folder,
        items={"item_id": task.train.items.ids, **dict.fromkeys(columns, nulls)},
        fallback=task.test.fallback,
        profile={},
        facts={"model": "benchmark", **known},
        opset=20,
        max_links=300,
    )
    return load_bundle(folder)


def falls(scorer: Scorer, history: np.ndarray, rng: np.random.Generator) -> dict[str, float] | None:
    """Places that one of the recommended items falls, by what is taken out of the history; None where no reason is."""
    account = Account(scorer, Histories([history]))
    scores = account.scores.copy()
    scores[history] = -np.inf
    rows = top_k(scores[None], K)[0][0]
    items = account.chosen(rows)
    place = int(rng.integers(K))
    own = shares(account.losses(items, rows), account.deviation)[:, place]
    named = items[np.argsort(-own, kind="stable")[:NUM_REASONS]]
    named = named[: int((own > 0).sum())]
    if not len(named):
        return None
    latest, num = account.items, len(named)
    near = account.nearness(latest, rows[[place]])
    assert near is not None
    removed = {"named": [named], "latest": [latest[:num]], "nearest": [latest[np.argsort(-near[:, 0])[:num]]]}
    removed["random"] = [rng.choice(latest, num, replace=False) for _ in range(NUM_DRAWS)]
    sets = [one for several in removed.values() for one in several]
    after = scorer.scores(Histories([history, *(history[~np.isin(history, one)] for one in sets)]))
    after[:, history] = -np.inf
    own_B = after[:, [rows[place]]]
    rank_B = (after > own_B).sum(1).astype(np.float64)
    fall_B = iter(rank_B[1:] - rank_B[0])
    return {name: float(np.mean([next(fall_B) for _ in several])) for name, several in removed.items()}


def interval(values: np.ndarray, statistic: Callable[..., np.ndarray]) -> dict[str, float]:
    """A statistic with its 95 % bootstrap interval over users."""
    drawn = np.random.default_rng(0).integers(0, len(values), (2000, len(values)))
    low, high = np.quantile(statistic(values[drawn], axis=1), [0.025, 0.975])
    return {"value": float(statistic(values)), "low": float(low), "high": float(high)}


def faithfulness(scorer: Scorer, histories: list[np.ndarray]) -> dict[str, Any]:
    """Falls of all users, and how much further those of the named items go than each of the others."""
    rng = np.random.default_rng(1)
    found = [one for history in histories if (one := falls(scorer, history, rng)) is not None]
    columns = {name: np.array([one[name] for one in found]) for name in found[0]}
    more = {f"named - {name}": columns["named"] - values for name, values in columns.items() if name != "named"}
    figures = {
        name: {"mean": interval(values, np.mean), "median": interval(values, np.median)}
        for name, values in {**columns, **more}.items()
    }
    further = np.mean(columns["named"] > columns["random"])
    return {"users": len(found), "without_reason": len(histories) - len(found), "further": float(further), **figures}


def drawn(task: Task, quick: bool) -> list[np.ndarray]:
    """Histories of the users that are asked about."""
    users = np.random.default_rng(0).permutation(len(task.test))[: QUICK_USERS if quick else NUM_USERS]
    return [task.test.histories[user].astype(np.int64) for user in users]


def models(task: Task, other: dict[str, Any]) -> Iterator[tuple[str, Recommender]]:
    """The models, with other settings where given; members that two of them have are fitted once."""
    fitted: dict[str, tuple[Recommender, FitReport]] = {}
    for label, (name, settings) in MODELS.items():
        fitted.pop("fusion", None)
        params = TrainParams(model=name, seed=1, threads=1, models={**settings, **other})
        model, _ = fit(name, task.train, params, task.valid, task.metrics[0], progress=True, fitted=fitted)
        yield label, model


def measure_falls(task: Task, quick: bool, folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Falls by model."""
    for label, model in models(task, QUICK if quick else {}):
        scorer = serve(model.parts(), task, folder / "bundle").scorer
        figures = faithfulness(scorer, drawn(task, quick))
        print(f"\n{label}: {figures['users']} users; further than at random for {figures['further']:.1%}")
        print(f"{'taken out':<16} {'mean fall in places':>28} {'median':>28}")
        for kind, figure in figures.items():
            if isinstance(figure, dict):
                cells = (f"{f['value']:.2f} [{f['low']:.2f}, {f['high']:.2f}]" for f in figure.values())
                print(f"{kind:<16} {' '.join(f'{cell:>28}' for cell in cells)}", flush=True)
        yield label, {task.metrics[0]: task.test.mean(scorer, task.metrics[0]), **figures}


def measure_cost(task: Task, quick: bool, folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Milliseconds of the service's processes by model and length of history."""
    print(f"\n{'model':<28} {'events':<7} {'users':>6} {'without ms':>11} {'with ms':>8} {'ratio':>6}")
    for label, model in models(task, QUICK if quick else ONE_EPOCH):
        bundle = serve(model.parts(), task, folder / "bundle")
        rows = cost(bundle, drawn(task, quick), folder)
        for events, row in rows.items():
            cells = f"{row['without_ms']:>11.2f} {row['with_ms']:>8.2f} {row['ratio']:>6.2f}"
            print(f"{label:<28} {events:<7} {row['users']:>6} {cells}", flush=True)
        yield label, rows


def cost(bundle: Bundle, histories: list[np.ndarray], folder: Path) -> dict[str, Any]:
    """CPU milliseconds of a request without reasons, with them, and one over the other; medians of three rounds."""
    ids = bundle.items["item_id"]
    bodies: dict[str, list[tuple[bytes, bytes]]] = {}
    for history in histories:
        start = max(length for length in LENGTHS if length <= len(history))
        plain, explained = (
            json.dumps({"history": [ids[row - 1] for row in history], "k": K, "explain": explain}).encode()
            for explain in (False, True)
        )
        for group in (f"{start}+", "all"):
            bodies.setdefault(group, []).append((plain, explained))
    port, settings = free_port(), {"BENTOML_HOME": str(folder / "bentoml"), "BENTOML_DO_NOT_TRACK": "True"}
    command = ["-m", "bentoml", "serve", "recops.serving.service:RecopsService", "--port", str(port)]
    settings |= {"RECOPS_BUNDLE": str(bundle.folder), **ONE_THREAD}
    found = {}
    with server(command, port, "GET /readyz", settings, folder / "service.log") as process:
        round_ms(port, process, [body for pair in bodies["all"][:50] for body in pair])  # warms up
        for group, pairs in sorted(bodies.items(), key=lambda one: (one[0] == "all", len(one[0]), one[0])):
            if len(pairs) < LEAST_TIMED:
                continue
            rounds = [[round_ms(port, process, list(column)) for column in zip(*pairs, strict=True)] for _ in range(3)]
            without, with_reasons = (statistics.median(column) for column in zip(*rounds, strict=True))
            row = {"without_ms": without, "with_ms": with_reasons, "ratio": with_reasons / max(without, 1e-9)}
            found[group] = {"users": len(pairs), **row}
    return found


PARTS = {"falls": measure_falls, "cost": measure_cost}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.faithfulness", description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one user in twenty, a small network")
    parser.add_argument("--only", choices=PARTS, help="one part; the other keeps its figures")
    arguments = parser.parse_args()
    data = Path(os.environ.get("RECOPS_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))
    earlier = RESULTS / f"faithfulness{'-quick' if arguments.quick else ''}.json"
    numbers = json.loads(earlier.read_text())["numbers"] if earlier.exists() else {}
    task = load(data, arguments.quick)
    numbers |= {"users": len(drawn(task, arguments.quick)), "draws": NUM_DRAWS, "to_reach": TO_REACH}
    for part, measure in PARTS.items():
        if arguments.only in (None, part):
            with tempfile.TemporaryDirectory() as folder:
                figures = dict(measure(task, arguments.quick, Path(folder)))
            numbers[part] = {"models": figures, **facts("benchmarks.faithfulness")}
    print(write_results("faithfulness", numbers, arguments.quick))


if __name__ == "__main__":
    main()
