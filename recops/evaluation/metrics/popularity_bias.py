"""Popularity bias at k: how much more popular the recommendations are than what the user chose before."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from recops.evaluation.protocol import RankedUsers


class PopularityBias:
    """Mean train events of the items in the first k over that of the history's items, minus 1 (Abdollahpouri et al.
    2019, popularity lift): 0 as popular as the user's own taste, 1 twice as popular, -.5 half.

    NaN for an empty list, an empty history, or a history without any train event.

    List of items with 4 and 2 events, history of items with 2 and 1: 3 / 1.5 - 1 = 1.

    >>> from recops.evaluation.protocol import ranked_lists
    >>> lists, histories = [[1, 2], [3, 0], [1, 2]], [[2, 3], [1], []]
    >>> ranked = ranked_lists(lists, [[1]] * 3, item_counts=[0, 4, 2, 1], histories=histories)
    >>> PopularityBias().compute(ranked, 2).tolist()
    [1.0, -0.75, nan]
    """

    per_user = True
    uses_targets = False

    def compute(self, ranked: RankedUsers, k: int) -> np.ndarray:
        counts = np.concatenate(([0], ranked.item_counts[1:])).astype(np.float64)
        top = ranked.top_idx[:, :k]
        recommended, length = counts[top].sum(axis=1), (top > 0).sum(axis=1).astype(np.float64)
        chosen, num_chosen = ranked.history_matrix @ counts, ranked.history_matrix.sum(axis=1)
        defined = (length > 0) & (chosen > 0)
        lift = np.full(ranked.num_users, np.nan)
        np.divide(recommended * num_chosen, length * chosen, out=lift, where=defined)
        return lift - 1.0
