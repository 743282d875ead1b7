"""Rerank: the fusion of several models finds each user's best items, a small network then orders these anew.

The classical two stages, retrieve and rank (Covington, Adams & Sargin: "Deep neural networks for YouTube
recommendations", RecSys 2016). Stage one is `fusion` with all its settings. Stage two looks at each user's best
`candidates` by the features of recops/reranking.py, and learns what to add to their scores (models/_listwise.py) from
the validation users, or from what was shown to them. It is served only where it beats stage one on users that it has
not learnt from. In: the serving parts of fitted models, what they were fitted on, and the validation users. Out:
`ServingParts` with members and a `Reranker`.

Shapes: U users, C candidates, F features, M members, N items.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Literal

import numpy as np
import torch
from pydantic import Field, field_validator

from recops.data.interactions import Catalogue, Interactions
from recops.errors import CallError
from recops.evaluation.judging import Judging, metric_k
from recops.evaluation.protocol import mask_candidates, metric_values
from recops.histories import Histories
from recops.models._listwise import Adjustment, Lists, learn
from recops.models.fusion import Fusion
from recops.protocols import FitReport, ServingParts
from recops.reranking import FEATURES, ItemFacts, Reranker, num_columns
from recops.runtime import Scorer
from recops.topk import widened

_SCORES_AT_ONCE = 4_000_000  # float32, for each member
_NETWORK = "reranker."  # names of the network's weights in the state begin so


class Rerank(Fusion):
    """An EnsembleRecommender (see protocols.py). Without validation users it is a fusion of equal weights."""

    class Config(Fusion.Config):
        """Those of the fusion that finds the candidates, and how these are ordered."""

        max_users: int = Field(3_000, ge=1, description="validation users that weights and ranking are learnt from")
        candidates: int = Field(
            200, ge=2, le=2_000, description="best items of each user that are ranked anew; time grows with its square"
        )
        features: list[str] = Field(
            [name for name in FEATURES if name not in ("price", "hour", "weekday")],
            min_length=1,
            description="what is looked at; price, known only as it is now, is a fair feature in evaluation only where "
            "prices did not change",
        )
        learn_from: Literal["validation", "impressions"] = Field(
            "validation", description="impressions: what was shown at which rank in the requests that led to a choice"
        )
        corrects_position: bool = Field(
            True, description="impressions: a term for each rank, not served, is learnt too"
        )
        content_window: int = Field(10, ge=1, description="last events that categories are compared with")
        trend_days: float = Field(30.0, gt=0, description="days before the request that the feature trend counts")
        hidden_dim: int = Field(16, ge=1)
        learning_rate: float = Field(0.01, gt=0)
        weight_decay: float = Field(1.0, ge=0, description="how hard all is drawn back to the order of stage one")
        epochs: int = Field(60, ge=1)
        patience: int = Field(5, ge=1)

        @field_validator("features")
        @classmethod
        def _are_known(cls, value: list[str]) -> list[str]:
            if len(set(value)) < len(value) or not set(value) <= set(FEATURES):
                raise ValueError(f"each once, and of {', '.join(FEATURES)}")
            return value

    config: Config

    def __init__(self, config: Config, num_users: int, num_items: int, seed: int) -> None:
        super().__init__(config, num_users, num_items, seed)
        self._remove_seen, self._is_used = True, False
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self._network = Adjustment(num_columns(config.features, len(config.members)), config.hidden_dim).eval()

    def attach(self, members: Mapping[str, ServingParts], train: Interactions | None = None) -> None:
        assert train is not None, "rerank looks at when the items had their events"
        super().attach(members)
        self._facts = item_facts(train, max(part.num_items for part in members.values()))

    def blend(self, scorers: Mapping[str, Scorer], valid: Judging) -> FitReport:
        """`best_metric` of the report is cross-fitted, stage one included: each half of the users is judged with what
        was learnt from the other. `figures` holds that of both stages; the better one is served."""
        if self.config.learn_from == "impressions" and valid.impressions is None and len(valid):
            raise CallError("train.models: learn_from is impressions, but no log of impressions was given")
        report = super().blend(scorers, valid)
        if len(valid) == 0:
            return report
        rng = np.random.default_rng([self.seed, 2])
        valid = valid.of(np.sort(rng.permutation(len(valid))[: self.config.max_users]))
        self._remove_seen = valid.remove_seen
        half = rng.permutation(len(valid)) % 2 == 0
        metric = valid.settings.metric
        values_2U = np.full((2, len(valid)), np.nan)
        for fold in (half, ~half):
            taught, judged = valid.of(np.flatnonzero(~fold)), valid.of(np.flatnonzero(fold))
            stage_one = Fusion(self.config, 0, 0, self.seed)
            stage_one.attach(self._members)
            stage_one.blend(scorers, taught)
            parts = stage_one.parts()
            scorer = _together(scorers, parts)
            reranked = replace(scorer, reranker=_on_numpy(self._learnt(scorer, parts, taught)))
            for stage, judge in enumerate((scorer, reranked)):
                values_2U[stage, fold] = metric_values(judged.rank(judge, metric_k(metric)), metric)
        first, second = np.nanmean(values_2U, axis=1).tolist()
        difference_U = values_2U[1] - values_2U[0]
        error = float(np.nanstd(difference_U) / np.sqrt(max(np.isfinite(difference_U).sum(), 1)))
        self._is_used = second > first
        if self._is_used:
            parts = super().parts()
            self._network = self._learnt(_together(scorers, parts), parts, valid).network
        note = f"{metric} of validation users not learnt from: {second:.4f} reranked, {first:.4f} before"
        note += f", difference {second - first:+.4f} with a standard error of {error:.4f}"
        if not self._is_used:
            note += "; reranking does not help and is not served"
        figures = {"stage_one": first, "reranked": second, "standard_error_of_difference": error}
        return replace(report, best_metric=max(first, second), figures=figures, note=note)

    def _learnt(self, scorer: Scorer, parts: ServingParts, users: Judging) -> Reranker:
        """What the lists of some users teach, on top of stage one, which `scorer` and its `parts` are."""
        config = self.config
        reranker = self._reranker(parts, self._network)
        lists = _shown_lists if config.learn_from == "impressions" else _best_lists
        found = list(lists(scorer, reranker, users))
        if not found:  # nobody whom stage one can answer
            return reranker
        network = learn(
            Lists.together(found),
            hidden_dim=config.hidden_dim,
            learning_rate=config.learning_rate,
            weight_decay=config.weight_decay,
            epochs=config.epochs,
            patience=config.patience,
            corrects_position=config.corrects_position,
            seed=self.seed,
        )
        return replace(reranker, network=network)

    def _reranker(self, parts: ServingParts, network: Adjustment) -> Reranker:
        """A member without weight in stage one is not served, and tells stage two nothing either."""
        config, served = self.config, [name for name, _ in parts.members]
        return Reranker(
            network,
            features=tuple(config.features),
            members=tuple(served.index(name) if name in served else -1 for name in config.members),
            facts=self._facts,
            candidates=config.candidates,
            remove_seen=self._remove_seen,
            content_window=config.content_window,
            trend_days=config.trend_days,
        )

    def parts(self) -> ServingParts:
        parts = super().parts()
        return replace(parts, reranker=self._reranker(parts, self._network)) if self._is_used else parts

    def state(self) -> dict[str, np.ndarray]:
        settled = {"is_used": np.array([self._is_used]), "remove_seen": np.array([self._remove_seen])}
        network = {_NETWORK + name: value.numpy().copy() for name, value in self._network.state_dict().items()}
        return {**super().state(), **settled, **network}

    def load_state(self, state: Mapping[str, np.ndarray]) -> None:
        super().load_state(state)
        self._is_used, self._remove_seen = bool(state["is_used"][0]), bool(state["remove_seen"][0])
        self._network.load_state_dict(
            {name: torch.from_numpy(np.array(state[_NETWORK + name])) for name in self._network.state_dict()}
        )


def item_facts(train: Interactions, num_items: int) -> ItemFacts:
    """What a reranker of `num_items` looks at, of the items and their events in `train`; without a catalogue nothing
    else is known."""
    num_rows = num_items + 1
    times = np.zeros(len(train), np.int64) if train.timestamp is None else train.timestamp // 1_000_000
    order = np.lexsort((times, train.item_idx))
    catalogue = train.catalogue
    if catalogue is None:
        unknown, nothing = np.full(num_rows, np.nan), np.zeros(num_rows + 1, np.int64)
        catalogue = Catalogue(unknown, unknown.astype(np.float32), nothing, np.zeros(0, np.int32))
    return ItemFacts(
        offsets=np.searchsorted(train.item_idx[order], np.arange(num_rows + 1)).astype(np.int64),
        event_times=times[order] if train.timestamp is not None else times[:0],
        published=catalogue.published_at[:num_rows],
        prices=catalogue.price[:num_rows],
        category_offsets=catalogue.category_offsets[: num_rows + 1],
        category_idx=catalogue.category_idx[: catalogue.category_offsets[num_rows]],
    )


def _together(scorers: Mapping[str, Scorer], parts: ServingParts) -> Scorer:
    """Stage one over scorers that are there already."""
    members = tuple(scorers[name] for name, _ in parts.members)
    num_items = max(member.num_items for member in members)
    return Scorer(num_items, members=members, fusion=parts.fusion, needs_history=parts.needs_history)


def _on_numpy(reranker: Reranker) -> Reranker:
    def call(*arrays: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return reranker.network(*map(torch.from_numpy, arrays)).numpy()

    return replace(reranker, network=call)


def _in_batches(scorer: Scorer, users: Judging) -> Iterator[tuple[np.ndarray, Histories, np.ndarray, np.ndarray]]:
    """(rows of those that stage one can answer, who they are to it, float32 [B, N+1] of stage one, [M, B, N+1] of its
    members)."""
    answered = np.flatnonzero(scorer.answers(users.asked))
    batch = max(1, _SCORES_AT_ONCE // (scorer.num_items + 1))
    for start in range(0, len(answered), batch):
        rows = answered[start : start + batch]
        some = users.asked[rows].up_to(scorer.num_items)
        member_MBN = scorer.calibrated(some)
        assert scorer.fusion is not None
        yield rows, some, scorer.together(some, member_MBN), member_MBN


def _best_lists(scorer: Scorer, reranker: Reranker, users: Judging) -> Iterator[Lists]:
    """The candidates of each user, of which the targets were chosen."""
    for rows, some, scores_BN, member_MBN in _in_batches(scorer, users):
        rows_BC, fade_BC = reranker.best(some, scores_BN)
        allowed_BN = widened(scores_BN, len(users.item_counts) - 1).copy()
        mask_candidates(allowed_BN, users.asked[rows], users.remove_seen, users.first_seen, users.at_time, rows)
        yield Lists(
            features=reranker.described(some, rows_BC, scores_BN, member_MBN),
            scores=np.take_along_axis(scores_BN, rows_BC, 1),
            fade=fade_BC,
            is_there=(rows_BC > 0) & np.isfinite(np.take_along_axis(allowed_BN, rows_BC, 1)),
            is_chosen=np.array([np.isin(own, users.targets[u]) for own, u in zip(rows_BC, rows, strict=True)]),
        )


def _shown_lists(scorer: Scorer, reranker: Reranker, users: Judging) -> Iterator[Lists]:
    """What the users were shown, at which rank, and what they chose of it."""
    shown = users.impressions
    assert shown is not None
    for rows, some, scores_BN, member_MBN in _in_batches(scorer, users):
        lists = np.flatnonzero(np.isin(shown.user, rows))
        place = np.searchsorted(rows, shown.user[lists])
        rows_BC, scores_BC = shown.rows[lists], np.take_along_axis(scores_BN[place], shown.rows[lists], 1)
        yield Lists(
            features=reranker.described(some[place], rows_BC, scores_BN[place], member_MBN[:, place]),
            scores=scores_BC,
            fade=np.ones(rows_BC.shape, np.float32),
            is_there=rows_BC > 0,
            is_chosen=shown.is_chosen[lists],
            position=shown.position[lists],
        )
