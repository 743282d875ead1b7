"""How ranks are looked at, from lists with chance: worked by hand, and found again in a made world."""

import numpy as np
import pytest

from recops.errors import CallError
from recops.evaluation.off_policy import LoggedLists
from recops.evaluation.position_bias import examination
from tests.evaluation.made_world import EXAMINED, made_log


def two_orders() -> LoggedLists:
    """400 users, one list each: 300 saw AB (probability .75), 100 saw BA (.25). Chosen were, each in a list of its own,
    of AB 90 at rank 1 and 15 at rank 2, of BA 10 and 15."""
    is_ba = np.arange(400) >= 300
    reward = np.zeros((400, 2))
    reward[:90, 0] = reward[90:105, 1] = reward[300:310, 0] = reward[310:325, 1] = 1
    propensity = np.where(is_ba, 0.25, 0.75)
    return LoggedLists(np.arange(400), reward, np.stack([propensity] * 2, 1), np.ones((400, 2), bool))


def test_by_hand() -> None:
    """Weights 4/3 and 4: rank 1 earned 160 of 800, rank 2 80 of 800. Influences on the logarithm: of a choice at rank 2
    20/3 and 20, at rank 1 -10/3 and -10, so that their squares sum up to 15 x 400/9 + 90 x 100/9 + 15 x 400 + 10 x 100.
    """
    first, second = examination(two_orders())
    assert (first.rank, vars(first.relative)) == (1, {"value": 1, "low": 1, "high": 1})
    error = np.sqrt((15 * 400 / 9 + 90 * 100 / 9 + 15 * 400 + 10 * 100) / 400 / 399)
    low, high = 0.5 * np.exp([-1.959964 * error, 1.959964 * error])
    assert (second.rank, vars(second.relative)) == (2, pytest.approx({"value": 0.5, "low": low, "high": high}))
    assert second.effective == pytest.approx(800**2 / (300 * 16 / 9 + 100 * 16))


def test_what_no_chance_put_there_says_nothing() -> None:
    """Lists that are the same every time, and a rank that is pinned."""
    logged = two_orders()
    pinned = np.ones((400, 1))
    wider = LoggedLists(
        np.arange(800),
        np.tile(np.hstack([logged.reward, pinned]), (2, 1)),
        np.vstack([np.hstack([logged.propensity, pinned]), np.ones((400, 3))]),
        np.ones((800, 3), bool),
    )
    found = examination(wider)
    assert [one.rank for one in found] == [1, 2]
    assert found[1].relative.value == pytest.approx(0.5)


def test_the_examination_of_a_made_world_is_found_again() -> None:
    """Clicks fall from rank to rank by far more than ranks are looked at, since the best items stand first."""
    covers, values, naive = [], [], []
    for run in range(30):
        logged, *_ = made_log(run, num_users=60, lists_a_user=15)
        found = examination(logged)
        assert [one.rank for one in found] == [1, 2, 3, 4]
        covers.append(
            [one.relative.low <= truth <= one.relative.high for one, truth in zip(found, EXAMINED, strict=True)][1:]
        )
        values.append([one.relative.value for one in found])
        naive.append(logged.reward.mean(0) / logged.reward.mean(0)[0])
    assert np.mean(covers) >= 0.9
    assert np.mean(values, axis=0) == pytest.approx(EXAMINED, rel=0.05)
    assert (np.mean(naive, axis=0)[1:] < 0.9 * EXAMINED[1:]).all()


def test_too_little_chance_is_refused() -> None:
    logged = two_orders()
    few = LoggedLists(
        logged.user, logged.reward, np.where(np.arange(800).reshape(400, 2) < 780, 1, 0.25), logged.is_shown
    )
    with pytest.raises(CallError, match=r"20 items of 400 lists were shown by chance: too few .* set `exploration`"):
        examination(few)
    nothing = LoggedLists(logged.user, np.zeros((400, 2)), logged.propensity, logged.is_shown)
    with pytest.raises(CallError, match="800 items of 400 lists"):
        examination(nothing)
