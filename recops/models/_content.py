"""What networks with item content share: encoder vectors made as wide as the embeddings, and the dropout of ids.

Trained `after` the rest, content only says where an item that was never trained on would stand (`_content_map.py`).
Trained `joint`, an item's vector is its learned embedding plus its projected content: in training the embeddings of
some items are left out, anew in every batch (DropoutNet, Volkovs, Yu & Poutanen, 2017), so that content alone also
stands for an item, as it must for one that was never trained on. In: ItemContent. Out: a torch module. Private to this
folder, so it is no model of the socket.

Shapes: T items trained on, N items with those that only content knows (row 0 is padding), C columns of all encoders,
D width, M some items.
"""

import copy
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from pydantic import Field
from torch import nn
from torch.nn import functional as F

from recops.data.content import ItemContent
from recops.errors import RefusedError
from recops.models._content_map import ContentFit, ContentMapConfig, new_vectors


class ContentConfig(ContentMapConfig):
    """Settings of a network that takes item content."""

    content_fit: Literal["after", "joint"] = Field(
        "after",
        description="after: trained as without content, which then gives new items their vectors; joint: all at once",
    )
    id_dropout: float = Field(
        0.1, ge=0, le=1, description="joint: share of the items that a batch knows by their content alone"
    )
    content_hidden_dim: int = Field(0, ge=0, description="joint: width of a hidden layer of the projection; 0: none")


class Projection(nn.Module):
    """Encoder vectors float32 [M, C], one encoder after the other, to [M, D].

    What an encoder says is first made to have mean 0 and mean square length 1 over the items trained on of which it
    says anything; of an item of which it says nothing (zeros) it adds nothing.
    """

    mean: torch.Tensor
    scale: torch.Tensor

    def __init__(self, block_dims: Sequence[int], dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.block_dims = list(block_dims)
        self.register_buffer("mean", torch.zeros(sum(block_dims)))
        self.register_buffer("scale", torch.ones(sum(block_dims)))
        self.inner = nn.Linear(sum(block_dims), hidden_dim) if hidden_dim else None
        self.outer = nn.Linear(hidden_dim or sum(block_dims), dim)

    def initialise(self, generator: torch.Generator) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight, generator=generator)
                nn.init.zeros_(module.bias)

    def standardise_on(self, blocks: Sequence[np.ndarray]) -> None:
        """Takes mean and scale from vectors [M, D] of each encoder; of one that says nothing at all they stay."""
        start = 0
        for block in blocks:
            columns = slice(start, start + block.shape[1])
            known = block[block.any(1)].astype(np.float64)
            if len(known):
                mean = known.mean(0)
                length = np.sqrt(((known - mean) ** 2).sum(1).mean())
                self.mean[columns] = torch.from_numpy(mean).float()
                self.scale[columns] = float(1 / length) if length > 1e-6 else 0.0
            start += block.shape[1]

    def forward(self, content: torch.Tensor) -> torch.Tensor:
        centred = (content - self.mean) * self.scale
        is_said = [(block != 0).any(-1, keepdim=True) for block in content.split(self.block_dims, dim=-1)]
        parts = zip(centred.split(self.block_dims, dim=-1), is_said, strict=True)
        known = torch.cat([torch.where(said, part, torch.zeros_like(part)) for part, said in parts], dim=-1)
        return self.outer(known if self.inner is None else F.gelu(self.inner(known)))


class ItemTable(nn.Module):
    """A network that reads and scores items by their vectors: `items` [T+1, D], and content where it has any."""

    items: nn.Embedding
    content: torch.Tensor
    projection: Projection | None  # trained with everything else
    fit_after: ContentFit | None
    id_dropout: float

    def __init__(self, num_items: int, dim: int) -> None:
        super().__init__()
        self.items = nn.Embedding(num_items + 1, dim, padding_idx=0)
        self.projection = self.fit_after = None

    def attach_content(self, blocks: Sequence[np.ndarray], config: ContentConfig, seed: int) -> None:
        """`blocks` hold the vectors [N+1, D] of each encoder. They are no part of the state."""
        self.id_dropout = config.id_dropout
        content = torch.from_numpy(np.concatenate(blocks, axis=1))
        self.register_buffer("content", content, persistent=False)
        trained = [block[1 : len(self.items.weight)] for block in blocks]
        if config.content_fit == "after":
            self.fit_after = ContentFit(trained, config, seed)
            return
        dims = [block.shape[1] for block in blocks]
        self.projection = Projection(dims, self.items.embedding_dim, config.content_hidden_dim)
        self.projection.initialise(torch.Generator().manual_seed(seed))
        self.projection.standardise_on(trained)

    def table(self) -> torch.Tensor:
        """Vectors of all items, row 0 zeros: [N+1, D]; in training those of the items trained on, [T+1, D], of which
        a share of `id_dropout`, drawn anew by each call, are known by their content alone."""
        ids = self.items.weight
        if self.projection is None:
            return ids
        content = self.content[1 : len(ids)] if self.training else self.content[1:]
        projected = F.pad(self.projection(content.float()), (0, 0, 1, 0))
        if self.training:
            return projected + ids * (torch.rand(len(ids), 1, device=ids.device) >= self.id_dropout)
        return projected + F.pad(ids, (0, 0, 0, len(projected) - len(ids)))

    @torch.no_grad()
    def settled(self) -> tuple["ItemTable", nn.Module | None]:
        """As evaluated and served: the same network, its other weights shared, whose `items` are the whole table; and
        what makes of content [M, C] the rows [M, D] of items that were never trained on (None: it knows no content).
        """
        if self.projection is None and self.fit_after is None:
            return self.eval(), None
        self.eval()
        projection: nn.Module | None = self.projection
        table = self.table()
        if self.fit_after is not None:
            projection = self.fit_after(table[1:].cpu().numpy())
            table = torch.cat([table, new_vectors(projection, self.content[len(table) :].cpu()).to(table)])
        found = copy.copy(self)
        found._modules, found._buffers = dict(self._modules), {}
        found.items = nn.Embedding.from_pretrained(table, padding_idx=0)
        found.projection = found.fit_after = None
        return found, projection


def content_blocks(content: ItemContent | None, encoders: Sequence[str]) -> list[np.ndarray]:
    """What a model with the setting `content` is given. Raises RefusedError where nothing was encoded."""
    if content is None:
        raise RefusedError(
            f"content: [{', '.join(encoders)}]: no item was encoded; set encode.encoders, or content: []"
        )
    return content.blocks(encoders, "content")
