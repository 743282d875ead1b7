"""Scores histories against the catalogue with numpy and ONNX Runtime: the one scorer of evaluation, gate and service.

In: the parts of a model (arrays, and callables for its networks) and histories as item rows. Out: scores [B, N+1] and
the best k. Knows nothing about ids, users, files or HTTP; whoever imports this loads no torch and no dataframe library.

Shapes: B batch, L history length, D width, N items (row 0 is padding), K list length.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

Encode = Callable[[np.ndarray], np.ndarray]  # item_idx int64 [B, L] -> user_vector float32 [B, D]
ENCODED_AT_ONCE = 128  # histories
RANKED_AT_ONCE = 100_000  # items, for one user
Rank = Callable[[np.ndarray, np.ndarray], np.ndarray]  # user_vector [B, D], item_vectors [M, D'] -> float32 [B, M]


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
        items = history if self.window is None else history[-self.window :]
        if len(items) == 0:
            return np.zeros(num_rows, np.float32)
        age = np.arange(len(items) - 1, -1, -1, dtype=np.float64)
        weight = np.ones(len(items)) if self.decay is None else np.exp(-age / self.decay) + self.floor
        starts, ends = self.indptr[items], self.indptr[items + 1]
        counts = ends - starts
        # Positions of all neighbours of all history items, without a Python loop.
        first = np.repeat(starts - np.concatenate(([0], np.cumsum(counts)[:-1])), counts)
        positions = first + np.arange(counts.sum())
        return np.bincount(
            self.indices[positions], self.weights[positions] * np.repeat(weight, counts), minlength=num_rows
        ).astype(np.float32)


@dataclass(frozen=True)
class Scorer:
    """Scores the whole catalogue for histories (see protocols.ServingParts for the formula).

    A history is an int array of item rows, oldest first; rows outside the vocabulary must be left out by the caller.
    """

    num_items: int
    encode: Encode | None = None
    item_vectors: np.ndarray | None = None  # float32 [N+1, D]
    rank: Rank | None = None
    links: Links | None = None
    item_scores: np.ndarray | None = None  # float32 [N+1]
    max_history: int = 200
    needs_history: bool = True
    fallback: np.ndarray | None = None  # float32 [N+1]: scores for an empty history where the model needs one

    def pad(self, histories: Sequence[np.ndarray]) -> np.ndarray:
        """The last `max_history` rows of each history, padded on the left with 0: int64 [B, L], L at least 1."""
        length = max(1, min(self.max_history, max((len(h) for h in histories), default=1)))
        padded = np.zeros((len(histories), length), np.int64)
        for row, history in zip(padded, histories, strict=True):
            if len(history):
                last = history[-length:]
                row[-len(last) :] = last
        return padded

    def user_vectors(self, histories: Sequence[np.ndarray]) -> np.ndarray | None:
        """float32 [B, D], or None for a model without an encoder."""
        if self.encode is None:
            return None
        # Few at a time: the attention of a long history is the largest array there is.
        starts = range(0, max(len(histories), 1), ENCODED_AT_ONCE)
        return np.concatenate([self.encode(self.pad(histories[i : i + ENCODED_AT_ONCE])) for i in starts])

    def scores(self, histories: Sequence[np.ndarray], user_vectors: np.ndarray | None = None) -> np.ndarray:
        """float32 [B, N+1]; column 0 is -inf. `user_vectors` saves encoding again when the caller has them."""
        scores_BN = self._score_rows(histories, None, user_vectors)
        scores_BN[:, 0] = -np.inf
        return scores_BN

    def score_items(self, history: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Scores of some item rows for one history: float32 [M], the same figures as `scores` gives."""
        return self._score_rows([history], rows, None)[0]

    def _score_rows(
        self, histories: Sequence[np.ndarray], rows: np.ndarray | None, user_vectors: np.ndarray | None
    ) -> np.ndarray:
        num_rows = self.num_items + 1
        total = np.zeros((len(histories), num_rows if rows is None else len(rows)), np.float32)
        if self.item_vectors is not None and len(histories):
            vectors = self.item_vectors if rows is None else self.item_vectors[rows]
            users = self.user_vectors(histories) if user_vectors is None else user_vectors
            assert users is not None, "item_vectors need an encoder"
            if self.rank is None:
                total += users @ vectors.T
            else:
                # A ranker holds a hidden layer for every pair of user and item.
                for start in range(0, len(vectors), RANKED_AT_ONCE):
                    some = slice(start, start + RANKED_AT_ONCE)
                    for row, user in zip(total, users, strict=True):
                        row[some] += self.rank(user[None], np.asarray(vectors[some]))[0]
        if self.links is not None:
            for row, history in zip(total, histories, strict=True):
                votes = self.links.votes(history[-self.max_history :], num_rows)
                row += votes if rows is None else votes[rows]
        if self.item_scores is not None:
            total += self.item_scores if rows is None else self.item_scores[rows]
        if self.needs_history and self.fallback is not None:
            for row, history in zip(total, histories, strict=True):
                if len(history) == 0:
                    row[:] = self.fallback if rows is None else self.fallback[rows]
        return total


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


class OnnxNetwork:
    """One ONNX file on ONNX Runtime: CPU, a stated number of threads, no spinning, telemetry off.

    Called with its inputs in the order of the graph. Not made for sharing a session between processes.
    """

    def __init__(self, path: Path, threads: int = 1) -> None:
        import onnxruntime as ort

        ort.disable_telemetry_events()
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.enable_cpu_mem_arena = False
        options.log_severity_level = 3
        self.session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self.inputs = [i.name for i in self.session.get_inputs()]

    def __call__(self, *arrays: np.ndarray) -> np.ndarray:
        return self.session.run(None, dict(zip(self.inputs, arrays, strict=True)))[0]
