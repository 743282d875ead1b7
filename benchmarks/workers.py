"""One worker against two, and torch.compile: histories a second, processor seconds and memory of the same fit.

`python -m benchmarks.workers [--quick]`. The model is `ligr` of width 64 without dropout in float32, on a made-up log
of the size of MovieLens-1M (6,040 users, 3,416 items, 166 events a user; --quick: 600 users, 33 events, nothing
compiled). Each way of fitting runs in a process of its own for two epochs; speed is that of the second, so that
starting and compiling are not in it. Peak memory is that of the largest process: what it maps of the log is counted in
each worker and lies in memory once. The validation metric is nothing but a sum over the weights: equal sums say that
both learned the same.
"""

import argparse
import json
import resource
import subprocess
import sys
from typing import Any

import numpy as np

from benchmarks.made import made_log
from benchmarks.report import write_results
from recops.data.interactions import Interactions
from recops.models.ligr import Ligr
from recops.protocols import Recommender
from recops.training.distributed import fit_by_workers

WAYS: dict[str, dict[str, Any]] = {
    "1 worker, 1 thread": {"workers": 1, "threads": 1},
    "1 worker, 2 threads": {"workers": 1, "threads": 2},
    "2 workers, 1 thread each": {"workers": 2, "threads": 2},
    "1 worker, 1 thread, compiled": {"workers": 1, "threads": 1, "compiled": True},
}


def made_up(num_users: int, num_events: int, num_items: int = 3416) -> Interactions:
    """Items drawn by Zipf's law, each user's own half the time from the neighbourhood of the item before."""
    generator = np.random.default_rng(0)
    popular = np.minimum(generator.zipf(1.2, (num_users, num_events)), num_items)
    near = np.roll(popular, 1, axis=1) % num_items + 1
    item_idx = np.where(generator.random(popular.shape) < 0.5, near, popular)
    user_idx = np.repeat(np.arange(1, num_users + 1), num_events)
    return made_log(user_idx, item_idx.ravel(), num_items)


def sum_of_weights(model: Recommender) -> float:
    return float(sum(np.abs(value).sum(dtype=np.float64) for value in model.state().values()))


def fit_once(way: str, num_users: int, num_events: int) -> None:
    """Fits in this process and prints what it took as JSON."""
    train = made_up(num_users, num_events)
    config = Ligr.Config(embedding_dim=64, dropout=0, precision="float32", epochs=2)
    model = Ligr(config, train.num_users, train.num_items, seed=0)
    report = fit_by_workers(model, train, sum_of_weights, device="cpu", **WAYS[way])
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    told = {
        "histories_per_s": num_users / report.epochs[1]["seconds"],
        "cpu_s": sum(u.ru_utime + u.ru_stime for u in used),
        "largest_process_gb": max(u.ru_maxrss for u in used) * 1024 / 1e9,
        "loss": report.epochs[1]["loss"],
        "sum_of_weights": report.epochs[1]["metric"],
    }
    print(json.dumps(told))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="600 users, 33 events each: under a minute")
    parser.add_argument("--way", choices=WAYS, help="fit this way alone and print its numbers as JSON")
    options = parser.parse_args()
    size = (600, 33) if options.quick else (6040, 166)
    if options.way:
        fit_once(options.way, *size)
        return
    numbers = {}
    quick = ["--quick"] if options.quick else []
    print(f"{'':30}{'histories/s':>12}{'CPU s':>9}{'largest GB':>12}{'loss':>9}{'sum of weights':>16}")
    for way, arguments in WAYS.items():
        if options.quick and "compiled" in arguments:  # compiling alone takes minutes
            continue
        command = [sys.executable, "-m", "benchmarks.workers", "--way", way, *quick]
        told = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
        numbers[way] = told
        print(
            f"{way:30}{told['histories_per_s']:12,.0f}{told['cpu_s']:9.1f}{told['largest_process_gb']:12.2f}"
            f"{told['loss']:9.4f}{told['sum_of_weights']:16.2f}",
            flush=True,
        )
    write_results("workers", numbers, options.quick)


if __name__ == "__main__":
    main()
