"""Vectors of users: what moved is found, what cannot be compared is said, and nobody's vector stays anywhere."""

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from recops.calibration import Fusion
from recops.monitoring.drift import compare, microseconds, window_profile
from recops.monitoring.embedding import FEATURE, along_difference, user_vector_pair
from recops.monitoring.features import Scoring
from recops.monitoring.log import read_log
from recops.monitoring.profile import reference_profile
from recops.monitoring.report import drift_page
from recops.params import DriftParams
from recops.runtime import Scorer

START = datetime(2024, 1, 1, tzinfo=UTC)  # of the made-up shop
DAYS = 14
SINCE, UNTIL = START + timedelta(days=DAYS), START + timedelta(days=DAYS + 1)
VECTORS = np.vstack([np.zeros(6), np.random.default_rng(0).normal(size=(300, 6))]).astype(np.float32)
SUM = Scorer(300, encode=lambda item_idx: VECTORS[item_idx].sum(axis=1), item_vectors=VECTORS)


def pair_of(shop, catalogue, window: pl.DataFrame, scorer: Scorer = SUM):
    whole = shop(0, DAYS)
    reference = reference_profile(whole, catalogue)
    scoring = Scoring(scorer, catalogue["item_id"].to_list())
    log = read_log(pl.concat([whole, window]))
    pair = user_vector_pair(log, microseconds(SINCE), microseconds(UNTIL), reference, scoring)
    current = window_profile(pl.concat([whole, window]), SINCE, UNTIL, reference, catalogue)
    return pair, reference, current


def other_taste(window: pl.DataFrame) -> pl.DataFrame:
    """Everybody is new and takes one item of the middle, whatever they would have taken."""
    return window.with_columns(user_id="n" + pl.col("user_id"), item_id=pl.lit("i77"))


def test_another_taste_is_found_and_the_same_is_not(shop, catalogue):
    for window, expected in ((shop(0, 1, first_day=DAYS), False), (other_taste(shop(0, 1, first_day=DAYS)), True)):
        pair, reference, current = pair_of(shop, catalogue, window)
        verdict = compare(reference, current, DriftParams(), {FEATURE: pair})
        (result,) = [r for r in verdict.results if r.feature == FEATURE]
        assert (result.test, result.drifted) == ("mmd", expected)
        assert (FEATURE in verdict.features) == expected
        assert "<h3>user_vectors" in drift_page(verdict, reference, current, {FEATURE: pair})
        assert FEATURE not in reference["windows"][0]["features"]


def test_vectors_have_length_one_and_are_of_those_active(shop, catalogue):
    window = shop(0, 1, first_day=DAYS)
    pair, _, _ = pair_of(shop, catalogue, other_taste(window))
    assert np.linalg.norm(pair[1]["vectors"], axis=1) == pytest.approx(1, abs=1e-5)
    assert pair[1]["vectors"] == pytest.approx(
        np.tile(VECTORS[78] / np.linalg.norm(VECTORS[78]), (pair[1]["n"], 1)), abs=1e-5
    )
    before, now = along_difference(*pair)
    assert now.mean() > before.mean()


def test_what_cannot_be_compared_is_said(shop, catalogue):
    window = shop(0, 1, first_day=DAYS)
    popular = Scorer(300, item_scores=np.zeros(301, np.float32), needs_history=False)
    pair, reference, current = pair_of(shop, catalogue, window, popular)
    assert pair == "the release makes no vectors of users"
    verdict = compare(reference, current, DriftParams(), {FEATURE: pair})
    assert verdict.skipped[FEATURE] == pair
    few, _, _ = pair_of(shop, catalogue, window.with_columns(user_id=pl.lit("u1")))
    assert few.endswith("1 in the window, 100 are asked for")
    untimed = read_log(window.with_columns(timestamp=pl.lit(None, pl.Datetime("us", "UTC"))))
    scoring = Scoring(SUM, catalogue["item_id"].to_list())
    assert user_vector_pair(untimed, 0, 1, reference, scoring) == "the log has no times"


def test_of_a_fusion_the_heaviest_model_with_vectors_speaks(shop, catalogue):
    popular = Scorer(300, item_scores=np.zeros(301, np.float32), needs_history=False)
    members = (popular, SUM)
    both = Scorer(300, members=members, fusion=Fusion(np.array([[0.9, 0.1]], np.float32)))
    window = shop(0, 1, first_day=DAYS)
    fused, alone = (pair_of(shop, catalogue, window, scorer)[0] for scorer in (both, SUM))
    assert np.array_equal(fused[1]["vectors"], alone[1]["vectors"])
