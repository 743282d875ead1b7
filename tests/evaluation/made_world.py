"""A made world with a known truth: three kinds of users, twelve items, and ranks that are looked at less and less.

The log shows lists of a ranking that is somewhat wrong, under the rule `exploration` of the service; the candidate's
ranking is less wrong. An item is chosen with the probability that its rank is looked at, times what it is worth to the
kind of user, times a factor of the user whose mean is 1.
"""

from functools import cache

import numpy as np

from recops.evaluation.off_policy import Candidate, LoggedLists
from recops.serving.rules.exploration import Exploration, Exploring

NUM_KINDS, NUM_ITEMS, NUM_DRAWN, K = 3, 12, 8, 4
EXAMINED = np.arange(1, K + 1) ** -0.7
SHARES = np.array([0.5, 0.3, 0.2])
FACTORS = np.array([0.5, 1.0, 1.5])

_rng = np.random.default_rng(0)
RELEVANCE = np.minimum(_rng.beta(1.2, 3, (NUM_KINDS, NUM_ITEMS)), 0.66)
DRAWN = np.argsort(-(RELEVANCE + _rng.normal(0, 0.15, RELEVANCE.shape)), axis=1)[:, :NUM_DRAWN]  # best first
LISTED = np.stack([drawn[np.argsort(-worth[drawn])][:K] for worth, drawn in zip(RELEVANCE, DRAWN, strict=True)])
TRUTH = float(sum(share * EXAMINED @ RELEVANCE[kind, LISTED[kind]] for kind, share in enumerate(SHARES)))


def clicks(rng: np.random.Generator, kinds: np.ndarray, items: np.ndarray, factors: np.ndarray) -> np.ndarray:
    """float64 [I, K] for kinds and factors of users [I] and what they were shown [I, K]."""
    chance = EXAMINED * RELEVANCE[kinds[:, None], items] * factors[:, None]
    return (rng.random(items.shape) < chance).astype(float)


@cache
def made_log(
    seed: int, num_users: int, lists_a_user: int, epsilon: float = 0.6
) -> tuple[LoggedLists, Candidate, np.ndarray, np.ndarray]:
    """The log, the candidate, what was shown and what the candidate shows (int [I, K]). Not to be changed."""
    rng = np.random.default_rng([seed, 7])
    user = np.repeat(np.arange(num_users), lists_a_user)
    kinds, factors = rng.choice(NUM_KINDS, num_users, p=SHARES)[user], rng.choice(FACTORS, num_users)[user]
    rule, value, utilities = Exploration(), Exploring(epsilon=epsilon), np.arange(NUM_DRAWN, 0, -1.0)
    drawn = [rule.explored(value, utilities, K, rng) for _ in user]
    items = DRAWN[kinds[:, None], np.array([places for places, _ in drawn])]
    propensity, listed = np.array([told for _, told in drawn]), LISTED[kinds]
    logged = LoggedLists(user, clicks(rng, kinds, items, factors), propensity, np.ones(items.shape, bool))
    return logged, Candidate((items == listed).astype(float), *np.ones((2, *items.shape))), items, listed
