"""Calibration at k: whether the list has the mix of categories that the user showed (Steck, RecSys 2018)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse

if TYPE_CHECKING:
    from recops.evaluation.protocol import RankedUsers


ALPHA = 0.01  # of the paper: keeps the divergence finite where the list lacks a category
USERS_AT_ONCE = 1024


class Calibration:
    """KL divergence, in nats, of the list's category shares from the history's: 0 is the same mix, larger is worse.

    An item gives each of its categories an equal part of itself; the list's shares are mixed with ALPHA of the
    history's. All events of the history count alike. NaN where history or list has no item with categories.

    History {a, b} half each. A list with both halves: 0. A list of a alone: q = (.995, .005), so
    .5 ln(.5 / .995) + .5 ln(.5 / .005) = 1.9585.

    >>> from scipy import sparse
    >>> from recops.evaluation.protocol import ranked_lists
    >>> categories = sparse.csr_array(np.array([[0, 0], [1, 0], [0, 1], [0, 0]], dtype=float))
    >>> lists, histories = [[1, 2], [1, 0], [3, 0], [1, 2]], [[1, 2], [1, 2], [1, 2], []]
    >>> ranked = ranked_lists(lists, [[1]] * 4, item_counts=[0, 1, 1, 1], histories=histories, categories=categories)
    >>> Calibration().compute(ranked, 2).round(4).tolist()
    [0.0, 1.9585, nan, nan]
    """

    per_user = True
    uses_targets = False

    def compute(self, ranked: RankedUsers, k: int) -> np.ndarray:
        result = np.full(ranked.num_users, np.nan)
        if ranked.item_categories is None:
            return result
        sizes = ranked.item_categories.sum(axis=1)
        parts = sparse.diags_array(1.0 / np.maximum(sizes, 1.0)) @ ranked.item_categories
        top = ranked.top_idx[:, :k]
        places = sparse.csr_array(
            (np.ones(top.size), top.ravel(), np.arange(0, top.size + 1, top.shape[1])),
            shape=(ranked.num_users, ranked.num_items + 1),
        )
        wanted, listed = (ranked.history_matrix @ parts).tocsr(), (places @ parts).tocsr()
        for start in range(0, ranked.num_users, USERS_AT_ONCE):
            rows = slice(start, start + USERS_AT_ONCE)
            result[rows] = _divergence(wanted[rows].toarray(), listed[rows].toarray())
        return result


def _divergence(wanted_BC: np.ndarray, listed_BC: np.ndarray) -> np.ndarray:
    total_wanted, total_listed = wanted_BC.sum(axis=1), listed_BC.sum(axis=1)
    defined = (total_wanted > 0) & (total_listed > 0)
    p = wanted_BC / np.where(defined, total_wanted, 1.0)[:, None]
    q = (1 - ALPHA) * listed_BC / np.where(defined, total_listed, 1.0)[:, None] + ALPHA * p
    ratio = np.divide(p, q, out=np.ones_like(p), where=p > 0)
    # Rounding may leave a perfect match a hair below 0.
    return np.where(defined, np.maximum((p * np.log(ratio)).sum(axis=1), 0.0), np.nan)
