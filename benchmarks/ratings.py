"""How far predicted ratings are off: MovieLens-100K u1..u5 and MovieLens-1M, beside published figures.

`python -m benchmarks.ratings [--quick] [--splits u1,u2,ml1m] [--seed 1]`. u1..u5 are the published divisions (a base is
`u.data` without `uN.test`). MovieLens-1M has no published division: a tenth of the ratings is drawn at random, with a
fixed seed, to be the test part, so figures of others are near ours and not comparable to the last digit. Models see
ids and values only: no ages, genres or times. RMSE and MAE of the test part with 95 % intervals over users; pairs with
an item or user that the base does not have are judged too. Seconds are CPU seconds of one thread, to fit.

The settings are the model's defaults, chosen on ratings held out of the base of u1 (half of those of 240 users, whom
its test part does not have); the test part of u1 was looked at once, after that. The base of u1 holds most of the test
parts of u2..u5: for these the choice of the settings, though not the fit, has seen ratings that are predicted.
"""

import os

if __name__ == "__main__":
    # Read when the libraries load, which the imports below do.
    os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from benchmarks.report import RESULTS, facts, write_results
from recops.data.interactions import make_interactions
from recops.evaluation.ratings import predictions, rating_figures, ratings_of
from recops.models.bayesian_factorization import BayesianFactorization
from recops.models.rating_means import RatingMeans
from recops.release.export import torch_scorer

QUICK: dict[str, Any] = {"num_samples": 10, "burn_in": 5}
SPLITS = ("u1", "u2", "u3", "u4", "u5", "ml1m")
PUBLISHED = (
    {"split": "u1", "model": "GLocal-K", "rmse": 0.8889, "source": "github.com/usydnlp/Glocal_K, README"},
    {
        "split": "ml1m",
        "model": "GLocal-K",
        "rmse": 0.8227,
        "source": "github.com/usydnlp/Glocal_K, README (another random tenth)",
    },
    {
        "split": "u1..u5",
        "model": "SVD++",
        "rmse": 0.919,
        "source": "github.com/NicolasHug/Surprise, README (five other random folds)",
    },
    {
        "split": "ml1m",
        "model": "SVD++",
        "rmse": 0.862,
        "source": "github.com/NicolasHug/Surprise, README (random folds)",
    },
)


def divide(frame: pl.DataFrame, share: float, seed: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The frame without a share of its rows, drawn at random, and these."""
    is_drawn = pl.Series(np.random.default_rng(seed).random(len(frame)) < share)
    return frame.filter(~is_drawn), frame.filter(is_drawn)


def events(frame: pl.DataFrame) -> pl.DataFrame:
    """Columns that the library asks for, from user_id, item_id, value and timestamp in seconds."""
    return frame.select(
        pl.col("user_id", "item_id").cast(pl.String),
        (pl.col("timestamp").cast(pl.Int64) * 1_000_000).cast(pl.Datetime("us", "UTC")),
        event=pl.lit("rating"),
        value=pl.col("value").cast(pl.Float32),
        signal=pl.lit("positive"),
        weight=pl.lit(1.0, pl.Float32),
    )


def load(split: str, data: Path) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Base and test part of one division."""
    if split == "ml1m":
        frame = pl.read_csv(data / "movielens-1m" / "ratings.csv.gz", columns=[0, 1, 2, 3], infer_schema_length=None)
        return divide(events(frame.rename({"userId": "user_id", "movieId": "item_id", "rating": "value"})), 0.1, seed=0)
    columns: dict[str, Any] = {
        "new_columns": ["user_id", "item_id", "value", "timestamp"],
        "has_header": False,
        "separator": "\t",
    }
    whole, test = (pl.read_csv(data / "movielens-100k" / name, **columns) for name in ("u.data", f"{split}.test"))
    return events(whole.join(test, on=["user_id", "item_id"], how="anti", maintain_order="left")), events(test)


def measure(base: pl.DataFrame, test: pl.DataFrame, seed: int, quick: bool) -> dict[str, Any]:
    """The rows of one division: damped means, and the model fitted on all of `base`."""
    started = time.process_time()
    train = make_interactions(base)
    config = BayesianFactorization.Config(**(QUICK if quick else {}))
    model = BayesianFactorization(config, train.num_users, train.num_items, seed)
    model.fit(train)
    seconds = time.process_time() - started
    ratings = ratings_of(test, train)
    means = RatingMeans(RatingMeans.Config(), train.num_users, train.num_items, seed)
    means.fit(train)
    by_means, by_model = (
        rating_figures(predictions(torch_scorer(one.parts()), ratings), ratings, samples=1000, seed=0)
        for one in (means, model)
    )
    row = {**by_model, "cpu_seconds": seconds, "seed": seed, "settings": config.model_dump()}
    return {"damped means": by_means, "bayesian_factorization": row, **facts("benchmarks.ratings")}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ratings", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="u1 alone, few samples")
    parser.add_argument("--splits", default="", help=f"comma-separated, of {', '.join(SPLITS)}; others keep their rows")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    splits = [split for split in arguments.splits.split(",") if split] or list(
        SPLITS[:1] if arguments.quick else SPLITS
    )
    if unknown := [split for split in splits if split not in SPLITS]:
        parser.error(f"--splits: no division named {unknown[0]!r}: there are {', '.join(SPLITS)}")
    data = Path(os.environ.get("RECOPS_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))
    earlier = RESULTS / f"ratings{'-quick' if arguments.quick else ''}.json"
    rows: dict[str, Any] = json.loads(earlier.read_text())["numbers"]["splits"] if earlier.exists() else {}
    print(f"{'split':<6} {'model':<24} {'RMSE':>24} {'MAE':>24} {'CPU s':>7}", flush=True)
    for published in PUBLISHED:
        print(f"{published['split']:<6} {published['model']:<24} {published['rmse']:>8.4f}  {published['source']}")
    for split in splits:
        rows[split] = measure(*load(split, data), arguments.seed, arguments.quick)
        for name in ("damped means", "bayesian_factorization"):
            row = rows[split][name]
            cells = [f"{row[m]['value']:>8.4f} [{row[m]['low']:.4f}, {row[m]['high']:.4f}]" for m in ("rmse", "mae")]
            print(f"{split:<6} {name:<24} {' '.join(cells)} {row.get('cpu_seconds', 0):>7.1f}", flush=True)
        numbers = {"published": PUBLISHED, "splits": {name: rows[name] for name in SPLITS if name in rows}}
        path = write_results("ratings", numbers, arguments.quick)
    print(path)


if __name__ == "__main__":
    main()
