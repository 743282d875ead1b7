"""Recent popularity: as `most_popular`, but an event counts half after each half-life.

After Ji, Sun, Zhang, Li: "A re-visit of the popularity baseline in recommender systems" (SIGIR 2020). In:
`Interactions`. Out: `item_scores`. Ages are counted back from the newest train event, never from the clock. A log
without time has only the order of each user's events: there an event's age is the number of later events of its user.
"""

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from recops.data.interactions import Interactions
from recops.models._item_scores import ItemScores

MICROSECONDS_PER_DAY = 86_400_000_000


class RecentPopular(ItemScores):
    """Weighted counts with exponential decay; without any event every item scores 0."""

    class Config(BaseModel):
        model_config = ConfigDict(extra="forbid")

        half_life_days: float = Field(30.0, gt=0, description="age at which an event counts half")
        half_life_events: float = Field(10.0, gt=0, description="the same for a log without time, in later events")

    def fit(self, train: Interactions) -> None:
        if train.timestamp is None:
            later_events = train.offsets[train.user_idx + 1] - 1 - np.arange(len(train))
            half_lives = later_events / self.config.half_life_events
        else:
            newest = train.timestamp.max(initial=np.iinfo(np.int64).min)
            half_lives = (newest - train.timestamp) / (self.config.half_life_days * MICROSECONDS_PER_DAY)
        counts = np.bincount(train.item_idx, weights=train.weight * 0.5**half_lives, minlength=len(self.item_scores))
        self.item_scores = counts.astype(np.float32)
