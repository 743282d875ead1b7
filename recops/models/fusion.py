"""Fusion: several fitted models scored together, each calibrated for each user, with weights from validation.

Z-scores and reciprocal ranks are the classical calibrations (Fox & Shaw: "Combination of multiple searches", 1994;
Cormack, Clarke & Buettcher: "Reciprocal rank fusion", 2009). In: the serving parts of fitted models and the validation
users. Out: `ServingParts` with members, which the runtime fuses. Knows nothing about how the members were fitted.

Shapes: U users, M members, C candidates of all users one after the other, T targets, N items, S segments.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from pydantic import Field, field_validator
from scipy.optimize import minimize

from recops.calibration import Calibration
from recops.calibration import Fusion as Weighing
from recops.data.interactions import Interactions
from recops.evaluation.judging import Judging, metric_k
from recops.evaluation.protocol import mask_candidates, metric_values, ranked_lists
from recops.params import Group
from recops.protocols import FitReport, ServingParts
from recops.runtime import Scorer

# Best items of each member that a user's fused list is looked for among, while weights are sought: at least so many,
# and so many for each place of the list.
_CANDIDATES, _CANDIDATES_A_PLACE = 50, 5
_MOST_PAIRS = 20_000_000  # of a target and a candidate of its user
_STEPS = ((0.0, 0.25, 0.5, 2.0, 4.0), (0.0, 0.7, 0.85, 1.2, 1.4))  # factors that a weight is tried with, in turn
_SHARES = (0.02, 0.05, 0.15, 0.4)  # of all weight, tried for a member that has none
_LEAST_GAIN = 1e-5
_CONTENT_SHARE = 0.01  # of all weight: what the best member that knows content has at least
_SCORES_AT_ONCE = 16_000_000  # float32: 64 MB a member


@dataclass(frozen=True)
class _Candidates:
    """What the members say of the items that could reach a user's list; users one after the other."""

    offsets: np.ndarray  # int64 [U+1]
    item_idx: np.ndarray  # int32 [C], rising within a user
    scores: np.ndarray  # float32 [M, C], calibrated, NaN where a member cannot say
    fallback: np.ndarray  # float32 [C], what ranks a user whom no member with any weight can answer
    is_best: np.ndarray  # bool [C]: among the best of a member; the others are targets, there to be ranked
    target: np.ndarray  # int64 [T], places among the C
    target_user: np.ndarray  # int64 [T]
    ideal: np.ndarray  # float64 [U], DCG of the best list

    def of(self, users: np.ndarray) -> "_Candidates":
        """The same for some users: bool [U]."""
        counts = np.diff(self.offsets)
        kept = np.repeat(users, counts)
        place = np.cumsum(kept) - 1
        renamed = np.cumsum(users) - 1
        inside = users[self.target_user]
        return _Candidates(
            np.concatenate(([0], np.cumsum(counts[users]))),
            self.item_idx[kept],
            self.scores[:, kept],
            self.fallback[kept],
            self.is_best[kept],
            place[self.target[inside]],
            renamed[self.target_user[inside]],
            self.ideal[users],
        )

    @cached_property
    def known(self) -> np.ndarray | None:
        """float32 [M, C]: 1 where a member can say something of a candidate; None where all can of all."""
        known = ~np.isnan(self.scores)
        return None if known.all() else known.astype(np.float32)

    @cached_property
    def filled(self) -> np.ndarray:
        """`scores` with 0 for what is not known."""
        return self.scores if self.known is None else np.nan_to_num(self.scores, nan=0.0)

    @cached_property
    def user(self) -> np.ndarray:
        """int64 [C]: the user of each candidate."""
        return np.repeat(np.arange(len(self.ideal)), np.diff(self.offsets))

    @cached_property
    def rivals(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """For the candidates of each target's user, target after target: where the first stands, each one's place,
        and whether it stands before the target where scores are equal."""
        start, end = self.offsets[self.target_user], self.offsets[self.target_user + 1]
        counts = end - start
        begin = np.cumsum(counts) - counts
        place = np.arange(counts.sum()) - np.repeat(begin - start, counts)
        return begin, place, place < np.repeat(self.target, counts)

    def fused(self, weights: np.ndarray) -> np.ndarray:
        """float32 [C]; `weights` are [M], or [U, M] where they differ from user to user."""
        if weights.ndim == 1:
            total, of_all = weights @ self.filled, weights.sum()
            given = None if self.known is None else weights @ self.known
        else:
            weights_MC = np.repeat(weights.T, np.diff(self.offsets), axis=1)
            total, of_all = (weights_MC * self.filled).sum(0), weights_MC.sum(0)
            given = None if self.known is None else (weights_MC * self.known).sum(0)
        if given is None:
            return total
        answered = np.bincount(self.user, given > 0, minlength=len(self.ideal)) > 0
        return np.where(answered[self.user], total * of_all / np.where(given > 0, given, 1), self.fallback)

    def ndcg(self, weights: np.ndarray, k: int) -> float:
        """Mean NDCG at k; ties go to the lower row, as in a list."""
        if not len(self.target):
            return 0.0
        begin, place, is_lower = self.rivals
        fused = self.fused(weights.astype(np.float32))
        rival = fused[place]
        own = np.repeat(fused[self.target], np.diff(np.append(begin, len(place))))
        rank = np.add.reduceat((rival > own) | ((rival == own) & is_lower), begin, dtype=np.int64)
        gains = np.where(rank < k, 1 / np.log2(rank + 2), 0)
        return float((np.bincount(self.target_user, gains, minlength=len(self.ideal)) / self.ideal).mean())


class Fusion:
    """An EnsembleRecommender (see protocols.py). Without validation users all members weigh the same."""

    takes = "history"

    class Config(Group):
        """Which models, and how they are put together."""

        members: list[str] = Field(
            ["ligr", "slist", "ease"],
            min_length=1,
            description="models by name, each with its own settings; one that cannot take the data is left out",
        )
        calibration: Calibration = Field(
            "zscore", description="over all items; candidates: over the best of each member alone; or by rank"
        )
        weights: Literal["ndcg", "likelihood"] = Field(
            "ndcg",
            description="coordinate ascent on NDCG, or stacking: a softmax over the candidates fitted to the targets",
        )
        edges: list[int] = Field(
            [10, 50],
            description="history lengths at which weights may change, where cross-fitting says it helps; [] never",
        )
        min_segment_users: int = Field(300, ge=1, description="segments of fewer users share the common weights")
        max_users: int = Field(20_000, ge=1, description="validation users that weights are sought on")

        @field_validator("members")
        @classmethod
        def _no_name_twice(cls, value: list[str]) -> list[str]:
            if len(set(value)) < len(value) or "fusion" in value:
                raise ValueError("each member once, and no fusion of fusions")
            return value

        @field_validator("edges")
        @classmethod
        def _edges_rise(cls, value: list[int]) -> list[int]:
            if value != sorted(set(value)) or any(edge < 1 for edge in value):
                raise ValueError("lengths from 1 on, each above the one before")
            return value

    def __init__(self, config: Config, num_users: int, num_items: int, seed: int) -> None:
        self.config, self.seed = config, seed
        self._members: dict[str, ServingParts] = {}
        self._weights_SM = np.zeros((1, 0), np.float32)
        self._edges: tuple[int, ...] = ()

    def attach(self, members: Mapping[str, ServingParts], train: Interactions | None = None) -> None:
        self._members = dict(members)
        self._weights_SM = np.full((1, len(members)), 1 / max(len(members), 1), np.float32)

    def blend(self, scorers: Mapping[str, Scorer], valid: Judging) -> FitReport:
        """Weights from the validation users. `best_metric` of the report is cross-fitted: each half of the users is
        judged with weights sought on the other, so that it can be compared with the figure of a single model."""
        assert list(scorers) == list(self._members)
        metric = valid.settings.metric
        if len(valid) == 0:
            return FitReport()
        rng = np.random.default_rng(self.seed)
        valid = valid.of(_drawn(valid, self.config.max_users, len(scorers), rng))
        k = metric_k(metric)
        found = _candidates(list(scorers.values()), valid, self.config.calibration, k)
        lengths = np.array([len(history) for history in valid.histories])
        half = rng.permutation(len(valid)) % 2 == 0

        def sought(users: np.ndarray, edges: tuple[int, ...]) -> np.ndarray:
            return self._seek(found.of(users), np.searchsorted(edges, lengths[users], side="right"), len(edges) + 1, k)

        best: tuple[float, tuple[int, ...]] = (-np.inf, ())
        for edges in dict.fromkeys([(), tuple(self.config.edges)]):
            weights_UM = np.zeros((len(valid), len(scorers)), np.float32)
            for fold in (half, ~half):
                segment = np.searchsorted(edges, lengths[fold], side="right")
                weights_UM[fold] = sought(~fold, edges)[segment]
            value = self._judged(found, weights_UM, valid, metric)
            if value > best[0]:
                best = value, edges
        self._edges = best[1]
        self._weights_SM = self._heard(sought(np.ones(len(valid), bool), self._edges), found, k)
        return FitReport(best_metric=best[0])

    def _judged(self, found: _Candidates, weights_UM: np.ndarray, valid: Judging, metric: str) -> float:
        """Any metric, over lists made of the candidates."""
        fused, k = found.fused(weights_UM), metric_k(metric)
        lists = np.zeros((len(valid), k), np.int32)
        for user in range(len(valid)):
            part = slice(found.offsets[user], found.offsets[user + 1])
            best = np.flatnonzero(found.is_best[part])
            order = best[np.argsort(-fused[part][best], kind="stable")][:k]
            lists[user, : len(order)] = found.item_idx[part][order]
        ranked = ranked_lists(lists, valid.targets, item_counts=valid.item_counts, histories=valid.histories)
        return float(np.nanmean(metric_values(ranked, metric)))

    def _seek(self, found: _Candidates, segment_U: np.ndarray, num_segments: int, k: int) -> np.ndarray:
        """float32 [S, M], each row adding up to 1."""
        climb = _likelihood if self.config.weights == "likelihood" else _ascent
        common = climb(found, k, None)
        weights_SM = np.repeat(common[None], num_segments, axis=0)
        for segment in range(num_segments if num_segments > 1 else 0):
            users = segment_U == segment
            if users.sum() >= self.config.min_segment_users:
                weights_SM[segment] = climb(found.of(users), k, common)
        return weights_SM.astype(np.float32)

    def _heard(self, weights_SM: np.ndarray, found: _Candidates, k: int) -> np.ndarray:
        """With a small weight for a member that knows content where none has any: it alone can score an item that
        comes later, and then has all the weight."""
        knowing = [m for m, part in enumerate(self._members.values()) if part.content]
        if not knowing:
            return weights_SM
        best = max(knowing, key=lambda m: found.ndcg(np.eye(len(self._members))[m], k))
        silent = ~weights_SM[:, knowing].any(1)
        weights_SM[silent] *= 1 - _CONTENT_SHARE
        weights_SM[silent, best] = _CONTENT_SHARE
        return weights_SM

    def parts(self) -> ServingParts:
        """Members without any weight are left out."""
        kept = np.flatnonzero(self._weights_SM.any(0))
        members = [list(self._members.items())[m] for m in kept]
        return ServingParts(
            members=members,
            fusion=Weighing(self._weights_SM[:, kept], self._edges, self.config.calibration),
            needs_history=all(part.needs_history for _, part in members),
        )

    def state(self) -> dict[str, np.ndarray]:
        return {"weights": self._weights_SM, "edges": np.array(self._edges, np.int64)}

    def load_state(self, state: Mapping[str, np.ndarray]) -> None:
        self._weights_SM = np.array(state["weights"], np.float32)
        self._edges = tuple(state["edges"].tolist())


def _candidates(scorers: list[Scorer], valid: Judging, calibration: Calibration, k: int) -> _Candidates:
    """The best of every member for every user, and the targets that could be recommended at all."""
    num_best = max(_CANDIDATES, _CANDIDATES_A_PLACE * k)
    offsets, items, scores, targets, users, ideal = [0], [], [], [], [], []
    are_best, fallbacks = [], []
    for rows, calibrated_MBN, fallback_BN in _calibrated(scorers, valid, calibration):
        for b, user in enumerate(rows.tolist()):
            own_MN, fallback_N = calibrated_MBN[:, b], fallback_BN[b]
            # With other weights nobody may be left to answer this user: the list is then the fallback's.
            asked_MN = own_MN if np.isfinite(own_MN).any(1).all() else np.vstack([own_MN, fallback_N])
            wanted = np.unique(valid.targets[user])
            wanted = wanted[np.isfinite(asked_MN[:, wanted]).any(0)]
            best = np.concatenate([_best_rows(scores_N, num_best) for scores_N in asked_MN])
            union = np.unique(np.concatenate([best, wanted]))
            items.append(union)
            are_best.append(np.isin(union, best))
            scores.append(np.where(np.isinf(own_MN[:, union]), np.nan, own_MN[:, union]))
            fallbacks.append(fallback_N[union])
            targets.append(offsets[-1] + np.searchsorted(union, wanted))
            users.append(np.full(len(wanted), user))
            offsets.append(offsets[-1] + len(union))
            ideal.append(min(k, int((valid.targets[user] == 0).sum()) + len(np.setdiff1d(valid.targets[user], [0]))))
    best_dcg = np.concatenate(([1.0], np.cumsum(1 / np.log2(np.arange(2, max(ideal) + 2)))))
    return _Candidates(
        np.array(offsets),
        np.concatenate(items).astype(np.int32),
        np.concatenate(scores, axis=1),
        np.concatenate(fallbacks).astype(np.float32),
        np.concatenate(are_best),
        np.concatenate(targets).astype(np.int64),
        np.concatenate(users).astype(np.int64),
        best_dcg[np.array(ideal)],
    )


def _calibrated(
    scorers: list[Scorer], valid: Judging, calibration: Calibration
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """(users, float32 [M, B, N+1], float32 [B, N+1]): what the members and the fallback say, NaN where a member cannot,
    -inf for what is no candidate."""
    fusion = Weighing(np.ones((1, len(scorers)), np.float32), (), calibration)
    together = Scorer(len(valid.item_counts) - 1, members=tuple(scorers), fusion=fusion)
    batch = max(1, _SCORES_AT_ONCE // len(valid.item_counts))
    for start in range(0, len(valid), batch):
        rows = np.arange(start, min(start + batch, len(valid)))
        scores_MBN = together.calibrated(valid.asked[rows])
        fallback_BN = np.repeat(valid.fallback[None].astype(np.float32), len(rows), axis=0)
        for scores_BN in (*scores_MBN, fallback_BN):
            mask_candidates(scores_BN, valid.asked[rows], valid.remove_seen, valid.first_seen, valid.at_time, rows)
        yield rows, scores_MBN, fallback_BN


def _best_rows(scores_N: np.ndarray, num_best: int) -> np.ndarray:
    """Rows of the best; NaN and -inf are none."""
    finite = np.flatnonzero(np.isfinite(scores_N))
    if len(finite) <= num_best:
        return finite
    return finite[np.argpartition(-scores_N[finite], num_best)[:num_best]]


def _drawn(valid: Judging, max_users: int, num_members: int, rng: np.random.Generator) -> np.ndarray:
    """Rows of the users that weights are sought on: drawn, as many as allowed, fewer where they have many targets."""
    order = rng.permutation(len(valid))[:max_users]
    num_targets = np.array([len(valid.targets[row]) for row in order])
    pairs = np.cumsum(num_targets * (num_targets + num_members * _CANDIDATES))
    return np.sort(order[: max(1, int(np.searchsorted(pairs, _MOST_PAIRS, side="right")))])


def _ascent(found: _Candidates, k: int, start: np.ndarray | None) -> np.ndarray:
    """Weights [M] of best NDCG that steps along one member at a time find, from `start` or the best of the simplest."""
    num_members = len(found.scores)
    starts = [start] if start is not None else [*np.eye(num_members), np.ones(num_members) / num_members]
    best_value, weights = max(((found.ndcg(w, k), w) for w in starts), key=lambda pair: pair[0])
    for factors in _STEPS:
        improved = True
        while improved:
            improved = False
            for m in range(num_members):
                for step in weights[m] * np.array(factors) if weights[m] else weights.sum() * np.array(_SHARES):
                    changed = weights.copy()
                    changed[m] = step
                    if changed.any() and (value := found.ndcg(changed, k)) > best_value + _LEAST_GAIN:
                        best_value, weights, improved = value, changed, True
    return weights / weights.sum()


def _likelihood(found: _Candidates, k: int, start: np.ndarray | None) -> np.ndarray:
    """Weights [M], not negative, under which a softmax over each user's candidates gives the targets most."""
    found = found.of(np.diff(found.offsets) > 0)
    scores_MC = np.nan_to_num(found.scores, nan=0.0).astype(np.float64)
    if not len(found.target):
        return np.ones(len(scores_MC)) / len(scores_MC)
    begin, counts = found.offsets[:-1], np.diff(found.offsets)
    counts_T = np.bincount(found.target_user, minlength=len(found.ideal))

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        total = weights @ scores_MC
        highest = np.maximum.reduceat(total, begin)
        shares = np.exp(total - np.repeat(highest, counts))
        sums = np.add.reduceat(shares, begin)
        shares *= np.repeat(counts_T / sums, counts)
        value = (counts_T * (np.log(sums) + highest)).sum() - total[found.target].sum()
        gradient = scores_MC @ shares - scores_MC[:, found.target].sum(1)
        return value / max(counts_T.sum(), 1), gradient / max(counts_T.sum(), 1)

    first = np.full(len(scores_MC), 0.1) if start is None else start
    result = minimize(loss, first, jac=True, method="L-BFGS-B", bounds=[(0, None)] * len(scores_MC))
    weights = result.x if result.x.any() else first
    return weights / weights.sum()
