"""What models share that say the same of an item to everybody: one score an item. Private to this folder."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from recops.protocols import ServingParts


class ItemScores:
    """Base of the popularities; without any event every item scores 0."""

    takes = "history"

    def __init__(self, config: Any, num_users: int, num_items: int, seed: int) -> None:
        self.config = config
        self.item_scores = np.zeros(num_items + 1, np.float32)

    def parts(self) -> ServingParts:
        return ServingParts(item_scores=self.item_scores, needs_history=False)

    def state(self) -> dict[str, np.ndarray]:
        return {"item_scores": self.item_scores}

    def load_state(self, state: Mapping[str, np.ndarray]) -> None:
        self.item_scores = state["item_scores"]
