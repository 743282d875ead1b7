"""Matrix factorisation: R ~ mean + user bias + item bias + U V', trained in large mini-batches.

Koren, Bell, Volinsky: "Matrix factorization techniques for recommender systems" (IEEE Computer 2009) for the model with
biases; Hu, Koren, Volinsky: "Collaborative filtering for implicit feedback datasets" (ICDM 2008) for the default
objective and the fold-in. In: `Interactions`. Out: an encoder, which finds the vector of any user from the history by
the ridge regression that gave the user vectors in training (so a new user is served like a known one), and item vectors
with the item bias as their last column. Knows nothing about the order of a history.

Shapes: B batch, L history length, D width, N items.
"""

from collections.abc import Iterator
from typing import Literal

import numpy as np
import torch
from pydantic import Field
from torch import nn
from torch.nn import functional as F

from recops.data.interactions import Interactions
from recops.errors import CallError
from recops.models._fold_in import FoldIn
from recops.models._module import ModuleState
from recops.models._shares import RowShares
from recops.params import Group
from recops.protocols import ServingParts

# Events at the mean that a user or an item is credited with before its bias is believed.
_DAMPING = 5.0


class _Factors(nn.Module):
    """What is learned. Row 0 of the item tables stays zero: it is never drawn, and gets no gradient."""

    mean: torch.Tensor
    unobserved_weight: torch.Tensor

    def __init__(self, num_users: int, num_items: int, dim: int, generator: torch.Generator) -> None:
        super().__init__()
        self.users = nn.Embedding(num_users + 1, dim)
        self.items = nn.Embedding(num_items + 1, dim, padding_idx=0)
        # Tables of width 1, whose gradients are summed faster than those of an indexed vector.
        self.user_bias = nn.Embedding(num_users + 1, 1)
        self.item_bias = nn.Embedding(num_items + 1, 1, padding_idx=0)
        self.register_buffer("mean", torch.zeros(()))
        self.register_buffer("unobserved_weight", torch.zeros(()))
        for table in (self.users, self.items):
            nn.init.normal_(table.weight, std=0.1 * dim**-0.5, generator=generator)
        nn.init.zeros_(self.user_bias.weight)
        nn.init.zeros_(self.item_bias.weight)
        with torch.no_grad():
            self.items.weight[0] = 0

    def forward(self, user_idx: torch.Tensor, item_idx: torch.Tensor) -> torch.Tensor:
        """What the model says of each pair, of the shape of `item_idx`; `user_idx` must broadcast with it."""
        product = (self.users(user_idx) * self.items(item_idx)).sum(-1)
        return self.mean + self.user_bias(user_idx)[..., 0] + self.item_bias(item_idx)[..., 0] + product


class MatrixFactorization(RowShares, ModuleState):
    """A GradientRecommender (see protocols.py).

    Objectives: `implicit` (default) draws every observed pair to 1 and, with a small weight, all pairs to 0, without
    sampling; `bce` tells observed pairs from sampled ones; `mse` predicts the event's value, as the textbook does: good
    at ratings, poor at ranking, because it never looks at what was not chosen. NDCG@10 on MovieLens-100k, each user's
    last event withheld, whole catalogue, these defaults: .071, .051 and .013; `most_popular` has .044.
    """

    takes = "history"

    class Config(Group):
        embedding_dim: int = Field(64, ge=1)
        objective: Literal["implicit", "bce", "mse"] = "implicit"
        num_negatives: float = Field(
            5.0, gt=0, description="unobserved pairs per event: weight of all together (implicit) or drawn (bce)"
        )
        regularization: float = Field(0.003, ge=0, description="L2 on the vectors of each event")
        max_history: int = Field(500, ge=1, description="last events of a user that are looked at")
        fold_in_steps: int = Field(10, ge=1, description="conjugate gradient steps of the encoder")
        epochs: int = Field(20, ge=1)
        learning_rate: float = Field(0.01, gt=0)
        weight_decay: float = Field(0.0, ge=0)
        batch_size: int = Field(8192, ge=1)
        patience: int = Field(3, ge=1)
        warmup_steps: int = Field(0, ge=0)

    def __init__(self, config: Config, num_users: int, num_items: int, seed: int) -> None:
        self.config, self.num_users, self.num_items = config, num_users, num_items
        generator = torch.Generator().manual_seed(seed)
        self.module = _Factors(num_users, num_items, config.embedding_dim, generator)

    def prepare(self, train: Interactions) -> None:
        """Raises CallError where the objective is `mse` and an event has no value."""
        num_missing = int(np.isnan(train.value).sum())
        if self.config.objective == "mse" and num_missing:
            raise CallError(
                f"train.models.matrix_factorization.objective: mse needs a value for every event, {num_missing} of "
                f"{len(train)} have none; take implicit or bce"
            )
        num_events_U = np.bincount(train.user_idx, minlength=self.num_users + 1)
        num_events_N = np.bincount(train.item_idx, minlength=self.num_items + 1)
        columns = {"user_idx": train.user_idx.astype(np.int64), "item_idx": train.item_idx.astype(np.int64)}
        columns["weight"] = train.weight
        if self.config.objective == "mse":
            columns["value"] = train.value
            self._start_from_means(train, num_events_U, num_events_N)
        elif self.config.objective == "implicit":
            columns["user_share"] = (1 / num_events_U[train.user_idx]).astype(np.float32)
            columns["item_share"] = (1 / num_events_N[train.item_idx]).astype(np.float32)
        self._columns = {name: torch.from_numpy(column) for name, column in columns.items()}
        density = len(train) / max(self.num_users * self.num_items, 1)
        self.module.unobserved_weight.fill_(self.config.num_negatives * density)

    def _start_from_means(self, train: Interactions, num_events_U: np.ndarray, num_events_N: np.ndarray) -> None:
        """Starts mean and biases where they nearly end: at damped means, of items first and then of users."""
        if len(train) == 0:
            return
        mean = train.value.mean(dtype=np.float64)
        item_sum = np.bincount(train.item_idx, train.value - mean, len(num_events_N))
        item_bias = item_sum / (num_events_N + _DAMPING)
        user_sum = np.bincount(train.user_idx, train.value - mean - item_bias[train.item_idx], len(num_events_U))
        with torch.no_grad():
            self.module.mean.fill_(mean)
            self.module.item_bias.weight[:, 0] = torch.from_numpy(item_bias)
            self.module.user_bias.weight[:, 0] = torch.from_numpy(user_sum / (num_events_U + _DAMPING))

    def num_batches(self) -> int:
        return -(-len(self._columns["item_idx"]) // self.config.batch_size)

    def batches(self, generator: torch.Generator) -> Iterator[dict[str, torch.Tensor]]:
        order = torch.randperm(len(self._columns["item_idx"]), generator=generator)
        for event_B in order.split(self.config.batch_size):
            batch = {name: column[event_B] for name, column in self._columns.items()}
            if self.config.objective == "bce":
                shape = (len(event_B), max(1, round(self.config.num_negatives)))
                batch["negative_idx"] = torch.randint(1, self.num_items + 1, shape, generator=generator)
            yield batch

    def loss(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        factors, config = self.module, self.config
        users, items = factors.users(batch["user_idx"]), factors.items(batch["item_idx"])
        user_bias, item_bias = factors.user_bias(batch["user_idx"]), factors.item_bias(batch["item_idx"])
        score_B = factors.mean + user_bias[:, 0] + item_bias[:, 0] + (users * items).sum(1)
        size_B = (users**2).sum(1) + (items**2).sum(1)
        if config.objective == "mse":
            loss_B = (batch["value"] - score_B) ** 2
            size_B = size_B + user_bias[:, 0] ** 2 + item_bias[:, 0] ** 2
        elif config.objective == "bce":
            negative_BS = factors(batch["user_idx"][:, None], batch["negative_idx"])
            loss_B = F.softplus(-score_B) + F.softplus(negative_BS).sum(1)
        else:
            # Sum over all items of score^2 = u' (V'V) u, with the biases as further columns.
            full_users = torch.cat([users, torch.ones_like(user_bias), user_bias], 1)
            vectors_ND, bias_N1 = factors.items.weight[1:], factors.item_bias.weight[1:]
            full_items = torch.cat([vectors_ND, bias_N1, torch.ones_like(bias_N1)], 1)
            everything_B = ((full_users @ (full_items.T @ full_items)) * full_users).sum(1)
            loss_B = (1 - score_B) ** 2 + factors.unobserved_weight * batch["user_share"] * everything_B
            unobserved_U = factors.unobserved_weight * self.num_items * batch["user_share"]
            unobserved_N = factors.unobserved_weight * self.num_users * batch["item_share"]
            size_B = (1 + unobserved_U) * (users**2).sum(1) + (1 + unobserved_N) * (items**2).sum(1)
        return (batch["weight"] * (loss_B + config.regularization * size_B)).mean()

    def parts(self) -> ServingParts:
        vectors_ND = self.module.items.weight.detach().cpu().clone()
        bias_N = self.module.item_bias.weight[:, 0].detach().cpu().clone()
        is_implicit = self.config.objective == "implicit"
        target_N = 1 - bias_N if is_implicit else torch.ones_like(bias_N)
        encoder = FoldIn(
            vectors_ND,
            target_N,
            bias_N if is_implicit else torch.zeros_like(bias_N),
            float(self.module.unobserved_weight),
            self.config.regularization,
            self.config.fold_in_steps,
        )
        return ServingParts(
            encoder=encoder.eval(),
            item_vectors=torch.cat([vectors_ND, bias_N[:, None]], 1).numpy(),
            max_history=self.config.max_history,
        )
