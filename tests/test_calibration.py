"""How what a few members say of an item is brought to the scale of all of them."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from recops.calibration import as_all_would


def test_an_item_like_the_best_counts_as_one_of_them() -> None:
    """By hand: 20 items, of which the few put 3 highest (a tenth and one): 10, 10, 13, mean 11. All say 2, 3 and 4 of
    those, whose best tenth begins at 3.8, and 0 of the others. Means .45 and 1.65: the line rises 3.35 over 9.35."""
    few = np.array([0.0] * 17 + [10.0, 10.0, 13.0])
    every = np.array([0.0] * 17 + [2.0, 3.0, 4.0])
    scale = as_all_would(few, every)
    np.testing.assert_allclose(scale(np.array([1.65, 11.0])), [0.45, 3.8], rtol=1e-6)
    assert scale(np.array([1000.0])) == 4.0  # the best there is


def test_where_the_few_say_the_same_of_all_or_are_contradicted_later_items_are_as_any() -> None:
    every = np.arange(20.0)
    assert as_all_would(np.zeros(20), every)(np.array([5.0])) == every.mean()
    assert as_all_would(-every, every)(np.array([5.0])) == every.mean()
    assert as_all_would(np.zeros(0), np.zeros(0))(np.array([5.0])) == 5.0


@given(st.lists(st.floats(-50, 50, width=32), min_size=2, max_size=80), st.integers(0, 99))
def test_the_order_of_later_items_stays_and_none_is_above_the_best(few: list[float], seed: int) -> None:
    every = np.random.default_rng(seed).normal(size=len(few)).astype(np.float32)
    found = as_all_would(np.array(few, np.float32), every)(np.linspace(-60, 60, 50))
    assert (np.diff(found) >= 0).all() and found.max() <= every.max()
