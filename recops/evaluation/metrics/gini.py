"""Gini index at k: how unevenly the places in all lists are shared among the items of the catalogue."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from recops.evaluation.protocol import RankedUsers


class Gini:
    """0 where every item gets the same number of places, near 1 where one item gets them all; NaN for no places.

    Half the mean absolute difference of all pairs of items, divided by the mean. Two items with 3 and 1 places:
    (|3-1| * 2 / 4) / 2 / 2 = .25.

    >>> from recops.evaluation.protocol import ranked_lists
    >>> ranked = ranked_lists([[1, 2], [1, 0], [1, 0]], [[1]] * 3, item_counts=[0, 1, 1])
    >>> float(Gini().compute(ranked, 2)), float(Gini().compute(ranked, 1))
    (0.25, 0.5)
    """

    per_user = False
    uses_targets = False

    def compute(self, ranked: RankedUsers, k: int) -> np.ndarray:
        places = np.bincount(ranked.top_idx[:, :k].ravel(), minlength=ranked.num_items + 1)[1:]
        if places.sum() == 0:
            return np.asarray(np.nan)
        ranks = np.arange(1, len(places) + 1)
        return np.asarray(((2 * ranks - len(places) - 1) * np.sort(places)).sum() / (len(places) * places.sum()))
