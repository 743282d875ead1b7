"""Rating means: mean, what the user differs from it, and what the item differs from it; the baseline of ratings.

Koren, Bell, Volinsky: "Matrix factorization techniques for recommender systems" (IEEE Computer 2009), equation 3, with
biases damped instead of fitted. In: `Interactions` with a value for each event. Out: a table of user vectors and item
vectors, whose product is the predicted rating. Knows nothing about taste, order or time.
"""

import numpy as np

from recops.data.interactions import Interactions
from recops.evaluation.ratings import check_values, damped_means
from recops.models._tables import RatingTables
from recops.params import Group


class RatingMeans(RatingTables):
    """rating of item i by user u = (mean + b_u) + c_i. Without any event every score is 0."""

    class Config(Group):
        pass

    def __init__(self, config: Config, num_users: int, num_items: int, seed: int) -> None:
        self.config = config
        self.user_table = np.zeros((num_users + 1, 2), np.float32)
        self.item_vectors = np.zeros((num_items + 1, 2), np.float32)

    def fit(self, train: Interactions) -> None:
        """Raises CallError where an event has no value."""
        check_values(train.value, "train.models.rating_means")
        mean, user_U, item_N = damped_means(train)
        self.user_table[1:] = np.column_stack([mean + user_U[1:], np.ones(train.num_users)])
        self.item_vectors[1:] = np.column_stack([np.ones(train.num_items), item_N[1:]])
