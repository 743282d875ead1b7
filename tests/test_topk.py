"""The best k against a full sort."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from recops.topk import largest_products, top_k


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


@settings(max_examples=40, deadline=None)
@given(
    num_items=st.sampled_from([1, 7, 8, 9, 100, 4095, 4096, 4097, 9001]),
    num=st.integers(1, 60),
    dim=st.integers(1, 3),
    seed=st.integers(0, 1000),
)
def test_the_largest_products_are_among_those_proposed(num_items: int, num: int, dim: int, seed: int) -> None:
    """With whole numbers, so that there are many ties: all that tie with the last are there."""
    rng = np.random.default_rng(seed)
    items = rng.integers(-5, 6, (num_items + 1, dim)).astype(np.float32)
    items[0] = 0
    users = rng.integers(-5, 6, (3, dim)).astype(np.float32)
    nums = [num, 1, num]
    for user, wanted, rows in zip(users, nums, largest_products(users, items, nums), strict=True):
        scores = items @ user
        scores[0] = -np.inf
        edge = np.sort(scores)[::-1][min(wanted, num_items) - 1]
        assert set(np.flatnonzero(scores >= edge)) - {0} <= set(rows.tolist())
        assert (np.diff(rows) > 0).all() and 0 not in rows and rows[-1] <= num_items


def test_few_more_than_the_largest_are_proposed() -> None:
    rng = np.random.default_rng(0)
    (rows,) = largest_products(
        rng.standard_normal((1, 8)).astype(np.float32), rng.standard_normal((50_000, 8)).astype(np.float32), [50]
    )
    assert 50 <= len(rows) <= 50 * 16
