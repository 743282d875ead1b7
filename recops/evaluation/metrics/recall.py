"""Recall at k: which share of what the user went on to want stands in the list."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from recops.evaluation.protocol import RankedUsers


class Recall:
    """Hits in the first k divided by the number of targets (all of them, also where there are more than k).

    0 without a hit, NaN without a target.

    User 1: one of one. User 2: two of three, more than a list of two can hold. User 3: none. User 4: no target.

    >>> from recops.evaluation.protocol import ranked_lists
    >>> lists = [[1, 2], [4, 5], [1, 0], [1, 2]]
    >>> ranked = ranked_lists(lists, [[2], [4, 5, 6], [6], []], item_counts=[0] + [1] * 6)
    >>> Recall().compute(ranked, 2).round(4).tolist()
    [1.0, 0.6667, 0.0, nan]
    """

    per_user = True
    uses_targets = True

    def compute(self, ranked: RankedUsers, k: int) -> np.ndarray:
        targets = np.where(ranked.num_targets > 0, ranked.num_targets, np.nan)
        return ranked.hits[:, :k].sum(axis=1) / targets
