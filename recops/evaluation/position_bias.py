"""How likely a rank is looked at, against rank 1, from lists that were shown with chance.

Examination model (Joachims, Swaminathan & Schnabel: "Unbiased learning-to-rank with biased feedback", WSDM 2017): an
item earns at a rank what it is worth, times the probability that the rank is looked at. So the same items at two ranks
tell the ratio. Weighted by 1 / propensity, what chance put at a rank stands for all items that it could have put there,
each once, which are the same at every rank; their mean reward at a rank over that at rank 1 is the ratio (self-
normalised, so that the number of lists and of items cancels). Pinned ranks and lists without chance say nothing.

In: `LoggedLists`. Out: one `Examined` a rank. The reranker's term for each rank (models/_listwise.py) is another thing:
a nuisance that is fitted with a network to lists without any chance, and dropped.

Shapes: I lists, K ranks.
"""

import math
from dataclasses import dataclass

import numpy as np

from recops.errors import CallError
from recops.evaluation.off_policy import HOW, LEAST_EFFECTIVE, Interval, LoggedLists, Z, standard_error


@dataclass(frozen=True)
class Examined:
    """`relative`: to rank 1, with a 95 % interval, normal on the scale of logarithms. `effective`: sample of items,
    (sum of weights)^2 / sum of squares."""

    rank: int
    relative: Interval
    effective: float


def examination(logged: LoggedLists, least_effective: float = LEAST_EFFECTIVE) -> list[Examined]:
    """By rank. Each rank is compared with rank 1 in the lists in which chance filled both; left out are ranks of which
    either has an effective sample below `least_effective`, or no reward. Raises CallError where only rank 1, or not
    even that, is left."""
    users = np.unique(logged.user, return_inverse=True)[1]
    chance_IK = logged.is_by_chance
    found = []
    for place in range(chance_IK.shape[1]):
        both_I = chance_IK[:, 0] & chance_IK[:, place]
        logarithm, influence_I, effective = 0.0, np.zeros(len(logged)), math.inf
        for sign, rank in ((1, place), (-1, 0)):
            weight_I = np.where(both_I, 1 / np.where(both_I, logged.propensity[:, rank], 1.0), 0.0)
            earned_I = np.where(both_I, weight_I * logged.reward[:, rank], 0.0)
            effective = min(effective, float(weight_I.sum() ** 2 / max((weight_I**2).sum(), np.finfo(float).tiny)))
            if earned_I.sum() <= 0:
                effective = 0.0
                break
            logarithm += sign * math.log(earned_I.sum() / weight_I.sum())
            influence_I += sign * (earned_I / earned_I.mean() - weight_I / weight_I.mean())
        if effective >= least_effective:
            half = Z * standard_error(influence_I, users)
            ends = (math.exp(logarithm + side * half) for side in (0, -1, 1))
            found.append(Examined(place + 1, Interval(*ends), effective))
    if len(found) < 2:
        raise CallError(
            f"{int(chance_IK.sum())} items of {len(logged)} lists were shown by chance: too few to tell how ranks are "
            f"looked at (needed: an effective sample of {least_effective:.0f} at two ranks); {HOW}, or wait for more"
        )
    return found
