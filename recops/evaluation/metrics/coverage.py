"""Coverage at k: which share of the catalogue is recommended to anybody at all."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from recops.evaluation.protocol import RankedUsers


class Coverage:
    """Items that stand in the first k of at least one list, divided by the number of items. NaN for no items.

    Lists of two over four items, of which item 3 is only at rank 2 and item 4 nowhere.

    >>> from recops.evaluation.protocol import ranked_lists
    >>> ranked = ranked_lists([[1, 3], [2, 0]], [[1], [1]], item_counts=[0, 1, 1, 1, 1])
    >>> float(Coverage().compute(ranked, 1)), float(Coverage().compute(ranked, 2))
    (0.5, 0.75)
    """

    per_user = False
    uses_targets = False

    def compute(self, ranked: RankedUsers, k: int) -> np.ndarray:
        shown = np.unique(ranked.top_idx[:, :k])
        num_shown = np.count_nonzero(shown)
        return np.asarray(num_shown / ranked.num_items if ranked.num_items else np.nan)
