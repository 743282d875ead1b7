"""How a batch is divided among workers, each of which makes the gradient of its own rows. Private to this folder, so it
is no model of the socket.

In: a batch, which share of it is wanted. Out: that share. Knows nothing about the workers themselves.
"""

from collections.abc import Collection

import torch

Batch = dict[str, torch.Tensor]


def shared_rows(batch: Batch, part: int, num_parts: int, whole: Collection[str] = ()) -> Batch:
    """Every `num_parts`-th row from row `part` on of each tensor; those named in `whole` stay as they are.

    May have no rows. Taken in turn and not in blocks, so that shares of a batch sorted by length are alike.
    """
    return {name: value if name in whole else value[part::num_parts] for name, value in batch.items()}


class RowShares:
    """`share` of the protocol, for a model whose loss is the plain mean over rows that all its tensors have."""

    def share(self, batch: Batch, part: int, num_parts: int) -> tuple[Batch, float]:
        num_rows = len(next(iter(batch.values())))
        return shared_rows(batch, part, num_parts), len(range(part, num_rows, num_parts)) / num_rows
