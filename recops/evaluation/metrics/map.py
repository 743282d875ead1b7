"""MAP at k: the precision at each wanted item, averaged over all wanted items (as trec_eval computes map_cut)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from recops.evaluation.protocol import RankedUsers


class Map:
    """Sum over the hits in the first k of the precision at their rank, divided by the number of targets.

    0 without a hit, NaN without a target. With more than k targets it stays below 1.

    User 1: hits at ranks 1 and 3 of two targets: (1/1 + 2/3) / 2 = .8333. User 2: a list of one, hit, of two targets:
    .5. User 3: no hit. User 4: no target.

    >>> from recops.evaluation.protocol import ranked_lists
    >>> lists = [[1, 2, 3], [4, 0, 0], [1, 2, 3], [1, 2, 3]]
    >>> ranked = ranked_lists(lists, [[1, 3], [4, 5], [6], []], item_counts=[0] + [1] * 6)
    >>> Map().compute(ranked, 3).round(4).tolist()
    [0.8333, 0.5, 0.0, nan]
    """

    per_user = True
    uses_targets = True

    def compute(self, ranked: RankedUsers, k: int) -> np.ndarray:
        hits = ranked.hits[:, :k]
        precision = np.cumsum(hits, axis=1) / np.arange(1, k + 1)
        targets = np.where(ranked.num_targets > 0, ranked.num_targets, np.nan)
        return (precision * hits).sum(axis=1) / targets
