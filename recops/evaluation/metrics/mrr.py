"""MRR at k: how far down the first wanted item stands."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from recops.evaluation.protocol import RankedUsers


class Mrr:
    """1 / rank of the first target in the first k, 0 where there is none; NaN without a target.

    >>> from recops.evaluation.protocol import ranked_lists
    >>> ranked = ranked_lists([[1, 2], [4, 5], [1, 0], [1, 2]], [[2], [4, 5], [6], []], item_counts=[0] + [1] * 6)
    >>> Mrr().compute(ranked, 2).tolist()
    [0.5, 1.0, 0.0, nan]
    """

    per_user = True
    uses_targets = True

    def compute(self, ranked: RankedUsers, k: int) -> np.ndarray:
        reciprocal = (ranked.hits[:, :k] / np.arange(1, k + 1)).max(axis=1, initial=0.0)
        return np.where(ranked.num_targets > 0, reciprocal, np.nan)
