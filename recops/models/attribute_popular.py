"""Popularity among users of the same attributes: naive Bayes, in closed form.

Maron: "Automatic indexing: an experimental inquiry" (Journal of the ACM, 1961) for the classifier. In: the train part
and what is known of users. Out: `user_table` and `item_vectors`, whose product is, but for what all items share, the
logarithm of how often users like this one choose an item. Users of whom nothing is known get what is popular. Knows
nothing about histories: it is meant for users who have none, alone or in a fusion with models of histories.

Shapes: U users (row 0 is nobody), N items (row 0 is padding), C columns of the attributes, E events.
"""

from collections.abc import Mapping

import numpy as np
from pydantic import Field

from recops.data.content import ItemContent
from recops.data.interactions import Interactions
from recops.params import Group
from recops.protocols import ServingParts


class AttributePopular:
    """score of item i = log p(i) + strength * sum over the columns of log p(i | class of the column) - log p(i).

    A column of an attribute has two classes, above the mean of the users trained on and not above it. A class counts
    with more events, a share of `smoothing` of all there are, which fall on the items as all events do. Without any
    event every score is 0.
    """

    takes = "user"

    class Config(Group):
        user_attributes: bool = Field(True, description="false: what is popular, for everybody")
        strength: float = Field(0.5, ge=0, description="below 1 since attributes say the same twice")
        smoothing: float = Field(0.02, gt=0, description="share of everybody's events that each class counts with")

    def __init__(self, config: Config, num_users: int, num_items: int, seed: int) -> None:
        self.config = config
        self._attributes = np.zeros((num_users + 1, 0), np.float32)
        self.item_vectors = np.zeros((num_items + 1, 1), np.float32)

    def attach_users(self, attributes: ItemContent | None) -> None:
        """Without any all users are alike."""
        if attributes is not None:
            self._attributes = np.concatenate(list(attributes.vectors.values()), axis=1).astype(np.float32)

    def fit(self, train: Interactions) -> None:
        if len(train) == 0:
            return
        num_rows = train.num_items + 1
        classes_UK = self._classes()
        counts_NK = np.zeros((num_rows, classes_UK.shape[1]))
        for column, is_in_U in enumerate(classes_UK.T):
            counts_NK[:, column] = np.bincount(train.item_idx, train.weight * is_in_U[train.user_idx], num_rows)
        total_N = np.bincount(train.item_idx, train.weight, num_rows)[1:]
        share_N1 = (total_N / total_N.sum())[:, None]
        smoothed_NK = counts_NK[1:] + self.config.smoothing * total_N.sum() * share_N1
        lift_NK = np.log(smoothed_NK / smoothed_NK.sum(0)) - np.log(share_N1)
        self.item_vectors = np.zeros((num_rows, classes_UK.shape[1] + 1), np.float32)
        self.item_vectors[1:] = np.concatenate([self.config.strength * lift_NK, np.log(share_N1)], axis=1)

    def _classes(self) -> np.ndarray:
        """float32 [U+1, 2 C]: 1 for the class of each column that a user is in, zeros where nothing is known."""
        is_known = self._attributes.any(axis=1, keepdims=True)
        is_high = self._attributes > 0
        return np.concatenate([is_known & is_high, is_known & ~is_high], axis=1).astype(np.float32)

    def parts(self) -> ServingParts:
        classes_UK = self._classes()
        width = self.item_vectors.shape[1] - 1  # 0 before anything was fitted
        user_table = np.concatenate([classes_UK[:, :width], np.ones((len(classes_UK), 1), np.float32)], axis=1)
        user_table[0] = 0
        return ServingParts(user_table=user_table, item_vectors=self.item_vectors)

    def state(self) -> dict[str, np.ndarray]:
        return {"item_vectors": self.item_vectors}

    def load_state(self, state: Mapping[str, np.ndarray]) -> None:
        self.item_vectors = state["item_vectors"]
