"""Seconds and memory by size: `python -m benchmarks.scale [--quick]`.

Made data: users with 20 to 180 events, items drawn by a Zipf law. One epoch of ligr (width 32, one block, sampled
softmax; at 10,000 items also the full softmax) and a fit of slist at 1, 2, 4 and 8 million events of 10,000 items, and
at 10,000, 100,000 and 1,000,000 items with 1 million events; and a ranking of 100,000 users x 100,000 items, beside the
product of the same matrices alone. Every point is a process of its own with one thread: CPU seconds of the work, and
the most memory it held beyond what it held before. Prints a table, writes results/scale.json and results/scale.svg.
"""

import os

if __name__ == "__main__":
    # Read when the libraries load, which the imports below do.
    os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import matplotlib
import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from benchmarks.made import made_log
from benchmarks.report import write_results
from recops import plugins
from recops.data.interactions import Interactions
from recops.evaluation.charts import STYLE
from recops.evaluation.protocol import rank_users
from recops.runtime import Scorer
from recops.training.loop import fit_model

MILLION = 1_000_000
WIDTH = 32
LIGR = {"embedding_dim": WIDTH, "num_blocks": 1, "num_heads": 1, "max_history": 100, "epochs": 1}
FITS: dict[str, tuple[str, dict[str, Any]]] = {
    "ligr, sampled softmax": ("ligr", {**LIGR, "loss": "sampled_softmax", "label_smoothing": 0.0}),
    "ligr, full softmax": ("ligr", LIGR),
    "slist": ("slist", {"solver": "diagonal"}),
}
FULL_SOFTMAX_ITEMS = 10_000  # an epoch's cost grows with the items; above 50,000 `loss: auto` takes a sample


def made(num_events: int, num_items: int) -> Interactions:
    """Events of made users, without times."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(20, 181, num_events // 100 + 1)
    user_idx = np.repeat(np.arange(1, len(lengths) + 1), lengths)[:num_events]
    share = 1 / np.arange(10, num_items + 10) ** 0.9
    return made_log(user_idx, rng.choice(num_items, len(user_idx), p=share / share.sum()) + 1, num_items)


def fitting(what: str, events: int, items: int) -> Callable[[], object]:
    name, settings = FITS[what]
    train = made(events, items)
    kind = plugins.load("models", name)
    model = kind(kind.Config(**settings), train.num_users, train.num_items, 0)
    return lambda: fit_model(model, train, None)


def ranking(users: int, items: int, bare: bool) -> Callable[[], object]:
    """The best 100 of each user by vectors; `bare`: the products alone, in the same blocks."""
    rng = np.random.default_rng(0)
    users_UD = rng.standard_normal((users + 1, WIDTH), np.float32)
    items_ND = rng.standard_normal((items + 1, WIDTH), np.float32)
    histories = [rng.integers(1, items + 1, 20) for _ in range(users)]
    if bare:
        product_BN = np.empty((200, items + 1), np.float32)

        def multiply() -> None:
            for start in range(0, users, 200):
                block_BD = users_UD[start : min(start + 200, users)]
                np.matmul(block_BD, items_ND.T, out=product_BN[: len(block_BD)])

        return multiply

    def encode(item_idx_BL: np.ndarray) -> np.ndarray:
        return users_UD[item_idx_BL[:, -1] % users]

    scorer = Scorer(items, encode=encode, item_vectors=items_ND)
    counts, targets = np.ones(items + 1, np.int64), [history[:1] for history in histories]
    return lambda: rank_users(scorer, histories, targets, k=100, remove_seen=True, item_counts=counts)


def measured(point: dict[str, Any]) -> dict[str, Any]:
    """CPU seconds and the most memory in MB, in this process."""
    torch.set_num_threads(1)
    size = point["events"] if point["what"] in FITS else point["users"]
    work = (
        fitting(point["what"], size, point["items"])
        if point["what"] in FITS
        else ranking(size, point["items"], point["what"] == "products alone")
    )
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.process_time()
    work()
    seconds = time.process_time() - started
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {**point, "cpu_seconds": seconds, "memory_mb": (after - before) / 1024, "process_mb": after / 1024}


def points(quick: bool) -> list[dict[str, Any]]:
    shrink = 100 if quick else 1
    sampled, full, slist = FITS
    by_events = [
        {"what": what, "events": n * MILLION // shrink, "items": 10_000 // shrink}
        for what in (sampled, slist)
        for n in (1, 2, 4, 8)
    ]
    by_items = [
        {"what": what, "events": MILLION // shrink, "items": n // shrink}
        for what in (sampled, slist, full)
        for n in (10_000, 100_000, MILLION)
        if (what == full or n > 10_000) and not (what == full and n > FULL_SOFTMAX_ITEMS)
    ]
    ranked = [
        {"what": what, "users": 100_000 // shrink, "items": 100_000 // shrink}
        for what in ("ranking of all users", "products alone")
    ]
    return [*by_events, *by_items, *ranked]


def plot(rows: list[dict[str, Any]]) -> str:
    """Seconds and memory, by events and by items, as SVG text."""
    import io

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9, 6), layout="constrained")
        axes = figure.subplots(2, 2, sharey="row")
        least_items = min(row["items"] for row in rows)
        least_events = min(row["events"] for row in rows if "events" in row)
        for column, (by, other, least, label) in enumerate(
            [
                ("events", "items", least_items, "events, of {:,} items"),
                ("items", "events", least_events, "items, of {:,} events"),
            ]
        ):
            for what in FITS:
                found = [row for row in rows if row["what"] == what and row[other] == least]
                found.sort(key=lambda row: row[by])
                if len(found) < 2:
                    continue
                for axis, figure_of in zip(axes[:, column], ("cpu_seconds", "memory_mb"), strict=True):
                    axis.loglog([row[by] for row in found], [row[figure_of] for row in found], "o-", label=what)
            sizes = sorted({row[by] for row in rows if row["what"] in FITS and row[other] == least})
            for axis in axes[:, column]:
                axis.set_xticks(sizes, labels=[f"{size:,}" for size in sizes])
                axis.xaxis.set_minor_locator(NullLocator())
            axes[1, column].set_xlabel(label.format(least))
        axes[0, 0].set_ylabel("CPU seconds")
        axes[1, 0].set_ylabel("memory, MB")
        axes[0, 0].set_title("One epoch, or one fit")
        if axes[0, 1].lines:
            axes[0, 1].legend()
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a hundredth of each size")
    parser.add_argument("--point", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.point:
        print(json.dumps(measured(json.loads(arguments.point))))
        return
    rows = []
    for point in points(arguments.quick):
        command = [sys.executable, "-m", "benchmarks.scale", "--point", json.dumps(point)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        row = json.loads(done.stdout.splitlines()[-1])
        rows.append(row)
        size = f"{row.get('events', row.get('users')):>10,} x {row['items']:>9,}"
        print(f"{row['what']:24}{size}{row['cpu_seconds']:10.1f} CPU s{row['memory_mb']:10.0f} MB", flush=True)
        path = write_results("scale", {"rows": rows}, arguments.quick)
        path.with_suffix(".svg").write_text(plot(rows), encoding="utf-8")
    print(path)


if __name__ == "__main__":
    main()
