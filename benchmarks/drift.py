"""How often drift is called where nothing moved, and how often a planted shift is found.

`python -m benchmarks.drift [SET ...] [--quick]` prints the tables and writes results/drift.json. Real logs
(MovieLens-1M, Online Retail), a release of the model `spectral` fitted on all but the last week before a cut.

Without a shift: the users are divided by chance. One half is the log that the reference profile is made of; the window
are users of the other half, active in the reference's last week, drawn with replacement until there are as many, each
with all they ever did, moved on by a week so that the window follows the reference. So no event stands on both sides.
A window is a false alarm when any feature drifts. Planted: the same windows with a shift in their events.
"""

import os

if __name__ == "__main__":
    # Read when the libraries load, which the imports below do.
    os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")

import argparse
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from scipy.stats import beta

from benchmarks.report import write_results
from recops.data.interactions import make_interactions
from recops.models.spectral import Spectral
from recops.monitoring.drift import DriftVerdict, Pairs, compare, microseconds, window_profile
from recops.monitoring.embedding import FEATURE, user_vector_pair
from recops.monitoring.features import Scoring
from recops.monitoring.log import read_log
from recops.monitoring.profile import reference_profile
from recops.params import DriftParams
from recops.release.export import torch_scorer

DATA = Path(os.environ.get("RECOPS_TEST_DATA", "../shared/data"))
WEEK = timedelta(days=7)
FACTORS = 64
WINDOWS, PLANTED = 100, 10
QUICK = 4


@dataclass(frozen=True)
class Log:
    """Events in time order before `cut`, and the catalogue's categories where it has any."""

    name: str
    events: pl.DataFrame
    items: pl.DataFrame | None
    cut: datetime


def movielens() -> Log:
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
    return before("movielens-1m", events, items, datetime(2000, 8, 15, tzinfo=UTC))


def retail() -> Log:
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
    return before("online-retail", events, None, datetime(2011, 10, 10, tzinfo=UTC))


def before(name: str, events: pl.DataFrame, items: pl.DataFrame | None, cut: datetime) -> Log:
    events = events.filter(pl.col("timestamp") < cut).sort("timestamp", maintain_order=True)
    return Log(name, events, items, cut)


SETS = {"movielens-1m": movielens, "online-retail": retail}


def fitted(log: Log) -> Scoring:
    """The release: it knows nothing of the last week, as one that has served for a week."""
    frame = log.events.filter(pl.col("timestamp") < log.cut - WEEK)
    train = make_interactions(frame.with_columns(signal=pl.lit("positive"), weight=pl.lit(1.0)))
    model = Spectral(Spectral.Config(num_factors=FACTORS, num_ideal=FACTORS), train.num_users, train.num_items, 0)
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

    def judge(self, window: pl.DataFrame) -> DriftVerdict:
        since, until = self.log.cut, self.log.cut + WEEK
        window = window.sort("timestamp", maintain_order=True)
        whole = pl.concat([self.known, self.earlier, window])
        current = window_profile(whole, since, until, self.reference, self.log.items, self.scoring)
        times = microseconds(since), microseconds(until)
        pairs: Pairs = {FEATURE: user_vector_pair(read_log(whole), *times, self.reference, self.scoring)}
        return compare(self.reference, current, DriftParams(), pairs)


def halves(log: Log, scoring: Scoring, in_season: list[str], seed: int) -> Halves:
    chance = np.random.default_rng(seed)
    users = log.events["user_id"].unique().sort()
    is_known = pl.Series(chance.random(len(users)) < 0.5)
    known = log.events.join(pl.DataFrame({"user_id": users.filter(is_known)}), on="user_id", maintain_order="left")
    in_week = pl.col("timestamp") >= log.cut - WEEK
    num_active = known.filter(in_week)["user_id"].n_unique()
    others = log.events.join(pl.DataFrame({"user_id": users.filter(~is_known)}), on="user_id", maintain_order="left")
    active = others.filter(in_week)["user_id"].unique().sort()
    drawn = active[chance.integers(0, len(active), num_active)]
    draws = pl.DataFrame({"user_id": drawn, "as_id": [f"draw{n}" for n in range(len(drawn))]})
    moved = others.join(draws, on="user_id", maintain_order="left").select(
        pl.col("as_id").alias("user_id"), "item_id", pl.col("timestamp") + WEEK, "event", "value"
    )
    is_window = pl.col("timestamp") >= log.cut
    return Halves(
        log,
        scoring,
        known,
        reference_profile(known, log.items, scoring),
        moved.filter(~is_window),
        moved.filter(is_window),
        in_season,
    )


def some(num: int, share: float, chance: np.random.Generator) -> pl.Series:
    return pl.Series(chance.random(num) < share)


def catalogue_change(drawn: Halves, share: float, chance: np.random.Generator) -> pl.DataFrame:
    """A share of the window's items have new ids, as after an import that numbers them anew."""
    items = drawn.window["item_id"].unique().sort()
    is_new = pl.col("item_id").is_in(items.filter(some(len(items), share, chance)).to_list())
    renamed = pl.when(is_new).then("new" + pl.col("item_id")).otherwise("item_id")
    return drawn.window.with_columns(renamed.alias("item_id"))


def season(drawn: Halves, times: float, chance: np.random.Generator) -> pl.DataFrame:
    """A tenth of the items, alike by the release's vectors, is wanted so many times as often by those who come."""
    window = drawn.window
    weight = np.where(window["item_id"].is_in(drawn.in_season).to_numpy(), times, 1.0)
    return window[np.sort(chance.choice(len(window), len(window), p=weight / weight.sum()))]


def bots(drawn: Halves, share: float, chance: np.random.Generator) -> pl.DataFrame:
    """Five new users add a share of events, all on the same twenty items, at times when others come."""
    window = drawn.window
    num = round(len(window) * share)
    items = window["item_id"].unique().sort()
    targets = items[chance.integers(0, len(items), 20)]
    added = window[chance.integers(0, len(window), num)].with_columns(
        user_id=pl.Series([f"bot{n}" for n in chance.integers(0, 5, num)]),
        item_id=targets[chance.integers(0, 20, num)],
    )
    return pl.concat([window, added])


def broken_field(drawn: Halves, share: float, chance: np.random.Generator) -> pl.DataFrame:
    """The value is lost in a share of events."""
    lost = some(len(drawn.window), share, chance)
    return drawn.window.with_columns(pl.when(lost).then(None).otherwise("value").alias("value"))


def popularity_shock(drawn: Halves, share: float, chance: np.random.Generator) -> pl.DataFrame:
    """One item that few had takes a share of all events."""
    counts = drawn.window["item_id"].value_counts().sort("count", "item_id")
    hit = counts["item_id"][int(chance.integers(0, len(counts) // 2))]
    moved = some(len(drawn.window), share, chance)
    return drawn.window.with_columns(pl.when(moved).then(pl.lit(hit)).otherwise("item_id").alias("item_id"))


Shift = Callable[[Halves, float, np.random.Generator], pl.DataFrame]
SHIFTS: dict[str, tuple[Shift, tuple[float, ...]]] = {
    "catalogue change": (catalogue_change, (0.05, 0.2, 0.5)),
    "season": (season, (1.5, 3.0, 10.0)),
    "bot traffic": (bots, (0.1, 0.3, 1.0)),
    "broken field": (broken_field, (0.1, 0.3, 1.0)),
    "popularity shock": (popularity_shock, (0.05, 0.1, 0.3)),
}


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


def measure(log: Log, num_windows: int, num_planted: int) -> dict[str, Any]:
    scoring = fitted(log)
    alike = in_season(log, scoring)
    alarms: Counter[str] = Counter()
    effects: dict[tuple[str, str], list[float]] = {}
    found: dict[str, list[tuple[str, ...]]] = {}
    num_alarms, events = 0, []
    for seed in range(num_windows):
        drawn = halves(log, scoring, alike, seed)
        events.append(len(drawn.window))
        verdict = drawn.judge(drawn.window)
        num_alarms += verdict.verdict == "drift"
        alarms.update(verdict.features)
        for result in verdict.results:
            effects.setdefault((result.feature, result.test), []).append(result.statistic / result.threshold)
        if seed < num_planted:
            for name, (shift, strengths) in SHIFTS.items():
                for strength in strengths:
                    window = shift(drawn, strength, np.random.default_rng(seed))
                    found.setdefault(f"{name} {strength:g}", []).append(drawn.judge(window).features)
    return {
        "events_in_a_window": round(float(np.mean(events))),
        "false_alarms": {
            "windows": num_windows,
            "alarms": num_alarms,
            "rate": round(num_alarms / num_windows, 4),
            "upper_95": round(float(beta.ppf(0.95, num_alarms + 1, num_windows - num_alarms)), 4),
            "by_feature": dict(sorted(alarms.items())),
        },
        # How near to its threshold a test comes by chance: the 95 % quantile of effect / threshold.
        "effect_by_chance": {
            f"{f} {t}": round(float(np.quantile(v, 0.95)), 3) for (f, t), v in sorted(effects.items())
        },
        "power": {
            name: {
                "windows": len(features),
                "found": sum(bool(one) for one in features),
                "by_feature": dict(Counter(f for one in features for f in one).most_common()),
            }
            for name, features in found.items()
        },
    }


def show(name: str, numbers: dict[str, Any]) -> None:
    false = numbers["false_alarms"]
    print(f"\n{name}: windows of a week, about {numbers['events_in_a_window']} events")
    print(
        f"  no shift            {false['alarms']} of {false['windows']} windows called drift "
        f"(at most {false['upper_95']:.1%} with 95 % confidence) {false['by_feature'] or ''}"
    )
    for shift, power in numbers["power"].items():
        features = ", ".join(f"{feature} {count}" for feature, count in power["by_feature"].items())
        print(f"  {shift:22}{power['found']:3} of {power['windows']}   {features}")
    near = sorted(numbers["effect_by_chance"].items(), key=lambda one: -one[1])[:8]
    print("  nearest to their thresholds by chance:", ", ".join(f"{test} {share:.2f}" for test, share in near))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sets", nargs="*", choices=[[], *SETS], default=[], metavar="SET")
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()
    windows, planted = (QUICK, 1) if arguments.quick else (WINDOWS, PLANTED)
    numbers: dict[str, Any] = {}
    names = arguments.sets or (["online-retail"] if arguments.quick else list(SETS))
    for name in names:
        began = time.process_time()
        numbers[name] = measure(SETS[name](), windows, planted)
        numbers[name]["cpu_seconds"] = round(time.process_time() - began, 1)
        show(name, numbers[name])
    print(f"wrote {write_results('drift', numbers, arguments.quick)}")


if __name__ == "__main__":
    main()
