"""Most popular: every item scored by the summed weight of its train events, the same list for everyone.

The yardstick of the field (Cremonesi, Koren, Turrin: "Performance of recommender algorithms on top-N recommendation
tasks", RecSys 2010). In: `Interactions`. Out: `item_scores`. Knows nothing about users, order or time.
"""

import numpy as np
from pydantic import BaseModel, ConfigDict

from recops.data.interactions import Interactions
from recops.models._item_scores import ItemScores


class MostPopular(ItemScores):
    """Weighted counts; without any event every item scores 0."""

    class Config(BaseModel):
        model_config = ConfigDict(extra="forbid")

    def fit(self, train: Interactions) -> None:
        counts = np.bincount(train.item_idx, weights=train.weight, minlength=len(self.item_scores))
        self.item_scores = counts.astype(np.float32)
