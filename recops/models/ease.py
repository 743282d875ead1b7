"""EASE: a linear item-item model without a hidden layer, in closed form.

Steck: "Embarrassingly shallow autoencoders for sparse data" (WWW 2019): B = -P / diag(P) with a zero diagonal, where
P = (X'X + regularization I)^-1. In: `Interactions`. Out: `links`, row h of B cut to its `max_links` largest absolute
weights. The dense items x items matrix bounds the catalogue (`max_items`). Knows nothing about order, unless
`link_decay` weighs the history when scoring.
"""

from collections.abc import Iterator

import numpy as np
from pydantic import Field

from recops.data.interactions import Interactions
from recops.models._links import (
    LinkModel,
    VoteConfig,
    pack_links,
    refuse_large,
    ridge_inverse,
    symmetric_row,
    user_item_matrix,
)
from recops.nearest import strongest


class Ease(LinkModel):
    """Without any event every score is 0. Raises TooLargeError for a catalogue above `max_items`."""

    class Config(VoteConfig):
        regularization: float = Field(200.0, gt=0)
        max_links: int = Field(300, ge=1, description="largest absolute weights kept for each history item")
        max_items: int = Field(
            15_000,
            ge=1,
            description="memory is 4 bytes x items squared, time grows with their cube: minutes for 15,000",
        )

    def __init__(self, config: Config, num_users: int, num_items: int, seed: int) -> None:
        # The name in params.yaml is the file's: recency_ease derives from this class.
        refuse_large(type(self).__module__.rpartition(".")[2], num_items, config.max_items, "item_knn or sasrec")
        super().__init__(config, num_users, num_items, seed)

    def fit(self, train: Interactions) -> None:
        if len(train):
            self.links = pack_links(self._rows(train))

    def _rows(self, train: Interactions) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """(items, weights) of each row of B, row 0 (padding, empty) first."""
        seen_UN = user_item_matrix(train)[:, 1:]
        inverse_NN = ridge_inverse((seen_UN.T @ seen_UN).toarray(), self.config.regularization)
        diagonal_N = np.diag(inverse_NN).copy()
        yield np.zeros(0, np.int32), np.zeros(0, np.float32)
        for row in range(len(diagonal_N)):
            weights_N = -symmetric_row(inverse_NN, row) / diagonal_N
            weights_N[row] = 0
            keep = strongest(weights_N, self.config.max_links)
            yield keep + 1, weights_N[keep]
