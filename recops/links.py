"""Links between items and how a history votes with them: all of a model that has no network.

In: CSR arrays over item rows, histories of rows. Out: votes [N+1]. Knows nothing about how links were found.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np


@dataclass(frozen=True)
class Links:
    """Weighted neighbours of each item as CSR arrays over rows 0..N, and how a history votes with them.

    The j-th event from the end (0 is the last) votes with exp(-j / decay) + floor, or 1 where decay is None; only the
    last `window` events vote (None: all).
    """

    indptr: np.ndarray  # int64 [N+2]
    indices: np.ndarray  # int32 [nnz]
    weights: np.ndarray  # float32 [nnz]
    decay: float | None = None
    floor: float = 0.0
    window: int | None = None

    def votes(self, history: np.ndarray, num_rows: int) -> np.ndarray:
        """Sum of the neighbours' weights, float32 [num_rows]; zeros for an empty history."""
        items = self._voting(history)
        neighbours, counts = self._neighbours(items)
        voted = self.weights[neighbours] * np.repeat(self.vote_weights(len(items)), counts)
        return np.bincount(self.indices[neighbours], voted, minlength=num_rows).astype(np.float32)

    def votes_for(self, histories: Sequence[np.ndarray], rows: np.ndarray) -> np.ndarray:
        """What `votes` says of some rows, for several histories that share most items: float32 [B, R]."""
        voting = [self._voting(history) for history in histories]
        lengths = np.array([len(history) for history in voting], np.int64)
        items, place = np.unique(np.concatenate([*voting, np.zeros(0, np.int64)]), return_inverse=True)
        age = np.repeat(np.cumsum(lengths), lengths) - 1 - np.arange(lengths.sum())
        cell = np.repeat(np.arange(len(voting)) * len(items), lengths) + place
        votes = np.bincount(cell, self._weight_at(age), minlength=len(voting) * len(items))
        return (votes.reshape(len(voting), len(items)) @ self.between(items, rows)).astype(np.float32)

    def between(self, items: np.ndarray, rows: np.ndarray | None = None) -> np.ndarray:
        """Weight of the link from each of some items to each of some rows (None: all, R = N+1): float64 [H, R], 0 where
        there is none."""
        if rows is None:
            neighbours, counts = self._neighbours(items)
            num_rows = len(self.indptr) - 1
            cell = np.repeat(np.arange(len(items)) * num_rows, counts) + self.indices[neighbours]
            found = np.bincount(cell, self.weights[neighbours], minlength=len(items) * num_rows)
            return found.reshape(len(items), num_rows)
        wanted, column_R = np.unique(rows, return_inverse=True)
        column_N = np.full(len(self.indptr) - 1, -1)
        column_N[wanted] = np.arange(len(wanted))
        neighbours, counts = self._neighbours(items)
        column = column_N[self.indices[neighbours]]
        hits = np.flatnonzero(column >= 0)  # few
        row = np.searchsorted(np.cumsum(counts), hits, side="right")
        cell, weights = row * len(wanted) + column[hits], self.weights[neighbours[hits]]
        found = np.bincount(cell, weights, minlength=len(items) * len(wanted))
        return found.reshape(len(items), len(wanted))[:, column_R]

    def up_to(self, num_items: int) -> "Links":
        """The same in a catalogue of `num_items`, of which those beyond its own have no neighbours."""
        missing = num_items + 2 - len(self.indptr)
        return replace(self, indptr=np.pad(self.indptr, (0, missing), "edge")) if missing > 0 else self

    def with_items(self, votes: Sequence[tuple[np.ndarray, np.ndarray]]) -> "Links":
        """The same with as many more items at the end: for each the rows that vote for it, and their weights."""
        first = len(self.indptr) - 1
        voters = np.concatenate([rows for rows, _ in votes])
        voted_for = np.repeat(np.arange(first, first + len(votes)), [len(rows) for rows, _ in votes])
        order = np.argsort(voters, kind="stable")
        # After what each row holds already, so that a row stays sorted.
        place = np.pad(self.indptr, (0, len(votes)), "edge")[voters[order] + 1]
        counts = np.bincount(voters, minlength=first + len(votes))
        indptr = np.pad(self.indptr, (0, len(votes)), "edge") + np.concatenate(([0], np.cumsum(counts)))
        return replace(
            self,
            indptr=indptr.astype(np.int64),
            indices=np.insert(self.indices, place, voted_for[order]).astype(np.int32),
            weights=np.insert(self.weights, place, np.concatenate([w for _, w in votes])[order]).astype(np.float32),
        )

    def vote_weights(self, num_events: int) -> np.ndarray:
        """How much each of the last events of a history votes, oldest first: float64."""
        return self._weight_at(np.arange(num_events - 1, -1, -1))

    def _weight_at(self, age: np.ndarray) -> np.ndarray:
        return np.ones(len(age)) if self.decay is None else np.exp(-age / self.decay) + self.floor

    def _voting(self, history: np.ndarray) -> np.ndarray:
        return history if self.window is None else history[-self.window :]

    def _neighbours(self, items: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Where the neighbours of each item stand, one item after the other, and how many each has."""
        starts, counts = self.indptr[items], self.indptr[items + 1] - self.indptr[items]
        # Without a Python loop.
        first = np.repeat(starts - (np.cumsum(counts) - counts), counts)
        return first + np.arange(counts.sum()), counts
