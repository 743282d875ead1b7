"""Concatenated embeddings through fully connected layers to one score: the multi-layer perceptron of neural
collaborative filtering.

He, Liao, Zhang, Nie, Hu, Chua: "Neural collaborative filtering" (WWW 2017), section 3.3. In: `Interactions`. Out: an
encoder, item vectors and a ranker. The first layer of a concatenation is the sum of a user part and an item part, so
both are worked out once (`user_vector`, `item_vectors`) and the ranker starts behind their sum. The encoder serves
every user, known or new, from the history: a linear map, fitted by ridge regression after training, takes the mean
embedding of the history's items to the learned user embedding. Knows nothing about the order of a history.

Shapes: B batch, L history length, D embedding width, H width of the first hidden layer, S negatives, N items, M ranked.
"""

from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Literal

import numpy as np
import torch
from pydantic import Field
from scipy import sparse
from torch import nn
from torch.nn import functional as F

from recops.data.interactions import Interactions
from recops.errors import CallError
from recops.models._links import user_item_matrix
from recops.models._module import ModuleState
from recops.models._shares import RowShares
from recops.params import Group
from recops.protocols import ServingParts

_FOLD_IN_RIDGE = 1e-3  # of the ridge regression, as a share of the mean squared norm of what it reads


class _Mlp(nn.Module):
    """Both tables and the layers. Row 0 of the item table stays zero: it is never drawn, and gets no gradient."""

    fold_in: torch.Tensor

    def __init__(self, num_users: int, num_items: int, dim: int, hidden_dims: list[int], dropout: float) -> None:
        super().__init__()
        self.users = nn.Embedding(num_users + 1, dim)
        self.items = nn.Embedding(num_items + 1, dim, padding_idx=0)
        self.user_part = nn.Linear(dim, hidden_dims[0])
        self.item_part = nn.Linear(dim, hidden_dims[0], bias=False)
        layers: list[nn.Module] = [nn.ReLU(), nn.Dropout(dropout)]
        for width, next_width in pairwise(hidden_dims):
            layers += [nn.Linear(width, next_width), nn.ReLU(), nn.Dropout(dropout)]
        self.top = nn.Sequential(*layers, nn.Linear(hidden_dims[-1], 1))
        self.register_buffer("fold_in", torch.zeros(dim + 1, dim))  # last row: what an empty history gives

    def initialise(self, generator: torch.Generator) -> None:
        for module in self.modules():
            if isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight, std=0.05, generator=generator)
            elif isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight, generator=generator)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        with torch.no_grad():
            self.items.weight[0] = 0

    def forward(self, user_idx: torch.Tensor, item_idx: torch.Tensor) -> torch.Tensor:
        """Scores of the shape of `item_idx`; `user_idx` must broadcast with it."""
        hidden = self.user_part(self.users(user_idx)) + self.item_part(self.items(item_idx))
        return self.top(hidden)[..., 0]


class _Encoder(nn.Module):
    """Histories int64 [B, L] to the user part of the first layer [B, H]."""

    fold_in: torch.Tensor

    def __init__(self, mlp: _Mlp) -> None:
        super().__init__()
        self.items, self.user_part = mlp.items, mlp.user_part
        self.register_buffer("fold_in", mlp.fold_in.clone())

    def forward(self, item_idx: torch.Tensor) -> torch.Tensor:
        num_seen_B1 = (item_idx != 0).sum(1, keepdim=True).clamp(min=1)
        mean_BD = self.items(item_idx).sum(1) / num_seen_B1
        return self.user_part(mean_BD @ self.fold_in[:-1] + self.fold_in[-1])


class _Ranker(nn.Module):
    """User parts [B, H] and item parts [M, H] to scores [B, M]."""

    def __init__(self, mlp: _Mlp) -> None:
        super().__init__()
        self.top = mlp.top

    def forward(self, user_vector: torch.Tensor, item_vectors: torch.Tensor) -> torch.Tensor:
        return self.top(user_vector[:, None, :] + item_vectors[None, :, :])[:, :, 0]


class ConcatMlp(RowShares, ModuleState):
    """A GradientRecommender (see protocols.py).

    Objectives: `bce` (default) tells observed pairs from sampled ones; `mse` predicts the event's value and, like every
    model that only looks at what was chosen, ranks poorly.
    """

    takes = "history"

    class Config(Group):
        embedding_dim: int = Field(32, ge=1)
        hidden_dims: list[int] = Field([64, 32], min_length=1, description="widths of the fully connected layers")
        dropout: float = Field(0.1, ge=0, lt=1)
        objective: Literal["bce", "mse"] = "bce"
        num_negatives: int = Field(4, ge=1, description="bce: unobserved items drawn for each event")
        max_history: int = Field(500, ge=1, description="last events of a user that are looked at")
        epochs: int = Field(20, ge=1)
        learning_rate: float = Field(0.02, gt=0)
        weight_decay: float = Field(0.01, ge=0)
        batch_size: int = Field(2048, ge=1)
        patience: int = Field(3, ge=1)
        warmup_steps: int = Field(50, ge=0)

    def __init__(self, config: Config, num_users: int, num_items: int, seed: int) -> None:
        self.config, self.num_items = config, num_items
        self.module = _Mlp(num_users, num_items, config.embedding_dim, config.hidden_dims, config.dropout)
        self.module.initialise(torch.Generator().manual_seed(seed))
        self._history_UN: sparse.csr_array | None = None

    def prepare(self, train: Interactions) -> None:
        """Raises CallError where the objective is `mse` and an event has no value."""
        num_missing = int(np.isnan(train.value).sum())
        if self.config.objective == "mse" and num_missing:
            raise CallError(
                f"train.models.concat_mlp.objective: mse needs a value for every event, {num_missing} of {len(train)} "
                "have none; take bce"
            )
        self._columns = {
            "user_idx": torch.from_numpy(train.user_idx.astype(np.int64)),
            "item_idx": torch.from_numpy(train.item_idx.astype(np.int64)),
            "value": torch.from_numpy(train.value.astype(np.float32)),
            "weight": torch.from_numpy(train.weight.astype(np.float32)),
        }
        self._history_UN = user_item_matrix(train).sign()

    def num_batches(self) -> int:
        return -(-len(self._columns["item_idx"]) // self.config.batch_size)

    def batches(self, generator: torch.Generator) -> Iterator[dict[str, torch.Tensor]]:
        order = torch.randperm(len(self._columns["item_idx"]), generator=generator)
        for event_B in order.split(self.config.batch_size):
            batch = {name: column[event_B] for name, column in self._columns.items()}
            if self.config.objective == "bce":
                shape = (len(event_B), self.config.num_negatives)
                batch["negative_idx"] = torch.randint(1, self.num_items + 1, shape, generator=generator)
            yield batch

    def loss(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        user_B1, item_B1 = batch["user_idx"][:, None], batch["item_idx"][:, None]
        if self.config.objective == "mse":
            loss_B = (batch["value"] - self.module(user_B1, item_B1)[:, 0]) ** 2
        else:
            score_BS = self.module(user_B1, torch.cat([item_B1, batch["negative_idx"]], 1))
            loss_B = F.softplus(-score_BS[:, 0]) + F.softplus(score_BS[:, 1:]).sum(1)
        return (batch["weight"] * loss_B).mean()

    def _fit_fold_in(self) -> None:
        """The ridge regression from mean history embedding to user embedding, over the users trained on."""
        if self._history_UN is None:
            return
        num_seen_U = self._history_UN.sum(axis=1)
        is_known = num_seen_U > 0
        items_ND = self.module.items.weight.detach().cpu().numpy().astype(np.float64)
        means_UD = (self._history_UN[is_known] @ items_ND) / num_seen_U[is_known, None]
        users_UD = self.module.users.weight.detach().cpu().numpy().astype(np.float64)[is_known]
        centre, target = means_UD.mean(axis=0), users_UD.mean(axis=0)
        gram_DD = (means_UD - centre).T @ (means_UD - centre)
        ridge = _FOLD_IN_RIDGE * np.trace(gram_DD) / len(gram_DD) + 1e-12
        slope_DD = np.linalg.solve(gram_DD + ridge * np.eye(len(gram_DD)), (means_UD - centre).T @ (users_UD - target))
        fold_in = np.vstack([slope_DD, target - centre @ slope_DD]).astype(np.float32)
        self.module.fold_in.copy_(torch.from_numpy(fold_in))

    def parts(self) -> ServingParts:
        self._fit_fold_in()
        mlp = self.module.eval().cpu()
        with torch.no_grad():
            item_vectors = mlp.item_part(mlp.items.weight).numpy()
        return ServingParts(
            encoder=_Encoder(mlp),
            item_vectors=item_vectors,
            ranker=_Ranker(mlp),
            max_history=self.config.max_history,
        )

    def state(self) -> dict[str, np.ndarray]:
        self._fit_fold_in()
        return super().state()

    def load_state(self, state: Mapping[str, np.ndarray]) -> None:
        """The fold-in comes with the state; it is not fitted again."""
        self._history_UN = None
        super().load_state(state)
