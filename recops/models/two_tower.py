"""Two towers: one makes a vector of a history, the other of an item, and the angle between them scores.

Yi et al.: "Sampling-bias-corrected neural modeling for large corpus item recommendations" (RecSys 2019) for the towers,
the in-batch softmax and its correction by frequency; Covington, Adams, Sargin: "Deep neural networks for YouTube
recommendations" (RecSys 2016) for the user tower over the mean of what was watched. In: `Interactions`. Out: an encoder
and item vectors, both of length 1 but for the temperature. A history is told by its items and how long ago each stands
in it; the weights of these places are learned. Somebody without a history is told by attributes, where they are known
(`user_attributes`): in training they stand in the place of the history for some of the targets, drawn anew each epoch.

NDCG@10 on validation, each user's last event but one, whole catalogue, MovieLens-100k and latest-small, 8 epochs of
about 3 CPU seconds: .123 and .080; `ease` .084 and .048. All items as negatives gave .120 on the first.

Shapes: B batch, L history length, D width, N items (row 0 is padding), E events, T events to be predicted, S negatives,
R rows of the catalogue that a batch needs.
"""

from collections.abc import Iterator
from typing import Literal

import numpy as np
import torch
from pydantic import Field
from torch import nn
from torch.nn import functional as F

from recops.data.content import ItemContent
from recops.data.interactions import Interactions
from recops.errors import RefusedError
from recops.models._content import ContentConfig, ItemTable, Projection, content_blocks
from recops.models._losses import sampled_cross_entropy
from recops.models._module import ModuleState
from recops.models._shares import shared_rows
from recops.protocols import ServingParts

# Negatives are drawn by frequency to this power: between uniform (0) and by popularity (1).
_NEGATIVE_POWER = 0.75


class _Tower(nn.Module):
    """A hidden layer beside a straight way through, and a length of 1: [..., D] to [..., D]."""

    def __init__(self, dim: int, hidden_dim: int, dropout: float) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(dim, hidden_dim), nn.Linear(hidden_dim, dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return F.normalize(inputs + self.outer(self.dropout(F.relu(self.inner(inputs)))), dim=-1)


class _Towers(ItemTable):
    """The table of items, which both towers read, the towers, and the weights of places (0 is the last event)."""

    attributes: torch.Tensor
    user_projection: Projection | None

    def __init__(self, num_items: int, dim: int, hidden_dim: int, max_history: int, dropout: float) -> None:
        super().__init__(num_items, dim)
        self.log_place_weight = nn.Parameter(torch.zeros(max_history))
        self.user_tower = _Tower(dim, hidden_dim, dropout)
        self.item_tower = _Tower(dim, hidden_dim, dropout)
        self.user_projection = None

    def initialise(self, generator: torch.Generator) -> None:
        nn.init.normal_(self.items.weight, std=self.items.embedding_dim**-0.5, generator=generator)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight, generator=generator)
                nn.init.zeros_(module.bias)
        with torch.no_grad():
            self.items.weight[0] = 0

    def attach_users(self, attributes: np.ndarray, num_trained: int, seed: int) -> None:
        """`attributes` [U+1, C], of users trained on and others. They are no part of the state."""
        self.register_buffer("attributes", torch.from_numpy(attributes), persistent=False)
        self.user_projection = Projection([attributes.shape[1]], self.items.embedding_dim, 0)
        self.user_projection.initialise(torch.Generator().manual_seed(seed))
        self.user_projection.standardise_on([attributes[1 : num_trained + 1]])

    def of_attributes(self, user_idx: torch.Tensor) -> torch.Tensor:
        """Unit vectors [B, D] of users of whom nothing else is known."""
        assert self.user_projection is not None
        return self.user_tower(self.user_projection(self.attributes[user_idx].float()))

    def forward(self, item_idx: torch.Tensor, table_ND: torch.Tensor | None = None) -> torch.Tensor:
        """Histories int64 [B, L], padded on the left, L at most max_history, to unit vectors [B, D]; `table` holds what
        the items are known by (None: their embeddings)."""
        length = item_idx.shape[1]
        weight_BL = torch.exp(self.log_place_weight[:length].flip(0)) * (item_idx != 0)
        known_BLD = self.items(item_idx) if table_ND is None else F.embedding(item_idx, table_ND)
        total_BD = (known_BLD * weight_BL[:, :, None]).sum(1)
        return self.user_tower(total_BD / weight_BL.sum(1, keepdim=True).clamp(min=1e-9))


class _ItemSide(nn.Module):
    """Encoder vectors to item vectors of length `length`, as `parts` has them."""

    def __init__(self, projection: nn.Module, tower: _Tower, length: float) -> None:
        super().__init__()
        self.projection, self.tower, self.length = projection, tower, length

    def forward(self, content: torch.Tensor) -> torch.Tensor:
        return self.tower(self.projection(content)) * self.length


class TwoTower(ModuleState):
    """A GradientRecommender (see protocols.py)."""

    takes = "history"

    class Config(ContentConfig):
        embedding_dim: int = Field(64, ge=1)
        hidden_dim: int = Field(128, ge=1, description="width of the hidden layer of each tower")
        user_attributes: bool = Field(
            False, description="users without a history are told by their attributes (encode.users)"
        )
        history_dropout: float = Field(
            0.1, ge=0, lt=1, description="user_attributes: share of the targets that they alone have to predict"
        )
        max_history: int = Field(20, ge=1, description="last events of a user that are looked at")
        learn_repeats: bool = Field(
            False, description="also predict items had before; true where recommend.remove_seen is false"
        )
        temperature: float = Field(0.1, gt=0, description="what cosines are divided by")
        dropout: float = Field(0.2, ge=0, lt=1)
        negatives: Literal["in_batch", "drawn"] = Field(
            "in_batch", description="the other targets of the batch, or num_negatives items drawn for it"
        )
        num_negatives: int = Field(1024, ge=1, description="drawn: how many, shared by the batch")
        epochs: int = Field(10, ge=1)
        learning_rate: float = Field(3e-3, gt=0)
        weight_decay: float = Field(0.01, ge=0)
        batch_size: int = Field(1024, ge=1, description="events to be predicted")
        patience: int = Field(3, ge=1)
        warmup_steps: int = Field(50, ge=0)

    def __init__(self, config: Config, num_users: int, num_items: int, seed: int) -> None:
        self.config, self.num_items, self._num_users, self._seed = config, num_items, num_users, seed
        self.module = _Towers(num_items, config.embedding_dim, config.hidden_dim, config.max_history, config.dropout)
        self.module.initialise(torch.Generator().manual_seed(seed))

    def attach_content(self, content: ItemContent | None) -> None:
        blocks = content_blocks(content, self.config.content)
        self.module.attach_content(blocks, self.config, self._seed)

    def attach_users(self, attributes: ItemContent | None) -> None:
        """Raises RefusedError where none were encoded."""
        if attributes is None:
            raise RefusedError("user_attributes: no user was encoded; set encode.users to true, or this to false")
        vectors = np.concatenate(list(attributes.vectors.values()), axis=1)
        self.module.attach_users(vectors, self._num_users, self._seed)

    def prepare(self, train: Interactions) -> None:
        """Each event with one before it is to be predicted, without `learn_repeats` only the user's first of an item.

        Targets are told by their place among the events, so that histories are cut out batch by batch.
        """
        is_target_E = np.ones(len(train), dtype=bool)
        if not self.config.learn_repeats:
            pairs = train.user_idx.astype(np.int64) * (self.num_items + 1) + train.item_idx
            is_target_E[:] = False
            is_target_E[np.unique(pairs, return_index=True)[1]] = True
        first_E = train.offsets[train.user_idx]
        is_target_E &= first_E < np.arange(len(train))
        self._target_T = torch.from_numpy(np.flatnonzero(is_target_E))
        self._first_E = torch.from_numpy(first_E)
        self._item_E = torch.from_numpy(train.item_idx.astype(np.int64))
        self._weight_E = torch.from_numpy(train.weight)
        self._user_E = None
        if self.module.user_projection is not None:
            self._user_E = torch.from_numpy(train.user_idx.astype(np.int64))
        power = 1.0 if self.config.negatives == "in_batch" else _NEGATIVE_POWER
        share_N = np.maximum(np.bincount(train.item_idx, minlength=self.num_items + 1)[1:], 1) ** power
        self._log_q_N = torch.from_numpy(np.log(share_N / share_N.sum()).astype(np.float32))

    def num_batches(self) -> int:
        return -(-len(self._target_T) // self.config.batch_size)

    def batches(self, generator: torch.Generator) -> Iterator[dict[str, torch.Tensor]]:
        """`history` int64 [B, L], `weight` [B]; `candidate` [R] item rows, each once and rising, with the `log_q` [R]
        of being drawn; `target` [B] and `negative` [S], places in `candidate`; with `user_attributes` also `user` [B],
        the row of one whose attributes have to predict the target, else 0."""
        column_L = torch.arange(self.config.max_history, 0, -1)
        order = self._target_T[torch.randperm(len(self._target_T), generator=generator)]
        for target_B in order.split(self.config.batch_size):
            event_BL = target_B[:, None] - column_L
            inside_BL = event_BL >= self._first_E[target_B][:, None]
            history_BL = self._item_E[event_BL.clamp(min=0)] * inside_BL
            item_B = self._item_E[target_B]
            negative_S = item_B
            if self.config.negatives == "drawn":
                negative_S = 1 + torch.multinomial(
                    self._log_q_N.exp(), self.config.num_negatives, True, generator=generator
                )
            candidate_R, place = torch.unique(torch.cat([item_B, negative_S]), return_inverse=True)
            found = {
                "history": history_BL,
                "weight": self._weight_E[target_B],
                "candidate": candidate_R,
                "log_q": self._log_q_N[candidate_R - 1],
                "target": place[: len(item_B)],
                "negative": place[len(item_B) :],
            }
            if self._user_E is not None:
                is_told = torch.rand(len(target_B), generator=generator) < self.config.history_dropout
                found["user"] = self._user_E[target_B] * is_told
            yield found

    def share(self, batch: dict[str, torch.Tensor], part: int, num_parts: int) -> tuple[dict[str, torch.Tensor], float]:
        """Targets in turn, which count by their weight; all workers compare with the same candidates."""
        found = shared_rows(batch, part, num_parts, whole=("candidate", "log_q", "negative"))
        return found, float(found["weight"].sum() / batch["weight"].sum().clamp(min=1e-12))

    def loss(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        table_ND = self.module.table()
        users_BD = self.module(batch["history"], table_ND)
        if (user_B := batch.get("user")) is not None:
            users_BD = torch.where(user_B[:, None] > 0, self.module.of_attributes(user_B), users_BD)
        users_BD = users_BD / self.config.temperature
        vectors_RD = self.module.item_tower(F.embedding(batch["candidate"], table_ND))
        return sampled_cross_entropy(
            users_BD, vectors_RD, batch["target"], batch["negative"], batch["log_q"], batch["weight"]
        )

    @torch.no_grad()
    def parts(self) -> ServingParts:
        self.module.cpu()
        network, projection = self.module.settled()
        vectors_ND = network.item_tower(network.items.weight) / self.config.temperature
        vectors_ND[self.num_items + 1 :] *= self.config.new_item_weight
        vectors_ND[0] = 0
        length = self.config.new_item_weight / self.config.temperature
        return ServingParts(
            encoder=network,
            user_table=self._user_table(),
            item_vectors=vectors_ND.numpy(),
            projection=projection and _ItemSide(projection, network.item_tower, length),
            content=tuple(self.config.content),
            max_history=self.config.max_history,
        )

    def _user_table(self) -> np.ndarray | None:
        """float32 [U+1, D], zeros for users without attributes."""
        module = self.module
        if module.user_projection is None:
            return None
        vectors_UD = module.of_attributes(torch.arange(len(module.attributes)))
        vectors_UD[~module.attributes.any(1)] = 0
        return vectors_UD.numpy()
