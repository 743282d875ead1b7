"""Implicit alternating least squares: a weighted factorisation of every pair of user and item, seen or not.

Hu, Koren, Volinsky: "Collaborative filtering for implicit feedback datasets" (ICDM 2008); settings and the
regularisation by frequency as in Rendle, Krichene, Zhang, Koren: "Revisiting the performance of iALS on item
recommendation benchmarks" (RecSys 2022). Rows are solved by warm conjugate gradients as in Takács, Pilászy, Tikk:
"Applications of the conjugate gradient method for implicit feedback collaborative filtering" (RecSys 2011), in
coordinates in which the part that all rows share is the identity. In: `Interactions`. Out: item vectors, and an encoder
that solves for the user in the same way. Knows nothing about the order of a history.

The weight of an event scales its confidence, and repeated events add up; the encoder gives each event of a history the
weight 1, as a history carries none.

Shapes: R rows that are solved for, C rows of the other side (row 0 is padding and zero in both), D width, B rows of a
block, L events of the longest of them.
"""

from collections.abc import Mapping

import numpy as np
import torch
from pydantic import Field
from scipy import sparse

from recops.data.interactions import Interactions
from recops.models._fold_in import FoldIn
from recops.params import Group
from recops.protocols import ServingParts

BLOCK_CELLS = 4_000_000  # float32 of the vectors that a block of rows has seen: 16 MB


class Ials:
    """Minimises, over user vectors u and item vectors v,

    sum over events of w (1 - u.v)^2 + a * sum over all pairs of (u.v)^2
    + regularization * (sum over users of (n_u + a I)^e |u|^2 + sum over items of (n_i + a U)^e |v|^2)

    where a = num_negatives * events / (users * items), n is the weight of a row's events, e the
    `regularization_exponent`, and I, U count items and users. Without any event every score is 0.
    """

    takes = "history"

    class Config(Group):
        embedding_dim: int = Field(128, ge=1)
        num_negatives: float = Field(10.0, gt=0, description="weight of all unobserved pairs together, per event")
        regularization: float = Field(0.005, ge=0)
        regularization_exponent: float = Field(
            1.0, ge=0, description="1: in proportion to a row's events; 0: the same for every row"
        )
        epochs: int = Field(12, ge=1, description="times that users and then items are solved for")
        solver_steps: int = Field(5, ge=1, description="conjugate gradient steps of one solution, from the last one on")
        init_scale: float = Field(0.1, gt=0, description="length of an item vector before the first epoch")
        max_history: int = Field(500, ge=1, description="last events of a user that are looked at")
        fold_in_steps: int = Field(12, ge=1, description="conjugate gradient steps of the encoder")

    def __init__(self, config: Config, num_users: int, num_items: int, seed: int) -> None:
        self.config = config
        self._seed = seed
        self.item_vectors = np.zeros((num_items + 1, config.embedding_dim), np.float32)
        self.unobserved_weight = np.zeros(1, np.float64)

    def fit(self, train: Interactions) -> None:
        if len(train) == 0:
            return
        config = self.config
        shape = (train.num_users + 1, train.num_items + 1)
        weight_UI = sparse.csr_array((train.weight, (train.user_idx, train.item_idx)), shape=shape)
        weight_IU = weight_UI.T.tocsr()
        self.unobserved_weight[0] = config.num_negatives * len(train) / (train.num_users * train.num_items)
        generator = np.random.default_rng(self._seed)
        scale = config.init_scale / np.sqrt(config.embedding_dim)
        items_ID = (scale * generator.standard_normal((shape[1], config.embedding_dim))).astype(np.float32)
        items_ID[0] = 0
        users_UD = np.zeros((shape[0], config.embedding_dim), np.float32)
        for _ in range(config.epochs):
            users_UD = self._solve(weight_UI, users_UD, items_ID)
            items_ID = self._solve(weight_IU, items_ID, users_UD)
        self.item_vectors = items_ID

    def _solve(self, weight_RC: sparse.csr_array, start_RD: np.ndarray, others_CD: np.ndarray) -> np.ndarray:
        """The ridge regression of every row, from `start_RD` on: float32 [R, D], zero for rows without events."""
        config, weight = self.config, float(self.unobserved_weight[0])
        wide_CD = others_CD.astype(np.float64)
        strength_D, axes_DD = np.linalg.eigh(weight * wide_CD.T @ wide_CD)
        ridge_without_events = (weight * (len(others_CD) - 1)) ** config.regularization_exponent
        shared_D = np.maximum(strength_D, 0) + config.regularization * ridge_without_events
        # Without any ridge, directions that no vector has keep a finite scale.
        shared_D = np.maximum(shared_D, 1e-6 * shared_D.max() + 1e-12)
        others_CD = (wide_CD @ (axes_DD / np.sqrt(shared_D))).astype(np.float32)
        rows_RD = ((start_RD @ axes_DD) * np.sqrt(shared_D)).astype(np.float32)

        event_weight_R = weight_RC.sum(axis=1)
        ridge_R = (event_weight_R + weight * (len(others_CD) - 1)) ** config.regularization_exponent
        ridge_R = config.regularization * (ridge_R - ridge_without_events)
        length_R = np.diff(weight_RC.indptr)
        rows_RD[length_R == 0] = 0
        by_length = np.argsort(length_R, kind="stable")
        for rows in _blocks(by_length[length_R[by_length] > 0], length_R, config.embedding_dim):
            vectors_BLD, root_weight_BL = _seen_vectors(weight_RC, rows, others_CD)
            diagonal_BD = (1 + ridge_R[rows, None] / shared_D).astype(np.float32)
            rows_RD[rows] = _conjugate_gradients(
                vectors_BLD, root_weight_BL, diagonal_BD, rows_RD[rows], config.solver_steps
            )
        return (rows_RD @ (axes_DD / np.sqrt(shared_D)).T).astype(np.float32)

    def parts(self) -> ServingParts:
        encoder = FoldIn(
            torch.from_numpy(self.item_vectors),
            torch.ones(len(self.item_vectors)),
            None,
            float(self.unobserved_weight[0]),
            self.config.regularization,
            self.config.fold_in_steps,
            self.config.regularization_exponent,
        )
        return ServingParts(encoder=encoder.eval(), item_vectors=self.item_vectors, max_history=self.config.max_history)

    def state(self) -> dict[str, np.ndarray]:
        return {"item_vectors": self.item_vectors, "unobserved_weight": self.unobserved_weight}

    def load_state(self, state: Mapping[str, np.ndarray]) -> None:
        self.item_vectors, self.unobserved_weight = state["item_vectors"], state["unobserved_weight"]


def _blocks(rows: np.ndarray, length_R: np.ndarray, dim: int) -> list[np.ndarray]:
    """`rows`, sorted by length, in pieces of at most BLOCK_CELLS when padded to their longest (or of one row)."""
    blocks, end = [], len(rows)
    while end > 0:
        size = max(1, BLOCK_CELLS // (int(length_R[rows[end - 1]]) * dim))
        blocks.append(rows[max(0, end - size) : end])
        end -= size
    return blocks


def _seen_vectors(
    weight_RC: sparse.csr_array, rows: np.ndarray, others_CD: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The vectors of what each row has seen times the root of the weight, and those roots; both zero past the end."""
    starts_B, ends_B = weight_RC.indptr[rows], weight_RC.indptr[rows + 1]
    places_BL = starts_B[:, None] + np.arange((ends_B - starts_B).max())
    is_event_BL = places_BL < ends_B[:, None]
    places_BL = np.where(is_event_BL, places_BL, 0)
    root_weight_BL = np.where(is_event_BL, np.sqrt(weight_RC.data[places_BL]), 0).astype(np.float32)
    return others_CD[weight_RC.indices[places_BL]] * root_weight_BL[:, :, None], root_weight_BL


def _conjugate_gradients(
    vectors_BLD: np.ndarray, root_weight_BL: np.ndarray, diagonal_BD: np.ndarray, start_BD: np.ndarray, num_steps: int
) -> np.ndarray:
    """x of (V'V + diagonal) x = V' root_weight for each row of the block, preconditioned by the diagonal."""

    def product(x_BD: np.ndarray) -> np.ndarray:
        through_B1L = (vectors_BLD @ x_BD[:, :, None]).transpose(0, 2, 1)
        return (through_B1L @ vectors_BLD)[:, 0] + diagonal_BD * x_BD

    x_BD = start_BD
    residual_BD = (root_weight_BL[:, None] @ vectors_BLD)[:, 0] - product(x_BD)
    direction_BD = residual_BD / diagonal_BD
    size_B = (residual_BD * direction_BD).sum(1)
    for _ in range(num_steps):
        product_BD = product(direction_BD)
        step_B1 = (size_B / np.maximum((direction_BD * product_BD).sum(1), 1e-30))[:, None]
        x_BD = x_BD + step_B1 * direction_BD
        residual_BD = residual_BD - step_B1 * product_BD
        scaled_BD = residual_BD / diagonal_BD
        next_size_B = (residual_BD * scaled_BD).sum(1)
        direction_BD = scaled_BD + (next_size_B / np.maximum(size_B, 1e-30))[:, None] * direction_BD
        size_B = next_size_B
    return x_BD
