"""What the models of ratings share: a vector for each user and each item, whose product is the rating.

In: the two arrays. Out: their serving parts and state. Knows nothing about how they are fitted. Private to this folder,
so it is no model of the socket.
"""

from collections.abc import Mapping

import numpy as np

from recops.protocols import ServingParts


class RatingTables:
    """`parts`, `state` and `load_state` of a Recommender (see protocols.py) that keeps both tables."""

    takes = "user"
    task = "rating"
    user_table: np.ndarray  # float32 [U+1, D], row 0 zeros
    item_vectors: np.ndarray  # float32 [N+1, D], row 0 zeros

    def parts(self) -> ServingParts:
        return ServingParts(user_table=self.user_table, item_vectors=self.item_vectors)

    def state(self) -> dict[str, np.ndarray]:
        return {"user_table": self.user_table, "item_vectors": self.item_vectors}

    def load_state(self, state: Mapping[str, np.ndarray]) -> None:
        self.user_table, self.item_vectors = state["user_table"], state["item_vectors"]
