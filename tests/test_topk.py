"""The best k against a full sort."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from recops.topk import top_k


def sorted_whole(scores: np.ndarray, k: int) -> list[int]:
    """Score down, then row up, by Python's own sort; no candidate is scored -inf or NaN."""
    rows = [row for row, score in enumerate(scores.tolist()) if score > -math.inf]
    best = sorted(rows, key=lambda row: (-scores[row], row))[:k]
    return best + [0] * (k - len(best))


few_values = st.sampled_from([-math.inf, math.nan, -1.0, 0.0, 0.5, 2.0, math.inf])
many_values = st.floats(width=32, allow_nan=True, allow_infinity=True)


@settings(deadline=None)
@given(st.data(), st.integers(1, 30))
def test_top_k_is_the_head_of_a_full_sort(data, k):
    elements = data.draw(st.sampled_from([few_values, many_values]))
    scores_BN = data.draw(hnp.arrays(np.float32, st.tuples(st.integers(1, 3), st.integers(1, 24)), elements=elements))
    rows_BK, best_BK = top_k(scores_BN, k)
    for scores, rows, best in zip(scores_BN, rows_BK, best_BK, strict=True):
        assert rows.tolist() == sorted_whole(scores, k)
        found = np.array(sorted_whole(scores, k))
        num = int((scores > -np.inf).sum())
        np.testing.assert_array_equal(best[:num], scores[found][:num][: len(best)])
        assert (best[num:] == -np.inf).all()


@pytest.mark.parametrize("num_values", [3, 40, 100_000])
@pytest.mark.parametrize("k", [1, 10, 100])
def test_top_k_of_a_large_catalogue_with_ties(num_values, k):
    rng = np.random.default_rng(num_values)
    scores_BN = rng.integers(0, num_values, (2, 20_000)).astype(np.float32)
    scores_BN[:, rng.integers(0, 20_000, 5_000)] = -np.inf
    scores_BN[1, 7] = np.nan
    for scores, rows in zip(scores_BN, top_k(scores_BN, k)[0], strict=True):
        assert rows.tolist() == sorted_whole(scores, k)


def test_top_k_of_no_users():
    rows_BK, best_BK = top_k(np.zeros((0, 5), np.float32), 3)
    assert rows_BK.shape == best_BK.shape == (0, 3)
