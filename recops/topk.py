"""The best k of many scores, exactly. Knows nothing about what was scored.

Shapes: B batch, D width, N items (row 0 is padding), K list length.
"""

from collections.abc import Sequence

import numpy as np

TILE, BLOCK = 4096, 4  # items whose products stay in the cache; items that are told apart only where one is good
COARSE = 16  # maxima of which one is looked at for the bound


def widened(scores_BN: np.ndarray, num_items: int) -> np.ndarray:
    """`scores_BN` in a catalogue of `num_items`, at least its own: items beyond its own are no candidates (-inf)."""
    missing = num_items + 1 - scores_BN.shape[1]
    return np.pad(scores_BN, ((0, 0), (0, missing)), constant_values=-np.inf) if missing else scores_BN


def top_k(scores_BN: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows and scores of the k best, best first, ties by lower row: int64 [B, K], float32 [B, K].

    Items scored -inf or NaN are no candidates: where fewer than k remain the list ends with row 0 and -inf.

    >>> rows, scores = top_k(np.array([[-np.inf, 1.0, 3.0, 3.0]], np.float32), 2)
    >>> rows.tolist(), scores.tolist()
    ([[2, 3]], [[3.0, 3.0]])
    """
    rows_BK = np.zeros((len(scores_BN), k), np.int64)
    best_BK = np.full((len(scores_BN), k), -np.inf, np.float32)
    for b, scores in enumerate(scores_BN):
        bound = _bound(scores, k)
        candidates = np.flatnonzero(scores >= bound) if bound > -np.inf else np.flatnonzero(scores > -np.inf)
        if k < len(candidates):
            # Everything at least as good as the k-th best, so that ties at the edge are settled by row.
            found = scores[candidates]
            candidates = candidates[found >= np.partition(found, len(found) - k)[len(found) - k]]
        order = np.argsort(-scores[candidates], kind="stable")[:k]
        chosen = candidates[order]
        rows_BK[b, : len(chosen)] = chosen
        best_BK[b, : len(chosen)] = scores[chosen]
    return rows_BK, best_BK


def _bound(scores: np.ndarray, k: int) -> float:
    """A score that at least k items reach: the k-th best of the maxima of blocks. -inf where there is none so simply.

    One pass over the scores instead of a partition of them all, which takes ten times as long.
    """
    width = min(256, len(scores) // (4 * k))
    if width < 8:
        return -np.inf
    num_blocks = len(scores) // width
    maxima = np.fmax.reduce(scores[: num_blocks * width].reshape(num_blocks, width), axis=1)
    maxima[np.isnan(maxima)] = -np.inf
    return float(np.partition(maxima, num_blocks - k)[num_blocks - k])


def largest_products(users_BD: np.ndarray, items_ND: np.ndarray, nums: Sequence[int]) -> list[np.ndarray]:
    """For each user rows, rising, that hold those of the `nums` largest products, and not many more; row 0 is none of
    them. Ties at the edge are all there.

    Only the maxima of blocks are kept, while their products are in the cache: cheaper than to write all products and to
    read them again.

    >>> items = np.array([[0.0], [1.0], [3.0], [2.0]], np.float32)
    >>> largest_products(np.ones((1, 1), np.float32), items, [2])[0].tolist()
    [1, 2, 3]
    """
    num_users, num_rows, num_blocks = len(users_BD), len(items_ND), len(items_ND) // BLOCK
    users_DB = np.ascontiguousarray(users_BD.T)
    maxima_MB = np.empty((num_blocks, num_users), np.float32)
    products_TB = np.empty((TILE, num_users), np.float32)
    for start in range(0, num_blocks * BLOCK, TILE):
        tile_TB = products_TB[: min(TILE, num_blocks * BLOCK - start)]
        # With the users in columns: a fifth less time than with the items in them.
        np.matmul(items_ND[start : start + len(tile_TB)], users_DB, out=tile_TB)
        some = slice(start // BLOCK, (start + len(tile_TB)) // BLOCK)
        # Items of a block lie apart, so that the maximum goes along rows.
        np.maximum.reduce(tile_TB.reshape(BLOCK, -1, num_users), axis=0, out=maxima_MB[some])
    reached = np.flatnonzero(maxima_MB >= _reached_by(maxima_MB, [num + 1 for num in nums]))
    blocks, users = np.divmod(reached, max(num_users, 1))
    tiles = blocks * BLOCK // TILE * TILE
    apart = np.minimum(TILE, num_blocks * BLOCK - tiles) // BLOCK
    first = tiles + blocks - tiles // BLOCK
    rows = first[:, None] + apart[:, None] * np.arange(BLOCK)
    # Of all users at once: a user's rows rise, and those of the next follow.
    keys = np.sort(((users * num_rows)[:, None] + rows)[rows > 0])
    ends = np.searchsorted(keys, np.arange(1, num_users) * num_rows)
    tail = np.arange(max(num_blocks * BLOCK, 1), num_rows)
    return [np.concatenate([some, tail]) for some in np.split(keys % num_rows, ends)][:num_users]


def _reached_by(maxima_MB: np.ndarray, nums: Sequence[int]) -> np.ndarray:
    """For each user a bound that at least so many of the maxima reach, float32 [B]; a little lower, since sums in
    another order differ in the last bits."""
    num_blocks, num_users = maxima_MB.shape
    groups = num_blocks // COARSE
    coarse_BG = np.ascontiguousarray(maxima_MB[: groups * COARSE].reshape(COARSE, groups, num_users).max(0).T)
    bounds = np.full(num_users, -np.inf, np.float32)
    for b, num in enumerate(nums):
        if num < num_blocks:
            looked_at = coarse_BG[b] if groups >= 2 * num else maxima_MB[:, b]
            bound = float(np.partition(looked_at, len(looked_at) - num)[len(looked_at) - num])
            bounds[b] = bound - 1e-5 * abs(bound) - 1e-12
    return bounds
