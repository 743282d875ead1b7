"""SASRec as others train it, beside ours: `python -m benchmarks.peers [--quick] [--only NAME;...]`.

MovieLens-1M in the order of the SASRec authors' file: all but the last two items of each user train, the one before the
last judges, the whole catalogue ranked without what a user had. Each library stands in an environment of its own, which
this command makes below `.recops/peers` (pip; a few GB); every one gets one thread, the same width, blocks, heads and
history. Counted: CPU seconds of training, without validation; targets (positions with a next item) trained on in them.
To reach: three times the targets a second of the fastest other, and its best NDCG@10 in a quarter of its CPU seconds.
Prints a table and writes results/peers.json; `--only` keeps the other rows.
"""

import os

if __name__ == "__main__":
    # Read when the libraries load, which the imports below do.
    os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")

import argparse
import csv
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.quality.recipes_sequences import QUICK_USERS
from benchmarks.quality.sequences import read_pairs
from benchmarks.quality.tasks import leave_last_out
from benchmarks.report import RESULTS, facts, write_results
from recops import plugins
from recops.release.export import torch_scorer
from recops.training.loop import fit_model

HERE = Path(__file__).parent
ENVIRONMENTS = HERE.parents[1] / ".recops" / "peers"
K = 10
SIZE = {"embedding_dim": 64, "num_blocks": 2, "num_heads": 2, "max_history": 200, "dropout": 0.2}
# What each environment holds; RecBole 1.2.1 needs what was current when it was made.
REQUIREMENTS = {
    "rectools": ["rectools[torch]==0.19.0"],
    "recbole": ["recbole==1.2.1", "numpy<2", "pandas<2.3", "scipy<1.13", "torch==2.5.1", "setuptools<80"],
}
# Runner, its own settings, CPU seconds after which no further epoch begins.
OTHERS: dict[str, tuple[str, dict[str, Any], float]] = {
    "RecTools SASRec, softmax": ("rectools", {"loss": "softmax"}, 900),
    "RecTools SASRec, gBCE": ("rectools", {"loss": "gBCE", "n_negatives": 256, "gbce_t": 0.75}, 240),
    "RecBole SASRec, CE": ("recbole", {}, 60),
}
OURS: dict[str, tuple[str, dict[str, Any]]] = {
    "recops sasrec": ("sasrec", SIZE),
    "recops ligr": ("ligr", {**SIZE, "epochs": 8}),
}


def environment(name: str) -> Path:
    """The interpreter of one library's environment, made where it is missing."""
    python = ENVIRONMENTS / name / "bin" / "python"
    ready = ENVIRONMENTS / name / "ready"
    if not ready.exists():
        print(f"making {python.parent.parent}", flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", ENVIRONMENTS / name], check=True)
        subprocess.run([python, "-m", "pip", "install", "-q", *REQUIREMENTS[name]], check=True)
        ready.touch()
    return python


def ndcg(lists: Mapping[str, Sequence[str]], targets: Mapping[str, str]) -> float:
    """Mean over the users of `targets`; one without a list has 0.

    >>> ndcg({"a": ["x", "y"]}, {"a": "y", "b": "x"}) == 0.5 / np.log2(3)
    True
    """
    gains = [
        1 / np.log2(list(lists[user]).index(item) + 2) if item in lists.get(user, ()) else 0.0
        for user, item in targets.items()
    ]
    return float(np.mean(gains))


def run_other(name: str, sequences: dict[str, list[str]], quick: bool) -> list[dict[str, float]]:
    """One row an epoch: epoch, cpu_seconds and targets so far, and ndcg where it was judged."""
    runner, options, seconds = OTHERS[name]
    targets = {user: sequences[user][-2] for user in leave_last_out("peers", sequences).valid.user_ids}
    with tempfile.TemporaryDirectory(prefix="recops-peers-") as folder:
        out = Path(folder)
        with (out / "events.csv").open("w", newline="", encoding="utf-8") as file:
            rows = csv.writer(file)
            rows.writerow(["user", "item"])
            for user, sequence in sequences.items():
                rows.writerows((user, item) for item in sequence[:-2])
        (out / "users.json").write_text(json.dumps(list(targets)), encoding="utf-8")
        spec = {
            **SIZE,
            "events": str(out / "events.csv"),
            "users": str(out / "users.json"),
            "options": options,
            "seed": 1,
            "cpu_seconds": 5 if quick else seconds,
            "judge_every": 5,
        }
        (out / "spec.json").write_text(json.dumps(spec), encoding="utf-8")
        command = [environment(runner), HERE / f"{runner}_sasrec.py", out / "spec.json", out]
        subprocess.run(command, check=True, cwd=out)
        found = [json.loads(line) for line in (out / "epochs.jsonl").read_text(encoding="utf-8").splitlines()]
        for row in found:
            lists = out / f"{row['epoch']}.json"
            if lists.exists():
                row["ndcg@10"] = ndcg(json.loads(lists.read_text(encoding="utf-8")), targets)
    return found


def run_ours(name: str, sequences: dict[str, list[str]], quick: bool) -> list[dict[str, float]]:
    """The same rows, of a model trained by the loop; every epoch is judged."""
    task = leave_last_out("peers", sequences)
    model_name, settings = OURS[name]
    kind = plugins.load("models", model_name)
    config = kind.Config(**{**settings, **({"epochs": 1} if quick else {})})
    model = kind(config, task.train.num_users, task.train.num_items, 1)
    rows: list[dict[str, float]] = []
    judging_s = 0.0
    started = time.process_time()

    def judge(fitted) -> float:
        nonlocal judging_s
        begun = time.process_time()
        seen = sum(int((batch["target"] > 0).sum()) for batch in fitted.batches(torch.Generator().manual_seed(0)))
        value = task.valid.mean(torch_scorer(fitted.parts()), f"ndcg@{K}")
        row = {"epoch": len(rows) + 1, "cpu_seconds": begun - started - judging_s, "targets": seen * (len(rows) + 1)}
        rows.append({**row, "ndcg@10": value})
        print(rows[-1], flush=True)
        judging_s += time.process_time() - begun
        return value

    fit_model(model, task.train, judge, seed=1, threads=1)
    return rows


def summary(rows: Sequence[Mapping[str, float]], reach: float | None) -> dict[str, float | None]:
    """Targets a second, the best NDCG@10, the CPU seconds it took, and those that `reach` took (None: never)."""
    judged = [row for row in rows if "ndcg@10" in row]
    best = max(judged, key=lambda row: row["ndcg@10"])
    return {
        "targets_a_second": rows[-1]["targets"] / rows[-1]["cpu_seconds"],
        "best": best["ndcg@10"],
        "cpu_seconds_to_best": best["cpu_seconds"],
        "cpu_seconds_to_reach": next(
            (row["cpu_seconds"] for row in judged if reach is not None and row["ndcg@10"] >= reach), None
        ),
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_USERS} users, a few seconds each")
    parser.add_argument("--only", default="", metavar="NAME;...", help="; ".join([*OTHERS, *OURS]))
    arguments = parser.parse_args()
    only = [name.strip() for name in arguments.only.split(";") if name.strip()]
    if unknown := [name for name in only if name not in {**OTHERS, **OURS}]:
        parser.error(f"--only: no model named {unknown[0]!r}: there are {'; '.join([*OTHERS, *OURS])}")
    torch.set_num_threads(1)
    data = Path(os.environ.get("RECOPS_TEST_DATA", Path(__file__).parents[3] / "shared" / "data"))
    sequences = read_pairs(data / "sasrec-bert4rec" / "ml-1m.txt.gz")
    if arguments.quick:
        sequences = dict(list(sequences.items())[:: max(1, len(sequences) // QUICK_USERS)])
    path = RESULTS / f"peers{'-quick' if arguments.quick else ''}.json"
    runs = json.loads(path.read_text(encoding="utf-8"))["numbers"]["runs"] if only and path.exists() else {}
    for name in [*OTHERS, *OURS]:
        if only and name not in only:
            continue
        print(name, flush=True)
        run = run_other if name in OTHERS else run_ours
        runs[name] = {"epochs": run(name, sequences, arguments.quick), **facts("benchmarks.peers")}
        others = [summary(runs[other]["epochs"], None) for other in OTHERS if other in runs]
        reach = max((other["best"] or 0.0 for other in others), default=None)
        summaries = {label: summary(runs[label]["epochs"], reach) for label in runs}
        write_results("peers", {"size": SIZE, "reach": reach, "summaries": summaries, "runs": runs}, arguments.quick)
    print(f"{'':28}{'targets/s':>12}{'best NDCG@10':>14}{'CPU s to it':>13}{'CPU s to best other':>21}")
    for label, found in summaries.items():
        reached = found["cpu_seconds_to_reach"]
        print(
            f"{label:28}{found['targets_a_second']:12.0f}{found['best']:14.4f}{found['cpu_seconds_to_best']:13.0f}"
            f"{'never' if reached is None else f'{reached:.0f}':>21}"
        )


if __name__ == "__main__":
    main()
