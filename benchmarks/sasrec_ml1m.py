"""SASRec on MovieLens-1M in the order file of the SASRec authors: `python -m benchmarks.sasrec_ml1m [--quick]`.

Leave-last-out: the last item of each user is the test, the one before it the validation, the rest trains. Ranking is
over the whole catalogue without the user's history, which at test holds the validation item. The epoch that is kept
is chosen on validation. Seconds are CPU seconds of one thread, from an unfitted model to the kept weights, validation
included. Prints a table and writes results/sasrec_ml1m.json.
"""

import argparse
import gzip
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
import yaml

from benchmarks.report import write_results
from recops.data.interactions import Interactions, make_interactions
from recops.evaluation.protocol import metric_values, rank_users
from recops.models.sasrec import Sasrec
from recops.params import checked
from recops.protocols import Recommender
from recops.release.export import torch_scorer
from recops.training.loop import fit_model

FILE = "sasrec-bert4rec/ml-1m.txt.gz"
METRICS = ("ndcg@10", "hit_rate@10")


def read_sequences(path: Path) -> dict[str, list[str]]:
    """Items of each user in the order of the file (`user item`, one event a line)."""
    found: dict[str, list[str]] = {}
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            user, item = line.split()
            found.setdefault(user, []).append(item)
    return found


def divide(sequences: dict[str, list[str]]) -> tuple[Interactions, np.ndarray, np.ndarray]:
    """The train part, and for each of its users the validation and the test item (rows; 0 when never trained on)."""
    rows = [(user, item) for user, items in sequences.items() for item in items[:-2]]
    frame = pl.DataFrame(rows, schema=["user_id", "item_id"], orient="row").with_columns(
        timestamp=pl.lit(None, pl.Datetime("us", "UTC")),
        value=pl.lit(None, pl.Float32),
        weight=pl.lit(1.0, pl.Float32),
        signal=pl.lit("positive"),
    )
    train = make_interactions(frame)
    valid_U = train.items.to_idx([sequences[user][-2] for user in train.users.ids])
    test_U = train.items.to_idx([sequences[user][-1] for user in train.users.ids])
    return train, valid_U, test_U


def judge(model: Recommender, histories: Sequence[np.ndarray], target_U: np.ndarray, counts: np.ndarray) -> list[float]:
    """The mean of each of METRICS. Users go by length of history, so that little of a batch is padding."""
    scorer = torch_scorer(model.parts(), len(counts) - 1)
    by_length = np.argsort([len(history) for history in histories], kind="stable")
    values: list[list[np.ndarray]] = [[] for _ in METRICS]
    for users in np.array_split(by_length, -(-len(by_length) // 128)):
        ranked = rank_users(
            scorer,
            [histories[user] for user in users],
            [target_U[user : user + 1] for user in users],
            k=10,
            remove_seen=True,
            item_counts=counts,
        )
        for metric, found in zip(METRICS, values, strict=True):
            found.append(metric_values(ranked, metric))
    return [float(np.concatenate(found).mean()) for found in values]


def run(
    train: Interactions, valid_U: np.ndarray, test_U: np.ndarray, config: Sasrec.Config, seed: int
) -> dict[str, Any]:
    """One seed: what was measured, by name."""
    histories = [train.history(user) for user in range(1, train.num_users + 1)]
    counts = np.bincount(train.item_idx, minlength=train.num_items + 1)
    started = time.process_time()
    model = Sasrec(config, train.num_users, train.num_items, seed)
    report = fit_model(
        model,
        train,
        lambda fitted: judge(fitted, histories, valid_U, counts)[0],
        progress=True,
        seed=seed,
        threads=1,
        device="cpu",
    )
    cpu_seconds = time.process_time() - started
    at_test = [np.append(history, valid) for history, valid in zip(histories, valid_U, strict=True)]
    test = dict(zip(METRICS, judge(model, at_test, test_U, counts), strict=True))
    return {
        "seed": seed,
        **test,
        "validation ndcg@10": report.best_metric,
        "epoch": report.best_epoch,
        "cpu_seconds": cpu_seconds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one epoch over a fifth of the users: under a minute")
    parser.add_argument("--seeds", default="1,2,3", help="comma-separated")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="another hyper-parameter")
    arguments = parser.parse_args()
    data = Path(os.environ.get("RECOPS_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))
    sequences = read_sequences(data / FILE)
    options = {key: yaml.safe_load(value) for key, value in (pair.split("=", 1) for pair in arguments.set)}
    seeds = [int(seed) for seed in arguments.seeds.split(",")]
    if arguments.quick:
        sequences = dict(list(sequences.items())[::5])
        seeds, options = seeds[:1], {**options, "epochs": 1}
    config = checked(Sasrec.Config, options, "--set")
    torch.set_num_threads(1)
    rows = [run(*divide(sequences), config, seed) for seed in seeds]
    mean = {metric: float(np.mean([row[metric] for row in rows])) for metric in METRICS}

    print(f"{'seed':>6} {'NDCG@10':>9} {'HR@10':>8} {'valid':>8} {'epoch':>6} {'CPU s':>8}")
    for row in rows:
        print(
            f"{row['seed']:>6} {row['ndcg@10']:>9.4f} {row['hit_rate@10']:>8.4f} {row['validation ndcg@10']:>8.4f} "
            f"{row['epoch']:>6} {row['cpu_seconds']:>8.1f}"
        )
    print(f"{'mean':>6} {mean['ndcg@10']:>9.4f} {mean['hit_rate@10']:>8.4f}")
    numbers = {"config": config.model_dump(), "seeds": rows, "mean": mean}
    print(write_results("sasrec_ml1m", numbers, arguments.quick))


if __name__ == "__main__":
    main()
