"""The verdict: silent where nothing changed, right about what was planted, and defined where it cannot be known."""

import json
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from recops.bundle import PROFILE, Bundle, canonical_json
from recops.errors import CallError
from recops.monitoring.drift import benjamini_hochberg, compare, drift_window, window_profile
from recops.monitoring.features import Scoring
from recops.monitoring.profile import reference_profile
from recops.params import DriftParams
from recops.runtime import Scorer

START = datetime(2024, 1, 1, tzinfo=UTC)  # of the made-up shop
DAYS = 28
SINCE, UNTIL = START + timedelta(days=DAYS), START + timedelta(days=DAYS + 1)


def judge(log: pl.DataFrame, window: pl.DataFrame, catalogue: pl.DataFrame, params: DriftParams | None = None):
    reference = reference_profile(log, catalogue)
    return compare(
        reference, window_profile(pl.concat([log, window]), SINCE, UNTIL, reference, catalogue), params or DriftParams()
    )


def test_at_most_one_of_twenty_windows_without_a_shift_is_called_drift(shop, catalogue):
    verdicts = [judge(shop(seed, DAYS), shop(seed, 1, first_day=DAYS), catalogue).verdict for seed in range(20)]
    assert verdicts.count("drift") <= 1
    assert set(verdicts) <= {"drift", "none"}


PLANTED = {
    "category": lambda w: w.with_columns(
        pl.when(pl.int_range(pl.len()) % 2 == 0).then(pl.lit("i4")).otherwise("item_id").alias("item_id")
    ),
    "value": lambda w: w.with_columns((pl.col("value") + 2).clip(1, 5)),
    "event_kind": lambda w: w.with_columns(event=pl.lit("purchase")),
    "new_item_share": lambda w: w.with_columns(
        pl.when(pl.int_range(pl.len()) % 10 == 0).then(pl.lit("brand-new")).otherwise("item_id").alias("item_id")
    ),
    "new_user_share": lambda w: w.with_columns(
        pl.when(pl.int_range(pl.len()) % 2 == 0).then("n" + pl.col("user_id")).otherwise("user_id").alias("user_id")
    ),
    "item_popularity": lambda w: w.with_columns(
        pl.when(pl.int_range(pl.len()) % 2 == 0)
        .then("i" + (200 + pl.int_range(pl.len()) % 100).cast(pl.String))
        .otherwise("item_id")
        .alias("item_id")
    ),
    "events_per_hour": lambda w: pl.concat([w] * 4).sort("timestamp"),
    "history_length": lambda w: w.with_columns(user_id="r" + (pl.int_range(pl.len()) % 20).cast(pl.String)),
}


@pytest.mark.parametrize("feature", sorted(PLANTED))
def test_a_planted_shift_is_always_found_and_named(feature, shop, catalogue):
    for seed in range(3):
        verdict = judge(shop(seed, DAYS), PLANTED[feature](shop(seed, 1, first_day=DAYS)), catalogue)
        assert verdict.verdict == "drift"
        assert feature in verdict.features
        if feature not in ("new_item_share", "new_user_share"):
            psi = next(r for r in verdict.results if r.feature == feature and r.test == "psi")
            assert psi.statistic >= 0.2


def test_a_changed_scorer_input_moves_scores_and_coverage(shop, catalogue):
    log = shop(3, DAYS, num_users=400)
    vectors = np.vstack([np.zeros(8), np.random.default_rng(0).normal(size=(300, 8))]).astype(np.float32)

    def encode(item_idx: np.ndarray) -> np.ndarray:
        return vectors[item_idx].sum(axis=1)

    scoring = Scoring(
        Scorer(300, encode=encode, item_vectors=vectors), catalogue["item_id"].to_list(), remove_seen=False
    )
    reference = reference_profile(log, catalogue, scoring)
    window = shop(3, 1, first_day=DAYS, num_users=400)

    def features(window: pl.DataFrame) -> tuple[str, ...]:
        current = window_profile(pl.concat([log, window]), SINCE, UNTIL, reference, catalogue, scoring)
        return compare(reference, current, DriftParams()).features

    assert features(window) == ()
    strangers = window.with_columns(user_id="n" + pl.col("user_id"), item_id=pl.lit("i7"))
    assert {"top_score", "list_score", "top_k_coverage"} <= set(features(strangers))


def test_too_few_events_judge_nothing(shop, catalogue):
    verdict = judge(shop(0, DAYS), shop(0, 1, first_day=DAYS).head(499), catalogue)
    assert (verdict.verdict, verdict.num_events, verdict.results) == ("too_few_events", 499, ())
    assert "drift.min_events" in verdict.reason
    nothing = judge(shop(0, DAYS), shop(0, 1).clear(), catalogue)
    assert (nothing.verdict, nothing.num_events) == ("too_few_events", 0)
    empty_release = judge(shop(0, 1).clear(), shop(0, 1, first_day=DAYS), catalogue)
    assert empty_release.verdict == "too_few_events"


def test_min_features_must_drift_before_the_verdict_is_drift(shop, catalogue):
    window = PLANTED["event_kind"](shop(0, 1, first_day=DAYS))
    one = judge(shop(0, DAYS), window, catalogue)
    assert (one.verdict, one.features) == ("drift", ("event_kind",))
    assert judge(shop(0, DAYS), window, catalogue, DriftParams(min_features=2)).verdict == "none"


def test_since_is_inside_the_window_and_until_is_not(shop):
    log = shop(0, DAYS).filter(pl.col("timestamp").dt.minute() > 0)
    edges = log.head(2).with_columns(timestamp=pl.Series([SINCE, UNTIL]).cast(pl.Datetime("us", "UTC")))
    current = window_profile(pl.concat([log, edges]), SINCE, UNTIL, reference_profile(log))
    assert current["num_events"] == 1


def test_a_release_that_grows_old_sees_its_share_of_unknown_items_grow(shop, catalogue):
    log = shop(0, DAYS)
    reference = reference_profile(log, catalogue)
    # An item of a week ago: no news to the log, but still unknown to the release.
    new = shop(0, 1, first_day=DAYS).with_columns(item_id=pl.lit("brand-new"))
    later = new.with_columns(pl.col("timestamp").dt.offset_by("7d"))
    whole = pl.concat([log, new, later])
    current = window_profile(whole, SINCE + timedelta(days=7), UNTIL + timedelta(days=7), reference, catalogue)
    assert current["features"]["new_item_share"]["count"] == later.height


def test_users_and_items_known_otherwise_are_not_new(shop, catalogue):
    log, window = shop(0, DAYS), shop(0, 1, first_day=DAYS)
    scoring = Scoring(Scorer(300, item_scores=np.zeros(301, np.float32)), catalogue["item_id"].to_list())
    reference = reference_profile(log, catalogue)
    current = window_profile(
        window, SINCE, UNTIL, reference, catalogue, scoring, known_users=set(log["user_id"].to_list())
    )
    assert current["features"]["new_item_share"]["count"] == 0
    assert current["features"]["new_user_share"]["count"] < window.height / 2


def test_a_call_that_cannot_be_answered_says_so(shop):
    log = shop(0, 2)
    reference = reference_profile(log)
    with pytest.raises(CallError, match="without zone"):
        window_profile(log, datetime(2024, 1, 1), UNTIL, reference)
    with pytest.raises(CallError, match="window is empty"):
        window_profile(log, UNTIL, UNTIL, reference)
    untimed = log.with_columns(timestamp=pl.lit(None, pl.Datetime("us", "UTC")))
    with pytest.raises(CallError, match="no timestamps"):
        window_profile(untimed, SINCE, UNTIL, reference)


def test_features_on_one_side_only_are_named_not_judged(shop, catalogue):
    log = shop(0, DAYS)
    reference = reference_profile(log.with_columns(timestamp=pl.lit(None, pl.Datetime("us", "UTC"))), catalogue)
    current = window_profile(log, START + timedelta(days=14), UNTIL, reference)
    verdict = compare(reference, current, DriftParams())
    assert verdict.skipped == {"category": "not in the current window"}


def test_the_verdict_is_json_and_the_same_each_time(shop, catalogue):
    values = [
        json.dumps(judge(shop(0, DAYS), shop(0, 1, first_day=DAYS), catalogue).as_json(), allow_nan=False)
        for _ in range(2)
    ]
    assert values[0] == values[1]


def test_benjamini_hochberg_by_hand():
    # Sorted .01 .02 .03 .5, times 4/1 4/2 4/3 4/4: .04 .04 .04 .5, each at most the next.
    assert benjamini_hochberg([0.03, 0.5, 0.01, 0.02]) == pytest.approx([0.04, 0.5, 0.04, 0.04])
    assert benjamini_hochberg([]) == []
    assert benjamini_hochberg([None]) == [None]


def test_drift_window_judges_against_the_profile_in_the_bundle(shop, catalogue, tmp_path):
    log = shop(0, DAYS)
    scorer = Scorer(300, item_scores=np.arange(301, dtype=np.float32), needs_history=False)
    scoring = Scoring(scorer, catalogue["item_id"].to_list())
    (tmp_path / PROFILE).write_text(canonical_json(reference_profile(log, catalogue, scoring)), encoding="utf-8")
    bundle = Bundle(tmp_path, "id", {}, {"item_id": scoring.item_ids}, scorer, np.zeros(301, np.float32))
    pl.concat([log, shop(0, 1, first_day=DAYS)]).write_parquet(tmp_path / "events.parquet")
    verdict, current = drift_window(tmp_path / "events.parquet", SINCE, UNTIL, bundle, DriftParams(), catalogue)
    assert (verdict.verdict, verdict.skipped, verdict.reference_hours) == ("none", {}, 24)
    assert verdict.since == "2024-01-29T00:00:00+00:00"
    assert {r.feature for r in verdict.results} == set(current["features"]) == set(nearest(bundle.profile))


def nearest(profile: dict) -> dict:
    return next(w["features"] for w in profile["windows"] if w["hours"] == 24)
