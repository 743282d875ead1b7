"""The network of the sequence models: causal self-attention over a history of items, in blocks.

In: histories as item rows, and when they happened. Out: a vector after each event, or after the last. Knows nothing
about losses or batches.

Shapes: B histories, L their length, D width, H heads, d width of a head.
"""

from typing import Literal

import torch
from torch import nn
from torch.nn import functional as F

from recops.models._content import ItemTable


class Dropout(nn.Module):
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


def rotate(x_BHLd: torch.Tensor, turn: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    """Turns pairs of coordinates by angles that grow with the position (rotary positions, Su et al., 2021)."""
    cos, sin = (part.to(x_BHLd.dtype) for part in turn)
    first, second = x_BHLd.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)


_NUM_BUCKETS = 64  # of time spans: two for each doubling, up to some 60 years


def time_bucket(span_s: torch.Tensor) -> torch.Tensor:
    """int64 buckets of spans in seconds, 0 for none and less: fine for short ones, coarse for long ones.

    In float64, so that every implementation of the logarithm gives the same buckets.
    """
    doubled = 2 * torch.log2(span_s.clamp(min=0).double() + 1)
    return doubled.floor().long().clamp(max=_NUM_BUCKETS - 1)


def attention_scores(
    query_BHLd: torch.Tensor,
    key_BHLd: torch.Tensor,
    turn: tuple[torch.Tensor, torch.Tensor] | None,
    time_bias: nn.Embedding | None,
    spans: torch.Tensor | None,
    last_only: bool,
) -> torch.Tensor:
    """[B, H, L or 1, L] with positions and times, before anything is masked. Arguments as of `Block.forward`.

    Written out: at these lengths twice as fast on a CPU as torch's fused attention, backward included.
    """
    if turn is not None:
        query_BHLd, key_BHLd = query_BHLd if last_only else rotate(query_BHLd, turn), rotate(key_BHLd, turn)
    scores = (query_BHLd * query_BHLd.shape[-1] ** -0.5) @ key_BHLd.transpose(-1, -2)
    if time_bias is None:
        return scores
    assert spans is not None
    return scores + time_bias(spans).permute(0, 3, 1, 2).to(scores.dtype)


class Block(nn.Module):
    """Self-attention and a feed-forward part, each normalised before and added to what came in.

    `gated` is the block of LiGR (Borisyuk et al., 2025) as eSASRec has it (Tikhonovich et al., 2025): each part is
    scaled by a sigmoid gate of what came in, and the feed-forward part is SwiGLU, of about as many weights.
    """

    def __init__(self, dim: int, num_heads: int, dropout: float, gated: bool, timed: bool) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.attention_norm = nn.LayerNorm(dim)
        self.query = nn.Linear(dim, dim)
        self.key_value = nn.Linear(dim, 2 * dim)
        self.output = nn.Linear(dim, dim)
        self.feed_forward_norm = nn.LayerNorm(dim)
        inner = -(-8 * dim // 3 // 8) * 8 if gated else 4 * dim
        self.expand = nn.Linear(dim, 2 * inner if gated else inner)
        self.contract = nn.Linear(inner, dim)
        self.gates = nn.ModuleList([nn.Linear(dim, dim), nn.Linear(dim, dim)]) if gated else None
        self.time_bias = nn.Embedding(_NUM_BUCKETS, num_heads) if timed else None
        self.dropout = Dropout(dropout)

    def forward(
        self,
        x_BLD: torch.Tensor,
        bias: torch.Tensor,
        turn: tuple[torch.Tensor, torch.Tensor] | None,
        spans: torch.Tensor | None,
        last_only: bool,
    ) -> torch.Tensor:
        """`bias` [B or 1, 1, L or 1, L] is 0 where a position (row) sees another (column), else -inf; `turn` holds
        the cosines and sines of rotary positions; `spans` [B, L or 1, L] the bucket of the time from what is seen to
        the request. The last position counts as 0 and is not turned by rotary positions."""
        normed = self.attention_norm(x_BLD)
        if last_only:
            x_BLD = x_BLD[:, -1:]
        query = self._heads(self.query(normed[:, -1:] if last_only else normed))
        key, value = (self._heads(part) for part in self.key_value(normed).chunk(2, dim=-1))
        scores = attention_scores(query, key, turn, self.time_bias, spans, last_only)
        seen = torch.softmax(scores + bias.to(scores.dtype), dim=-1) @ value
        x_BLD = x_BLD + self._gate(0, x_BLD, self.dropout(self.output(seen.transpose(1, 2).flatten(2))))
        inner = self.expand(self.feed_forward_norm(x_BLD))
        if self.gates is None:
            inner = F.gelu(inner)
        else:
            left, right = inner.chunk(2, dim=-1)
            inner = F.silu(left) * right
        return x_BLD + self._gate(1, x_BLD, self.dropout(self.contract(inner)))

    def _gate(self, part: int, x_BLD: torch.Tensor, change_BLD: torch.Tensor) -> torch.Tensor:
        return change_BLD if self.gates is None else change_BLD * torch.sigmoid(self.gates[part](x_BLD))

    def _heads(self, x_BLD: torch.Tensor) -> torch.Tensor:
        return x_BLD.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)


class HstuBlock(nn.Module):
    """The block of HSTU (Zhai et al., 2024): attention without softmax, whose outcome is gated by what came in."""

    def __init__(self, dim: int, num_heads: int, dropout: float, timed: bool) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norm = nn.LayerNorm(dim)
        self.expand = nn.Linear(dim, 4 * dim)
        self.seen_norm = nn.LayerNorm(dim)
        self.output = nn.Linear(dim, dim)
        self.time_bias = nn.Embedding(_NUM_BUCKETS, num_heads) if timed else None
        self.dropout = Dropout(dropout)

    def forward(
        self,
        x_BLD: torch.Tensor,
        bias: torch.Tensor,
        turn: tuple[torch.Tensor, torch.Tensor] | None,
        spans: torch.Tensor | None,
        last_only: bool,
    ) -> torch.Tensor:
        """See `Block.forward`."""
        gate, value, query, key = F.silu(self.expand(self.norm(x_BLD))).chunk(4, dim=-1)
        if last_only:
            x_BLD, gate, query = x_BLD[:, -1:], gate[:, -1:], query[:, -1:]
        query, key, value = (x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for x in (query, key, value))
        scores = attention_scores(query, key, turn, self.time_bias, spans, last_only)
        # Divided by the number of positions that are seen, not by the length: padding then changes nothing.
        sees = (bias == 0).to(scores.dtype)
        seen = (F.silu(scores) * (sees / sees.sum(-1, keepdim=True))) @ value
        return x_BLD + self.dropout(self.output(self.seen_norm(seen.transpose(1, 2).flatten(2)) * gate))


class Network(ItemTable):
    """Histories to vectors. Positions count from the end, so that padding on the left changes nothing.

    A timed network is also told when each event happened and when the next one is asked for: attention is biased by
    the time from each event to the request, and each event comes with the time that passed until the next request.
    """

    def __init__(
        self,
        num_items: int,
        *,
        dim: int,
        num_blocks: int,
        num_heads: int,
        max_history: int,
        dropout: float,
        rotary: bool = True,
        kind: Literal["plain", "gated", "hstu"] = "plain",
        timed: bool = False,
    ) -> None:
        super().__init__(num_items, dim)
        self.max_history = max_history
        self.positions = None if rotary else nn.Embedding(max_history, dim)
        self.head_dim = dim // num_heads
        self.gaps = nn.Embedding(_NUM_BUCKETS, dim) if timed else None
        self.blocks = nn.ModuleList(
            HstuBlock(dim, num_heads, dropout, timed)
            if kind == "hstu"
            else Block(dim, num_heads, dropout, kind == "gated", timed)
            for _ in range(num_blocks)
        )
        self.norm = nn.LayerNorm(dim)
        self.dropout = Dropout(dropout)

    def initialise(self, generator: torch.Generator) -> None:
        for module in self.modules():
            if isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight, std=0.02, generator=generator)
            elif isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight, generator=generator)
                nn.init.zeros_(module.bias)
            if isinstance(module, (Block, HstuBlock)) and module.time_bias is not None:
                nn.init.zeros_(module.time_bias.weight)
        with torch.no_grad():
            self.items.weight[0] = 0

    def embed(
        self, x_BLD: torch.Tensor, position_BL: torch.Tensor, gap_s_BL: torch.Tensor | None
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor] | None]:
        """What the first block reads, made of the vectors of the items, and the turn that every block is given."""
        x_BLD = x_BLD * self.items.embedding_dim**0.5
        if self.gaps is not None:
            assert gap_s_BL is not None
            x_BLD = x_BLD + self.gaps(time_bucket(gap_s_BL))
        if self.positions is not None:
            return self.dropout(x_BLD + self.positions(position_BL)), None
        exponent = torch.arange(0, self.head_dim, 2, device=position_BL.device) / self.head_dim
        angle = (position_BL[..., None] * 10_000.0**-exponent).unsqueeze(-3)
        return self.dropout(x_BLD), (angle.cos(), angle.sin())

    def every_position(
        self,
        item_idx_BL: torch.Tensor,
        position_BL: torch.Tensor,
        time_BL: torch.Tensor | None = None,
        asked_BL: torch.Tensor | None = None,
        table_ND: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Vectors [B, L, D] after each event of histories padded on the right; `time` and `asked`, in seconds, say
        when each event happened and when what follows it was asked for; `table` holds the vectors of the items
        (None: their embeddings)."""
        length = item_idx_BL.shape[1]
        bias = torch.full((1, 1, length, length), float("-inf"), device=item_idx_BL.device).triu(1)
        gap = spans = None
        if time_BL is not None and asked_BL is not None:
            gap, spans = asked_BL - time_BL, time_bucket(asked_BL[:, :, None] - time_BL[:, None, :])
        vectors_BLD = self.items(item_idx_BL) if table_ND is None else F.embedding(item_idx_BL, table_ND)
        x_BLD, turn = self.embed(vectors_BLD, position_BL, gap)
        for block in self.blocks:
            x_BLD = block(x_BLD, bias, turn, spans, False)
        return self.norm(x_BLD)

    def forward(self, item_idx: torch.Tensor, age_s: torch.Tensor | None = None) -> torch.Tensor:
        """Vectors [B, D] after the last event of histories int64 [B, L] padded on the left with 0.

        `age_s` int64 [B, L] counts the seconds from each event to the request, for a timed network. A row of padding
        alone gives a finite vector, the same for any L. A network with content is asked for `settled` first.
        """
        length = item_idx.shape[1]
        row = torch.arange(length, device=item_idx.device)
        position_L = (length - 1 - row).clamp(max=self.max_history - 1)
        # Padding sees itself, since a softmax over nothing is not a number.
        sees = (row[:, None] == row) | ((row[:, None] >= row) & (item_idx != 0)[:, None, None, :])
        bias = torch.where(sees, 0.0, float("-inf"))
        gap = spans = None
        if age_s is not None:
            # What follows an event was asked for when the next one happened, and after the last one now.
            asked_age = torch.cat([age_s[:, 1:], torch.zeros_like(age_s[:, :1])], dim=1)
            gap, spans = age_s - asked_age, time_bucket(age_s[:, None, :] - asked_age[:, :, None])
        x_BLD, turn = self.embed(self.items(item_idx), position_L, gap)
        for block in self.blocks[:-1]:
            x_BLD = block(x_BLD, bias, turn, spans, False)
        x_BLD = self.blocks[-1](x_BLD, bias[:, :, -1:], turn, None if spans is None else spans[:, -1:], True)
        return self.norm(x_BLD)[:, -1]
