"""What the linear and neighbourhood models share: their base, matrices of the log, the inverse, the cut to strongest.

In: `Interactions`. Out: scipy sparse matrices and the CSR arrays of `ServingParts.links`. Private to this folder, so
it is no model of the socket.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from pydantic import Field
from scipy import sparse
from scipy.linalg import lapack

from recops.data.interactions import Interactions
from recops.errors import TooLargeError
from recops.params import Group
from recops.protocols import ServingParts

Links = tuple[np.ndarray, np.ndarray, np.ndarray]  # indptr int64 [N+2], indices int32, weights float32


class VoteConfig(Group):
    """How the history of a model of links votes."""

    max_history: int = Field(500, ge=1, description="last events of a user that vote")
    link_decay: float | None = Field(None, gt=0, description="events after which a vote counts 1/e; null: all alike")
    link_floor: float = Field(0.0, ge=0, description="what a vote counts at least, on top of the decay")


class LinkModel:
    """A model whose links are all that is learnt and served. Without any event nothing votes and every score is 0."""

    takes = "history"

    def __init__(self, config: Any, num_users: int, num_items: int, seed: int) -> None:
        """`config` is a VoteConfig, but where the model has `parts` of its own."""
        self.config = config
        self.links = no_links(num_items)

    def parts(self) -> ServingParts:
        return ServingParts(
            links=self.links,
            max_history=self.config.max_history,
            link_decay=self.config.link_decay,
            link_floor=self.config.link_floor,
        )

    def state(self) -> dict[str, np.ndarray]:
        return dict(zip(("indptr", "indices", "weights"), self.links, strict=True))

    def load_state(self, state: Mapping[str, np.ndarray]) -> None:
        self.links = (state["indptr"], state["indices"], state["weights"])


def user_item_matrix(train: Interactions, dtype: type = np.float32) -> sparse.csr_array:
    """CSR [num_users+1, num_items+1]; a pair seen several times keeps its largest event weight. Row and column 0 are
    empty, rows are sorted by item."""
    shape = (train.num_users + 1, train.num_items + 1)
    order = np.lexsort((train.item_idx, train.user_idx))
    users, items = train.user_idx[order], train.item_idx[order]
    is_first = np.ones(len(order), dtype=bool)
    is_first[1:] = (users[1:] != users[:-1]) | (items[1:] != items[:-1])
    starts = np.flatnonzero(is_first)
    weights = train.weight[order]
    if len(starts):
        weights = np.maximum.reduceat(weights, starts)
    indptr = np.searchsorted(users[starts], np.arange(shape[0] + 1))
    return sparse.csr_array((weights.astype(dtype), items[starts], indptr), shape=shape)


def pack_links(rows: Iterable[tuple[np.ndarray, np.ndarray]]) -> Links:
    """CSR arrays from (indices, weights) of each row, row 0 first."""
    indices, weights = [np.zeros(0, np.int32)], [np.zeros(0, np.float32)]
    for row_indices, row_weights in rows:
        indices.append(row_indices.astype(np.int32))
        weights.append(row_weights.astype(np.float32))
    indptr = np.cumsum([0, *(len(row) for row in indices[1:])], dtype=np.int64)
    return indptr, np.concatenate(indices), np.concatenate(weights)


def turned(links: Links) -> Links:
    """Links from what each item is voted for by to what each item votes for."""
    indptr, indices, weights = links
    shape = (len(indptr) - 1, len(indptr) - 1)
    by_voter = sparse.csr_array((weights, indices, indptr), shape=shape).T.tocsr()
    by_voter.sort_indices()
    return by_voter.indptr.astype(np.int64), by_voter.indices.astype(np.int32), by_voter.data


def no_links(num_items: int) -> Links:
    """Links of a model that has seen nothing: every row is empty."""
    return np.zeros(num_items + 2, np.int64), np.zeros(0, np.int32), np.zeros(0, np.float32)


def refuse_large(name: str, num_items: int, max_items: int, instead: str) -> None:
    """Raises TooLargeError, naming the key and what to take `instead`, for a catalogue that a dense items x items
    matrix of model `name` does not fit."""
    if num_items > max_items:
        raise TooLargeError(
            f"train.models.{name}.max_items: {max_items} allowed, {num_items} items found: they need "
            f"{4 * num_items**2 / 1e9:.1f} GB; raise the key, or take {instead}"
        )


def ridge_inverse(lower_NN: np.ndarray, regularization: float) -> np.ndarray:
    """(gram + regularization I)^-1 of a positive semi-definite matrix of which the lower triangle is given: float32
    [N, N] in C order, overwritten by the result, whose lower triangle alone is filled: `symmetric_row` reads it."""
    lower_NN[np.diag_indices_from(lower_NN)] += regularization
    # What LAPACK takes in place is Fortran order, where this is the upper triangle.
    inverse_NN, failed = lapack.spotrf(lower_NN.T, lower=0, overwrite_a=1)
    if not failed:
        inverse_NN, failed = lapack.spotri(inverse_NN, lower=0, overwrite_c=1)
    assert not failed, f"a Gram matrix plus a positive diagonal is positive definite, but LAPACK said {failed}"
    return inverse_NN.T


def symmetric_row(lower_NN: np.ndarray, row: int) -> np.ndarray:
    """Row `row` [N] of a symmetric matrix of which only the lower triangle is there."""
    return np.concatenate([lower_NN[row, :row], lower_NN[row:, row]])
