"""Content k-nearest-neighbours: an item is voted for by the items of the history that are like it in content.

Pazzani & Billsus: "Content-based recommendation systems" (The Adaptive Web, 2007). In: what the encoders say of the
items. Out: `links`: every item, also one that was never trained on, is voted for by the `num_neighbors` items nearest
to it by cosine, among all of which something is known. With `center` the mean of what was trained on is taken off
first, without which all pictures look alike. The events themselves do not matter, but for their order in a history
(`link_decay`). What several encoders say is put together with the same weight. An item that is added
to a served release gets its neighbours there, by the same arithmetic.
"""

from dataclasses import replace

import numpy as np
from pydantic import Field

from recops.data.content import ItemContent
from recops.data.interactions import Interactions
from recops.errors import RefusedError
from recops.models._content import content_blocks
from recops.models._links import LinkModel, VoteConfig, pack_links, turned
from recops.nearest import Nearness
from recops.protocols import ServingParts


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
        nearness = self._nearness()
        unit_NC = nearness.unit(self._blocks)
        self.links = turned(pack_links(nearness.of(unit_NC, unit_NC)))

    def _nearness(self) -> Nearness:
        """By the mean over the items trained on of which an encoder says anything."""
        config, means = self.config, []
        for block in self._blocks:
            trained = block[: self._num_trained + 1].astype(np.float32)
            known = trained[trained.any(1)]
            means.append(known.mean(0) if config.center and len(known) else np.zeros(block.shape[1], np.float32))
        dims = tuple(block.shape[1] for block in self._blocks)
        return Nearness(config.num_neighbors, config.power, np.concatenate(means), dims)

    def parts(self) -> ServingParts:
        return replace(super().parts(), nearness=self._nearness(), content=tuple(self.config.content))
