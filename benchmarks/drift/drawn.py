"""Real logs, and windows without a shift drawn from them: see `__main__`."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from benchmarks.drift.answers import ask
from recops.data.interactions import make_interactions
from recops.models.spectral import Spectral
from recops.monitoring.drift import DriftVerdict, Pairs, compare, microseconds, window_profile
from recops.monitoring.embedding import FEATURE, user_vector_pair
from recops.monitoring.features import Scoring
from recops.monitoring.log import EventLog, read_log
from recops.monitoring.outcome import outcome_pairs, outcomes
from recops.monitoring.outputs import Answer, Catalogue, catalogue_of, output_pairs
from recops.monitoring.profile import reference_profile
from recops.params import DriftParams
from recops.release.export import torch_scorer

DATA = Path(os.environ.get("RECOPS_TEST_DATA", "../shared/data"))
WEEK, DAY = timedelta(days=7), timedelta(days=1)
LABELS_US = 6 * 3_600_000_000  # what follows within six hours: a day's window must see some of it
FACTORS = 64
MIN_ANSWERS = 200  # fewer than in `drift.min_events`: a week of Online Retail has some hundred customers


@dataclass(frozen=True)
class Log:
    """Events in time order before `cut`, and the catalogue's categories where it has any."""

    events: pl.DataFrame
    items: pl.DataFrame | None
    cut: datetime
    length: timedelta = WEEK  # of a window

    @property
    def window(self) -> tuple[datetime, datetime]:
        """A week after the last stretch of this length: the same days of the week."""
        return self.cut + WEEK - self.length, self.cut + WEEK


def movielens(length: timedelta) -> Log:
    folder = DATA / "movielens-1m"
    ratings = pl.read_csv(folder / "ratings.csv.gz")
    events = ratings.select(
        user_id=pl.col("userId").cast(pl.String),
        item_id=pl.col("movieId").cast(pl.String),
        timestamp=pl.from_epoch("timestamp", time_unit="s").cast(pl.Datetime("us", "UTC")),
        event=pl.lit("rating"),
        value=pl.col("rating").cast(pl.Float32),
    )
    lines = (folder / "movies.dat").read_text(encoding="latin-1").splitlines()
    movies = [line.split("::") for line in lines]
    items = pl.DataFrame({"item_id": [m[0] for m in movies], "categories": [m[2].split("|") for m in movies]})
    return before(events, items, datetime(2000, 8, 15, tzinfo=UTC), length)


def retail(length: timedelta) -> Log:
    """Lines with a customer and a positive quantity; no categories. Half a year, which ends in October."""
    lines = pl.read_csv(DATA / "online-retail" / "online-retail.csv.gz", infer_schema_length=0)
    events = lines.filter(pl.col("CustomerID").is_not_null() & ~pl.col("InvoiceNo").str.starts_with("C")).select(
        user_id=pl.col("CustomerID").str.strip_suffix(".0"),
        item_id="StockCode",
        timestamp=pl.col("InvoiceDate")
        .str.to_datetime("%Y-%m-%d %H:%M:%S", time_unit="us")
        .dt.replace_time_zone("UTC"),
        event=pl.lit("purchase"),
        value=pl.col("Quantity").cast(pl.Float32),
    )
    return before(events, None, datetime(2011, 10, 7, tzinfo=UTC), length)


def before(events: pl.DataFrame, items: pl.DataFrame | None, cut: datetime, length: timedelta) -> Log:
    return Log(events.filter(pl.col("timestamp") < cut).sort("timestamp", maintain_order=True), items, cut, length)


SETS: dict[str, Callable[[], Log]] = {
    "movielens week": lambda: movielens(WEEK),
    "retail week": lambda: retail(WEEK),
    "retail day": lambda: retail(DAY),
}


def fitted(log: Log) -> Scoring:
    """The release: it knows nothing of the last week, as one that has served for a week."""
    frame = log.events.filter(pl.col("timestamp") < log.cut - WEEK)
    train = make_interactions(frame.with_columns(signal=pl.lit("positive"), weight=pl.lit(1.0)))
    model = Spectral(
        Spectral.Config(num_factors=FACTORS, num_ideal=FACTORS, max_links=0), train.num_users, train.num_items, 0
    )
    model.fit(train)
    return Scoring(torch_scorer(model.parts()), train.items.ids)


@dataclass(frozen=True)
class Halves:
    """The log of one half of the users, its profile, and a week drawn from the other half, with what was before it."""

    log: Log
    scoring: Scoring
    known: pl.DataFrame
    reference: dict[str, Any]
    earlier: pl.DataFrame
    window: pl.DataFrame
    in_season: list[str]

    @property
    def times(self) -> tuple[int, int]:
        """Of the window (µs)."""
        since, until = self.log.window
        return microseconds(since), microseconds(until)

    @cached_property
    def known_log(self) -> EventLog:
        return read_log(self.known)

    @cached_property
    def catalogue(self) -> Catalogue:
        ids = self.scoring.item_ids
        of = {} if self.log.items is None else dict(self.log.items.select("item_id", "categories").iter_rows())
        columns = {"item_id": ids, "categories": [of.get(item_id) for item_id in ids]}
        return catalogue_of(columns, self.known_log, self.reference["until"])

    @cached_property
    def before(self) -> list[Answer]:
        """Answers in the last stretch of the reference."""
        cut = self.log.cut
        return ask(self.known_log, microseconds(cut - self.log.length), microseconds(cut), self.scoring, 0)

    def answered(self, window: pl.DataFrame) -> tuple[pl.DataFrame, EventLog, list[Answer]]:
        """The whole log with this window at its end, the same as arrays, and the answers in the window."""
        whole = pl.concat([self.known, self.earlier, window.sort("timestamp", maintain_order=True)])
        log = read_log(whole)
        return whole, log, ask(log, *self.times, self.scoring, 1)

    def judge(self, whole: pl.DataFrame, log: EventLog, answers: list[Answer]) -> DriftVerdict:
        since, until = self.log.window
        params, watermark = DriftParams(), self.reference["until"]
        current = window_profile(whole, since, until, self.reference, self.log.items, self.scoring)
        earlier = outcomes(self.before, self.known_log, LABELS_US, microseconds(self.log.cut), watermark)
        followed = outcomes(answers, log, LABELS_US, self.times[1], watermark)
        pairs: Pairs = {
            FEATURE: user_vector_pair(log, *self.times, self.reference, self.scoring),
            **output_pairs(self.before, answers, self.catalogue, MIN_ANSWERS),
            **outcome_pairs(earlier, followed, MIN_ANSWERS),
        }
        return compare(self.reference, current, params, pairs)


def halves(log: Log, scoring: Scoring, in_season: list[str], seed: int) -> Halves:
    chance = np.random.default_rng(seed)
    users = log.events["user_id"].unique().sort()
    is_known = pl.Series(chance.random(len(users)) < 0.5)
    known = log.events.join(pl.DataFrame({"user_id": users.filter(is_known)}), on="user_id", maintain_order="left")
    at_the_end = pl.col("timestamp") >= log.cut - log.length
    others = log.events.join(pl.DataFrame({"user_id": users.filter(~is_known)}), on="user_id", maintain_order="left")
    active = others.filter(at_the_end)["user_id"].unique().sort()
    moved = others.join(pl.DataFrame({"user_id": active}), on="user_id", maintain_order="left").select(
        "user_id", "item_id", pl.col("timestamp") + WEEK, "event", "value"
    )
    is_window = pl.col("timestamp") >= log.window[0]
    return Halves(
        log,
        scoring,
        known,
        reference_profile(known, log.items, scoring),
        moved.filter(~is_window),
        moved.filter(is_window),
        in_season,
    )


def in_season(log: Log, scoring: Scoring) -> list[str]:
    """Items nearest to the hundredth most popular one, by the release's vectors: a tenth of what it knows."""
    counts = log.events["item_id"].value_counts().sort("count", "item_id", descending=True)["item_id"].to_list()
    row_of = {item_id: row for row, item_id in enumerate(scoring.item_ids, start=1)}
    vectors = scoring.scorer.item_vectors
    assert vectors is not None
    vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    likeness = vectors @ vectors[row_of[next(item for item in counts[100:] if item in row_of)]]
    rows = np.argsort(-likeness[1:], kind="stable")[: len(scoring.item_ids) // 10]
    return [scoring.item_ids[row] for row in rows.tolist()]
