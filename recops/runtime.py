"""Scores histories against the catalogue with numpy and ONNX Runtime: the one scorer of evaluation, gate and service.

In: the parts of a model (arrays, and callables for its networks) and histories as item rows. Out: scores [B, N+1].
Knows nothing about ids, files or HTTP; whoever imports this loads no torch and no dataframe library.

Shapes: B batch, L history length, D width, N items (row 0 is padding), U users (row 0 is nobody).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from recops.calibration import Fusion, Scale, as_all_would
from recops.histories import Histories
from recops.links import Links
from recops.nearest import Nearness
from recops.reranking import Reranker

# item_idx int64 [B, L] and, where the model uses time, age_s int64 [B, L] -> user_vector float32 [B, D]
Encode = Callable[..., np.ndarray]
ENCODED_AT_ONCE = 128  # histories
EVENTS_AT_ONCE = 1600  # of an ONNX network: more leave the cache (32 histories of 50 cost half as much so as 128)
RANKED_AT_ONCE = 100_000  # items, for one user
PROJECTED_AT_ONCE = 1024  # items: a projection may compare each with thousands of others
Project = Callable[[np.ndarray], np.ndarray]  # content float32 [M, C] -> item_vectors float32 [M, D]
Rank = Callable[[np.ndarray, np.ndarray], np.ndarray]  # user_vector [B, D], item_vectors [M, D'] -> float32 [B, M]


@dataclass(frozen=True)
class RatingScale:
    """What scores that are ratings are read by: the values there are, and what is known of each user's."""

    lowest: float  # values seen in training
    highest: float
    user_means: np.ndarray  # float32 [U+1]: what a user gives an item of which nothing is known; row 0: anybody

    def clipped(self, scores: np.ndarray) -> np.ndarray:
        return np.clip(scores, np.float32(self.lowest), np.float32(self.highest))


@dataclass(frozen=True)
class Scorer:
    """Scores the whole catalogue for histories (see protocols.ServingParts for the formula).

    Items that were never trained on have the last rows; a member of a fusion that knows nothing of them has fewer
    items, and what it does not know in a history is left out for it.
    """

    num_items: int
    encode: Encode | None = None
    item_vectors: np.ndarray | None = None  # float32 [N+1, D]
    rank: Rank | None = None
    links: Links | None = None
    item_scores: np.ndarray | None = None  # float32 [N+1]
    # float32 [U+1, D], instead of encode; or beside it for those without a history, where a row of zeros says nothing
    user_table: np.ndarray | None = None
    members: "tuple[Scorer, ...]" = ()  # with `fusion`, instead of everything above
    fusion: Fusion | None = None
    reranker: Reranker | None = None  # adjusts what the members say together
    max_history: int = 200
    uses_time: bool = False
    needs_history: bool = True
    fallback: np.ndarray | None = None  # float32 [N+1]: scores for those that the model itself cannot answer
    ratings: RatingScale | None = None  # of a model whose scores are ratings
    project: Project | None = None  # makes vectors of items that are not in `item_vectors` yet
    nearness: Nearness | None = None  # finds the links of items that are not in `links` yet
    content: tuple[str, ...] = ()  # encoders whose vectors, one after the other, `project` or `nearness` is given
    num_encoded: int | None = None  # rows that `encode` knows in a history; None: all

    @property
    def num_known(self) -> int:
        """Rows that it knows in a history."""
        return self.num_items if self.num_encoded is None else self.num_encoded

    @property
    def parts(self) -> "tuple[Scorer, ...]":
        """The models that speak: the members, or it alone."""
        return self.members or (self,)

    @property
    def asks_time(self) -> bool:
        """Whether it matters when a request is made, and when its events were."""
        return self.reranker is not None or any(part.uses_time for part in self.parts)

    @property
    def is_product(self) -> bool:
        """Whether a score is the product of a user's and an item's vector, and nothing else."""
        return self.item_vectors is not None and self.rank is self.links is self.item_scores is None

    @cached_property
    def largest_norm(self) -> float:
        """Of its item vectors."""
        assert self.item_vectors is not None
        return float(np.sqrt(np.einsum("nd,nd->n", self.item_vectors, self.item_vectors).max(initial=0)))

    @cached_property
    def linked(self) -> Links | None:
        """The links that say most: its own, or those of the heaviest member that has any."""
        found = next((part.links for part in self.by_weight() if part.links is not None), None)
        return None if found is None else found.up_to(self.num_items)

    @cached_property
    def all_links(self) -> list[tuple[Links, bool]]:
        """The links of all members that have any, in the whole catalogue, and whether they are of content."""
        return [(p.links.up_to(self.num_items), p.nearness is not None) for p in self.parts if p.links is not None]

    def link_shares(
        self, items: np.ndarray, rows: np.ndarray | None = None, *, of_content: bool = False
    ) -> np.ndarray | None:
        """How strongly items are linked to some rows (None: all, R = N+1), float64 [H, R]; None where nothing links.

        By what was chosen together, or `of_content`: the mean over all members with such links, each as a share of an
        item's strongest to these rows. The heaviest member alone may know what comes next, not what goes together.
        """
        found = [links.between(items, rows) for links, by_content in self.all_links if by_content == of_content]
        if not found:
            return None
        # The strongest may speak against an item: linear models have weights below 0.
        return np.mean([one / np.maximum(np.abs(one).max(1, initial=0, keepdims=True), 1e-12) for one in found], axis=0)

    @property
    def vectors(self) -> np.ndarray | None:
        """float32 [N+1, D] item vectors: its own, or those of the heaviest member that has any of all items."""
        known = (part.item_vectors for part in self.by_weight() if part.num_items == self.num_items)
        return next((vectors for vectors in known if vectors is not None), None)

    def by_weight(self) -> "Sequence[Scorer]":
        """The models that speak, the heaviest first."""
        if self.fusion is None:
            return [self]
        return [self.members[m] for m in np.argsort(-self.fusion.weights.sum(0), kind="stable")]

    def answers(self, histories: "Histories | Sequence[np.ndarray]") -> np.ndarray:
        """bool [B]: whether the model itself says something of these, else `fallback` does."""
        asked = Histories.of(histories)
        if self.members:
            assert self.fusion is not None
            heard = self.fusion.weights_of(asked).T > 0
            return np.logical_or.reduce(
                [member.answers(asked) & weighs for member, weighs in zip(self.members, heard, strict=True)]
            )
        if not self.needs_history:
            return np.ones(len(asked), bool)
        if self.encode is None and self.user_table is not None:
            return self._table_rows(asked) > 0
        has_history = np.array([len(history) > 0 for history in asked.up_to(self.num_known)], bool)
        return has_history if self.user_table is None else has_history | (self._table_rows(asked) > 0)

    def _table_rows(self, asked: Histories) -> np.ndarray:
        """int64 [B]: where the table of users says something of them, else 0."""
        if asked.users is None or self.user_table is None:
            return np.zeros(len(asked), np.int64)
        # There may be more users than were trained on, where another model of a fusion knows them by attributes.
        rows = np.where(np.asarray(asked.users) < len(self.user_table), asked.users, 0)
        return rows if self.encode is None else np.where(self.user_table[rows].any(1), rows, 0)

    def pad(self, histories: Sequence[np.ndarray]) -> np.ndarray:
        """The last `max_history` entries of each array, padded on the left with 0: int64 [B, L], L at least 1."""
        length = max(1, min(self.max_history, max((len(h) for h in histories), default=1)))
        padded = np.zeros((len(histories), length), np.int64)
        for row, history in zip(padded, histories, strict=True):
            if len(history):
                last = history[-length:]
                row[-len(last) :] = last
        return padded

    def user_vectors(self, histories: "Histories | Sequence[np.ndarray]") -> np.ndarray | None:
        """float32 [B, D], or None for a model without vectors of users."""
        asked = Histories.of(histories)
        if self.encode is None:
            return None if self.user_table is None else self.user_table[self._table_rows(asked)]
        asked = asked.up_to(self.num_known)
        if len(asked) == 1 and self.user_table is None:
            return self._encode(asked)
        # Few at a time, since the attention of a long history is the largest array there is; those of about the same
        # length together, so that little is padding.
        lengths = np.array([len(history) for history in asked], np.int64)
        order, size = np.argsort(lengths, kind="stable"), ENCODED_AT_ONCE
        if isinstance(self.encode, OnnxNetwork):
            size = max(1, min(size, EVENTS_AT_ONCE // max(1, min(self.max_history, lengths.max(initial=1)))))
        chunks = [order[i : i + size] for i in range(0, max(len(order), 1), size)]
        vectors = np.concatenate([self._encode(asked[chunk]) for chunk in chunks])
        back = np.empty_like(order)
        back[order] = np.arange(len(order))
        vectors = vectors[back]
        if self.user_table is not None:
            rows = np.where([len(history) > 0 for history in asked], 0, self._table_rows(asked))
            vectors[rows > 0] = self.user_table[rows[rows > 0]]
        return vectors

    def _encode(self, asked: Histories) -> np.ndarray:
        assert self.encode is not None
        if not self.uses_time:
            return self.encode(self.pad(asked.items))
        ages = asked.ages if asked.ages is not None else [np.zeros(len(history), np.int64) for history in asked]
        return self.encode(self.pad(asked.items), np.maximum(self.pad(ages), 0))

    def scores(self, histories: "Histories | Sequence[np.ndarray]", said_MBN: np.ndarray | None = None) -> np.ndarray:
        """float32 [B, N+1]; column 0 is -inf. `said_MBN` is what `said` gave of them, where it is at hand already."""
        scores_BN = self._score_rows(Histories.of(histories), None, said_MBN)
        scores_BN[:, 0] = -np.inf
        return scores_BN

    def score_items(self, histories: "Histories | Sequence[np.ndarray]", rows: np.ndarray) -> np.ndarray:
        """Scores of some item rows: float32 [B, M], the same figures as `scores` gives."""
        asked = Histories.of(histories)
        # Calibration looks at the whole catalogue.
        return self._score_rows(asked, None)[:, rows] if self.members else self._score_rows(asked, rows)

    def predictions(self, histories: "Histories | Sequence[np.ndarray]", rows: np.ndarray) -> np.ndarray:
        """Ratings of some item rows, float32 [B, M], within the values seen in training.

        Row 0 is an item that was never trained on: it gets what the user gives on average, and somebody who was not
        trained on gets the fallback. Only of a scorer with `ratings`.
        """
        assert self.ratings is not None, "the scores of a model that ranks are no ratings"
        asked = Histories.of(histories)
        found = self.score_items(asked, rows)
        users = np.zeros(len(asked), np.int64) if asked.users is None else asked.users
        found[:, rows == 0] = self.ratings.user_means[users][:, None]
        return self.ratings.clipped(found)

    def _score_rows(self, asked: Histories, rows: np.ndarray | None, said_MBN: np.ndarray | None = None) -> np.ndarray:
        asked = asked.up_to(self.num_items)
        if self.members:
            total = self._fused(asked, said_MBN)
        else:
            total = self._own(asked, rows) if said_MBN is None else said_MBN[0].copy()
        if self.fallback is not None:
            total[~self.answers(asked)] = self.fallback if rows is None else self.fallback[rows]
        return total

    def _fused(self, asked: Histories, said_MBN: np.ndarray | None) -> np.ndarray:
        assert self.fusion is not None
        calibrated_MBN = self.calibrated(asked, said_MBN)
        total = self.together(asked, calibrated_MBN)
        if self.reranker is not None:
            self.reranker.adjust(asked, total, calibrated_MBN)
        return total

    def together(self, asked: Histories, calibrated_MBN: np.ndarray) -> np.ndarray:
        """What the members say together, before any reranking: float32 [B, N+1]."""
        assert self.fusion is not None
        weights_BM = self.fusion.weights_of(asked)
        total = self.weighed(weights_BM, calibrated_MBN)
        if self.num_own < self.num_items:
            later = slice(self.num_own + 1, None)
            for b, scale in enumerate(self.later_scales(asked, weights_BM, calibrated_MBN, total)):
                total[b, later] = scale(total[b, later])
        return total

    @property
    def num_common(self) -> int:
        """Rows that every member has; later ones only those that know content."""
        return min((member.num_items for member in self.members), default=self.num_items)

    @property
    def num_own(self) -> int:
        """Rows that weights were sought with; of those that were added since only some members may know anything."""
        if self.fusion is None or self.fusion.num_items is None or self.num_common == self.num_items:
            return self.num_items
        return self.fusion.num_items

    def later_scales(
        self, asked: Histories, weights_BM: np.ndarray, calibrated_MBN: np.ndarray, total_BN: np.ndarray
    ) -> list[Scale]:
        """For each user what brings the scores of rows after `num_own`, as `weighed` has them, to the scale of the
        others; `total_BN` is what `weighed` gave."""
        common = slice(1, self.num_common + 1)
        knows_M = np.array([member.num_items == self.num_items for member in self.members])
        few_BN = self.weighed(weights_BM * knows_M, calibrated_MBN[:, :, common])
        shares_B = (weights_BM * knows_M).sum(1) / weights_BM.sum(1)
        found = []
        for history, few_N, total_N, share in zip(asked.items, few_BN, total_BN[:, common], shares_B, strict=True):
            judged = np.ones(self.num_common, bool)
            judged[history[history <= self.num_common] - 1] = False
            found.append(as_all_would(few_N[judged] / max(share, 1e-9), total_N[judged]))
        return found

    def weighed(self, weights_BM: np.ndarray, calibrated_MBN: np.ndarray) -> np.ndarray:
        """The weighed mean of the members, times the sum of the weights: float32 [B, N+1]. Where a member cannot answer
        a user, or score an item, its weight goes to those that can."""
        total, given = np.zeros((2, *calibrated_MBN.shape[1:]), np.float32)
        for scores_BN, weights_B1 in zip(calibrated_MBN, weights_BM.T[:, :, None], strict=True):
            known = ~np.isnan(scores_BN)
            np.add(total, weights_B1 * scores_BN, out=total, where=known)
            np.add(given, weights_B1, out=given, where=known)
        total *= weights_BM.sum(1)[:, None] / np.where(given > 0, given, 1)
        return total

    def calibrated(
        self, histories: "Histories | Sequence[np.ndarray]", said_MBN: np.ndarray | None = None
    ) -> np.ndarray:
        """What each member says, on the common scale: float32 [M, B, N+1]; NaN where it cannot say, as of items that it
        does not have."""
        assert self.fusion is not None
        asked = Histories.of(histories).up_to(self.num_items)
        found = self.said(asked) if said_MBN is None else said_MBN.copy()
        for b, history in enumerate(asked.items):
            found[:, b] = self.fusion.calibrated(found[:, b], history)
        return found

    def said(self, histories: "Histories | Sequence[np.ndarray]", rows: np.ndarray | None = None) -> np.ndarray:
        """What each of `parts` says on a scale of its own: float32 [M, B, N+1], or [M, B, R] of some rows. NaN where a
        member cannot say; a model alone says something of everybody."""
        asked = Histories.of(histories).up_to(self.num_items)
        num = self.num_items + 1 if rows is None else len(rows)
        found = np.full((len(self.parts), len(asked), num), np.nan, np.float32)
        for part, found_BN in zip(self.parts, found, strict=True):
            heard = np.flatnonzero(part.answers(asked)) if self.members else np.arange(len(asked))
            own = rows if rows is None else np.where(rows > part.num_items, 0, rows)
            scores_BN = part._own(asked[heard], own)
            if self.members and part._silent is not None:
                scores_BN[:, part._silent if own is None else part._silent[own]] = np.nan
            if rows is not None:
                scores_BN[:, rows > part.num_items] = np.nan
            found_BN[heard, : scores_BN.shape[1]] = scores_BN
        return found

    @cached_property
    def _silent(self) -> np.ndarray | None:
        """bool [N+1]: rows of which a model of links alone can say nothing, since no item speaks for them."""
        if self.links is None or self.item_vectors is not None or self.item_scores is not None:
            return None
        silent = np.ones(self.num_items + 1, bool)
        silent[self.links.indices] = False
        return silent

    def with_items(self, more: Mapping[str, np.ndarray], known: Mapping[str, np.ndarray]) -> "Scorer":
        """The same with M more items at the end, of which only the vectors [M, D] of each encoder are known; `known`
        has those [N+1, D] of all others. They are scored by what knows content, if anything does; in a history they
        speak by links alone."""
        if self.members:
            members = tuple(member.with_items(more, known) for member in self.members)
            assert self.fusion is not None
            fusion = replace(self.fusion, num_items=self.fusion.num_items or self.num_items)
            num_items = max(member.num_items for member in members)
            found = replace(self, members=members, fusion=fusion, num_items=num_items)
        elif self.nearness is not None and self.links is not None:
            old, new = (self.nearness.unit([of[name] for name in self.content]) for of in (known, more))
            votes = self.nearness.of(new, np.concatenate([old[: self.num_items + 1], new]), self.num_items + 1)
            links = self.links.with_items(list(votes))
            found = replace(self, num_items=len(links.indptr) - 2, links=links)
        elif self.project is not None and self.item_vectors is not None:
            content = np.concatenate([more[name] for name in self.content], axis=1)
            starts = range(0, len(content), PROJECTED_AT_ONCE)
            made = [self.project(content[start : start + PROJECTED_AT_ONCE].astype(np.float32)) for start in starts]
            item_vectors = np.concatenate([self.item_vectors, *made])
            found = replace(
                self,
                num_items=len(item_vectors) - 1,
                item_vectors=item_vectors,
                links=None if self.links is None else self.links.up_to(len(item_vectors) - 1),
                num_encoded=self.num_known,
            )
        else:
            return self
        num = found.num_items - self.num_items
        fallback = None if self.fallback is None else np.pad(self.fallback, (0, num))
        reranker = None if self.reranker is None else replace(self.reranker, facts=self.reranker.facts.with_items(num))
        return replace(found, fallback=fallback, reranker=reranker)

    def _own(self, asked: Histories, rows: np.ndarray | None) -> np.ndarray:
        num_rows = self.num_items + 1
        # A product alone fills every place; zeroing so many first would cost a tenth of it.
        make = np.empty if self.is_product and len(asked) else np.zeros
        total = make((len(asked), num_rows if rows is None else len(rows)), np.float32)
        if self.item_vectors is not None and len(asked):
            vectors = self.item_vectors if rows is None else self.item_vectors[rows]
            users = self.user_vectors(asked)
            assert users is not None, "item_vectors need an encoder or a table of users"
            if self.rank is None:
                np.matmul(users, vectors.T, out=total, casting="same_kind")
            else:
                # A ranker holds a hidden layer for every pair of user and item.
                for start in range(0, len(vectors), RANKED_AT_ONCE):
                    some = slice(start, start + RANKED_AT_ONCE)
                    for row, user in zip(total, users, strict=True):
                        row[some] += self.rank(user[None], np.asarray(vectors[some]))[0]
        if self.links is not None:
            last = [history[-self.max_history :] for history in asked.up_to(self.num_known)]
            if rows is not None:
                total += self.links.votes_for(last, rows)
            else:
                for row, history in zip(total, last, strict=True):
                    row += self.links.votes(history, num_rows)
        if self.item_scores is not None:
            total += self.item_scores if rows is None else self.item_scores[rows]
        return total


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
