"""The best k of many scores, exactly. Knows nothing about what was scored.

Shapes: B batch, D width, N items (row 0 is padding), K list length.
"""

from collections.abc import Sequence

import numpy as np

PRODUCTS_AT_ONCE = 262_144  # float32, which stay in the cache: 1 MB
ONE_IN = 8  # items that a bound is taken from
SAMPLED_AT_ONCE = 8_000_000  # their float32 products: 32 MB, or fewer items are looked at
BLOCK = 32  # of these, of which only the maximum counts
UNROLLED = 8  # rows; BLAS sums the rows of a product with a vector otherwise where they are no multiple of it
_INFINITY = 0x7F800000  # as bits; those of a positive float32 rise with it


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


def best_products(
    users_BD: np.ndarray, items_ND: np.ndarray, nums: Sequence[int], never: Sequence[np.ndarray], largest_norm: float
) -> list[tuple[np.ndarray, np.ndarray] | None]:
    """For each of fewer than 65,536 users rows int64 [K] and scores float32 [K] of the `nums` best products, as `top_k`
    of `items_ND @ users_BD[b]` gives them. Row 0 and the user's rows in `never` are no candidates.

    None where that cannot be told so: fewer candidates than asked for, hardly any products above 0, or many ties; such
    users must be looked at alone. `largest_norm` is that of the longest item vector.

    One product in eight gives each user a bound that somewhat more than `nums` items should reach. Users are divided by
    it, so that each tile of the other products is compared with 1 while it is in the cache; those few that reach it are
    computed again, as they would be alone.

    >>> items = np.arange(4000, dtype=np.float32)[:, None]
    >>> (found,) = best_products(np.ones((1, 1), np.float32), items, [2], [np.array([3998])], 3999.0)
    >>> found[0].tolist(), found[1].tolist()
    ([3999, 3997], [3999.0, 3997.0])
    """
    num_users, num_rows = len(users_BD), len(items_ND)
    step = max(ONE_IN, -(-num_users * num_rows // SAMPLED_AT_ONCE))
    width = max(1, PRODUCTS_AT_ONCE // num_users)
    hidden = _Hidden(never, step, width)
    sample_BS = users_BD @ items_ND[::step].T
    sample_BS[:, 0] = -np.inf
    hidden.erase(sample_BS, 0, 0)
    bound_B = _bounds(sample_BS, np.asarray(nums), step)
    divided_BD = users_BD / bound_B[:, None]
    places, cols = _true(sample_BS >= bound_B[:, None])
    found = [(places, cols * step)]
    products, reached = np.empty(num_users * width, np.float32), np.empty(num_users * width, bool)
    for first in range(1, min(step, num_rows)):
        part = items_ND[first::step]
        for start in range(0, len(part), width):
            tile = part[start : start + width]
            size = num_users * len(tile)
            tile_BT = np.matmul(divided_BD, tile.T, out=products[:size].reshape(num_users, -1))
            hidden.erase(tile_BT, first, start)
            # Flat and with one number: with one for each row it takes three times as long.
            np.greater_equal(products[:size], np.float32(1), out=reached[:size])
            places, cols = _true(reached[:size].reshape(tile_BT.shape))
            found.append((places, (start + cols) * step + first))
    place_M, row_M = (np.concatenate(one) for one in zip(*found, strict=True))
    row_M = row_M[np.argsort(place_M, kind="stable")]
    ends = np.cumsum(np.bincount(place_M, minlength=num_users)).tolist()
    spans = [slice(start, end) for start, end in zip([0, *ends], ends, strict=False)]
    # Products of many users are summed in another order than those of one, and differ in the last bits.
    unsure_B = np.sqrt(np.square(users_BD).sum(1)) * (largest_norm * users_BD.shape[1] * 2.0**-22)
    return _in_order(users_BD, items_ND, row_M, spans, nums, bound_B + unsure_B)


class _Hidden:
    """Rows that are no candidates, by the tile in which their products stand."""

    def __init__(self, never: Sequence[np.ndarray], step: int, width: int) -> None:
        cols, firsts = np.divmod(np.concatenate(never), step)
        tiles = np.where(firsts > 0, cols // width, 0) * step + firsts  # the sample is one
        order = np.argsort(tiles)
        self._step, self._width = step, width
        self._places = np.repeat(np.arange(len(never)), [len(rows) for rows in never])[order]
        self._cols = cols[order]
        self._ends = [0, *np.cumsum(np.bincount(tiles)).tolist()]

    def erase(self, tile_BT: np.ndarray, first: int, start: int) -> None:
        tile = start // self._width * self._step + first
        if tile + 1 < len(self._ends):
            some = slice(self._ends[tile], self._ends[tile + 1])
            tile_BT[self._places[some], self._cols[some] - start] = -np.inf


def _bounds(sample_BS: np.ndarray, nums_B: np.ndarray, step: int) -> np.ndarray:
    """float32 [B], above 0: what `nums_B` of all products should reach, by three standard deviations; inf where there
    is no such bound, or too many reach it."""
    num_users, num = len(sample_BS), sample_BS.shape[1] // BLOCK
    maxima_BM = np.fmax.reduce(sample_BS[:, : num * BLOCK].reshape(num_users, BLOCK, num), axis=1)
    ranks_B = np.ceil(nums_B / step + 3 * np.sqrt(nums_B / step) + 1).astype(np.int64)
    bound_B = np.full(num_users, np.inf, np.float32)
    for rank in np.unique(ranks_B[ranks_B <= num]).tolist():
        some = ranks_B == rank
        bound_B[some] = np.partition(maxima_BM[some], num - rank, axis=1)[:, num - rank]
    bound_B[~(bound_B > 0)] = np.inf
    # Items that are tied with many others.
    num_reached_B = np.count_nonzero(sample_BS >= bound_B[:, None], axis=1)
    bound_B[num_reached_B > 4 * ranks_B + BLOCK] = np.inf
    return bound_B


def _true(flags_BT: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Row, uint16 [M], and column, int64 [M], of each flag that is set."""
    places, cols = np.divmod(np.flatnonzero(flags_BT), flags_BT.shape[1])
    return places.astype(np.uint16), cols


def _in_order(
    users_BD: np.ndarray,
    items_ND: np.ndarray,
    row_M: np.ndarray,
    spans: list[slice],
    nums: Sequence[int],
    sure_B: np.ndarray,
) -> list[tuple[np.ndarray, np.ndarray] | None]:
    """The best of each user's `spans` of rows, ties by lower row; None where the last of them is not above `sure_B`."""
    scores_M = np.empty(len(row_M), np.float32)
    most = max(span.stop - span.start for span in spans)
    gathered = np.zeros((most + UNROLLED, items_ND.shape[1]), items_ND.dtype)
    for user_D, span in zip(users_BD, spans, strict=True):
        num = span.stop - span.start
        items_ND.take(row_M[span], axis=0, out=gathered[:num], mode="clip")
        scores_M[span] = (gathered[: -(-num // UNROLLED) * UNROLLED] @ user_D)[:num]
    # Score down, then row up, in one number.
    bits_M = np.maximum(scores_M, 0).view(np.int32).astype(np.int64)
    keys_M = (_INFINITY - bits_M) << 32 | row_M
    heads = [np.sort(keys_M[span])[:num] for span, num in zip(spans, nums, strict=True)]
    keys = np.concatenate(heads)
    rows, scores = keys & 0xFFFFFFFF, (_INFINITY - (keys >> 32)).astype(np.int32).view(np.float32)
    answers: list[tuple[np.ndarray, np.ndarray] | None] = []
    start = 0
    for head, num, sure in zip(heads, nums, sure_B.tolist(), strict=True):
        end = start + len(head)
        is_sure = len(head) == num and scores[end - 1] > sure
        answers.append((rows[start:end], scores[start:end]) if is_sure else None)
        start = end
    return answers
