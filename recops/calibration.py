"""How the scores of several models become one: each brought to a common scale for each user, then weighed.

In: the scores of each model for one user. Out: the same on one scale, and the weights that they are added with. Knows
nothing about where the scores came from.

Shapes: B batch, M models, N items (row 0 is padding), S segments of history lengths.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

if TYPE_CHECKING:
    from recops.histories import Histories

RECIPROCAL_OFFSET = 60  # of reciprocal rank fusion (Cormack, Clarke, Buettcher, 2009)
RETRIEVED = 200  # best items of each member that `candidates` calibrates by
Calibration = Literal["zscore", "candidates", "rank"]
_LIKEST, _OPTIMISM = 50, 0.9  # items that a later one is compared with, and which of them it counts as
Scale = Callable[[np.ndarray], np.ndarray]  # scores of one model, of any shape, to the common scale; NaN stays NaN


@dataclass(frozen=True)
class Fusion:
    """How the scores of several models become one: each calibrated for each user, then weighed and added.

    `zscore`: mean 0 and deviation 1 over the items outside the history. `candidates`: the same over the best 200 of
    each member alone, all that is at hand where members retrieve from an index. `rank`: 1 / (60 + rank) among all.
    Items beyond `num_items` are calibrated like the others, but change nothing for them.
    `weights` [S, M] has a row for each segment of history lengths: segment s begins at `edges[s - 1]` events.
    """

    weights: np.ndarray  # float32 [S, M], at least 0, each row with one above
    edges: tuple[int, ...] = ()
    calibration: Calibration = "zscore"
    num_items: int | None = None  # None: all

    def check(self, num_members: int) -> None:
        """Raises ValueError for weights or settings that no fusion of so many models has."""
        expected = (len(self.edges) + 1, num_members)
        if self.weights.shape != expected or not num_members:
            raise ValueError(f"weights of shape {self.weights.shape} where {expected} are needed")
        if not (np.isfinite(self.weights).all() and (self.weights >= 0).all() and self.weights.any(1).all()):
            raise ValueError("weights of the fusion must be finite, not negative, and not all 0")
        if self.calibration not in get_args(Calibration) or list(self.edges) != sorted(set(self.edges)):
            raise ValueError(f"a fusion by {self.calibration!r} at {self.edges} is not known")

    def weights_of(self, histories: "Histories") -> np.ndarray:
        """float32 [B, M]."""
        lengths = [len(history) for history in histories]
        return self.weights[np.searchsorted(np.array(self.edges), lengths, side="right")]

    def calibrated(self, scores_MN: np.ndarray, history: np.ndarray) -> np.ndarray:
        """The scores [M, N+1] of each model for one user on the common scale; NaN (it cannot score that) stays NaN."""
        scales = self.scales(scores_MN, history)
        return np.stack([scale(scores_N) for scale, scores_N in zip(scales, scores_MN, strict=True)])

    def scales(self, scores_MN: np.ndarray, history: np.ndarray) -> list[Scale]:
        """For each model what brings its scores, as one user has them, to the common scale."""
        judged_MN = ~np.isnan(scores_MN)
        judged_MN[:, 0] = False
        judged_MN[:, history] = False
        if self.num_items is not None:
            judged_MN[:, self.num_items + 1 :] = False
        if self.calibration == "candidates":
            judged_MN &= self._retrieved(scores_MN, judged_MN)
        return [self._scale(scores_N[judged]) for scores_N, judged in zip(scores_MN, judged_MN, strict=True)]

    def _retrieved(self, scores_MN: np.ndarray, judged_MN: np.ndarray) -> np.ndarray:
        """bool [N+1]: the best of any member."""
        found = np.zeros(scores_MN.shape[1], bool)
        for scores_N, judged_N in zip(scores_MN, judged_MN, strict=True):
            rows = np.flatnonzero(judged_N)
            if len(rows) > RETRIEVED:
                rows = rows[np.argpartition(-scores_N[rows], RETRIEVED)[:RETRIEVED]]
            found[rows] = True
        return found

    def _scale(self, others: np.ndarray) -> Scale:
        """`others` are the scores to calibrate by."""
        if self.calibration == "rank":
            rising = np.sort(others)

            def by_rank(scores: np.ndarray) -> np.ndarray:
                better = len(rising) - np.searchsorted(rising, scores, side="right")
                return np.where(np.isnan(scores), np.nan, 1.0 / (RECIPROCAL_OFFSET + 1 + better)).astype(np.float32)

            return by_rank
        mean = np.float32(others.mean(dtype=np.float64) if len(others) else 0.0)
        deviation = others.std(dtype=np.float64) if len(others) else 0.0
        # A model that says the same of all items says nothing: all 0.
        step = np.float32(1 / deviation if deviation > 0 else 0.0)
        return lambda scores: (scores - mean) * step


def as_all_would(few_N: np.ndarray, all_N: np.ndarray) -> Scale:
    """From what some members say of an item to what all would, for one user: of items that only these know.

    Both are over items that all members know, without the history: `few_N` what these members say together, `all_N`
    what all do. A line through the means and through the items that the few put highest, where it meets the best tenth
    of what all say of those: an item nobody has seen yet counts as one of the better of those it is like, as it must
    to be seen at all, and not as if everybody had been asked and agreed. At most the best there is.
    """
    if not len(few_N):
        return lambda scores: scores
    num = min(_LIKEST, len(few_N) // 10 + 1)
    top = np.argpartition(few_N, -num)[-num:]
    few_mean, all_mean = few_N.mean(dtype=np.float64), all_N.mean(dtype=np.float64)
    rise, run = np.quantile(all_N[top], _OPTIMISM) - all_mean, few_N[top].mean(dtype=np.float64) - few_mean
    slope, most = max(rise / run, 0.0) if run > 1e-9 else 0.0, all_N.max()
    return lambda scores: np.minimum(all_mean + slope * (scores - few_mean), most).astype(np.float32)
