"""Drift on real time: MovieLens-1M weeks and a year apart, and days of a news site."""

import tarfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from recops.monitoring.drift import DriftVerdict, compare, window_profile
from recops.monitoring.profile import reference_profile
from recops.params import DriftParams

pytestmark = pytest.mark.real_data
CUT = datetime(2000, 8, 15, tzinfo=UTC)
WEEK = timedelta(days=7)


@pytest.fixture(scope="module")
def movielens(data_dir: Path) -> tuple[pl.DataFrame, pl.DataFrame]:
    ratings = pl.read_csv(data_dir / "movielens-1m" / "ratings.csv.gz")
    events = ratings.select(
        user_id=pl.col("userId").cast(pl.String),
        item_id=pl.col("movieId").cast(pl.String),
        timestamp=pl.from_epoch("timestamp", time_unit="s").cast(pl.Datetime("us", "UTC")),
        event=pl.lit("rating"),
        value=pl.col("rating").cast(pl.Float32),
    ).sort("timestamp", maintain_order=True)
    lines = (data_dir / "movielens-1m" / "movies.dat").read_text(encoding="latin-1").splitlines()
    movies = [line.split("::") for line in lines]
    items = pl.DataFrame({"item_id": [m[0] for m in movies], "categories": [m[2].split("|") for m in movies]})
    return events, items


def judge(
    events: pl.DataFrame, items: pl.DataFrame | None, cut: datetime, since: datetime, until: datetime
) -> DriftVerdict:
    reference = reference_profile(events.filter(pl.col("timestamp") < cut), items)
    return compare(reference, window_profile(events, since, until, reference, items), DriftParams())


def psi_of(verdict: DriftVerdict, feature: str) -> float:
    return next(r.statistic for r in verdict.results if r.feature == feature and r.test == "psi")


def test_weeks_beside_the_cut_are_quiet_and_a_year_later_is_not(movielens):
    events, items = movielens
    assert judge(events, items, CUT, CUT - WEEK, CUT).verdict == "none"
    assert judge(events, items, CUT, CUT, CUT + WEEK).verdict == "none"
    later = datetime(2001, 8, 1, tzinfo=UTC)
    verdict = judge(events, items, CUT, later, later + timedelta(days=31))
    # Hardly anyone joins any more: those still there have long histories and give lower ratings, and fewer of them.
    assert {"events_per_hour", "history_length", "new_user_share", "value"} <= set(verdict.features)
    assert psi_of(verdict, "value") > 0.2


def test_of_twenty_redrawn_weeks_of_the_reference_at_most_one_is_drift(movielens):
    """The users of a week drawn anew with replacement, each with all they ever did: as the week might have been."""
    events, items = movielens
    events = events.filter(pl.col("timestamp") < CUT)
    reference = reference_profile(events, items)
    in_week = pl.col("timestamp") >= CUT - WEEK
    active = events.filter(in_week)["user_id"].unique().sort()
    verdicts = []
    for seed in range(20):
        drawn = active[np.random.default_rng(seed).integers(0, len(active), len(active))]
        draws = pl.DataFrame({"user_id": drawn, "as_id": [f"draw{n}" for n in range(len(drawn))]})
        redrawn = events.join(draws, on="user_id").drop("user_id").rename({"as_id": "user_id"})
        log = pl.concat([events.filter(~in_week), redrawn.select(events.columns)])
        current = window_profile(log, CUT - WEEK, CUT, reference, items)
        verdicts.append(compare(reference, current, DriftParams()))
    assert sum(v.verdict == "drift" for v in verdicts) <= 1, [v.features for v in verdicts]


def test_half_of_a_real_week_moved_to_one_genre_is_found(movielens):
    events, items = movielens
    horror = items.filter(pl.col("categories").list.contains("Horror"))["item_id"].to_list()
    moved = events.filter(pl.col("timestamp") < CUT + WEEK).with_columns(
        pl.when((pl.col("timestamp") >= CUT) & (pl.int_range(pl.len()) % 2 == 0))
        .then(pl.lit(horror[0]))
        .otherwise("item_id")
        .alias("item_id")
    )
    verdict = judge(moved, items, CUT, CUT, CUT + WEEK)
    assert "category" in verdict.features
    assert psi_of(verdict, "category") > 0.2


def test_a_news_site_needs_new_models_within_days(data_dir):
    """Globo.com: articles live for a day, so that after some days most clicks are on articles a release never saw."""
    frames = []
    with tarfile.open(data_dir / "globo-news" / "clicks.tar.xz", "r:xz") as archive:
        for member in archive:
            hour = member.name.rpartition("_")[2].removesuffix(".csv")
            if not hour.isdigit() or int(hour) >= 170:
                continue
            table = archive.extractfile(member).read()
            if table.count(b"\n") > 1:
                frames.append(pl.read_csv(table, columns=["user_id", "click_article_id", "click_timestamp"]))
    events = pl.concat(frames).select(
        user_id=pl.col("user_id").cast(pl.String),
        item_id=pl.col("click_article_id").cast(pl.String),
        timestamp=pl.from_epoch("click_timestamp", time_unit="ms").cast(pl.Datetime("us", "UTC")),
        event=pl.lit("click"),
    )
    cut = datetime(2017, 10, 5, tzinfo=UTC)
    next_day = judge(events, None, cut, cut, cut + timedelta(days=1))
    third_day = judge(events, None, cut, cut + timedelta(days=2), cut + timedelta(days=3))
    assert {"new_item_share", "item_popularity"} <= set(third_day.features)
    first, third = (next(r for r in v.results if r.feature == "new_item_share") for v in (next_day, third_day))
    assert third.statistic > first.statistic + 0.2
