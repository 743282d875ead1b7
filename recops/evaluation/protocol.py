"""How a model is judged: its ranking of the whole catalogue for each user, and the figures made of that.

In: a scorer (recops.runtime.Scorer), histories and targets as item rows. Out: `RankedUsers`, which metrics read, and
`Evaluation`. Knows no ids, files or models. The scorer is the one that serves.

Shapes: B batch, N items (row 0 is padding), K list length, U users judged.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from scipy import sparse

from recops import plugins
from recops.evaluation.bootstrap import mean_intervals
from recops.evaluation.segments import segments
from recops.histories import Histories
from recops.runtime import Scorer
from recops.topk import top_k, widened

SCORES_AT_ONCE = 16_000_000  # float32 scores held at a time: 64 MB


@dataclass(frozen=True)
class RankedUsers:
    """What one model recommends to each user, what the user did next, and what metrics need to know of the items.

    A target of row 0 is an item that the vocabulary does not know: it cannot be recommended, stays among the user's
    targets and so counts as a miss. Lists are as long as the catalogue rule and the seen items leave them: row 0 and
    score -inf pad them on the right.
    """

    top_idx: np.ndarray  # int32 [U, K], best first
    top_scores: np.ndarray  # float32 [U, K]
    target_offsets: np.ndarray  # int64 [U+1]
    target_idx: np.ndarray  # int32 [T], each known item once a user
    histories: Sequence[np.ndarray]  # U int arrays of item rows, oldest first
    item_counts: np.ndarray  # int64 [N+1], train events of each item
    item_categories: sparse.csr_array | None = None  # 0/1 float [N+1, C]

    @property
    def num_users(self) -> int:
        return len(self.top_idx)

    @property
    def num_items(self) -> int:
        return len(self.item_counts) - 1

    @cached_property
    def num_targets(self) -> np.ndarray:
        """int64 [U]."""
        return np.diff(self.target_offsets)

    @cached_property
    def target_user(self) -> np.ndarray:
        """int64 [T]: the user of each target."""
        return np.repeat(np.arange(self.num_users), self.num_targets)

    @cached_property
    def hits(self) -> np.ndarray:
        """bool [U, K]: whether the item at that place of the list is one of the user's targets."""
        width = self.num_items + 1
        targets = self.target_user * width + self.target_idx
        places = np.arange(self.num_users)[:, None] * width + self.top_idx
        return np.isin(places, targets) & (self.top_idx > 0)

    @cached_property
    def history_matrix(self) -> sparse.csr_array:
        """float64 [U, N+1]: how often each item stands in the history."""
        lengths = np.array([len(h) for h in self.histories], dtype=np.int64)
        offsets = np.concatenate(([0], np.cumsum(lengths)))
        items = np.concatenate([np.empty(0, np.int64), *self.histories]).astype(np.int64)
        return sparse.csr_array((np.ones(len(items)), items, offsets), shape=(self.num_users, self.num_items + 1))

    def with_targets(self, keep: np.ndarray) -> "RankedUsers":
        """The same lists judged on some targets only: `keep` is bool [T]. Users may be left without a target."""
        counts = np.bincount(self.target_user[keep], minlength=self.num_users)
        offsets = np.concatenate(([0], np.cumsum(counts)))
        return replace(self, target_offsets=offsets, target_idx=self.target_idx[keep])


def ranked_lists(
    lists: np.ndarray | Sequence[Sequence[int]],
    targets: Sequence[Sequence[int] | np.ndarray],
    *,
    item_counts: np.ndarray | Sequence[int],
    scores: np.ndarray | None = None,
    histories: Sequence[np.ndarray | Sequence[int]] | None = None,
    categories: sparse.csr_array | None = None,
) -> RankedUsers:
    """RankedUsers of lists made elsewhere: [U, K] item rows, padded on the right with 0.

    A target given twice counts once, but each 0 counts, as unknown items differ. Without `scores` each list falls from
    K to 1, without `histories` they are empty.
    """
    top_idx = np.asarray(lists, dtype=np.int32)
    if scores is None:
        scores = np.where(top_idx > 0, np.arange(top_idx.shape[1], 0, -1), -np.inf).astype(np.float32)
    kept = [np.concatenate([t[t == 0], np.unique(t[t > 0])]) for t in (np.asarray(t, dtype=np.int32) for t in targets)]
    if histories is None:
        histories = [()] * len(top_idx)
    return RankedUsers(
        top_idx=top_idx,
        top_scores=scores,
        target_offsets=np.cumsum([0, *map(len, kept)], dtype=np.int64),
        target_idx=np.concatenate([np.empty(0, np.int32), *kept]),
        histories=[np.asarray(h, dtype=np.int64) for h in histories],
        item_counts=np.asarray(item_counts, dtype=np.int64),
        item_categories=categories,
    )


def rank_users(
    scorer: Scorer,
    histories: Histories | Sequence[np.ndarray],
    targets: Sequence[np.ndarray],
    *,
    k: int,
    remove_seen: bool,
    item_counts: np.ndarray,
    fallback: np.ndarray | None = None,
    item_categories: sparse.csr_array | None = None,
    first_seen: np.ndarray | None = None,
    at_time: np.ndarray | None = None,
    refused: Sequence[np.ndarray] | None = None,
) -> RankedUsers:
    """Ranks the whole catalogue for each of U users, best first, ties by lower row. The catalogue has the N items of
    `item_counts`; those that the scorer does not have, as a model without content does not have items that were never
    trained on, are none of its candidates.

    `histories` and `targets`: U int arrays of item rows; a 0 among the targets is an unknown item, repeated known ones
    count once. With `remove_seen` items of the history are no candidates. `first_seen` int64 [N+1] and `at_time`
    int64 [U] (microseconds; the user's last target) are given together or not at all: an item first seen after
    `at_time` was not there to be recommended and is no candidate; one first seen at that very moment is. `refused`:
    U int arrays of rows that are no candidates for the user. Users without history are ranked by `fallback` [N+1]
    (None: by `item_counts`) when the model needs one, as they are served. No users give empty arrays. Scores of at
    most `SCORES_AT_ONCE` places are held at a time.
    """
    histories = Histories.of(histories)
    assert len(histories) == len(targets) and (first_seen is None) == (at_time is None)
    fallback = np.asarray(item_counts if fallback is None else fallback, np.float32)
    scorer = replace(scorer, fallback=fallback[: scorer.num_items + 1])
    batch = max(1, min(1024, SCORES_AT_ONCE // len(fallback)))
    top_idx = np.zeros((len(histories), k), np.int32)
    top_scores = np.full((len(histories), k), -np.inf, np.float32)
    for start in range(0, len(histories), batch):
        rows = slice(start, start + batch)
        scores_BN = widened(scorer.scores(histories[rows]), len(fallback) - 1)
        mask_candidates(scores_BN, histories[rows], remove_seen, first_seen, at_time, rows)
        for scores, never in zip(scores_BN, refused[rows] if refused is not None else (), strict=False):
            scores[never] = -np.inf
        idx_BK, best_BK = top_k(scores_BN, k)
        top_idx[rows], top_scores[rows] = np.where(np.isfinite(best_BK), idx_BK, 0), best_BK
    return ranked_lists(
        top_idx,
        targets,
        item_counts=item_counts,
        scores=top_scores,
        histories=histories.items,
        categories=item_categories,
    )


def mask_candidates(
    scores_BN: np.ndarray,
    histories: Histories,
    remove_seen: bool,
    first_seen: np.ndarray | None,
    at_time: np.ndarray | None,
    rows: slice | np.ndarray,
) -> None:
    """Sets to -inf, in place, what could not be recommended; `rows` says which of the users of `at_time` these are."""
    scores_BN[:, 0] = -np.inf
    if remove_seen:
        for scores, history in zip(scores_BN, histories, strict=True):
            scores[history] = -np.inf
    if first_seen is not None and at_time is not None:
        scores_BN[first_seen[None, :] > at_time[rows, None]] = -np.inf


@dataclass(frozen=True)
class Evaluation:
    """Figures of one model: `figures` for people and files (JSON values), arrays [U] for the gate.

    `per_user` and `by_segment` map `ndcg@10` to a value a user, NaN where the user has no target (in the segment) or
    the metric is undefined.
    """

    figures: dict[str, Any]
    per_user: dict[str, np.ndarray]
    by_segment: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)


def metric_values(ranked: RankedUsers, metric: str) -> np.ndarray:
    """One metric such as `ndcg@10`: float64 [U], or [] for a metric that is not per user.

    Raises CallError for a metric that is none of `evaluation/metrics/`.
    """
    name, _, k = metric.partition("@")
    kind = plugins.load("evaluation.metrics", name)
    return kind().compute(ranked, int(k))


def evaluate(
    ranked: RankedUsers, ks: Sequence[int], *, samples: int, seed: int, not_judged: dict[str, int] | None = None
) -> Evaluation:
    """Every metric at every k: the mean over users with its 95 % bootstrap interval, over all and by segment.

    `figures`: `metrics` {`ndcg@10`: {`value`, `low`, `high`, `users`}} (a metric that is not per user has a value
    only; null where undefined), `segments` {`users:cold`: {`users`, `metrics`}} and `users` {`judged`, `not_judged` by
    reason, `targets`, `unknown_targets`}. Users without a target are not judged; users whose targets are all unknown
    to the model are, and miss.
    """
    assert max(ks) <= ranked.top_idx.shape[1], "lists are shorter than the largest k"
    per_user: dict[str, np.ndarray] = {}
    whole: dict[str, float] = {}
    kinds = {name: plugins.load("evaluation.metrics", name) for name in plugins.names("evaluation.metrics")}
    for name, kind in kinds.items():
        for k in ks:
            values = kind().compute(ranked, k)
            if kind.per_user:
                per_user[f"{name}@{k}"] = values
            else:
                whole[f"{name}@{k}"] = float(values)
    by_segment: dict[str, dict[str, np.ndarray]] = {}
    in_segments: dict[str, np.ndarray] = {}
    for segment, (in_segment, part) in segments(ranked).items():
        by_segment[segment], in_segments[segment] = {}, in_segment
        for metric, values in per_user.items():
            kind, k = kinds[metric.partition("@")[0]], int(metric.partition("@")[2])
            restricted = kind().compute(part, k) if kind.uses_targets and part is not ranked else values
            by_segment[segment][metric] = np.where(in_segment, restricted, np.nan)

    columns = [*per_user.values(), *(v for values in by_segment.values() for v in values.values())]
    intervals = mean_intervals(np.column_stack(columns), samples, seed)
    entries = [
        {"value": _number(mean), "low": _number(low), "high": _number(high), "users": int(num)}
        for mean, low, high, num in intervals
    ]
    metrics: dict[str, dict[str, Any]] = dict(zip(per_user, entries, strict=False))
    metrics |= {name: {"value": _number(value)} for name, value in whole.items()}
    figures: dict[str, Any] = {"metrics": dict(sorted(metrics.items(), key=_by_name_and_k)), "segments": {}}
    for number, segment in enumerate(by_segment, start=1):
        part_entries = entries[number * len(per_user) : (number + 1) * len(per_user)]
        figures["segments"][segment] = {
            "users": int(in_segments[segment].sum()),
            "metrics": dict(sorted(zip(per_user, part_entries, strict=True), key=_by_name_and_k)),
        }
    judged = int((ranked.num_targets > 0).sum())
    no_target = {"no target": ranked.num_users - judged} if judged < ranked.num_users else {}
    figures["users"] = {
        "judged": judged,
        "not_judged": {**(not_judged or {}), **no_target},
        "targets": len(ranked.target_idx),
        "unknown_targets": int((ranked.target_idx == 0).sum()),
    }
    return Evaluation(figures, per_user, by_segment)


def _by_name_and_k(item: tuple[str, Any]) -> tuple[str, int]:
    name, _, k = item[0].partition("@")
    return name, int(k)


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
