"""Next-item prediction by causal self-attention: SASRec (Kang & McAuley, 2018), trained with softmax over the
catalogue at every position (Klenitskiy & Vasilev, 2023) instead of one sampled negative.

In: each user's items in order. Out: a vector for a history, scored against the vectors of the items, which are the
ones the network reads (tied). Knows nothing about users themselves, times, or how training is driven.

Shapes: B histories, L their length, D width, N items, M predicted positions, S sampled negatives.
"""

from collections.abc import Iterator, Mapping
from typing import Literal

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import nn
from torch.nn import functional as F

from recops.data.interactions import Interactions
from recops.models._losses import full_cross_entropy, sampled_cross_entropy
from recops.params import Group
from recops.protocols import ServingParts

# Histories are batched with others of about the same length, so that little of a batch is padding.
_BUCKET = 8
# Small data sets are cut into smaller batches, so that an epoch has at least about this many steps: with fewer a dozen
# epochs end before the network has learned much.
_MIN_BATCHES = 64
# Negatives are drawn by frequency to this power: between uniform (0) and by popularity (1).
_NEGATIVE_POWER = 0.75


class _Dropout(nn.Module):
    """Dropout from whole random words, a byte for each element: drawing is a seventh of the time of training else.

    The rate is rounded to a 256th. With a rate of 0, or outside training, nothing is drawn.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.num_dropped = round(rate * 256)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.training or self.num_dropped == 0:
            return x
        words = torch.empty(-(-x.numel() // 8), dtype=torch.int64, device=x.device).random_(-(2**63), None)
        kept = (words.view(torch.uint8)[: x.numel()] >= self.num_dropped).view(x.shape)
        return x * kept * (256 / (256 - self.num_dropped))


def _rotate(x_BHLd: torch.Tensor, turn: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    """Turns pairs of coordinates by angles that grow with the position (rotary positions, Su et al., 2021)."""
    cos, sin = (part.to(x_BHLd.dtype) for part in turn)
    first, second = x_BHLd.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)


class _Block(nn.Module):
    """Self-attention and a feed-forward part, each normalised before and added to what came in."""

    def __init__(self, dim: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.attention_norm = nn.LayerNorm(dim)
        self.query = nn.Linear(dim, dim)
        self.key_value = nn.Linear(dim, 2 * dim)
        self.output = nn.Linear(dim, dim)
        self.feed_forward_norm = nn.LayerNorm(dim)
        self.expand = nn.Linear(dim, 4 * dim)
        self.contract = nn.Linear(4 * dim, dim)
        self.dropout = _Dropout(dropout)

    def forward(
        self, x_BLD: torch.Tensor, bias: torch.Tensor, turn: tuple[torch.Tensor, torch.Tensor] | None, last_only: bool
    ) -> torch.Tensor:
        """`bias` [B or 1, 1, L or 1, L] is 0 where a position (row) sees another (column), else -inf; `turn` holds
        the cosines and sines of rotary positions. The last position counts as 0 and is not turned by them."""
        normed = self.attention_norm(x_BLD)
        if last_only:
            x_BLD = x_BLD[:, -1:]
        query = self._heads(self.query(normed[:, -1:] if last_only else normed))
        key, value = (self._heads(part) for part in self.key_value(normed).chunk(2, dim=-1))
        if turn is not None:
            query, key = query if last_only else _rotate(query, turn), _rotate(key, turn)
        # Written out: at these lengths twice as fast on a CPU as torch's fused attention, backward included.
        scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2)
        seen = torch.softmax(scores + bias.to(scores.dtype), dim=-1) @ value
        x_BLD = x_BLD + self.dropout(self.output(seen.transpose(1, 2).flatten(2)))
        inner = F.gelu(self.expand(self.feed_forward_norm(x_BLD)))
        return x_BLD + self.dropout(self.contract(inner))

    def _heads(self, x_BLD: torch.Tensor) -> torch.Tensor:
        return x_BLD.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)


class _Network(nn.Module):
    """Histories to vectors. Positions count from the end, so that padding on the left changes nothing."""

    def __init__(self, num_items: int, config: "Sasrec.Config") -> None:
        super().__init__()
        dim, self.max_history = config.embedding_dim, config.max_history
        self.items = nn.Embedding(num_items + 1, dim, padding_idx=0)
        self.positions = nn.Embedding(self.max_history, dim) if config.positions == "learned" else None
        self.head_dim = dim // config.num_heads
        self.blocks = nn.ModuleList(_Block(dim, config.num_heads, config.dropout) for _ in range(config.num_blocks))
        self.norm = nn.LayerNorm(dim)
        self.dropout = _Dropout(config.dropout)

    def initialise(self, generator: torch.Generator) -> None:
        for module in self.modules():
            if isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight, std=0.02, generator=generator)
            elif isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight, generator=generator)
                nn.init.zeros_(module.bias)
        with torch.no_grad():
            self.items.weight[0] = 0

    def embed(
        self, item_idx_BL: torch.Tensor, position_BL: torch.Tensor
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor] | None]:
        """What the first block reads, and the turn that every block is given."""
        x_BLD = self.items(item_idx_BL) * self.items.embedding_dim**0.5
        if self.positions is not None:
            return self.dropout(x_BLD + self.positions(position_BL)), None
        exponent = torch.arange(0, self.head_dim, 2, device=position_BL.device) / self.head_dim
        angle = (position_BL[..., None] * 10_000.0**-exponent).unsqueeze(-3)
        return self.dropout(x_BLD), (angle.cos(), angle.sin())

    def every_position(self, item_idx_BL: torch.Tensor, position_BL: torch.Tensor) -> torch.Tensor:
        """Vectors [B, L, D] after each event of histories padded on the right."""
        length = item_idx_BL.shape[1]
        bias = torch.full((1, 1, length, length), float("-inf"), device=item_idx_BL.device).triu(1)
        x_BLD, turn = self.embed(item_idx_BL, position_BL)
        for block in self.blocks:
            x_BLD = block(x_BLD, bias, turn, False)
        return self.norm(x_BLD)

    def forward(self, item_idx: torch.Tensor) -> torch.Tensor:
        """Vectors [B, D] after the last event of histories int64 [B, L] padded on the left with 0.

        A row of padding alone gives a finite vector, the same for any L.
        """
        length = item_idx.shape[1]
        row = torch.arange(length, device=item_idx.device)
        position_L = (length - 1 - row).clamp(max=self.max_history - 1)
        # Padding sees itself, since a softmax over nothing is not a number.
        sees = (row[:, None] == row) | ((row[:, None] >= row) & (item_idx != 0)[:, None, None, :])
        bias = torch.where(sees, 0.0, float("-inf"))
        x_BLD, turn = self.embed(item_idx, position_L)
        for block in self.blocks[:-1]:
            x_BLD = block(x_BLD, bias, turn, False)
        x_BLD = self.blocks[-1](x_BLD, bias[:, :, -1:], turn, True)
        return self.norm(x_BLD)[:, -1]


class Sasrec:
    """A GradientRecommender (see protocols.py)."""

    class Config(Group):
        """Hyper-parameters; `batch_size` counts events, padding included, and is the most a batch may hold."""

        embedding_dim: int = Field(64, ge=1)
        num_blocks: int = Field(2, ge=1)
        num_heads: int = Field(2, ge=1)
        max_history: int = Field(200, ge=1, description="events of a user that the network looks back on")
        learn_repeats: bool = Field(
            False, description="also predict the very item just had; true where recommend.remove_seen is false"
        )
        positions: Literal["rotary", "learned"] = Field("rotary", description="learned: as the paper has it")
        dropout: float = Field(0.2, ge=0, le=0.95)
        loss: Literal["softmax", "sampled_softmax"] = Field(
            "softmax", description="over all items, or a sample of them"
        )
        num_negatives: int = Field(1024, ge=1, description="sampled_softmax: items drawn for each batch")
        precision: Literal["bf16", "float32"] = Field("bf16", description="of products; weights are float32 either way")
        epochs: int = Field(12, ge=1)
        patience: int = Field(3, ge=1, description="epochs without a better validation metric before training stops")
        batch_size: int = Field(6400, ge=1)
        learning_rate: float = Field(2e-3, gt=0)
        weight_decay: float = Field(0.0, ge=0)
        warmup_steps: int = Field(100, ge=0)

        @model_validator(mode="after")
        def _heads_divide_width(self) -> "Sasrec.Config":
            if self.embedding_dim % self.num_heads:
                raise ValueError(f"embedding_dim {self.embedding_dim} is not a multiple of num_heads {self.num_heads}")
            if self.positions == "rotary" and self.embedding_dim // self.num_heads % 2:
                raise ValueError("rotary positions need an even embedding_dim / num_heads; take positions: learned")
            return self

    def __init__(self, config: Config, num_users: int, num_items: int, seed: int) -> None:
        self.config, self.num_items = config, num_items
        self.module = _Network(num_items, config)
        self.module.initialise(torch.Generator().manual_seed(seed))
        self._dtype = torch.bfloat16 if config.precision == "bf16" else torch.float32

    def prepare(self, train: Interactions) -> None:
        """Cuts each user's events, from the end, in windows of at most `max_history` predictions.

        Windows with nothing to predict are left out: those of users with a single event and, without `learn_repeats`,
        of one item over and over. Else a log in which a video is clicked, played and liked teaches mostly to predict
        what has just been seen, which is never recommended (KuaiRand, 3 epochs: NDCG@10 .019 with them, .026 without).
        """
        is_target_E = np.ones(len(train), dtype=bool)
        if not self.config.learn_repeats:
            is_target_E[1:] = train.item_idx[1:] != train.item_idx[:-1]
        num_targets = np.diff(train.offsets) - 1
        num_windows = np.maximum(-(-num_targets // self.config.max_history), 0)
        user = np.repeat(np.arange(len(num_targets)), num_windows)
        back = np.arange(len(user)) - np.repeat(np.cumsum(num_windows) - num_windows, num_windows)
        end = train.offsets[user + 1] - back * self.config.max_history
        self._length_W = np.minimum(end - train.offsets[user] - 1, self.config.max_history)
        self._start_W = end - self._length_W - 1
        targets_before = np.concatenate([[0], np.cumsum(is_target_E)])
        has_target_W = targets_before[end] > targets_before[self._start_W + 1]
        self._length_W, self._start_W = self._length_W[has_target_W], self._start_W[has_target_W]
        self._events = torch.from_numpy(train.item_idx.astype(np.int64))
        self._targets = self._events * torch.from_numpy(is_target_E)

        # Batches are cut from windows sorted by bucket; which window stands where is drawn anew each epoch.
        self._bucket_W = -(-self._length_W // _BUCKET)
        width = np.sort(self._bucket_W)[::-1] * _BUCKET
        batch_size = min(self.config.batch_size, int(width.sum()) // _MIN_BATCHES)
        self._cuts = [0]
        while self._cuts[-1] < len(width):
            fit = max(batch_size // int(width[self._cuts[-1]]), 1)
            self._cuts.append(min(self._cuts[-1] + fit, len(width)))
        count = np.bincount(train.item_idx, minlength=self.num_items + 1)[1:]
        share = np.maximum(count, 1) ** _NEGATIVE_POWER
        self._log_q_N = torch.from_numpy(np.log(share / share.sum()).astype(np.float32))

    def num_batches(self) -> int:
        return len(self._cuts) - 1

    def batches(self, generator: torch.Generator) -> Iterator[dict[str, torch.Tensor]]:
        """`item_idx`, `position`, `target` int64 [B, L], padded on the right (target 0); with `sampled_softmax` also
        `negative` [S], rows of item_vectors less one, and the `log_q` [N] they were drawn from."""
        shuffled = torch.randperm(len(self._bucket_W), generator=generator).numpy()
        order = shuffled[np.argsort(-self._bucket_W[shuffled], kind="stable")]
        for batch in torch.randperm(self.num_batches(), generator=generator).tolist():
            window_B = order[self._cuts[batch] : self._cuts[batch + 1]]
            start_B1 = torch.from_numpy(self._start_W[window_B])[:, None]
            length_B1 = torch.from_numpy(self._length_W[window_B])[:, None]
            column_L = torch.arange(int(length_B1.max()))
            inside_BL = column_L < length_B1
            row_BL = torch.where(inside_BL, start_B1 + column_L, 0)
            found = {
                "item_idx": self._events[row_BL] * inside_BL,
                "position": (length_B1 - 1 - column_L).clamp(min=0),
                "target": self._targets[row_BL + 1] * inside_BL,
            }
            if self.config.loss == "sampled_softmax":
                share = self._log_q_N.exp()
                found["negative"] = torch.multinomial(share, self.config.num_negatives, True, generator=generator)
                found["log_q"] = self._log_q_N
            yield found

    def loss(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        target_BL = batch["target"]
        with torch.autocast(target_BL.device.type, torch.bfloat16, enabled=self._dtype == torch.bfloat16):
            hidden_BLD = self.module.every_position(batch["item_idx"], batch["position"])
            hidden_MD, target_M = hidden_BLD[target_BL > 0], target_BL[target_BL > 0] - 1
            vectors_ND = self.module.items.weight[1:]
            if self.config.loss == "sampled_softmax":
                return sampled_cross_entropy(hidden_MD, vectors_ND, target_M, batch["negative"], batch["log_q"])
            return full_cross_entropy(hidden_MD, vectors_ND, target_M, self._dtype)

    def fit(self, train: Interactions) -> None:
        raise NotImplementedError("sasrec is trained by recops.training.loop.fit_model")

    def parts(self) -> ServingParts:
        vectors = self.module.items.weight.detach().cpu().numpy().copy()
        return ServingParts(
            encoder=self.module.eval(), item_vectors=vectors, max_history=self.config.max_history, needs_history=True
        )

    def state(self) -> dict[str, np.ndarray]:
        return {name: value.detach().cpu().numpy().copy() for name, value in self.module.state_dict().items()}

    def load_state(self, state: Mapping[str, np.ndarray]) -> None:
        self.module.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in state.items()})
