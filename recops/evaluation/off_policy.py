"""What another ranking would have earned, from lists that were shown with chance and what followed.

Item-position model (Li, Abbasi-Yadkori, Kveton, Muthukrishnan, Vinay & Wen: "Offline evaluation of ranking policies
with click models", KDD 2018): what an item earns depends on whom it is shown to, on the item and on its rank, not on
the items around it. A weight is the probability of the candidate that the item stands at its rank, over that of the
policy that was logged (`propensity`). The value of a list is the sum of its rewards; of a policy, its mean over lists.

IPS: weighted rewards (Li, Chu, Langford & Wang, WSDM 2011). SNIPS: the same over the sum of the weights, times what
that sum should be (Swaminathan & Joachims, NIPS 2015). DR: what a reward model expects of the candidate, and the
weighted errors of the model (Dudik, Langford & Li, ICML 2011). IPS and DR are unbiased without clipping, where the
candidate shows nothing that could not have been shown; SNIPS is consistent. Logs
whose few large weights show are refused more often than those whose did not come up, so that near the bound of the
effective sample IPS is low in what is left; SNIPS and DR hardly are.

In: arrays. Out: `OffPolicy`. Intervals are normal, 95 %, from one influence value a list, summed by user first.

Shapes: I lists, K ranks, U users. Ranks that a list does not have are not `is_shown`, whatever else stands there.
"""

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from recops.errors import CallError

LEAST_USERS = 30  # from which the normal distribution is trusted
LEAST_EFFECTIVE = 200.0  # lists
MAX_UNCOVERED = 0.1  # of what the candidate shows
Z = NormalDist().inv_cdf(0.975)
NO_ITEM = -1
HOW = "set `exploration` in the rules file (serve.rules), such as exploration: {epsilon: 0.05}"


@dataclass(frozen=True)
class LoggedLists:
    """Raises CallError for shapes that do not fit, a propensity outside ]0, 1] and a reward that is no number."""

    user: np.ndarray  # int64 [I], any number for each user
    reward: np.ndarray  # float64 [I, K], such as 1 where the item was chosen
    propensity: np.ndarray  # float64 [I, K]: how probable the item was at its rank; 1 where no chance was at work
    is_shown: np.ndarray  # bool [I, K]

    def __post_init__(self) -> None:
        shapes = {name: getattr(self, name).shape for name in ("reward", "propensity", "is_shown")}
        if len(set(shapes.values())) > 1 or self.reward.ndim != 2 or self.user.shape != self.reward.shape[:1]:
            raise CallError(f"logged lists: expected user [I] and arrays [I, K], found {self.user.shape} and {shapes}")
        propensity = self.propensity[self.is_shown]
        if not ((propensity > 0) & (propensity <= 1)).all():
            wrong = propensity[~((propensity > 0) & (propensity <= 1))][0]
            raise CallError(f"propensity: expected above 0 and at most 1, found {wrong:g}")
        if not np.isfinite(self.reward[self.is_shown]).all():
            raise CallError("reward: expected a finite number for each item shown")

    def __len__(self) -> int:
        return len(self.user)

    @property
    def is_by_chance(self) -> np.ndarray:
        """bool [I, K]: another item could have stood there."""
        return self.is_shown & (self.propensity < 1)


@dataclass(frozen=True)
class Candidate:
    """The policy that is judged, over the lists that were logged."""

    target: np.ndarray  # float64 [I, K]: its probability that the logged item stands at its rank
    mass: np.ndarray  # float64 [I, K]: its probability that any item does; 1 but where its list is shorter
    # float64 [I, K], <= mass: that of items that could have been shown there. None: told from the weights alone.
    covered: np.ndarray | None = None


@dataclass(frozen=True)
class Expected:
    """What a reward model expects; nothing that it learnt from a user may be used on the same user."""

    logged: np.ndarray  # float64 [I, K]: of the items shown, where they stood
    candidate: np.ndarray  # float64 [I]: of the candidate's list, each item by its probability


@dataclass(frozen=True)
class Interval:
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class OffPolicy:
    """Values are rewards a list. `gains`: value - that of the logged policy on the same lists."""

    num_lists: int
    num_users: int
    logged: Interval
    values: dict[str, Interval]  # ips, snips, and dr where a reward model was given
    gains: dict[str, Interval]
    effective: float  # lists: (sum of weights)^2 / sum of squares, of weights added up by list
    max_weight: float  # as used, of one item
    mean_weight: float  # unclipped; near 1 where log and candidate fit together
    uncovered: float | None  # share of what the candidate shows that could not have been shown; None: not known
    clip: float | None  # what larger weights were cut down to; estimates are then biased
    num_clipped: int  # items


def off_policy(
    logged: LoggedLists,
    candidate: Candidate,
    expected: Expected | None = None,
    clip: float | None = None,
    max_uncovered: float = MAX_UNCOVERED,
    least_effective: float = LEAST_EFFECTIVE,
) -> OffPolicy:
    """The value of the candidate. Raises CallError, saying what to do, where the log cannot tell it: nothing was shown
    by chance, the candidate shows more than `max_uncovered` that could not have been shown, the weights do not add up
    to what they should, or fewer than `least_effective` lists, or than LEAST_USERS users, say anything."""
    if clip is not None and clip <= 0:
        raise CallError(f"clip: expected above 0, found {clip:g}")
    if not logged.is_by_chance.any():
        raise CallError(
            f"{len(logged)} lists and every propensity is 1: nothing was shown by chance, so the log does not tell "
            f"what other lists would have earned; {HOW}"
        )
    users = np.unique(logged.user, return_inverse=True)[1]
    if (num_users := int(users.max()) + 1) < LEAST_USERS:
        raise CallError(f"{num_users} users: an interval needs {LEAST_USERS}; wait for more, or give more --days")
    shown = logged.is_shown
    raw_IK = np.where(shown, candidate.target / np.where(shown, logged.propensity, 1.0), 0.0)
    mass_I = np.where(shown, candidate.mass, 0.0).sum(1)
    if not mass_I.any():
        raise CallError("the candidate shows nothing in any of the logged lists")
    uncovered = None
    if candidate.covered is not None:
        uncovered = 1 - float(np.where(shown, candidate.covered, 0.0).sum() / mass_I.sum())
        if uncovered > max_uncovered:
            raise CallError(
                f"{uncovered:.1%} of what the candidate shows could not have been shown by the policy that was logged "
                f"(allowed: {max_uncovered:.0%}); {HOW} with more `candidates`"
            )
    weight_IK = raw_IK if clip is None else np.minimum(raw_IK, clip)
    weight_I = weight_IK.sum(1)
    effective = float(weight_I.sum() ** 2 / max((weight_I**2).sum(), np.finfo(float).tiny))
    mean_weight = float(raw_IK.sum() / mass_I.sum())
    error = standard_error((raw_IK.sum(1) - mean_weight * mass_I) / mass_I.mean(), users)
    if effective < least_effective or abs(1 - mean_weight) > max_uncovered + 3 * error:
        raise CallError(
            f"the logged lists agree too seldom with the candidate's: an effective sample of {effective:.0f} of "
            f"{len(logged)} lists (needed: {least_effective:.0f}), and weights that average {mean_weight:.2f} where 1 "
            f"is expected; wait for more answers, give more --days, or {HOW} with a larger chance"
        )

    earned_I = np.where(shown, logged.reward, 0.0).sum(1)
    gained_I = np.where(shown, weight_IK * logged.reward, 0.0).sum(1)
    ratio = gained_I.mean() / weight_I.mean()
    # The influence of each list on mass * gained / weight, each a mean: the delta method.
    influence_I = (mass_I - mass_I.mean()) * ratio + mass_I.mean() / weight_I.mean() * (gained_I - ratio * weight_I)
    each = {
        "ips": (gained_I.mean(), gained_I - gained_I.mean()),
        "snips": (ratio * mass_I.mean(), influence_I),
    }
    if expected is not None:
        errors_IK = np.where(shown, weight_IK * (logged.reward - expected.logged), 0.0)
        robust_I = expected.candidate + errors_IK.sum(1)
        each["dr"] = (robust_I.mean(), robust_I - robust_I.mean())
    own, own_I = earned_I.mean(), earned_I - earned_I.mean()
    return OffPolicy(
        num_lists=len(logged),
        num_users=num_users,
        logged=_interval(own, own_I, users),
        values={name: _interval(value, one_I, users) for name, (value, one_I) in each.items()},
        gains={name: _interval(value - own, one_I - own_I, users) for name, (value, one_I) in each.items()},
        effective=effective,
        max_weight=float(weight_IK.max()),
        mean_weight=mean_weight,
        uncovered=uncovered,
        clip=clip,
        num_clipped=0 if clip is None else int((raw_IK > clip).sum()),
    )


def standard_error(influence_I: np.ndarray, user_I: np.ndarray) -> float:
    """Of a mean over lists, from what each list adds to it (mean 0); lists of a user may go together. `user_I`: int
    from 0 on. NaN of fewer than two users.

    >>> round(standard_error(np.array([1.0, 1.0, -1.0, -1.0]), np.array([0, 0, 1, 1])), 6)
    1.0
    """
    sums_U = np.bincount(user_I, influence_I)
    num = len(sums_U)
    return float(np.sqrt(num / (num - 1) * (sums_U**2).sum()) / len(influence_I)) if num > 1 else float("nan")


def _interval(value: float, influence_I: np.ndarray, user_I: np.ndarray) -> Interval:
    half = Z * standard_error(influence_I, user_I)
    return Interval(float(value), float(value - half), float(value + half))


def expected_by_rank_and_item(
    logged: LoggedLists, item_IK: np.ndarray, listed_IK: np.ndarray, strength: float = 5.0
) -> Expected:
    """A simple reward model: the mean reward at a rank, times how much more or less an item earned than its ranks let
    expect, drawn to 1 as if it had earned `strength` rewards as expected.

    `item_IK`: int, the items shown; `listed_IK`: those of the candidate's one list, NO_ITEM where it has none. Items
    count from 0. Each half of the users is told what the other half taught, so that nobody's own reward comes back.
    """
    num_items = int(max(item_IK.max(initial=0), listed_IK.max(initial=0))) + 1
    shown_IK, is_even_I = logged.is_shown, np.unique(logged.user, return_inverse=True)[1] % 2 == 0
    rank_IK = np.broadcast_to(np.arange(shown_IK.shape[1]), shown_IK.shape)
    is_listed_IK = shown_IK & (listed_IK != NO_ITEM)
    predicted_IK, listed_value_IK = np.zeros(shown_IK.shape), np.zeros(shown_IK.shape)
    for told_I in (is_even_I, ~is_even_I):
        taught_IK = shown_IK & ~told_I[:, None]
        rank, item, reward = rank_IK[taught_IK], item_IK[taught_IK], logged.reward[taught_IK]
        num_K = np.bincount(rank, minlength=shown_IK.shape[1])
        mean_K = np.bincount(rank, reward, minlength=len(num_K)) / np.maximum(num_K, 1)
        earned_N, let_expect_N = (np.bincount(item, values, minlength=num_items) for values in (reward, mean_K[rank]))
        factor_N = (earned_N + strength) / (let_expect_N + strength)
        for values_IK, items_IK, where_IK in (
            (predicted_IK, item_IK, shown_IK),
            (listed_value_IK, listed_IK, is_listed_IK),
        ):
            asked_IK = where_IK & told_I[:, None]
            values_IK[asked_IK] = mean_K[rank_IK[asked_IK]] * factor_N[items_IK[asked_IK]]
    return Expected(predicted_IK, listed_value_IK.sum(1))
