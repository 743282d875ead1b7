"""Popularity by category: an item is worth what the items of its categories are on average, also a new one.

The simplest answer to items without events (see Schein, Popescul, Ungar & Pennock: "Methods and metrics for cold-start
recommendations", SIGIR 2002). In: `Interactions` with a catalogue. Out: `item_scores`. Of an item's categories the
mean counts; items without any are one category of their own.
"""

from collections.abc import Mapping

import numpy as np

from recops.data.interactions import Interactions
from recops.params import Group
from recops.protocols import ServingParts


class CategoryPopular:
    """Summed weights of train events for each trained item of a category; without any event every item scores 0."""

    takes = "history"

    class Config(Group):
        pass

    def __init__(self, config: Config, num_users: int, num_items: int, seed: int) -> None:
        self.config = config
        self.item_scores = np.zeros(num_items + 1, np.float32)

    def fit(self, train: Interactions) -> None:
        num_rows = len(train.all_items) + 1
        own_N = np.bincount(train.item_idx, weights=train.weight, minlength=num_rows)
        is_trained_N = np.arange(num_rows) <= train.num_items
        item, category = np.arange(num_rows), np.zeros(num_rows, np.int64)
        if train.catalogue is not None:
            counts_N = np.diff(train.catalogue.category_offsets)
            item = np.repeat(item, np.maximum(counts_N, 1))
            category = np.zeros(len(item), np.int64)  # 0: none
            category[counts_N[item] > 0] = train.catalogue.category_idx + 1
        is_trained, weights = is_trained_N[item] & (item > 0), own_N[item]
        events_C = np.bincount(category, weights * is_trained)
        mean_C = events_C / np.maximum(np.bincount(category, is_trained), 1)
        total_N = np.bincount(item, mean_C[category], num_rows)
        self.item_scores = (total_N / np.bincount(item, minlength=num_rows)).astype(np.float32)
        self.item_scores[0] = 0

    def parts(self) -> ServingParts:
        return ServingParts(item_scores=self.item_scores, needs_history=False)

    def state(self) -> dict[str, np.ndarray]:
        return {"item_scores": self.item_scores}

    def load_state(self, state: Mapping[str, np.ndarray]) -> None:
        self.item_scores = state["item_scores"]
