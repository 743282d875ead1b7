"""Nearest items by content: the arithmetic that a model of content neighbours and the runtime share.

In: what encoders say of the items. Out: for each item the items that are most like it, and what their votes weigh.
Knows nothing about ids, events or files. Free of torch.

Shapes: N items (row 0 is padding), M some items, C columns of all encoders, K neighbours.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

BLOCK_CELLS = 8_000_000  # most similarities at a time: 32 MB


@dataclass(frozen=True)
class Nearness:
    """How alike two items are: the cosine of what an encoder says of them, its `mean` taken off first; of several
    encoders the mean of the cosines. Where an encoder says nothing of an item (zeros) its cosine is 0."""

    num_neighbors: int
    power: float  # of the similarity: a vote's weight
    mean: np.ndarray  # float32 [C]; zeros where nothing is taken off
    dims: tuple[int, ...]  # columns of each encoder, C together

    def unit(self, blocks: Sequence[np.ndarray]) -> np.ndarray:
        """Vectors [M, D] of each encoder, each made length 1, side by side: float32 [M, C]."""
        found, start = [], 0
        for block, dim in zip(blocks, self.dims, strict=True):
            vectors = block.astype(np.float32)
            known = vectors.any(1)
            vectors[known] -= self.mean[start : start + dim]
            length = np.linalg.norm(vectors, axis=1, keepdims=True)
            found.append(vectors / np.maximum(length, 1e-9))
            start += dim
        return np.concatenate(found, axis=1)

    def of(self, unit_MC: np.ndarray, unit_NC: np.ndarray, first: int = 0) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """(nearest rows of N, rising, and what their votes weigh) of each of the M; row `first + m` is item m itself,
        which is no neighbour. Works in blocks."""
        block_size = max(1, BLOCK_CELLS // max(len(unit_NC), 1))
        for start in range(0, len(unit_MC), block_size):
            similar_BN = unit_MC[start : start + block_size] @ unit_NC.T / len(self.dims)
            for row, similar_N in enumerate(similar_BN, start=first + start):
                similar_N[row] = 0
                nearest = strongest(np.maximum(similar_N, 0), self.num_neighbors)
                yield nearest, similar_N[nearest] ** np.float32(self.power)


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
