"""What another ranking would have earned: worked by hand, against a made world whose truth is known, and refused where
the log does not tell it."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recops.errors import CallError
from recops.evaluation.off_policy import (
    NO_ITEM,
    Candidate,
    Expected,
    LoggedLists,
    expected_by_rank_and_item,
    off_policy,
)
from tests.evaluation.made_world import LISTED, RELEVANCE, SHARES, TRUTH, clicks, made_log


def two_orders() -> tuple[LoggedLists, Candidate]:
    """400 users, one list each: 280 saw AB (probability .75), 120 saw BA (.25), the candidate shows BA alone. Of the BA
    lists 50 had a click at rank 1 and 20 at rank 2, of the AB lists 84 at rank 1."""
    is_ba = np.arange(400) >= 280
    reward = np.zeros((400, 2))
    reward[:84, 0] = reward[280:330, 0] = reward[330:350, 1] = 1
    both = np.stack([is_ba, is_ba], 1)
    logged = LoggedLists(np.arange(400), reward, np.where(both, 0.25, 0.75), np.ones((400, 2), bool))
    return logged, Candidate(both.astype(float), np.ones((400, 2)), np.ones((400, 2)))


def test_by_hand() -> None:
    """Weights are 4 in BA lists, 0 else. IPS: 70 clicks x 4 / 400. SNIPS: 280 / 960 of weight, times 2 ranks. DR: the
    model says .5 of each item, so 1 of each list; 70 lists are 4 x (1 - 1) off, 50 are 4 x (0 - 1).
    Deviations: IPS 70 x 16 / 400 - .49 = 2.31 a list; SNIPS 2/2.4 x (4 - 8 x .7/2.4) of 70, 2/2.4 x -8 x .7/2.4 of
    50, 324.07 squared and summed; DR 350 x .25 + 50 x 12.25 = 700."""
    logged, candidate = two_orders()
    found = off_policy(logged, candidate, Expected(np.full((400, 2), 0.5), np.ones(400)), least_effective=100)
    values = {name: (one.value, (one.high - one.low) / 2 / 1.959964) for name, one in found.values.items()}
    assert values["ips"] == pytest.approx((0.7, np.sqrt(2.31 / 399)))
    assert values["snips"] == pytest.approx((7 / 12, np.sqrt(324.0741 / 400 / 399)))
    assert values["dr"] == pytest.approx((0.5, np.sqrt(700 / 400 / 399)))
    assert found.logged.value == pytest.approx((84 + 70) / 400)
    assert found.gains["ips"].value == pytest.approx(0.7 - 0.385)
    assert (found.effective, found.max_weight) == (pytest.approx(960**2 / (120 * 64)), 4)
    assert (found.mean_weight, found.uncovered, found.clip) == (pytest.approx(1.2), 0, None)
    assert (found.num_lists, found.num_users, found.num_clipped) == (400, 400, 0)


def test_clipping_is_stated() -> None:
    """Weights of 2 instead of 4: half of IPS, and the same SNIPS."""
    found = off_policy(*two_orders(), clip=2, least_effective=100)
    assert (found.clip, found.num_clipped, found.max_weight) == (2, 240, 2)
    assert [found.values[name].value for name in ("ips", "snips")] == pytest.approx([0.35, 7 / 12])
    assert found.mean_weight == pytest.approx(1.2) and "dr" not in found.values


def test_lists_of_a_user_go_together() -> None:
    """Ten times the same lists of the same users tell nothing more."""
    logged, candidate = two_orders()
    tenfold = LoggedLists(
        *(np.repeat(a, 10, axis=0) for a in (logged.user, logged.reward, logged.propensity, logged.is_shown))
    )
    again = Candidate(np.repeat(candidate.target, 10, axis=0), np.ones((4000, 2)))
    one, ten = (off_policy(*both, least_effective=100) for both in ((logged, candidate), (tenfold, again)))
    for name in ("ips", "snips"):
        assert vars(ten.values[name]) == pytest.approx(vars(one.values[name]))
    assert ten.uncovered is None


def test_what_stands_at_ranks_that_are_not_shown_is_of_no_concern() -> None:
    logged, candidate = two_orders()
    wider = [np.pad(a, ((0, 0), (0, 1)), constant_values=7) for a in (logged.reward, logged.propensity)]
    shown = np.pad(logged.is_shown, ((0, 0), (0, 1)))
    sevens = Candidate(
        *(np.pad(a, ((0, 0), (0, 1)), constant_values=7) for a in (candidate.target, candidate.mass, candidate.mass))
    )
    found = off_policy(LoggedLists(logged.user, *wider, shown), sevens, least_effective=100)
    assert found == off_policy(logged, candidate, least_effective=100)


@given(st.integers(0, 2**32), st.integers(1, 4))
def test_the_logged_policy_itself_is_worth_what_it_earned(seed: int, num_ranks: int) -> None:
    rng = np.random.default_rng(seed)
    shape = (300, num_ranks)
    propensity = rng.uniform(0.01, 0.99, shape)
    logged = LoggedLists(rng.integers(0, 60, 300), rng.random(shape), propensity, np.ones(shape, bool))
    found = off_policy(logged, Candidate(propensity, np.ones(shape)), clip=1)
    for name in ("ips", "snips"):
        assert vars(found.values[name]) == pytest.approx(vars(found.logged))
        assert vars(found.gains[name]) == pytest.approx({"value": 0, "low": 0, "high": 0}, abs=1e-9)
    assert (found.effective, found.mean_weight) == (pytest.approx(300), pytest.approx(1))


def test_the_reward_model_is_told_by_the_other_half() -> None:
    """Users 0 and 1 see items 0 and 1. What user 1 earned: at rank 1 on average 1, at rank 2 on average 0; item 0 of
    user 1 earned 1 where 1 was expected. So user 0 is told 1 at rank 1 of any item, and 0 at rank 2."""
    reward = np.array([[0.0, 1.0], [1.0, 0.0]])
    logged = LoggedLists(np.array([0, 1]), reward, np.full((2, 2), 0.5), np.ones((2, 2), bool))
    found = expected_by_rank_and_item(logged, np.array([[1, 0], [0, 1]]), np.array([[2, 0], [1, NO_ITEM]]))
    assert found.logged.tolist() == [[1, 0], [0, 1 * (1 + 5) / (1 + 5)]]
    assert found.candidate.tolist() == [1, 0]
    more = replace(logged, reward=np.array([[0.0, 1.0], [3.0, 1.0]]), user=np.array([0, 1]))
    twice = LoggedLists(
        np.array([0, 1, 1]),
        np.array([[0.0, 0.0], [3.0, 0.0], [1.0, 0.0]]),
        np.full((3, 2), 0.5),
        np.ones((3, 2), bool),
    )
    found = expected_by_rank_and_item(twice, np.array([[0, 1], [0, 1], [2, 1]]), np.full((3, 2), 2), strength=2)
    # Rank 1 is worth 2: item 0 earned 3 of 2, (3 + 2) / (2 + 2); item 2 earned 1 of 2, 3 / 4.
    assert (found.logged[0, 0], found.candidate[0]) == (2 * 5 / 4, 2 * 3 / 4)
    assert expected_by_rank_and_item(more, np.array([[1, 0], [0, 1]]), np.full((2, 2), 1)).candidate[0] == 3 + 1


NUM_RUNS = 60


def test_the_truth_lies_within_the_intervals() -> None:
    """Chance is that of the rule `exploration`, the propensities are those that it logs."""
    logs = (made_log(run, num_users=60, lists_a_user=15) for run in range(NUM_RUNS))
    found = [off_policy(log, judged, expected_by_rank_and_item(log, *both)) for log, judged, *both in logs]
    for name in ("ips", "snips", "dr"):
        covers = [one.values[name].low <= TRUTH <= one.values[name].high for one in found]
        assert np.mean(covers) >= 0.9, name
        values = np.array([one.values[name].value for one in found])
        assert abs(values.mean() - TRUTH) < 3 * values.std() / np.sqrt(NUM_RUNS), name
    deviations = {name: np.std([one.values[name].value for one in found]) for name in ("ips", "snips", "dr")}
    assert deviations["dr"] <= deviations["ips"]
    assert all(one.logged.high < TRUTH for one in found[:5])  # what the log earned is not the answer


def test_the_truth_is_what_the_candidate_earns_when_it_is_shown() -> None:
    rng = np.random.default_rng(1)
    kinds = rng.choice(len(SHARES), 100_000, p=SHARES)
    earned = clicks(rng, kinds, LISTED[kinds], np.ones(len(kinds))).sum(1)
    assert abs(earned.mean() - TRUTH) < 4 * earned.std() / np.sqrt(len(earned))
    assert RELEVANCE.max() * 1.5 <= 1


def refused(logged: LoggedLists, candidate: Candidate, **options: float) -> str:
    with pytest.raises(CallError) as error:
        off_policy(logged, candidate, **options)
    return str(error.value)


def test_a_log_without_chance_is_refused() -> None:
    logged, candidate = two_orders()
    message = refused(replace(logged, propensity=np.ones((400, 2))), candidate)
    assert (
        message.startswith("400 lists and every propensity is 1") and "set `exploration` in the rules file" in message
    )


def test_what_could_not_have_been_shown_is_refused() -> None:
    logged, candidate = two_orders()
    covered = np.ones((400, 2))
    covered[:120, 0] = 0
    message = refused(logged, replace(candidate, covered=covered), least_effective=100)
    assert (
        message.startswith("15.0% of what the candidate shows could not have been shown") and "allowed: 10%" in message
    )
    found = off_policy(logged, replace(candidate, covered=covered), least_effective=100, max_uncovered=0.2)
    assert found.uncovered == pytest.approx(0.15)


def test_too_few_lists_that_agree_are_refused() -> None:
    logged, candidate = two_orders()
    assert "an effective sample of 120 of 400 lists (needed: 200)" in refused(logged, candidate)
    nothing = replace(candidate, target=np.zeros((400, 2)))
    assert "an effective sample of 0 of 400" in refused(logged, nothing, least_effective=0)
    assert "shows nothing" in refused(logged, replace(candidate, mass=np.zeros((400, 2))))
    few = LoggedLists(logged.user % 29, logged.reward, logged.propensity, logged.is_shown)
    assert refused(few, candidate).startswith("29 users: an interval needs 30")


def test_weights_that_do_not_add_up_are_refused() -> None:
    """The candidate's own item is never seen at rank 2, where it is not known what could have been shown."""
    logged, _ = two_orders()
    half = np.array([1.0, 0.0]) * np.ones((400, 2))
    unchanged = replace(logged, propensity=np.full((400, 2), 0.999))
    message = refused(unchanged, Candidate(half, np.ones((400, 2))))
    assert "weights that average 0.50 where 1 is expected" in message


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"propensity": np.zeros((400, 2))}, "above 0 and at most 1, found 0"),
        ({"propensity": np.full((400, 2), 1.5)}, "found 1.5"),
        ({"reward": np.full((400, 2), np.nan)}, "reward: expected a finite number"),
        ({"user": np.arange(3)}, r"expected user \[I\] and arrays \[I, K\], found \(3,\)"),
        ({"reward": np.zeros((400, 3))}, r"\(400, 3\)"),
    ],
)
def test_a_log_that_is_none_is_told(change: dict, words: str) -> None:
    with pytest.raises(CallError, match=words):
        replace(two_orders()[0], **change)
    with pytest.raises(CallError, match="clip: expected above 0, found -1"):
        off_policy(*two_orders(), clip=-1)
