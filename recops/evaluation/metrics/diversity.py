"""Intra-list diversity at k: how different the items of one list are, by their categories (Ziegler et al. 2005)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse

if TYPE_CHECKING:
    from recops.evaluation.protocol import RankedUsers


USERS_AT_ONCE = 4096


class Diversity:
    """Mean Jaccard distance of the category sets of all pairs in the first k: 0 all alike, 1 nothing in common.

    Items without categories are left out; NaN with fewer than two items left, or without categories at all.

    Items 1 {a}, 2 {a, b}, 3 {c}: distances .5, 1 and 1, mean .8333.

    >>> from scipy import sparse
    >>> from recops.evaluation.protocol import ranked_lists
    >>> categories = sparse.csr_array(np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 0, 1], [0, 0, 0]], dtype=float))
    >>> lists, counts = [[1, 2, 3], [1, 2, 4], [1, 4, 0]], [0, 1, 1, 1, 1]
    >>> ranked = ranked_lists(lists, [[1]] * 3, item_counts=counts, categories=categories)
    >>> Diversity().compute(ranked, 3).round(4).tolist()
    [0.8333, 0.5, nan]
    """

    per_user = True
    uses_targets = False

    def compute(self, ranked: RankedUsers, k: int) -> np.ndarray:
        result = np.full(ranked.num_users, np.nan)
        if ranked.item_categories is None:
            return result
        sizes = ranked.item_categories.sum(axis=1)
        for start in range(0, ranked.num_users, USERS_AT_ONCE):
            top = ranked.top_idx[start : start + USERS_AT_ONCE, :k]
            result[start : start + USERS_AT_ONCE] = _mean_distance(top, ranked.item_categories, sizes)
        return result


def _mean_distance(top_BK: np.ndarray, categories: sparse.csr_array, sizes: np.ndarray) -> np.ndarray:
    num_users, k = top_BK.shape
    num_categories = categories.shape[1]
    rows = categories[top_BK.ravel()].tocoo()
    # Each user has columns of its own, so that the product compares the items of one list only.
    columns = rows.coords[1].astype(np.int64) + rows.coords[0] // k * num_categories
    lists = sparse.csr_array((rows.data, (rows.coords[0], columns)), shape=(num_users * k, num_users * num_categories))
    common = (lists @ lists.T).tocoo()
    a, b = common.coords
    a, b, both = a[a != b], b[a != b], common.data[a != b]
    size = sizes[top_BK].ravel()
    similarity = np.bincount(a // k, both / (size[a] + size[b] - both), minlength=num_users)
    length = (sizes[top_BK] > 0).sum(axis=1)
    pairs = np.where(length > 1, length * (length - 1), np.nan)
    return 1.0 - similarity / pairs
