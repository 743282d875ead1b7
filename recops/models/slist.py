"""SLIST: a linear model from the last items to the next ones, in closed form.

Choi, Kim, Lee, Shim & Lee: "Session-aware linear item-item models for session-based recommendation" (WWW 2021).
Every event of a user but the last one ends an example: the `window` items up to it, weighed by recency (S), foretell
the next `horizon` items, weighed by how soon they come (T). With users' items X,

    B = argmin alpha |X - X B|^2 + (1 - alpha) |T - S B|^2 + regularization |B|^2

where the first part, SLIS, may not explain an item by itself; the second is SLIT. `alpha: 1` is EASE, `alpha: 0` (the
default) SLIT alone. In: `Interactions`. Out: `links`, row h of B cut to its `max_links` largest absolute weights, to be
read with the weights of recency that S has.

`solver: exact` inverts a dense items x items matrix, which bounds the catalogue (`max_items`). `solver: diagonal` takes
items of a history as if they never came together, so that every weight is a count over a count: sparse, for any
catalogue, and the better one where items have few events (NDCG@10 on validation, diagonal against exact: Amazon Beauty
with 11 events an item .0683 against .0674, the demo log with 10 .0812 in 0.3 s against .0786 in 15 s). `solver: auto`
is exact where an item has 50 events or more on average.

Shapes: E examples, U users, N items.
"""

from collections.abc import Iterator
from typing import Literal

import numpy as np
from pydantic import Field
from scipy import sparse

from recops.data.interactions import Interactions
from recops.models._links import (
    LinkModel,
    pack_links,
    refuse_large,
    ridge_inverse,
    symmetric_row,
    user_item_matrix,
)
from recops.nearest import strongest
from recops.params import Group
from recops.protocols import ServingParts

Rows = Iterator[tuple[np.ndarray, np.ndarray]]  # of B: the items that may have a weight, rising, and their weights

_EXAMPLES_AT_ONCE = 250_000
_ROWS_AT_ONCE = 256  # of B
_EXACT_FROM = 50  # events an item, where the solver is auto
_DENSE_ABOVE = 0.1  # share of cells from which a dense product is the faster one


class Slist(LinkModel):
    """Without any event every score is 0. Raises TooLargeError for `solver: exact` and more than `max_items` items."""

    class Config(Group):
        alpha: float = Field(0.0, ge=0, le=1, description="share of similarity (SLIS); the rest is transition (SLIT)")
        window: int = Field(10, ge=1, description="last items that foretell the next")
        decay: float = Field(3.0, gt=0, description="events after which an item counts 1/e, before and after the cut")
        floor: float = Field(0.0, ge=0, description="what an item of the window counts at least, on top of the decay")
        horizon: int = Field(1, ge=1, description="next items that are foretold")
        regularization: float = Field(200.0, gt=0)
        learn_repeats: bool = Field(
            False, description="also foretell the very item just had; true where recommend.remove_seen is false"
        )
        max_links: int = Field(300, ge=1, description="largest absolute weights kept for each history item")
        solver: Literal["auto", "exact", "diagonal"] = Field(
            "auto", description="diagonal: sparse, for any catalogue; auto: exact for many events an item"
        )
        max_items: int = Field(30_000, ge=1, description="of the exact solver: memory is 4 bytes x items squared")

    def __init__(self, config: Config, num_users: int, num_items: int, seed: int) -> None:
        if config.solver == "exact":
            refuse_large("slist", num_items, config.max_items, "solver: diagonal")
        super().__init__(config, num_users, num_items, seed)

    def fit(self, train: Interactions) -> None:
        if len(train):
            self.links = pack_links(self._rows(train))

    def _rows(self, train: Interactions) -> Rows:
        """(items, weights) of each row of B, row 0 (padding, empty) first."""
        alpha = self.config.alpha
        next_NN = (1 - alpha) * self._next(train)
        alike_NN = sparse.csr_array(next_NN.shape, dtype=np.float32)
        if alpha > 0:
            seen_UN = user_item_matrix(train)[:, 1:]
            alike_NN = sparse.csr_array(alpha * (seen_UN.T @ seen_UN))
        solver = self.config.solver
        if solver == "auto":
            is_dense = len(train) >= _EXACT_FROM * train.num_items and train.num_items <= self.config.max_items
            solver = "exact" if is_dense else "diagonal"
            # Kept: whoever is fitted again on more data has to remain the model that was judged.
            self.config = self.config.model_copy(update={"solver": solver})
        solve = self._exact if solver == "exact" else self._diagonal
        yield np.zeros(0, np.int32), np.zeros(0, np.float32)
        for row, (items, weights) in enumerate(solve(train, next_NN, alike_NN)):
            if not self.config.learn_repeats:
                items, weights = items[items != row], weights[items != row]
            keep = strongest(weights, self.config.max_links)
            yield items[keep] + 1, weights[keep]

    def _exact(self, train: Interactions, next_NN: sparse.csr_array, alike_NN: sparse.csr_array) -> Rows:
        num_items = train.num_items
        gram_NN = alike_NN.toarray()
        for earlier, later, weight in self._pairs(train):
            cells = np.maximum(earlier, later) * num_items + np.minimum(earlier, later)
            # An item that came again is paired with itself both ways.
            np.add.at(gram_NN.reshape(-1), cells, np.where(earlier == later, 2 * weight, weight))
        inverse_NN = ridge_inverse(gram_NN, self.config.regularization)
        diagonal_N = np.diag(inverse_NN).copy()
        # What the similarity part would explain by the item itself, taken back as in EASE.
        indptr, indices, counts = alike_NN.indptr, alike_NN.indices, alike_NN.data
        itself_N = np.zeros(num_items, np.float32)
        for row in range(num_items if alike_NN.nnz else 0):
            cells = slice(indptr[row], indptr[row + 1])
            itself_N[row] = symmetric_row(inverse_NN, row)[indices[cells]] @ counts[cells] / diagonal_N[row]

        wanted_NN = sparse.csr_array((alike_NN + next_NN).T)
        if wanted_NN.nnz > _DENSE_ABOVE * num_items**2:
            wanted_NN = wanted_NN.toarray()
        for start in range(0, num_items, _ROWS_AT_ONCE):
            rows = range(start, min(start + _ROWS_AT_ONCE, num_items))
            block_RN = np.stack([symmetric_row(inverse_NN, row) for row in rows])
            for weights_N in (wanted_NN @ block_RN.T).T - block_RN * itself_N:
                yield np.arange(num_items, dtype=np.int32), weights_N

    def _diagonal(self, train: Interactions, next_NN: sparse.csr_array, alike_NN: sparse.csr_array) -> Rows:
        scale_N = alike_NN.diagonal() + self.config.regularization
        for earlier, later, weight in self._pairs(train):
            same = earlier == later
            scale_N += np.bincount(later[same], 2 * weight[same], minlength=train.num_items)
        wanted_NN = sparse.csr_array(next_NN + alike_NN - sparse.diags_array(alike_NN.diagonal()))
        wanted_NN.sort_indices()
        for row, scale in enumerate(scale_N):
            cells = slice(wanted_NN.indptr[row], wanted_NN.indptr[row + 1])
            yield wanted_NN.indices[cells], wanted_NN.data[cells] / np.float32(scale)

    def _pairs(self, train: Interactions) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """(1 - alpha) S'S in pieces, one for each distance between two events of a user: the item of the earlier one,
        that of the later one, and the weight that the examples they stand in together give the pair, halved for an
        event with itself. Items count from 0."""
        config = self.config
        if config.alpha == 1:
            return
        is_example_E = self._is_target(train).max(axis=1)
        place_E, left_E = _places(train)
        item_E = train.item_idx.astype(np.int64) - 1
        # By power p: the sum of exp(-p age / decay) over the examples that the event stands in at that age.
        sum_PE = np.zeros((3, len(train)))
        window = min(config.window, int(place_E.max()) + 1)
        for age in range(window):
            distance = window - 1 - age
            stands_E = np.zeros(len(train))
            stands_E[: len(train) - age] = is_example_E[age:]
            stands_E[left_E < age] = 0
            for power in range(3):
                sum_PE[power] += np.exp(-power * age / config.decay) * stands_E
            fall = np.exp(-distance / config.decay)
            weight_E = fall * sum_PE[2] + config.floor * (1 + fall) * sum_PE[1] + config.floor**2 * sum_PE[0]
            later = np.flatnonzero((place_E >= distance) & (weight_E > 0))
            weight = weight_E[later] * ((1 - config.alpha) * (0.5 if distance == 0 else 1))
            yield item_E[later - distance], item_E[later], weight.astype(np.float32)

    def _next(self, train: Interactions) -> sparse.csr_array:
        """S'T [N, N]."""
        config = self.config
        next_NN = sparse.csr_array((train.num_items, train.num_items), dtype=np.float32)
        age_W, wait_H = np.arange(config.window), np.arange(config.horizon)
        place_E, _ = _places(train)
        is_target_EH = self._is_target(train)
        for start in range(0, len(train) if config.alpha < 1 else 0, _EXAMPLES_AT_ONCE):
            last_E = np.arange(start, min(start + _EXAMPLES_AT_ONCE, len(train)))
            last_E = last_E[is_target_EH[last_E].any(axis=1)]
            target_EH = np.minimum(last_E[:, None] + 1 + wait_H, len(train) - 1)
            weight_EH = np.exp(-wait_H / config.decay) * train.weight[target_EH]
            S = _rows_of(train, last_E[:, None] - age_W, place_E[last_E, None] >= age_W, self._weight(age_W))
            T = _rows_of(train, target_EH, is_target_EH[last_E], weight_EH)
            next_NN = next_NN + S.T @ T
        return next_NN

    def _weight(self, age: np.ndarray) -> np.ndarray:
        return np.exp(-age / self.config.decay) + self.config.floor

    def _is_target(self, train: Interactions) -> np.ndarray:
        """bool [E, H]: whether the h-th event after each is foretold by it: one of the same user, and not the item it
        follows right away unless `learn_repeats`."""
        _, left_E = _places(train)
        wait_H = np.arange(self.config.horizon)
        is_target_EH = left_E[:, None] > wait_H
        if not self.config.learn_repeats:
            target_EH = np.minimum(np.arange(len(train))[:, None] + 1 + wait_H, len(train) - 1)
            is_target_EH &= train.item_idx[target_EH] != train.item_idx[:, None]
        return is_target_EH

    def parts(self) -> ServingParts:
        return ServingParts(
            links=self.links,
            max_history=self.config.window,
            link_decay=self.config.decay,
            link_floor=self.config.floor,
            link_window=self.config.window,
        )


def _places(train: Interactions) -> tuple[np.ndarray, np.ndarray]:
    """How many events of the same user stand before each event, and how many after: int64 [E]."""
    row_E = np.arange(len(train))
    return row_E - train.offsets[train.user_idx], train.offsets[train.user_idx + 1] - 1 - row_E


def _rows_of(
    train: Interactions, event_EW: np.ndarray, is_there_EW: np.ndarray, weight: np.ndarray
) -> sparse.csr_array:
    """CSR [E, N]: row e holds the items of the events of `event_EW` that are there, with `weight` [W] or [E, W].

    An item that stands in a row several times does so in the matrix too: products add them up.
    """
    indptr = np.concatenate([[0], np.cumsum(is_there_EW.sum(axis=1))])
    items = train.item_idx[event_EW[is_there_EW]] - 1
    weights = np.broadcast_to(weight, event_EW.shape)[is_there_EW].astype(np.float32)
    return sparse.csr_array((weights, items, indptr), shape=(len(event_EW), train.num_items))
