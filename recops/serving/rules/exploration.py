"""Rule `exploration`: chance in the list, so that what was not shown so far can be learnt of, and how probable each
item was at its rank.

`epsilon`: each rank is given away with this probability. Those who lose theirs and the candidates below the list draw
for the ranks given away, all with the same chance. The probability that an item stands at a rank is exact.
`thompson`: to each candidate's score normal noise is added, of this many deviations of the candidates' scores (Thompson
1933; Chapelle & Li: "An empirical evaluation of Thompson sampling", NIPS 2011, with a Gaussian posterior as wide for
all items). Its probability is estimated by `draws` more lists; the one that is shown counts as one, so that none is 0.

Without adjusted scores and orderings the scores are the candidates' own; else the n-th candidate has the n-th of them.
"""

from functools import lru_cache
from math import comb
from typing import ClassVar

import numpy as np
from pydantic import Field, model_validator

from recops.serving.fields import Strict

AT_ONCE = 2_000_000  # numbers that are drawn together


class Exploring(Strict):
    epsilon: float | None = Field(None, gt=0, le=1)
    thompson: float | None = Field(None, gt=0, le=100)
    candidates: int = Field(100, ge=2, le=1000, description="The best so many items may be drawn.")
    draws: int = Field(1000, ge=100, le=100_000, description="thompson: lists that the probability is estimated by.")

    @model_validator(mode="after")
    def _is_one(self) -> "Exploring":
        if (self.epsilon is None) == (self.thompson is None):
            raise ValueError("give either epsilon or thompson")
        if self.epsilon is not None and "draws" in self.model_fields_set:
            raise ValueError("draws is of thompson: epsilon's probabilities are exact")
        return self


class Exploration:
    step: ClassVar[str] = "explore"
    where: ClassVar[tuple[str, ...]] = ("file",)
    Value = Exploring

    def num_candidates(self, value: Exploring) -> int:
        return value.candidates

    def explored(
        self, value: Exploring, utilities: np.ndarray, num_shown: int, chance: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        if not num_shown:
            return np.zeros(0, np.int64), np.zeros(0)
        if value.epsilon is not None:
            return _epsilon(value.epsilon, len(utilities), num_shown, chance)
        assert value.thompson is not None
        return _thompson(value.thompson * float(utilities.std()), utilities, num_shown, chance, value.draws)


def _epsilon(
    epsilon: float, num_candidates: int, num_shown: int, chance: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    given_away = np.flatnonzero(chance.random(num_shown) < epsilon)
    drawing = np.concatenate([given_away, np.arange(num_shown, num_candidates)])
    places = np.arange(num_shown)
    places[given_away] = chance.permutation(drawing)[: len(given_away)]
    below = num_candidates - num_shown
    any_of_drawing = epsilon * _mean_share(below + 1, num_shown - 1, epsilon)
    both_given_away = epsilon**2 * _mean_share(below + 2, num_shown - 2, epsilon)
    propensities = np.where(
        places == np.arange(num_shown),
        1 - epsilon + any_of_drawing,
        np.where(places >= num_shown, any_of_drawing, both_given_away),
    )
    return places, propensities


@lru_cache(4096)
def _mean_share(at_least: int, others: int, epsilon: float) -> float:
    """The mean of 1 / (at_least + B), B binomial: how many of the `others` draw as well."""
    if others < 0:
        return 0.0
    return sum(comb(others, b) * epsilon**b * (1 - epsilon) ** (others - b) / (at_least + b) for b in range(others + 1))


def _thompson(
    deviation: float, utilities: np.ndarray, num_shown: int, chance: np.random.Generator, draws: int
) -> tuple[np.ndarray, np.ndarray]:
    def lists(num: int) -> np.ndarray:
        noisy = utilities + deviation * chance.standard_normal((num, len(utilities)))
        return np.argsort(-noisy, axis=1, kind="stable")[:, :num_shown]

    places = lists(1)[0]
    hits, at_once = np.ones(num_shown), max(1, AT_ONCE // len(utilities))
    for start in range(0, draws, at_once):
        hits += (lists(min(at_once, draws - start)) == places).sum(0)
    return places, hits / (draws + 1)
