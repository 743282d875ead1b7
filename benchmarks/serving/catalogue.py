"""One list against the size of the catalogue: CPU and memory, scored whole and by index, and a plot.

Vectors of width 64 that `ials` learns from the check-ins of Gowalla (40,981 places), users those of its test part.
Larger catalogues are grown from them: an item between one of these and one of its eight nearest, its length within 5 %,
noise of a twentieth of each axis' deviation; so they lie where trained ones lie, only denser. A list is what the
service makes without HTTP and without the encoder: user's vector, 50 seen items left out, best 10. Every size is a
process of its own with one thread.
"""

import os

if __name__ == "__main__":
    os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.report import RESULTS

DATA = "RECOPS_TEST_DATA"
WIDTH, NEAREST, K, SEEN = 64, 8, 10, 50
GROWN_AT_ONCE = 1_000_000
SIZES = (10_000, 30_000, 100_000, 300_000, 1_000_000, 10_000_000)
TARGETS = {"share of the exact scan's CPU at 1,000,000": 0.125, "recall@50": 0.98}


def trained(folder: Path) -> None:
    """Vectors of items and of users into `folder`, and the nearest of each item."""
    import faiss

    from benchmarks.quality.implicit import gowalla
    from recops.models.ials import Ials
    from recops.release.export import torch_scorer

    task = gowalla(Path(os.environ[DATA]), False)
    config = Ials.Config(embedding_dim=WIDTH, epochs=8)
    model = Ials(config, task.train.num_users, task.train.num_items, 1)
    model.fit(task.train)
    users = torch_scorer(model.parts()).user_vectors(task.test.asked[np.arange(0, len(task.test), 12)])
    assert users is not None
    items = np.ascontiguousarray(model.item_vectors[1:])
    nearest = faiss.IndexFlatL2(WIDTH)
    nearest.add(items)
    np.save(folder / "items.npy", items)
    np.save(folder / "nearest.npy", nearest.search(items, NEAREST + 1)[1][:, 1:])
    np.save(folder / "users.npy", np.random.default_rng(0).permutation(users.astype(np.float32)))


def grown(folder: Path, num: int) -> np.ndarray:
    """float32 [num + 1, D], row 0 zeros; the trained ones themselves where `num` is no more than these."""
    items, nearest = np.load(folder / "items.npy"), np.load(folder / "nearest.npy")
    rng = np.random.default_rng(1)
    found = np.zeros((num + 1, WIDTH), np.float32)
    if num <= len(items):
        found[1:] = items[rng.permutation(len(items))[:num]]
        return found
    spread = items.std(0) / 20
    for start in range(1, num + 1, GROWN_AT_ONCE):
        size = min(GROWN_AT_ONCE, num + 1 - start)
        first = rng.integers(0, len(items), size)
        second = nearest[first, rng.integers(0, NEAREST, size)]
        share = rng.random((size, 1), np.float32)
        made = items[first] * (1 - share) + items[second] * share
        made *= 1 + rng.standard_normal((size, 1), np.float32) / 20
        made += spread * rng.standard_normal((size, WIDTH), np.float32)
        found[start : start + size] = made
    return found


def measured(folder: Path, num: int, kinds: Sequence[str]) -> list[dict[str, Any]]:
    """A row for the scan of all items and one for each kind of index, in this process."""
    from recops.index import RECALL_AT
    from recops.protocols import ServingParts
    from recops.release.index_choice import Wanted, choose_index
    from recops.runtime import Scorer

    vectors, users = grown(folder, num), np.load(folder / "users.npy")
    few = 100 if num > 3_000_000 else 250
    rng = np.random.default_rng(2)
    seen = [rng.integers(1, num + 1, SEEN) for _ in range(200)]
    table = np.concatenate([np.zeros((1, WIDTH), np.float32), users[2 * few : 2 * few + 200]])
    scorer = Scorer(num, item_vectors=vectors, user_table=table)
    times = max(10, min(200, 40_000_000 // num))
    rows = [{"items": num, "kind": "exact", "cpu_ms": listed_ms(scorer, None, seen, times), "recall@50": 1.0}]
    rows[0]["memory_mb"] = vectors.nbytes / 1e6
    parts = ServingParts(item_vectors=vectors, user_table=table)
    for kind in kinds:
        started = time.process_time()
        index, entry = choose_index(parts, Wanted(kind, 0, 0.98, users[:few], users[few : 2 * few]))
        row = {"items": num, "asked": kind, "chosen_in_cpu_s": round(time.process_time() - started, 1), **entry}
        if index is not None:
            with tempfile.NamedTemporaryFile(dir=folder) as file:
                index.write(Path(file.name))
                row["index_mb"] = Path(file.name).stat().st_size / 1e6
            row["memory_mb"] = row["index_mb"] + vectors.nbytes / 1e6
            row["cpu_ms"] = listed_ms(scorer, index, seen, 200)
            row["share_of_exact"] = row["cpu_ms"] / rows[0]["cpu_ms"]
            row["recall_at"] = RECALL_AT
        rows.append(row)
    return rows


def listed_ms(scorer: Any, index: Any, seen: list[np.ndarray], times: int) -> float:
    """CPU milliseconds of one list."""
    from types import SimpleNamespace

    from recops.histories import Histories
    from recops.serving.best import best

    release: Any = SimpleNamespace(bundle=SimpleNamespace(scorer=scorer, index=index))
    asked = [Histories([np.zeros(0, np.int64)], users=np.array([1 + n % 200])) for n in range(times)]
    for warm_up in (True, False):
        started = time.process_time()
        for n, one in enumerate(asked[: 10 if warm_up else None]):
            next(best(release, one, iter([([seen[n % 200]], K)])))
    return (time.process_time() - started) * 1000 / times


def measure(quick: bool) -> dict[str, Any]:
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as temporary:
        trained(Path(temporary))
        for num in SIZES[: 3 if quick else None]:
            kinds = ["ivf", "scan", *(["hnsw"] if num == 1_000_000 else [])]
            point = json.dumps([temporary, num, kinds])
            command = [sys.executable, "-m", "benchmarks.serving.catalogue", point]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
            if done.returncode:
                rows.append({"items": num, "kind": "none", "why": f"the process ended with {done.returncode}"})
                continue
            rows += json.loads(done.stdout.splitlines()[-1])
            for row in rows:
                if row["items"] == num:
                    figures = (row.get(name, float("nan")) for name in ("cpu_ms", "recall@50", "memory_mb"))
                    print(
                        f"{num:>11,} {row.get('asked', 'exact'):6}" + "".join(f"{figure:10.3f}" for figure in figures),
                        flush=True,
                    )
    plot(rows, RESULTS / f"serving_catalogue{'-quick' if quick else ''}.png")
    return {"rows": rows, "targets": TARGETS, "width": WIDTH, "k": K, "seen": SEEN}


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """CPU of a list, memory and recall by the number of items."""
    import matplotlib
    from matplotlib.figure import Figure

    from recops.evaluation.charts import STYLE

    labels = {"cpu_ms": "CPU ms a list", "memory_mb": "vectors and index, MB", "recall@50": "recall@50"}
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(12, 4), layout="constrained")
        axes = figure.subplots(1, 3)
        for axis, (name, label) in zip(axes, labels.items(), strict=True):
            for kind in ("exact", "ivf", "scan"):
                found = [row for row in rows if row.get("asked", "exact") == kind and "cpu_ms" in row]
                if found:
                    axis.loglog([row["items"] for row in found], [row[name] for row in found], "o-", label=kind)
            axis.set_xlabel("items")
            axis.set_ylabel(label)
        axes[2].set_yscale("linear")
        axes[2].set_ylim(0.97, 1.002)
        axes[2].axhline(TARGETS["recall@50"], color="grey", linestyle=":")
        axes[0].legend()
        figure.savefig(path, metadata={"Software": None}, dpi=120)


if __name__ == "__main__":
    asked_folder, asked_num, asked_kinds = json.loads(sys.argv[1])
    print(json.dumps(measured(Path(asked_folder), asked_num, asked_kinds)))
