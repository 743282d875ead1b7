"""How far an item falls, on a model whose ranks are worked by hand."""

import numpy as np

from benchmarks.faithfulness import K, falls, interval
from recops.links import Links
from recops.runtime import Scorer


def test_an_item_falls_when_what_carried_it_is_taken_out():
    """Item 1 alone leads anywhere: to items 21 to 30, all before the ten of .5, and without it all behind them."""
    links = Links(np.array([0, 0, *[10] * 40]), np.arange(21, 31, dtype=np.int32), np.arange(1, 11, dtype=np.float32))
    scores = np.where(np.arange(41) > 30, 0.5, 0).astype(np.float32)
    scorer = Scorer(40, links=links, item_scores=scores)
    found = [falls(scorer, np.arange(1, 21), np.random.default_rng(seed)) for seed in range(60)]
    assert {one["named"] for one in found} == {float(K - place) for place in range(K)}
    for one in found:
        assert one["nearest"] == one["named"]
        assert one["latest"] == 0
        assert 0 <= one["random"] <= one["named"]


def test_no_reason_is_no_fall():
    links = Links(np.zeros(32, np.int64), np.zeros(0, np.int32), np.zeros(0, np.float32))
    assert falls(Scorer(30, links=links), np.arange(1, 21), np.random.default_rng(0)) is None


def test_intervals_hold_the_figure():
    found = interval(np.arange(101, dtype=np.float64), np.median)
    assert found["value"] == 50 and found["low"] < 50 < found["high"]
    assert interval(np.ones(5), np.mean) == {"value": 1.0, "low": 1.0, "high": 1.0}
