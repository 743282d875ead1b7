"""Whether questions in words are answered right, and how fast: `python -m benchmarks.ask [--quick] [--only PART]`.

Two catalogues are made into releases by the stages of recops (model `ease` on the train part alone, text vectors by the
default encoder): MovieLens latest-small (genres, years) and Online Retail (prices, descriptions). Of each, questions
with one wanted item that is known (benchmarks/questions.py): what a held-out user chose next, described by facts of the
catalogue, by likeness to what the user chose before, or by words of its title. Every second question serves to choose
(the weights of recops/serving/assistant/ranking.py); the others are reported.

Part `right`: share of answers all of whose items hold all constraints, hit rate of the wanted item in the first ten
with 95 % bootstrap intervals, against plain vector search and BM25 over the same texts, both with the question as it
stands, and both with the constraints as well. Part `tune`: the weights that a search on the first half finds. Part
`time`: the real service over HTTP with one worker, padded to 10,000 items; its memory with 100,000. Part `model`: how
often SmolLM2 (extra `llm`) writes something that passes the check, and how long it takes. `--quick`: MovieLens-100K
alone. Prints tables and writes results/ask.json; a part that is not measured keeps the figures it has there.
"""

import os

if __name__ == "__main__":
    # Read when the libraries load, which the imports below do.
    os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")

import argparse
import json
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from benchmarks.questions import Asked, check, made
from benchmarks.report import RESULTS, write_results
from recops.bundle import load_bundle
from recops.serving.assistant.asking import ask
from recops.serving.assistant.catalogue import Catalogue, catalogue_of
from recops.serving.assistant.ranking import WEIGHTS, allowed, fused, signals_of
from recops.serving.assistant.titles import words_of
from recops.serving.assistant.understanding import understand
from recops.serving.release import Encoders, Release
from recops.serving.requests import Ask
from recops.serving.retrieval import person
from recops.stages.encode import encode
from recops.stages.evaluate import evaluate
from recops.stages.export import export
from recops.stages.ingest import ingest
from recops.stages.project import open_project
from recops.stages.split import split
from recops.stages.train import train

ROOT = Path(__file__).resolve().parent.parent
K = 10
NOW_US = 1_500_000_000_000_000
SETS = {
    "films": ({"name": "movielens", "path": "movielens-latest-small"}, "rating"),
    "retail": ({"name": "online_retail", "path": "online-retail"}, "purchase"),
}
QUICK = {"films": ({"name": "movielens", "path": "movielens-100k"}, "rating")}


def release_of(folder: Path, source: dict[str, str], event: str, data: Path) -> Release:
    """Made by the stages, as the thread makes it, but for the gate; the test part stays unseen by the model."""
    settings = {
        "source": {**source, "path": str(data / source["path"])},
        "ingest": {"events": {event: {"signal": "positive"}}},
        "split": {"name": "leave_last_out"},
        "encode": {"encoders": ["text"], "threads": 1},
        "train": {"model": "ease", "baselines": ["most_popular"], "threads": 1, "refit": False},
        "evaluate": {"bootstrap_samples": 100},
        "export": {"parity_users": 50},
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "params.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    project = open_project(folder)
    if not project.bundle.exists():
        ingest(project)
        shutil.copytree(ROOT / "expectations", project.expectations, dirs_exist_ok=True)
        project.reports.mkdir(exist_ok=True)
        (project.reports / "validation.json").write_text("{}", encoding="utf-8")
        for stage in (split, encode, train, evaluate, export):
            stage(project)
    bundle = load_bundle(project.bundle)
    return Release(bundle, {}, Encoders(bundle))


def answered(release: Release, asked: Asked) -> tuple[list[str], float]:
    """Ids of the answer, and the seconds it took."""
    request = Ask(question=asked.question, history=asked.history, k=K)
    start = time.perf_counter()
    found = ask(release, request, None, now_us=NOW_US)
    return [item["item_id"] for item in found.items], time.perf_counter() - start


def searched(catalogue: Catalogue, asked: Asked, by: str, is_held: bool) -> list[str]:
    """Plain search with the question as it stands: by vectors or by BM25; `is_held`: among what holds the constraints
    as they were understood."""
    release = catalogue.release
    mask = np.ones(catalogue.num_items + 1, bool)
    mask[0] = False
    if is_held:
        mask = allowed(catalogue, understand(asked.question, catalogue, NOW_US))
    rows = np.flatnonzero(mask)
    if by == "vectors":
        vectors = catalogue.encoded([asked.question])
        assert vectors is not None
        scores = catalogue.cosines(vectors[0], rows)
    else:
        scores_N = np.zeros(catalogue.num_items + 1, np.float32)
        found, values = catalogue.search(words_of(asked.question))
        scores_N[found] = values
        scores = scores_N[rows]
    best = rows[np.argsort(-scores, kind="stable")[:K]]
    return [release.ids[row - 1] for row in best]


def interval(values: list[float]) -> dict[str, float]:
    """Mean with its 95 % bootstrap interval over questions."""
    found = np.array(values, float)
    drawn = np.random.default_rng(0).integers(0, len(found), (2000, len(found)))
    low, high = np.quantile(found[drawn].mean(1), [0.025, 0.975])
    return {"value": float(found.mean()), "low": float(low), "high": float(high), "num": len(found)}


def right(release: Release, questions: list[Asked]) -> dict[str, Any]:
    """By way of answering and kind of question: hit rate; and the share of questions whose answer holds everything."""
    catalogue = catalogue_of(release)
    ways: dict[str, list[list[str]]] = {"ask": [], "vectors": [], "BM25": [], "vectors, held": [], "BM25, held": []}
    for asked in questions:
        ways["ask"].append(answered(release, asked)[0])
        with catalogue.used_for(release):
            for by in ("vectors", "BM25"):
                ways[by].append(searched(catalogue, asked, by, False))
                ways[f"{by}, held"].append(searched(catalogue, asked, by, True))
    items = release.bundle.items
    facts = {
        item_id: {name: items[name][row] for name in ("title", "categories", "price")}
        for row, item_id in enumerate(items["item_id"])
    }
    kinds = sorted({asked.kind for asked in questions})
    table = {}
    own = [float(asked.wanted in ids) for asked, ids in zip(questions, ways["ask"], strict=True)]
    for way, lists in ways.items():
        holds = [all(check(asked, facts[i]) for i in ids) for asked, ids in zip(questions, lists, strict=True)]
        hits = [float(asked.wanted in ids) for asked, ids in zip(questions, lists, strict=True)]
        table[way] = {
            "all hold": interval([float(hold) for hold in holds]),
            "hit rate": interval(hits),
            "ask is better by": interval([a - b for a, b in zip(own, hits, strict=True)]),
            "by kind": {k: interval([h for h, a in zip(hits, questions, strict=True) if a.kind == k]) for k in kinds},
        }
    shown = [len(ids) for ids in ways["ask"]]
    return {"ways": table, "empty answers": int(sum(n == 0 for n in shown))}


def tune(releases: dict[str, Release], questions: dict[str, list[Asked]]) -> dict[str, Any]:
    """Coordinate search over the weights for the mean of 1 / log2(rank + 1) on the questions given."""
    cases = []
    for name, release in releases.items():
        catalogue = catalogue_of(release)
        with catalogue.used_for(release):
            for asked in questions[name]:
                wishes = understand(asked.question, catalogue, NOW_US)
                who = Ask(question=asked.question, history=asked.history or [], k=K)
                mask = allowed(catalogue, wishes)
                mask[release.bundle.rows(who.history or [])] = False
                candidates = np.flatnonzero(mask)
                place = np.searchsorted(candidates, release.row_of[asked.wanted])
                if place == len(candidates) or candidates[place] != release.row_of[asked.wanted]:
                    continue
                scores = release.bundle.scorer.scores(person(release, who, None).asked)[0]
                cases.append((signals_of(catalogue, wishes, candidates, scores), place))

    def value(weights: dict[str, float]) -> float:
        total = 0.0
        for signals, place in cases:
            scores = fused(signals, weights)
            better, equal = (scores > scores[place]).sum(), (scores == scores[place]).sum() - 1
            total += 1 / np.log2(2 + better + equal / 2)
        return total / len(cases)

    weights, best = dict(WEIGHTS), value(WEIGHTS)
    start = best
    for _ in range(3):
        before = best
        for name in ("content", "words", "likeness", "links", "model", "leanings"):
            for factor in (0.0, 0.35, 0.6, 0.8, 1.25, 1.7, 2.8):
                tried = {**weights, name: weights[name] * factor if weights[name] else factor}
                if (
                    any(tried[n] for n in ("content", "words", "likeness", "links"))
                    and (found := value(tried)) > best + 1e-5
                ):
                    weights, best = tried, found
        if best - before < 1e-4:
            break
    return {"num": len(cases), "before": start, "after": best, "weights": {n: round(w, 2) for n, w in weights.items()}}


def show(name: str, numbers: dict[str, Any]) -> None:
    kinds = list(next(iter(numbers["ways"].values()))["by kind"])
    print(
        f"\n{name}\n{'':16s}{'all hold':>10s}{'hit@10':>24s}{'ask is better by':>25s}"
        + "".join(f"{kind:>12s}" for kind in kinds)
    )
    for way, found in numbers["ways"].items():
        hit, better = found["hit rate"], found["ask is better by"]
        cells = "".join(f"{found['by kind'][kind]['value']:12.3f}" for kind in kinds)
        print(
            f"{way:16s}{found['all hold']['value']:10.3f}"
            f"{hit['value']:10.3f} [{hit['low']:.3f}, {hit['high']:.3f}]"
            f"{better['value']:+10.3f} [{better['low']:+.3f}, {better['high']:+.3f}]{cells}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ask", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="MovieLens-100K alone, 60 questions")
    parser.add_argument("--only", choices=["right", "tune", "time", "model"], help="one part")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="where the releases are made and stay")
    arguments = parser.parse_args()
    data = Path(os.environ.get("RECOPS_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))
    parts = [arguments.only] if arguments.only else ["right", "time", "model"]
    results = RESULTS / f"ask{'-quick' if arguments.quick else ''}.json"
    numbers: dict[str, Any] = json.loads(results.read_text())["numbers"] if results.exists() else {}
    with tempfile.TemporaryDirectory(prefix="recops-ask-") as temporary:
        work = arguments.keep or Path(temporary)
        sets = QUICK if arguments.quick else SETS
        releases = {
            name: release_of(work / f"{name}{'-quick' * arguments.quick}", source, event, data)
            for name, (source, event) in sets.items()
        }
        questions = {
            name: made(name, release, work / f"{name}{'-quick' * arguments.quick}", 20 if arguments.quick else 70)
            for name, release in releases.items()
        }
        for name, some in questions.items():
            print(f"{name}: {len(some)} questions, such as {some[1].question!r}, {some[-1].question!r}")
        if "tune" in parts:
            print(json.dumps(tune(releases, {name: some[::2] for name, some in questions.items()}), indent=1))
        if "right" in parts:
            numbers["questions"] = {name: len(some) for name, some in questions.items()}
            numbers["right"] = {name: right(release, questions[name][1::2]) for name, release in releases.items()}
            for name, found in numbers["right"].items():
                show(name, found)
        if "time" in parts:
            from benchmarks.ask_time import measure

            numbers["time"] = measure(releases, questions, work, arguments.quick)
            print(json.dumps(numbers["time"], indent=1))
        if "model" in parts:
            from benchmarks.ask_time import with_model

            numbers["model"] = with_model(releases, questions, 4 if arguments.quick else 12)
            print(json.dumps(numbers["model"], indent=1))
    if arguments.only != "tune":
        print(write_results("ask", numbers, arguments.quick))


if __name__ == "__main__":
    main()
