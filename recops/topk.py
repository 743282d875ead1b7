"""The best k of many scores, exactly. Knows nothing about what was scored."""

import numpy as np


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
