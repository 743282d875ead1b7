"""One cut in time for all users, as in production: three verticals with the settings of `examples/`, and MovieLens-1M.

In: the logs below the data folder, read and divided by the library itself. Out: tables of fusion and, with its members,
rerank beside the popular and every single model. No figure was published for these splits: what is to be beaten stands
in the table. Settings were chosen on validation (NDCG@10) alone.
"""

import gzip
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl

from benchmarks.quality.tasks import Recipe, Table, Task
from recops.data.ingest import ingest
from recops.data.interactions import read_interactions
from recops.data.split import split_events
from recops.evaluation.judging import read_judging
from recops.params import Params, checked, read_params

METRICS = ("ndcg@10", "hit_rate@10")
QUICK_USERS = 300
EXAMPLES = Path(__file__).parents[2] / "examples"

ML1M = checked(
    Params,
    {
        "split": {"name": "global_time"},
        "train": {
            "models": {
                "rerank": {"members": ["slist", "recency_ease", "ease", "recent_popular", "popular_now"]},
                "slist": {"alpha": 0.1, "window": 30, "decay": 2.5, "floor": 0.08},
                "recency_ease": {"regularization": 500, "link_decay": 3, "link_floor": 0.05},
                "popular_now": {"model": "recent_popular", "half_life_days": 3},
            }
        },
    },
    "",
)


def _ingested(folder: str) -> Callable[[Path, Params, Path], Path]:
    """The events of a source in a folder of the data."""

    def events(data: Path, params: Params, work: Path) -> Path:
        source = params.source.model_copy(update={"path": str(data / folder)})
        ingest(source, params.ingest, Path(), work)
        return work / "events.parquet"

    return events


def _ml1m_events(data: Path, params: Params, work: Path) -> Path:
    """Ratings of 4 and 5 of MovieLens-1M, which all have their times; equal times keep the order of the file."""
    with gzip.open(data / "movielens-1m" / "ratings.csv.gz") as file:
        ratings = pl.read_csv(file.read(), columns=["userId", "movieId", "rating", "timestamp"])
    events = ratings.filter(pl.col("rating") >= 4).sort("timestamp", maintain_order=True)
    events = events.select(
        user_id=pl.col("userId").cast(pl.String),
        item_id=pl.col("movieId").cast(pl.String),
        timestamp=pl.from_epoch(pl.col("timestamp").cast(pl.Int64), "s")
        .cast(pl.Datetime("us"))
        .dt.replace_time_zone("UTC"),
        event=pl.lit("rating"),
        value=pl.col("rating").cast(pl.Float32),
    )
    events.write_parquet(work / "events.parquet")
    return work / "events.parquet"


def _task(name: str, params: Params, events: Callable[[Path, Params, Path], Path], data: Path, quick: bool) -> Task:
    """The log divided and judged as `recops run` with these settings does."""
    with tempfile.TemporaryDirectory() as folder:
        work, split = Path(folder), Path(folder) / "split"
        remove_seen = params.recommend.remove_seen
        split_events(events(data, params, work), split, params.split, params.ingest.events, remove_seen)
        train = read_interactions(split / "train.parquet")
        k = int(METRICS[0].partition("@")[2])
        judged = {"k": [k], "metric": METRICS[0], **({"max_users": QUICK_USERS} if quick else {})}
        settings = params.evaluate.model_copy(update=judged)
        valid, test = (read_judging(split, part, train, settings, remove_seen) for part in ("valid", "test"))
        return Task(name=name, train=train, valid=valid, test=test, metrics=METRICS)


def _table(name: str, protocol: str, params: Params, events: Callable[[Path, Params, Path], Path]) -> Table:
    models: dict[str, dict[str, Any]] = params.train.models
    members = models["rerank"]["members"]
    single = dict.fromkeys(["most_popular", "recent_popular", "item_knn", *members])
    return Table(
        name=name,
        protocol=f"one cut in time for all, {protocol}, fitted before the first cut; whole catalogue as of the target",
        load=lambda data, quick: _task(name, params, events, data, quick),
        recipes=(
            *(Recipe(label, label, _only(models, label), is_random=False) for label in single),
            Recipe("fusion", "fusion", {**models, "fusion": {"members": members}}, is_random=False),
            Recipe("rerank", "rerank", models),
        ),
        published=(),
    )


def _only(models: dict[str, dict[str, Any]], label: str) -> dict[str, dict[str, Any]]:
    return {label: models[label]} if label in models else {}


def _example(name: str, example: str, folder: str, protocol: str) -> Table:
    return _table(name, protocol, read_params(EXAMPLES / example), _ingested(folder))


TABLES = (
    _example("time_retail", "ecommerce/params.yaml", "online-retail", "the last 10 % test, repeats are targets"),
    _example("time_kuairand", "social/params.yaml", "kuairand-pure-part", "the last 10 % test, seen items removed"),
    _table("time_ml1m", "ratings of 4 and 5, the last 10 % test, seen items removed", ML1M, _ml1m_events),
    _example(
        "time_globo", "news/params.yaml", "globo-news", "the last 2 % test, seen items removed, a sample of 5,000 users"
    ),
)
