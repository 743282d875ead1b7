"""Profiles of features, worked by hand."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recops.monitoring.drift_tests.ks import Ks
from recops.monitoring.drift_tests.psi import Psi
from recops.monitoring.features import (
    HOUR_US,
    Scoring,
    Span,
    categorical_profile,
    dependence,
    numeric_profile,
    score_features,
    volume_profile,
    window_features,
)
from recops.monitoring.log import read_log
from recops.params import DriftParams
from recops.runtime import Scorer


def test_numeric_profile_of_few_values_keeps_each_and_counts_nulls():
    profile = numeric_profile(np.array([1.0, 2.0, 2.0, 5.0, np.nan]))
    assert profile["edges"] == [1.0, 2.0, 5.0]
    assert profile["counts"] == [0, 1, 0, 2, 0, 1, 0]
    assert (profile["nulls"], profile["n"], profile["mean"]) == (1, 5, 2.5)
    current = numeric_profile(np.array([0.0, 1.5, 9.0]), profile)
    assert current["counts"] == [1, 0, 1, 0, 0, 0, 1]


def test_numeric_profile_of_nothing():
    profile = numeric_profile(np.array([]))
    assert (profile["edges"], profile["counts"], profile["n"], profile["mean"]) == ([], [0], 0, None)


def exact_ks(values: np.ndarray, other: np.ndarray) -> float:
    points = np.union1d(values, other)
    shares = [np.searchsorted(np.sort(side), points, side="right") / len(side) for side in (values, other)]
    return float(np.abs(shares[0] - shares[1]).max())


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 600), st.integers(1, 600), st.integers(0, 3))
def test_ks_on_the_bins_is_at_most_a_hundredth_below_the_exact_distance(seed, n, m, decimals):
    rng = np.random.default_rng(seed)
    values, other = np.round(rng.normal(size=n), decimals), np.round(rng.normal(rng.normal(), size=m), decimals)
    reference = numeric_profile(values)
    found = Ks().compare("x", reference, numeric_profile(other, reference), DriftParams()).statistic
    slack = 0.0 if len(np.unique(values)) <= 100 else 0.01 + 1 / n
    assert exact_ks(values, other) - slack - 1e-6 <= found <= exact_ks(values, other) + 1e-6


def test_a_current_value_below_the_only_reference_value_is_seen():
    reference = numeric_profile(np.full(1000, 5.0))
    current = numeric_profile(np.full(1000, 4.0), reference)
    assert Ks().compare("x", reference, current, DriftParams()).statistic == 1
    assert Psi().compare("x", reference, current, DriftParams()).drifted


def test_categorical_profile_keeps_fifty_names_and_aligns_to_the_reference():
    profile = categorical_profile({f"c{n:02d}": 100 - n for n in range(52)})
    assert len(profile["counts"]) == 50
    assert profile["other"] == 50 + 49
    current = categorical_profile({"c00": 3, "new": 4}, profile)
    assert (current["counts"]["c00"], current["counts"]["c01"], current["other"], current["n"]) == (3, 0, 4, 7)


def events(times_h: list[float], users: str, items: str, values: list[float] | None = None) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "user_id": list(users),
            "item_id": list(items),
            "timestamp": pl.Series([round(t * HOUR_US) for t in times_h]).cast(pl.Datetime("us", "UTC")),
            "event": ["click"] * len(users),
            "value": values or [None] * len(users),
        },
        schema_overrides={"value": pl.Float32},
    )


def test_window_features_by_hand():
    log = read_log(events([0, 1, 2, 3, 4, 5], "aabbca", "xxyxzz"))
    features = window_features(log, [Span(3, 6, cut=3)], [["c1", "c2"], [], ["c2"]], None)
    # From position 3: b on x, c on z, a on z. Before it: a and b, x (twice) and y.
    assert features["new_user_share"] == {"kind": "share", "count": 1, "n": 3, "dependence": 1}
    assert features["new_item_share"] == {"kind": "share", "count": 2, "n": 3, "dependence": 1}
    assert features["category"]["counts"] == {"c2": 3, "c1": 1}
    assert features["history_length"]["edges"] == [0, 1, 2]
    assert features["history_length"]["counts"] == [0, 1, 0, 1, 0, 1, 0]
    assert "value" not in features
    # a has 3 events, b 2, c 1: (9 + 4 + 1) / 6.
    whole = window_features(log, [Span(0, 6, 0)], None, None)
    for name in ("history_length", "event_kind", "new_item_share"):
        assert whole[name]["dependence"] == pytest.approx(14 / 6, abs=1e-6)
    known = window_features(log, [Span(3, 6, 3)], None, None, known_users=np.array([0, 0, 1], bool))
    assert known["new_user_share"]["count"] == 0


def test_popularity_mix_leaves_out_what_was_not_known():
    # Before the cut ten items once each: by id, a is the first tenth and j the last. Then a, a, a, j and k.
    log = read_log(events(list(range(15)), "u" * 15, "abcdefghij" + "aaajk"))
    features = window_features(log, [Span(10, 15, cut=10)], None, None)
    assert features["item_popularity"]["counts"] == {"01": 3, "10": 1}
    assert features["item_popularity"]["n"] == 4


def test_an_item_without_category_counts_as_none():
    log = read_log(events([0, 1], "ab", "xy"))
    features = window_features(log, [Span(0, 2, 0)], [["c1"], []], None)
    assert features["category"]["counts"] == {"(none)": 1, "c1": 1}


def test_volume_is_relative_to_the_reference_and_counts_hours_from_since():
    log = read_log(events([0.1, 0.2, 0.3, 1.5, 3.0, 3.9, 4.0], "aaaaaaa", "xxxxxxx"))
    profile = volume_profile(log, 0, 4 * HOUR_US)  # 3, 1, 0, 2 events; mean 1.5
    assert profile["per_hour"] == 1.5
    assert profile["edges"] == [0, pytest.approx(0.666667), pytest.approx(1.333333), 2]
    current = volume_profile(log, 3 * HOUR_US, 4 * HOUR_US + HOUR_US // 4, profile)  # the last quarter of an hour drops
    assert current["counts"] == [0, 0, 0, 0, 0, 1, 0, 0, 0]
    half = volume_profile(log, 3 * HOUR_US, 4 * HOUR_US + HOUR_US // 2, profile)  # 2, and 1 in half an hour: 2
    assert half["counts"] == [0, 0, 0, 0, 0, 2, 0, 0, 0]


def test_a_night_is_compared_with_nights(shop):
    log = read_log(shop(seed=0, days=10, per_day=4000))
    start = int(log.time[0]) // (24 * HOUR_US) * 24 * HOUR_US
    reference = volume_profile(log, start, start + 9 * 24 * HOUR_US)
    night = volume_profile(log, start + (9 * 24 + 14) * HOUR_US, start + (9 * 24 + 22) * HOUR_US, reference)
    assert len(reference["expected"]) == 24
    assert night["per_hour"] < reference["per_hour"] / 2
    assert 0.9 < night["mean"] < 1.1


def test_dependence_of_neighbours():
    assert dependence(np.ones(10)) == 1
    # 0 0 1 1: centred -.5 -.5 .5 .5, products .25 -.25 .25 over squares 1: r = .25, 1.25 / .75.
    assert dependence(np.array([0.0, 0.0, 1.0, 1.0])) == pytest.approx(5 / 3, abs=1e-6)
    assert dependence(np.arange(1000.0)) == 7


def test_scores_are_those_of_the_windows_users():
    log = read_log(events([0, 1, 2], "aab", "xyx"))
    scorer = Scorer(num_items=3, item_scores=np.array([0, 5, 4, 3], np.float32), needs_history=True)
    features = score_features(log, Span(0, 3, 0), Scoring(scorer, ["x", "y", "z"]))
    # a has seen x and y: best 3, mean 3. b has seen x: best 4, mean 3.5.
    assert features["top_score"]["edges"] == [3, 4]
    assert features["list_score"]["edges"] == [3, 3.5]
    assert "top_k_coverage" not in features  # fewer than 100 users
    seen = score_features(log, Span(2, 3, 0), Scoring(scorer, ["x", "y", "z"], remove_seen=False))
    assert seen["top_score"]["edges"] == [5]
    assert score_features(log, Span(0, 3, 0), Scoring(scorer, ["q", "r", "s"])) == {}


def test_coverage_counts_the_items_a_hundred_lists_show():
    num = 150
    log = read_log(
        pl.DataFrame(
            {
                "user_id": [f"u{n:03d}" for n in range(num)],
                "item_id": ["x"] * num,
                "timestamp": pl.Series(range(num)).cast(pl.Datetime("us", "UTC")),
                "event": ["click"] * num,
            }
        )
    )
    scorer = Scorer(num_items=40, item_scores=np.arange(41, dtype=np.float32), needs_history=False)
    features = score_features(log, Span(0, num, 0), Scoring(scorer, ["x", *(f"i{n}" for n in range(39))]))
    assert features["top_k_coverage"] == {"kind": "share", "count": 10, "n": 40}
    assert features["top_score"]["n"] == num
