"""Popularity by category: an item is worth what the items of its categories are on average, also a new one.

The simplest answer to items without events (see Schein, Popescul, Ungar & Pennock: "Methods and metrics for cold-start
recommendations", SIGIR 2002). In: `Interactions` with a catalogue. Out: `item_scores`. Of an item's categories the
mean counts; items without any are one category of their own.
"""

import numpy as np

from recops.data.interactions import Interactions
from recops.models._item_scores import ItemScores
from recops.params import Group


class CategoryPopular(ItemScores):
    """Summed weights of train events for each trained item of a category; without any event every item scores 0."""

    class Config(Group):
        pass

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
