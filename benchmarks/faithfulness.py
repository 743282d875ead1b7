"""Whether the reasons given are what moved the model: `python -m benchmarks.faithfulness [--quick]`.

MovieLens-1M, leave-last-out (the file of the SASRec authors). Models are fitted, exported and loaded as served: the
linear part of the default fusion, its sequence model alone, and the default fusion. For each of 500 users one item is
drawn from the ten that are recommended; the items of the history that its reasons name (three at most, found for the
ten together, as /recommend does) are taken out of the history, and the item's rank among all that the user has not
seen is told before and after. Beside it: as many taken out at random (mean of 20 draws), the latest ones, and those
nearest by links or item vectors. Deleted items stay out of the ranking. Mean and median fall in places, with 95 %
bootstrap intervals over users.

The cost: CPU seconds of one thread for a list of ten made by the service's own code, with reasons over without, HTTP
left out, by length of history. To reach: at most 5. Prints tables and writes results/faithfulness.json.
"""

import os

if __name__ == "__main__":
    # Read when the libraries load, which the imports below do.
    os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.quality.sequences import read_pairs
from benchmarks.quality.tasks import Task, leave_last_out
from benchmarks.report import write_results
from recops.attribution import Account, shares
from recops.bundle import load_bundle
from recops.params import TrainParams
from recops.protocols import FitReport, Recommender
from recops.release.export import export_bundle
from recops.runtime import Histories, top_k
from recops.serving.reasons import NUM_REASONS
from recops.serving.release import Release
from recops.serving.requests import Recommend
from recops.serving.retrieval import recommend
from recops.stages.train import fit

NUM_USERS, QUICK_USERS, NUM_DRAWS, K, TO_REACH = 500, 60, 20, 10, 5.0
LENGTHS = (0, 20, 50, 100, 200)  # histories from so many events on
LINEAR = ["slist", "ease"]
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "fusion of slist, ease": ("fusion", {"fusion": {"members": LINEAR}}),
    "ligr": ("ligr", {"ligr": {"epochs": 5}}),
    "fusion of ligr, slist, ease": ("fusion", {"ligr": {"epochs": 5}, "fusion": {"members": ["ligr", *LINEAR]}}),
}
QUICK = {"ligr": {"epochs": 1, "embedding_dim": 16, "num_blocks": 1, "num_heads": 1}}


def load(data: Path, quick: bool) -> Task:
    """The log; every twentieth user of it for the small form."""
    sequences = read_pairs(data / "sasrec-bert4rec" / "ml-1m.txt.gz")
    return leave_last_out("ml1m", dict(list(sequences.items())[:: 20 if quick else 1]))


def serve(model: Recommender, task: Task, folder: Path) -> Release:
    """The fitted model as the service has it."""
    nulls = [None] * task.train.num_items
    columns = ("title", "categories", "price", "available", "published_at")
    facts = {"params": {}, "metrics": {}, "validation": {}, "inputs": {}, "data_watermark": None, "remove_seen": True}
    export_bundle(
        model.parts(),
        folder,
        items={"item_id": task.train.items.ids, **dict.fromkeys(columns, nulls)},
        fallback=task.test.fallback,
        profile={},
        facts={"model": "benchmark", **facts},
        opset=20,
        max_links=300,
    )
    return Release(load_bundle(folder), {})


def falls(release: Release, history: np.ndarray, rng: np.random.Generator) -> dict[str, float] | None:
    """Places that one of the recommended items falls, by what is taken out of the history; None where no reason is."""
    scorer = release.bundle.scorer
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


def faithfulness(release: Release, histories: list[np.ndarray]) -> dict[str, Any]:
    """Falls of all users, and how much further those of the named items go than each of the others."""
    rng = np.random.default_rng(1)
    found = [one for history in histories if (one := falls(release, history, rng)) is not None]
    columns = {name: np.array([one[name] for one in found]) for name in found[0]}
    more = {f"named - {name}": columns["named"] - values for name, values in columns.items() if name != "named"}
    figures = {
        name: {"mean": interval(values, np.mean), "median": interval(values, np.median)}
        for name, values in {**columns, **more}.items()
    }
    further = np.mean(columns["named"] > columns["random"])
    return {"users": len(found), "without_reason": len(histories) - len(found), "further": float(further), **figures}


def cost(release: Release, histories: list[np.ndarray]) -> dict[str, Any]:
    """CPU milliseconds of a list, by length of history: without reasons, with them, and one over the other."""
    _spent(release, release.ids[:10], True)  # warms up
    by_length: dict[str, list[tuple[float, float]]] = {}
    for history in histories:
        ids = [release.ids[row - 1] for row in history]
        spent = [min(_spent(release, ids, explain) for _ in range(3)) for explain in (False, True)]
        start = max(length for length in LENGTHS if length <= len(history))
        by_length.setdefault(f"{start}+", []).append((spent[0], spent[1]))
    by_length["all"] = [pair for pairs in by_length.values() for pair in pairs]
    return {name: _ratio(np.array(pairs)) for name, pairs in sorted(by_length.items(), key=lambda one: len(one[0]))}


def _spent(release: Release, ids: list[str], explain: bool) -> float:
    request = Recommend.model_construct(history=ids, k=K, explain=explain)
    started = time.process_time()
    recommend(release, request, None)
    return (time.process_time() - started) * 1000


def _ratio(pairs: np.ndarray) -> dict[str, float]:
    without, with_reasons = pairs.mean(0).tolist()
    highest = float(np.quantile(pairs[:, 1] / pairs[:, 0], 0.95))
    ratio = with_reasons / without
    return {"users": len(pairs), "without_ms": without, "with_ms": with_reasons, "ratio": ratio, "ratio_p95": highest}


def measure(task: Task, quick: bool, folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Figures of each model; members that two of them have are fitted once."""
    rng = np.random.default_rng(0)
    drawn = rng.permutation(len(task.test))[: QUICK_USERS if quick else NUM_USERS]
    histories = [task.test.histories[user].astype(np.int64) for user in drawn]
    fitted: dict[str, tuple[Recommender, FitReport]] = {}
    for label, (name, settings) in MODELS.items():
        fitted.pop("fusion", None)
        params = TrainParams(model=name, seed=1, threads=1, models={**settings, **(QUICK if quick else {})})
        model, _ = fit(name, task.train, params, task.valid, task.metrics[0], progress=True, fitted=fitted)
        release = serve(model, task, folder / "bundle")
        ndcg = task.test.mean(release.bundle.scorer, task.metrics[0])
        found = {task.metrics[0]: ndcg, "falls": faithfulness(release, histories), "cost": cost(release, histories)}
        show(label, found)
        yield label, found


def show(label: str, found: dict[str, Any]) -> None:
    figures = found["falls"]
    print(f"\n{label}: {figures['users']} users; further than at random for {figures['further']:.1%}")
    print(f"{'taken out':<16} {'mean fall in places':>28} {'median':>28}")
    for name, figure in figures.items():
        if isinstance(figure, dict):
            cells = (f"{f['value']:.2f} [{f['low']:.2f}, {f['high']:.2f}]" for f in (figure["mean"], figure["median"]))
            print(f"{name:<16} {' '.join(f'{cell:>28}' for cell in cells)}")
    print(f"{'events':<8} {'users':>6} {'without ms':>11} {'with ms':>8} {'ratio':>6} {'p95':>6}")
    for name, row in found["cost"].items():
        cells = f"{row['without_ms']:>11.2f} {row['with_ms']:>8.2f} {row['ratio']:>6.2f} {row['ratio_p95']:>6.2f}"
        print(f"{name:<8} {row['users']:>6} {cells}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.faithfulness", description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one user in twenty, a small network, under a minute")
    quick = parser.parse_args().quick
    data = Path(os.environ.get("RECOPS_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))
    with tempfile.TemporaryDirectory() as folder:
        models = dict(measure(load(data, quick), quick, Path(folder)))
    numbers = {"users": QUICK_USERS if quick else NUM_USERS, "draws": NUM_DRAWS, "to_reach": TO_REACH, "models": models}
    print(write_results("faithfulness", numbers, quick))


if __name__ == "__main__":
    main()
