"""Who asks a scorer: histories of item rows, and what else is known of each. Knows nothing about ids or models."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np


@dataclass(frozen=True)
class Histories:
    """Who asks: B histories of item rows, oldest first, and what else is known of each.

    Ids that nobody knows must be left out by the caller. A plain sequence of arrays is a Histories without more.
    """

    items: Sequence[np.ndarray]  # B int arrays
    ages: Sequence[np.ndarray] | None = None  # B int64 arrays: seconds from each event to the request
    users: np.ndarray | None = None  # int64 [B]: row of the table of users, 0 for a user that it does not have
    at: np.ndarray | None = None  # int64 [B]: time of the request, microseconds UTC

    @classmethod
    def of(cls, histories: "Histories | Sequence[np.ndarray]") -> "Histories":
        return histories if isinstance(histories, cls) else cls(histories)  # type: ignore[arg-type]

    def up_to(self, num_items: int) -> "Histories":
        """Without the events of rows beyond `num_items`, which a model of so many items does not know."""
        if len(self.items) == 0 or np.concatenate(self.items).max(initial=0) <= num_items:
            return self
        kept = [history <= num_items for history in self.items]
        ages = None if self.ages is None else [age[k] for age, k in zip(self.ages, kept, strict=True)]
        return replace(self, items=[h[k] for h, k in zip(self.items, kept, strict=True)], ages=ages)

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[np.ndarray]:
        return iter(self.items)

    def __getitem__(self, rows: "slice | np.ndarray") -> "Histories":
        chosen = range(len(self))[rows] if isinstance(rows, slice) else rows.tolist()
        return Histories(
            [self.items[row] for row in chosen],
            None if self.ages is None else [self.ages[row] for row in chosen],
            None if self.users is None else self.users[rows],
            None if self.at is None else self.at[rows],
        )
