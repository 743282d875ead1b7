"""Differences of means that may be looked at at any time, as often as one likes, without being fooled more often than
said: always-valid intervals.

Johari, Pekelis, Walsh: Always Valid Inference (2015), the mixture sequential probability ratio test with a normal
mixture. Valid for means of many users (by the central limit theorem), one figure a user.
"""

import math
from dataclasses import dataclass

from recops.errors import CallError


@dataclass(frozen=True)
class Moments:
    """Of one figure a user: how many users, their mean and the variance between them (n - 1)."""

    num: int
    mean: float
    variance: float

    @classmethod
    def of(cls, num: int, total: float, squares: float) -> "Moments":
        """From the sum and the sum of squares; variance 0 of fewer than two."""
        mean = total / num if num else 0.0
        return cls(num, mean, max(squares - num * mean * mean, 0.0) / (num - 1) if num > 1 else 0.0)


@dataclass(frozen=True)
class Difference:
    """`challenger - control`, with an interval that covers the truth at all times together with probability
    1 - alpha."""

    value: float
    low: float
    high: float

    @property
    def is_bounded(self) -> bool:
        """Whether anything is said yet."""
        return math.isfinite(self.low)

    @property
    def is_proven(self) -> bool:
        return self.low > 0 or self.high < 0


# Users of each side from which the normal distribution is trusted; before that nothing is said.
LEAST_USERS = 30


def difference(control: Moments, challenger: Moments, scale: float, alpha: float = 0.05) -> Difference:
    """The difference of two means. `scale`: the size of differences that are expected, in units of the figure: it
    decides when the interval is shortest, not whether it is valid. The whole line while a side has under 30 users. The
    figures lie between 0 and 1; where those of a side are all the same, their variance is taken for that of a share of
    one more user each way. Both sides are taken to vary as the one that varies more: of few users who seldom choose
    anything those seen may all be alike, and a small canary would be proven worse by its own luck.
    """
    if not 0 < alpha < 1 or scale <= 0:
        raise CallError(f"alpha must lie between 0 and 1 and scale above 0; found {alpha:g} and {scale:g}")
    value = challenger.mean - control.mean
    if min(control.num, challenger.num) < LEAST_USERS:
        return Difference(value, -math.inf, math.inf)
    of_one = max(side.variance or _of_a_share(side) for side in (control, challenger))
    variance = of_one / control.num + of_one / challenger.num
    mixing = scale * scale
    half = math.sqrt(
        (2 * math.log(1 / alpha) + math.log1p(mixing / variance)) * variance * (variance + mixing) / mixing
    )
    return Difference(value, value - half, value + half)


def _of_a_share(side: Moments) -> float:
    share = (side.mean * side.num + 1) / (side.num + 2)
    return share * (1 - share)
