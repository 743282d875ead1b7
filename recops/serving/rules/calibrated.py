"""Rule `calibrated`: the categories of the list in the shares that they have in the history (Steck: "Calibrated
recommendations", RecSys 2018).

Value of a candidate = (1 - s) x what it was - s x KL(p || q), p the shares of the history and q those of the list with
the candidate. An item counts in each of its categories, in equal parts that add up to 1. Says nothing of a list without
a history, or whose history has no categories.
"""

from collections import Counter
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from recops.serving.occasion import Occasion

SMOOTHING = 0.01  # of p in q, as in the paper: a category that the list lacks costs much, and not all


class Calibrated:
    step: ClassVar[str] = "order"
    where: ClassVar[tuple[str, ...]] = ("file",)
    Value = Annotated[float, Field(ge=0, le=1, description="0: by score alone; 1: by the shares alone.")]

    def preference(self, value: float, rows: np.ndarray, occasion: Occasion) -> "Shares | None":
        categories = occasion.release.bundle.items["categories"]
        parts: Counter[str] = Counter()
        for row in occasion.history.tolist():
            own = dict.fromkeys(categories[row - 1] or ())
            parts.update({name: 1 / len(own) for name in own})
        return Shares(value, parts, rows, categories) if parts else None


class Shares:
    """C candidates, U different sets of categories among them, G categories of the history."""

    weighs, closed = True, None

    def __init__(
        self, strength: float, parts: Counter[str], rows: np.ndarray, categories: list[list[str] | None]
    ) -> None:
        self._strength, self._categories = strength, categories
        self._place = {name: place for place, name in enumerate(parts)}
        self._p_G = np.array(list(parts.values())) / sum(parts.values())
        parts_CG = np.stack([self._of(row) for row in rows.tolist()]) if len(rows) else np.zeros((0, len(parts)))
        # Candidates of the same categories are worth the same.
        self._kinds_UG, self._kind_C = np.unique(parts_CG, axis=0, return_inverse=True)
        self._list_G = np.zeros(len(parts))
        self._num = 0

    def _of(self, row: int) -> np.ndarray:
        own = dict.fromkeys(self._categories[row - 1] or ())
        found = np.zeros(len(self._place))
        found[[self._place[name] for name in own if name in self._place]] = 1 / max(len(own), 1)
        return found

    def weighed(self, values: np.ndarray) -> np.ndarray:
        q_UG = (self._list_G + self._kinds_UG) / (self._num + 1)
        smooth_UG = (1 - SMOOTHING) * q_UG + SMOOTHING * self._p_G
        divergence_U = np.log(self._p_G / smooth_UG) @ self._p_G
        return (1 - self._strength) * values - self._strength * divergence_U[self._kind_C]

    def take(self, row: int) -> None:
        self._list_G += self._of(row)
        self._num += 1
