"""What the linear and neighbourhood models share: the user-item matrix and the cut to the strongest links.

In: `Interactions`. Out: scipy sparse matrices and the CSR arrays of `ServingParts.links`. Private to this folder, so
it is no model of the socket.
"""

from collections.abc import Iterable

import numpy as np
from scipy import sparse

from recops.data.interactions import Interactions

Links = tuple[np.ndarray, np.ndarray, np.ndarray]  # indptr int64 [N+2], indices int32, weights float32


def user_item_matrix(train: Interactions, dtype: type = np.float32) -> sparse.csr_array:
    """CSR [num_users+1, num_items+1]; a pair seen several times keeps its largest event weight. Row and column 0 are
    empty, rows are sorted by item."""
    shape = (train.num_users + 1, train.num_items + 1)
    order = np.lexsort((train.item_idx, train.user_idx))
    users, items = train.user_idx[order], train.item_idx[order]
    is_first = np.ones(len(order), dtype=bool)
    is_first[1:] = (users[1:] != users[:-1]) | (items[1:] != items[:-1])
    starts = np.flatnonzero(is_first)
    weights = train.weight[order]
    if len(starts):
        weights = np.maximum.reduceat(weights, starts)
    indptr = np.searchsorted(users[starts], np.arange(shape[0] + 1))
    return sparse.csr_array((weights.astype(dtype), items[starts], indptr), shape=shape)


def strongest(weights: np.ndarray, k: int) -> np.ndarray:
    """Positions of the `k` largest absolute values of `weights` [n], ascending; of equal ones the first win, zeros
    never do."""
    size = np.abs(weights)
    if len(size) <= k:
        return np.flatnonzero(size)
    least = np.partition(size, len(size) - k)[len(size) - k]
    above = np.flatnonzero(size > least)
    ties = np.flatnonzero(size == least)[: k - len(above)] if least > 0 else above[:0]
    return np.sort(np.concatenate([above, ties]))


def pack_links(rows: Iterable[tuple[np.ndarray, np.ndarray]]) -> Links:
    """CSR arrays from (indices, weights) of each row, row 0 first."""
    indices, weights = [np.zeros(0, np.int32)], [np.zeros(0, np.float32)]
    for row_indices, row_weights in rows:
        indices.append(row_indices.astype(np.int32))
        weights.append(row_weights.astype(np.float32))
    indptr = np.cumsum([0, *(len(row) for row in indices[1:])], dtype=np.int64)
    return indptr, np.concatenate(indices), np.concatenate(weights)


def no_links(num_items: int) -> Links:
    """Links of a model that has seen nothing: every row is empty."""
    return np.zeros(num_items + 2, np.int64), np.zeros(0, np.int32), np.zeros(0, np.float32)
