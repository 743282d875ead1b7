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
catalogue, and the better one where histories are short (Amazon Beauty, NDCG@10 on validation: .0683 against .0674).

Shapes: E examples, U users, N items.
"""

from collections.abc import Iterator, Mapping
from typing import Literal

import numpy as np
from pydantic import Field
from scipy import sparse

from recops.data.interactions import Interactions
from recops.models._links import (
    no_links,
    pack_links,
    refuse_large,
    ridge_inverse,
    strongest,
    symmetric_row,
    user_item_matrix,
)
from recops.params import Group
from recops.protocols import ServingParts

Rows = Iterator[tuple[np.ndarray, np.ndarray]]  # of B: the items that may have a weight, rising, and their weights

_EXAMPLES_AT_ONCE = 250_000
_ROWS_AT_ONCE = 256  # of B
_DENSE_ABOVE = 0.1  # share of cells from which a dense product is the faster one


class Slist:
    """Without any event every score is 0. Raises TooLargeError for a catalogue above `max_items`."""

    takes = "history"

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
        solver: Literal["exact", "diagonal"] = Field("exact", description="diagonal: sparse, for short histories")
        max_items: int = Field(30_000, ge=1, description="solver exact: memory is 4 bytes x items squared")

    def __init__(self, config: Config, num_users: int, num_items: int, seed: int) -> None:
        if config.solver == "exact":
            refuse_large("slist", num_items, config.max_items, "solver: diagonal")
        self.config = config
        self.links = no_links(num_items)

    def fit(self, train: Interactions) -> None:
        if len(train):
            self.links = pack_links(self._rows(train))

    def _rows(self, train: Interactions) -> Rows:
        """(items, weights) of each row of B, row 0 (padding, empty) first."""
        alpha = self.config.alpha
        past_NN, future_NN = self._transitions(train)
        past_NN, future_NN = (1 - alpha) * past_NN, (1 - alpha) * future_NN
        alike_NN = sparse.csr_array(past_NN.shape, dtype=np.float32)
        if alpha > 0:
            seen_UN = user_item_matrix(train)[:, 1:]
            alike_NN = sparse.csr_array(alpha * (seen_UN.T @ seen_UN))
        solve = self._exact if self.config.solver == "exact" else self._diagonal
        yield np.zeros(0, np.int32), np.zeros(0, np.float32)
        for row, (items, weights) in enumerate(solve(past_NN, future_NN, alike_NN)):
            if not self.config.learn_repeats:
                items, weights = items[items != row], weights[items != row]
            keep = strongest(weights, self.config.max_links)
            yield items[keep] + 1, weights[keep]

    def _exact(self, past_NN: sparse.csr_array, future_NN: sparse.csr_array, alike_NN: sparse.csr_array) -> Rows:
        num_items = past_NN.shape[0]
        inverse_NN = ridge_inverse(past_NN + alike_NN, self.config.regularization)
        diagonal_N = np.diag(inverse_NN).copy()
        # What the similarity part would explain by the item itself, taken back as in EASE.
        indptr, indices, counts = alike_NN.indptr, alike_NN.indices, alike_NN.data
        itself_N = np.zeros(num_items, np.float32)
        for row in range(num_items if alike_NN.nnz else 0):
            cells = slice(indptr[row], indptr[row + 1])
            itself_N[row] = symmetric_row(inverse_NN, row)[indices[cells]] @ counts[cells] / diagonal_N[row]

        wanted_NN = sparse.csr_array((alike_NN + future_NN).T)
        if wanted_NN.nnz > _DENSE_ABOVE * num_items**2:
            wanted_NN = wanted_NN.toarray()
        for start in range(0, num_items, _ROWS_AT_ONCE):
            rows = range(start, min(start + _ROWS_AT_ONCE, num_items))
            block_RN = np.stack([symmetric_row(inverse_NN, row) for row in rows])
            for weights_N in (wanted_NN @ block_RN.T).T - block_RN * itself_N:
                yield np.arange(num_items, dtype=np.int32), weights_N

    def _diagonal(self, past_NN: sparse.csr_array, future_NN: sparse.csr_array, alike_NN: sparse.csr_array) -> Rows:
        scale_N = (past_NN + alike_NN).diagonal() + self.config.regularization
        wanted_NN = sparse.csr_array(future_NN + alike_NN - sparse.diags_array(alike_NN.diagonal()))
        wanted_NN.sort_indices()
        for row, scale in enumerate(scale_N):
            cells = slice(wanted_NN.indptr[row], wanted_NN.indptr[row + 1])
            yield wanted_NN.indices[cells], wanted_NN.data[cells] / np.float32(scale)

    def _transitions(self, train: Interactions) -> tuple[sparse.csr_array, sparse.csr_array]:
        """S'S and S'T [N, N]. An item right after itself is no target unless `learn_repeats`."""
        config = self.config
        past_NN = sparse.csr_array((train.num_items, train.num_items), dtype=np.float32)
        future_NN = past_NN
        age_W, wait_H = np.arange(config.window), np.arange(config.horizon)
        past_weight_W = np.exp(-age_W / config.decay) + config.floor
        wait_weight_H = np.exp(-wait_H / config.decay)
        for start in range(0, len(train) if config.alpha < 1 else 0, _EXAMPLES_AT_ONCE):
            last_E = np.arange(start, min(start + _EXAMPLES_AT_ONCE, len(train)))[:, None]
            first_E, end_E = (train.offsets[train.user_idx[last_E] + step] for step in (0, 1))
            target_EH = last_E + 1 + wait_H
            is_target_EH = target_EH < end_E
            target_EH = np.minimum(target_EH, len(train) - 1)
            if not config.learn_repeats:
                is_target_EH &= train.item_idx[target_EH] != train.item_idx[last_E]
            is_example_E = is_target_EH.any(axis=1, keepdims=True)
            item_EW = last_E - age_W
            S = _rows_of(train, item_EW, (item_EW >= first_E) & is_example_E, past_weight_W)
            T = _rows_of(train, target_EH, is_target_EH, wait_weight_H * train.weight[target_EH])
            past_NN = past_NN + S.T @ S
            future_NN = future_NN + S.T @ T
        return past_NN, future_NN

    def parts(self) -> ServingParts:
        return ServingParts(
            links=self.links,
            max_history=self.config.window,
            link_decay=self.config.decay,
            link_floor=self.config.floor,
            link_window=self.config.window,
        )

    def state(self) -> dict[str, np.ndarray]:
        return dict(zip(("indptr", "indices", "weights"), self.links, strict=True))

    def load_state(self, state: Mapping[str, np.ndarray]) -> None:
        self.links = (state["indptr"], state["indices"], state["weights"])


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
