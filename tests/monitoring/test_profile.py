"""The reference profile: which windows it holds, that it is JSON and always the same, and its empty case."""

import json

import numpy as np
import polars as pl

from recops.bundle import canonical_json
from recops.monitoring.features import HOUR_US, Scoring
from recops.monitoring.profile import nearest_window, reference_profile
from recops.runtime import Scorer


def test_profile_holds_several_lengths_in_the_later_half(shop, catalogue):
    profile = reference_profile(shop(seed=1, days=30), catalogue)
    assert [w["hours"] for w in profile["windows"]] == [6, 24, 168]
    assert [round(w["num_events"], -3) for w in profile["windows"]] == [2000, 8000, 14000]
    names = {"new_user_share", "new_item_share", "event_kind", "item_popularity", "history_length", "category"}
    assert set(profile["windows"][0]["features"]) == names | {"value", "events_per_hour"}
    # A longer window meets more users it did not know before; that is why lengths are kept apart.
    new = [w["features"]["new_user_share"] for w in profile["windows"]]
    assert new[0]["count"] / new[0]["n"] < new[2]["count"] / new[2]["n"]


def test_the_same_log_gives_the_same_bytes_whatever_the_order_of_equal_rows_in_the_catalogue(shop, catalogue, tmp_path):
    log = shop(seed=1, days=12)
    scorer = Scorer(num_items=300, item_scores=np.arange(301, dtype=np.float32), needs_history=False)
    scoring = Scoring(scorer, catalogue["item_id"].to_list())
    log.write_parquet(tmp_path / "events.parquet")
    catalogue.write_parquet(tmp_path / "items.parquet")
    first = canonical_json(reference_profile(log, catalogue, scoring))
    second = canonical_json(reference_profile(tmp_path / "events.parquet", tmp_path / "items.parquet", scoring))
    assert first == second
    assert {"top_score", "list_score", "top_k_coverage"} <= set(json.loads(first)["windows"][0]["features"])


def test_later_events_change_nothing_that_was_known_before(shop, catalogue):
    log = shop(seed=1, days=12)
    until = int(log["timestamp"].cast(pl.Int64).max())
    later = log.with_columns(pl.col("timestamp").dt.offset_by("40d"))
    # Both logs profiled up to the same moment: the later rows must not leak into it.
    both = pl.concat([log, later]).filter(pl.col("timestamp").cast(pl.Int64) <= until)
    assert reference_profile(both, catalogue) == reference_profile(log, catalogue)


def test_nearest_window_is_by_ratio():
    profile = {"windows": [{"hours": 6.0}, {"hours": 24.0}, {"hours": 168.0}]}
    assert [nearest_window(profile, h)["hours"] for h in (0.1, 11, 13, 60, 70, 9000)] == [6, 6, 24, 24, 168, 168]
    assert nearest_window({"windows": []}, 3) is None


def test_an_empty_log_has_no_windows(shop):
    profile = reference_profile(shop(seed=1, days=1).clear())
    assert (profile["num_events"], profile["windows"]) == (0, [])


def test_a_log_without_times_gives_its_last_fifth_and_no_volume(shop, catalogue):
    log = shop(seed=1, days=2).with_columns(timestamp=pl.lit(None, pl.Datetime("us", "UTC")))
    profile = reference_profile(log, catalogue)
    (window,) = profile["windows"]
    assert (window["hours"], window["num_events"]) == (None, log.height // 5)
    assert "events_per_hour" not in window["features"]


def test_a_log_shorter_than_any_window_is_one_window(shop):
    log = shop(seed=1, days=1).filter(pl.col("timestamp").dt.hour() < 4)
    (window,) = reference_profile(log)["windows"]
    assert 0 < window["hours"] < 6
    assert window["num_events"] == log.height - log.height // 2
    assert reference_profile(log.head(1))["windows"][0]["num_events"] == 1


def test_until_is_just_after_the_last_event(shop):
    log = shop(seed=1, days=1)
    profile = reference_profile(log)
    assert profile["until"] == int(log["timestamp"].cast(pl.Int64).max()) + 1
    assert profile["until"] - profile["since"] < 24 * HOUR_US
