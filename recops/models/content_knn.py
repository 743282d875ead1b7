"""Content k-nearest-neighbours: an item is voted for by the items of the history that are like it in content.

Pazzani & Billsus: "Content-based recommendation systems" (The Adaptive Web, 2007). In: what the encoders say of the
items. Out: `links`: every item, also one that was never trained on, is voted for by the `num_neighbors` items nearest
to it by cosine, among all of which something is known. With `center` the mean of what was trained on is taken off
first, without which all pictures look alike. The events themselves do not matter, but for their order in a history
(`link_decay`). What several encoders say is put together with the same weight. Works through the items in blocks.
"""

from collections.abc import Iterator

import numpy as np
from pydantic import Field

from recops.data.content import ItemContent
from recops.data.interactions import Interactions
from recops.errors import RefusedError
from recops.models._content import content_blocks
from recops.models._links import LinkModel, VoteConfig, pack_links, strongest, turned

_BLOCK_CELLS = 8_000_000  # most similarities at a time: 32 MB


class ContentKnn(LinkModel):
    """An item of which nothing is known has no neighbours, and votes for none."""

    class Config(VoteConfig):
        content: list[str] = Field(["text"], min_length=1, description="encoders whose vectors are compared")
        num_neighbors: int = Field(50, ge=1, description="nearest items that vote for an item")
        center: bool = Field(True, description="compare with the mean of the items taken off")
        power: float = Field(1.0, gt=0, description="of the similarity: a vote's weight")

    def __init__(self, config: Config, num_users: int, num_items: int, seed: int) -> None:
        super().__init__(config, num_users, num_items, seed)
        self._num_trained = num_items
        self._blocks: list[np.ndarray] = []

    def attach_content(self, content: ItemContent | None) -> None:
        self._blocks = content_blocks(content, self.config.content)

    def fit(self, train: Interactions) -> None:
        if not self._blocks:
            raise RefusedError("content_knn: nothing to compare; set encode.encoders")
        vectors_ND = np.concatenate([self._unit(block) for block in self._blocks], axis=1)
        self.links = turned(pack_links(self._nearest(vectors_ND)))

    def _unit(self, block: np.ndarray) -> np.ndarray:
        """Vectors [N+1, D] of length 1, or 0 where the encoder says nothing."""
        vectors_ND = block.astype(np.float32)
        known = np.flatnonzero(vectors_ND.any(1))
        trained = known[known <= self._num_trained]
        if self.config.center and len(trained):
            vectors_ND[known] -= vectors_ND[trained].mean(0)
        length_N1 = np.linalg.norm(vectors_ND, axis=1, keepdims=True)
        return vectors_ND / np.maximum(length_N1, 1e-9)

    def _nearest(self, vectors_ND: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """(nearest items, what their votes weigh) of each item, row 0 first."""
        block_size = max(1, _BLOCK_CELLS // len(vectors_ND))
        for start in range(0, len(vectors_ND), block_size):
            similar_BN = vectors_ND[start : start + block_size] @ vectors_ND.T / len(self._blocks)
            for row, similar_N in enumerate(similar_BN, start=start):
                similar_N[row] = 0
                nearest = strongest(np.maximum(similar_N, 0), self.config.num_neighbors)
                yield nearest, similar_N[nearest] ** np.float32(self.config.power)
