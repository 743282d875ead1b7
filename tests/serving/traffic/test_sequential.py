"""Always-valid intervals: worked by hand, and looked at all the time in simulations whose truth is known."""

import math

import numpy as np
import pytest

from recops.errors import CallError
from recops.serving.traffic.sequential import LEAST_USERS, Difference, Moments, difference


def test_moments_from_sums():
    assert Moments.of(4, 6.0, 14.0) == Moments(4, 1.5, 5 / 3)  # 0, 1, 2, 3
    assert Moments.of(1, 2.0, 4.0) == Moments(1, 2.0, 0.0)
    assert Moments.of(0, 0.0, 0.0) == Moments(0, 0.0, 0.0)


def test_an_interval_by_hand():
    """V = .09/900 + .09/900 = 2e-4 (.08 counts as .09), tau = .01: tau^2/V = .5, half^2 = (2 ln 20 + ln 1.5) * 2e-4 *
    3."""
    found = difference(Moments(900, 0.1, 0.09), Moments(900, 0.13, 0.08), scale=0.01)
    half = math.sqrt((2 * math.log(20) + math.log(1.5)) * 6e-4)
    assert (found.value, found.low, found.high) == pytest.approx((0.03, 0.03 - half, 0.03 + half))
    assert not found.is_proven and Difference(1, 0.5, 2).is_proven and Difference(-1, -2, -0.5).is_proven


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (Moments(LEAST_USERS - 1, 0, 1), Moments(900, 1, 1)),
        (Moments(0, 0, 0),) * 2,
    ],
)
def test_too_little_says_nothing(one, other):
    found = difference(one, other, 0.1)
    assert (found.low, found.high) == (-math.inf, math.inf) and not found.is_proven


def test_sides_that_never_vary_differ_all_the_same():
    """All of 30 and none of 30: of a share (31/32)(1/32) = .0303 each, V = 2 * .0303 / 30."""
    found = difference(Moments(30, 0, 0), Moments(30, 1, 0), 0.5)
    variance = 2 * 31 / 32 / 32 / 30
    half = math.sqrt((2 * math.log(20) + math.log(1 + 0.25 / variance)) * variance * (variance + 0.25) / 0.25)
    assert (found.value, found.low) == (1, pytest.approx(1 - half)) and found.is_proven


def test_what_cannot_be_asked():
    for alpha, scale in ((0, 1), (1, 1), (0.05, 0)):
        with pytest.raises(CallError, match="alpha must lie between"):
            difference(Moments(900, 0, 1), Moments(900, 0, 1), scale, alpha)


def looked_at(effect: float, runs: int = 400, users: int = 4000, every: int = 50) -> tuple[float, float]:
    """Share of A/B tests in which the interval misses the truth at any of 80 looks: ours, and that of a fixed size."""
    rng = np.random.default_rng(7)
    ours = fixed = 0
    for _ in range(runs):
        sides = [rng.random(users) < rate for rate in (0.1, 0.1 + effect)]
        is_ours = is_fixed = False
        sums = [np.cumsum(side) for side in sides]
        for n in range(every, users + 1, every):
            moments = [Moments.of(n, float(total[n - 1]), float(total[n - 1])) for total in sums]
            found = difference(*moments, scale=0.02)
            is_ours |= not found.low <= effect <= found.high
            error = math.sqrt(sum(m.variance / n for m in moments))
            is_fixed |= abs(found.value - effect) > 1.96 * error
        ours += is_ours
        fixed += is_fixed
    return ours / runs, fixed / runs


@pytest.mark.parametrize("effect", [0.0, 0.03])
def test_it_holds_however_often_it_is_looked_at(effect):
    ours, fixed = looked_at(effect)
    assert ours <= 0.05 < 0.25 < fixed


@pytest.mark.parametrize(("rate", "share"), [(0.02, 0.05), (0.05, 0.01), (0.005, 0.1)])
def test_it_holds_for_a_small_canary_where_few_choose_anything(rate, share):
    """Users of both sides alike, with one to five answers each; looked at after every 100 users."""
    rng, runs, users, wrong = np.random.default_rng(0), 100, 6000, 0
    for _ in range(runs):
        num = rng.integers(1, 6, users)
        figures = rng.binomial(num, rng.beta(rate * 5, (1 - rate) * 5, users)) / num
        is_canary = rng.random(users) < share
        sums = [
            [np.cumsum(np.where(side, values, 0.0)) for values in (np.ones(users), figures, figures**2)]
            for side in (~is_canary, is_canary)
        ]
        looks = range(99, users, 100)
        wrong += any(
            difference(*(Moments.of(int(n[at]), float(s[at]), float(q[at])) for n, s, q in sums), 0.02).is_proven
            for at in looks
        )
    assert wrong / runs <= 0.05


def test_a_real_difference_is_found():
    rng = np.random.default_rng(1)
    sides = [rng.random(20_000) < rate for rate in (0.1, 0.12)]
    assert difference(*(Moments.of(len(s), float(s.sum()), float(s.sum())) for s in sides), scale=0.02).low > 0
