"""Chance in lists: how probable each item was where it stood, against how often it stood there."""

from math import erf, sqrt
from pathlib import Path

import numpy as np
import pytest

from recops.serving.listing import listed
from recops.serving.occasion import Occasion
from recops.serving.requests import Recommend
from recops.serving.rules.exploration import Exploration, Exploring
from recops.serving.ruleset import rules_of
from tests.serving.small_releases import small_release

NUM_LISTS = 3_000
DEVIATIONS = 5  # of a binomial count: of some hundred counts none is farther off but by a chance of 1 in 10,000


def explored(value, utilities, num_shown, chance):
    return Exploration().explored(value, np.asarray(utilities, float), num_shown, chance)


@pytest.mark.parametrize("epsilon", [0.05, 0.4, 1.0])
@pytest.mark.parametrize(("num_candidates", "num_shown"), [(6, 3), (3, 3), (4, 1), (1, 1), (5, 4)])
def test_propensities_of_epsilon_are_the_frequencies(epsilon, num_candidates, num_shown):
    chance, value = np.random.default_rng(7), Exploring(epsilon=epsilon)
    times, told = np.zeros((num_candidates, num_shown)), np.zeros((num_candidates, num_shown))
    for _ in range(NUM_LISTS):
        places, propensities = explored(value, np.arange(num_candidates, 0, -1), num_shown, chance)
        assert len(set(places.tolist())) == num_shown
        known = told[places, np.arange(num_shown)]
        assert (known[known > 0] == propensities[known > 0]).all()
        told[places, np.arange(num_shown)] = propensities
        times[places, np.arange(num_shown)] += 1
    allowed = DEVIATIONS * np.sqrt(told * (1 - told) / NUM_LISTS)
    assert (np.abs(times / NUM_LISTS - told) <= allowed + 1e-12).all()
    if (times > 0).all():
        assert told.sum(0) == pytest.approx(np.ones(num_shown), abs=1e-12)


def test_epsilon_by_hand():
    """Two candidates, both shown, each place given away with a half. Both: a quarter, and then they swap or not: 1/8.
    One alone draws itself."""
    chance = np.random.default_rng(0)
    found = {tuple(explored(Exploring(epsilon=0.5), [2, 1], 2, chance)[0].tolist()): None for _ in range(100)}
    assert set(found) == {(0, 1), (1, 0)}
    for _ in range(100):
        places, propensities = explored(Exploring(epsilon=0.5), [2, 1], 2, chance)
        assert propensities.tolist() == ([0.875, 0.875] if places[0] == 0 else [0.125, 0.125])


def test_a_long_list_has_propensities_too():
    places, propensities = explored(Exploring(epsilon=0.3), np.arange(1000.0, 0, -1), 1000, np.random.default_rng(0))
    assert sorted(places.tolist()) == list(range(1000))
    assert ((propensities > 0) & (propensities <= 1)).all()


def test_propensities_of_thompson_come_near_the_truth():
    """Utilities 1 and 0 have a deviation of 1/2; with noise of half of that, .25, the first stays first unless the
    difference of two noises, of deviation .25 x sqrt(2), is above 1."""
    truth = 0.5 * (1 + erf(1 / (0.25 * sqrt(2)) / sqrt(2)))
    value = Exploring(thompson=0.5, draws=20_000)
    places, propensities = explored(value, [1, 0], 2, np.random.default_rng(1))
    assert places.tolist() == [0, 1]
    assert propensities == pytest.approx([truth] * 2, abs=DEVIATIONS * sqrt(truth * (1 - truth) / 20_000))


def test_propensities_of_thompson_are_the_frequencies():
    value, chance = Exploring(thompson=1.0, draws=2000), np.random.default_rng(3)
    utilities, num_lists = [3.0, 2.0, 1.5, 0.0], 1000
    times, told, num_told = np.zeros((4, 2)), np.zeros((4, 2)), np.zeros((4, 2))
    for _ in range(num_lists):
        places, propensities = explored(value, utilities, 2, chance)
        times[places, [0, 1]] += 1
        told[places, [0, 1]] += propensities
        num_told[places, [0, 1]] += 1
    mean = told / np.maximum(num_told, 1)
    allowed = DEVIATIONS * np.sqrt(mean * (1 - mean) / num_lists) + 1 / 2000
    assert (np.abs(times / num_lists - mean) <= allowed)[num_told > 0].all()


def test_equal_utilities_stay_in_order():
    places, propensities = explored(Exploring(thompson=1.0), [1, 1, 1], 2, np.random.default_rng(0))
    assert (places.tolist(), propensities.tolist()) == ([0, 1], [1.0, 1.0])


ITEMS = [{"item_id": f"i{n}", "categories": [["x", "y"][n % 2]]} for n in range(12)]
SCORES = np.array([-np.inf, *range(12, 0, -1)], np.float32)


def a_list(request_id, **values):
    movers = rules_of(values, Path("rules.yaml")).moving(Recommend.model_construct(user_id="u"))
    return listed(SCORES, 4, movers, Occasion(small_release(ITEMS)), request_id)


@pytest.mark.parametrize("exploration", [{"epsilon": 0.8}, {"thompson": 2.0}])
def test_the_request_id_decides(exploration):
    lists = [a_list(f"{n}", exploration=exploration) for n in range(20)]
    again = [a_list(f"{n}", exploration=exploration) for n in range(20)]
    assert all(
        (a.rows == b.rows).all() and (a.propensities == b.propensities).all() for a, b in zip(lists, again, strict=True)
    )
    assert len({tuple(one.rows.tolist()) for one in lists}) > 10
    plain = a_list(None, exploration=exploration)
    assert (plain.rows.tolist(), plain.propensities) == ([1, 2, 3, 4], None)


def test_only_the_best_candidates_are_drawn():
    drawn = {row for n in range(200) for row in a_list(f"{n}", exploration={"epsilon": 1.0, "candidates": 6}).rows}
    assert drawn == {1, 2, 3, 4, 5, 6}


def test_pins_stay_and_caps_hold_under_chance():
    rules = {
        "exploration": {"epsilon": 0.9},
        "pin": [{"item_id": "i11", "rank": 2}],
        "cap": [{"by": "categories", "most": 2}],
    }
    lists = [a_list(f"{n}", **rules) for n in range(100)]
    assert all(len(one.rows) == 4 and one.rows[1] == 12 and one.propensities[1] == 1 for one in lists)
    assert all(np.bincount(one.rows % 2).max() <= 2 for one in lists)
    # 12 is of y: one more of y and two of x are left to draw, and so no other item is.
    assert {row for one in lists for row in one.rows.tolist()} == {1, 2, 3, 12}
