"""NDCG at k: how high the relevant items stand, against the best list there could be (Järvelin, Kekäläinen 2002)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from recops.evaluation.protocol import RankedUsers


class Ndcg:
    """Sum of 1 / log2(rank + 1) over the hits in the first k, divided by that of min(targets, k) hits in front.

    0 without a hit, NaN without a target. A list shorter than k has nothing at the missing places.

    User 1: one target, at rank 2, so 1 / log2(3) = .6309. User 2: three targets, a list of two, both hit:
    (1 + .6309) / (1 + .6309 + .5) = .7654. User 3: no hit. User 4: no target.

    >>> from recops.evaluation.protocol import ranked_lists
    >>> lists = [[1, 2, 3], [4, 5, 0], [1, 2, 3], [1, 2, 3]]
    >>> ranked = ranked_lists(lists, [[2], [4, 5, 6], [6], []], item_counts=[0] + [1] * 6)
    >>> Ndcg().compute(ranked, 3).round(4).tolist()
    [0.6309, 0.7654, 0.0, nan]
    """

    per_user = True
    uses_targets = True

    def compute(self, ranked: RankedUsers, k: int) -> np.ndarray:
        discounts = 1.0 / np.log2(np.arange(2, k + 2))
        ideal = np.concatenate(([np.nan], np.cumsum(discounts)))
        return ranked.hits[:, :k] @ discounts / ideal[np.minimum(ranked.num_targets, k)]
