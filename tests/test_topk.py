"""The best k against a full sort."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from recops.topk import best_products, top_k


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


def best_alone(user: np.ndarray, items: np.ndarray, num: int, never: np.ndarray) -> tuple[list[int], list[float]]:
    scores = items @ user
    scores[[0, *never]] = -np.inf
    rows, best = top_k(scores[None], num)
    return rows[0].tolist(), best[0].tolist()


@settings(max_examples=60, deadline=None)
@given(
    num_items=st.sampled_from([1, 7, 100, 4095, 4096, 4097, 9001]),
    num=st.integers(1, 60),
    dim=st.integers(1, 6),
    seed=st.integers(0, 1000),
)
def test_best_products_of_whole_numbers_are_those_of_each_user_alone(
    num_items: int, num: int, dim: int, seed: int
) -> None:
    """Ties in abundance: where they are told at all, they are told in the order of rows."""
    rng = np.random.default_rng(seed)
    items = rng.integers(-50, 51, (num_items + 1, dim)).astype(np.float32)
    users = rng.integers(-50, 51, (3, dim)).astype(np.float32)
    nums, never = [num, 1, num], [rng.integers(1, num_items + 1, n) for n in (0, 7, 30)]
    largest = float(np.linalg.norm(items, axis=1).max())
    found = best_products(users, items, nums, never, largest)
    for user, wanted, rows, one in zip(users, nums, never, found, strict=True):
        if one is not None:
            assert (one[0].tolist(), one[1].tolist()) == best_alone(user, items, wanted, rows)


@pytest.mark.parametrize("sampled_at_once", [8_000_000, 40_000])
def test_best_products_of_many_users(sampled_at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The best items are among those never shown, and nearly every user is answered."""
    monkeypatch.setattr("recops.topk.SAMPLED_AT_ONCE", sampled_at_once)
    monkeypatch.setattr("recops.topk.PRODUCTS_AT_ONCE", 90 * 700)
    rng = np.random.default_rng(0)
    items, users = (rng.standard_normal((num, 16)).astype(np.float32) for num in (40_000, 90))
    items[1000:1005] = items[17]  # a tie
    users[3] = items[17]
    nums = [1 + n % 60 for n in range(90)]
    never = [np.argsort(-(items @ user), kind="stable")[: n // 2] for n, user in enumerate(users)]
    found = best_products(users, items, nums, never, float(np.linalg.norm(items, axis=1).max()))
    assert sum(one is None for one in found) <= 3
    assert [row for row in found[3][0] if row == 17 or 1000 <= row < 1005] == [1000, 1001, 1002, 1003]
    for user, num, rows, one in zip(users, nums, never, found, strict=True):
        if one is not None:
            expected_rows, expected = best_alone(user, items, num, rows)
            assert one[0].tolist() == expected_rows
            assert one[1] == pytest.approx(expected, rel=1e-6)


def test_best_products_that_are_not_sure_are_not_told() -> None:
    rng = np.random.default_rng(0)
    items = rng.standard_normal((9000, 4)).astype(np.float32)
    items[:, 0] = 1
    users = np.array([[1, 0, 0, 0], [0, 0, 0, 0], [-9, 0, 0, 1], [0, 1, 0, 0], [0, 1, 0, 0]], np.float32)
    none = np.zeros(0, np.int64)
    never = [none, none, none, np.arange(1, 9000), none]
    found = best_products(users, items, [5] * 5, never, float(np.linalg.norm(items, axis=1).max()))
    assert [one is None for one in found] == [True, True, True, True, False]
