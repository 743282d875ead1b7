"""Novelty at k: how surprising the list is, as the mean self-information of its items (Zhou et al. 2010)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from recops.evaluation.protocol import RankedUsers


class Novelty:
    """Mean of -log2(p) over the items in the first k, in bits; p is the item's share of all train events, each item
    counted once more than it was seen, so that an item never seen is finite. NaN for an empty list.

    Counts 5, 2 and 0 of three items make p = 6/10, 3/10 and 1/10, hence .737, 1.737 and 3.3219 bits. A list of items 2
    and 3 has 2.5294.

    >>> from recops.evaluation.protocol import ranked_lists
    >>> ranked = ranked_lists([[2, 3], [1, 0], [0, 0]], [[1]] * 3, item_counts=[0, 5, 2, 0])
    >>> Novelty().compute(ranked, 2).round(4).tolist()
    [2.5294, 0.737, nan]
    """

    per_user = True
    uses_targets = False

    def compute(self, ranked: RankedUsers, k: int) -> np.ndarray:
        counts = ranked.item_counts[1:] + 1
        bits = np.concatenate(([0.0], -np.log2(counts / counts.sum())))
        top = ranked.top_idx[:, :k]
        length = (top > 0).sum(axis=1)
        return bits[top].sum(axis=1) / np.where(length > 0, length, np.nan)
