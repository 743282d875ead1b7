"""Most popular: every item scored by the summed weight of its train events, the same list for everyone.

The yardstick of the field (Cremonesi, Koren, Turrin: "Performance of recommender algorithms on top-N recommendation
tasks", RecSys 2010). In: `Interactions`. Out: `item_scores`. Knows nothing about users, order or time.
"""

from collections.abc import Mapping

import numpy as np
from pydantic import BaseModel, ConfigDict

from recops.data.interactions import Interactions
from recops.protocols import ServingParts


class MostPopular:
    """Weighted counts; without any event every item scores 0."""

    takes = "history"

    class Config(BaseModel):
        model_config = ConfigDict(extra="forbid")

    def __init__(self, config: Config, num_users: int, num_items: int, seed: int) -> None:
        self.config = config
        self.item_scores = np.zeros(num_items + 1, dtype=np.float32)

    def fit(self, train: Interactions) -> None:
        counts = np.bincount(train.item_idx, weights=train.weight, minlength=len(self.item_scores))
        self.item_scores = counts.astype(np.float32)

    def parts(self) -> ServingParts:
        return ServingParts(item_scores=self.item_scores, needs_history=False)

    def state(self) -> dict[str, np.ndarray]:
        return {"item_scores": self.item_scores}

    def load_state(self, state: Mapping[str, np.ndarray]) -> None:
        self.item_scores = state["item_scores"]
