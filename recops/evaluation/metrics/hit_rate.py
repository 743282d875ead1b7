"""Hit rate at k: whether anything in the list was wanted. With one target a user it equals recall."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from recops.evaluation.protocol import RankedUsers


class HitRate:
    """1 where at least one target stands in the first k, else 0; NaN without a target.

    >>> from recops.evaluation.protocol import ranked_lists
    >>> ranked = ranked_lists([[1, 2], [4, 5], [1, 0], [1, 2]], [[2], [4, 5], [6], []], item_counts=[0] + [1] * 6)
    >>> HitRate().compute(ranked, 1).tolist(), HitRate().compute(ranked, 2).tolist()
    ([0.0, 1.0, 0.0, nan], [1.0, 1.0, 0.0, nan])
    """

    per_user = True
    uses_targets = True

    def compute(self, ranked: RankedUsers, k: int) -> np.ndarray:
        return np.where(ranked.num_targets > 0, ranked.hits[:, :k].any(axis=1), np.nan)
