"""Ids to rows and back. Row 0 is padding; ids are sorted, so that "ties by id" is "ties by row".

Fitted on the train part only. Knows nothing about events.
"""

from collections.abc import Iterable, Sequence

import numpy as np


class Vocabulary:
    """A frozen, sorted list of ids; `idx` runs from 1 to `len(vocabulary)`.

    >>> v = Vocabulary(["b", "a", "b"])
    >>> v.ids, v.to_idx(["a", "zz", "b"]).tolist()
    (['a', 'b'], [1, 0, 2])
    """

    def __init__(self, ids: Iterable[str]) -> None:
        self.ids: list[str] = sorted(set(ids))
        self._idx = {id_: row for row, id_ in enumerate(self.ids, start=1)}

    def __len__(self) -> int:
        return len(self.ids)

    def to_idx(self, ids: Sequence[str]) -> np.ndarray:
        """Rows (int32) of `ids`, in their order; 0 for an id that is not known. Empty in, empty out."""
        get = self._idx.get
        return np.fromiter((get(id_, 0) for id_ in ids), dtype=np.int32, count=len(ids))

    def to_ids(self, idx: Iterable[int]) -> list[str]:
        """Ids of rows; raises IndexError for row 0, which stands for no item."""
        rows = list(idx)
        if any(row < 1 for row in rows):
            raise IndexError("row 0 is padding and has no id")
        return [self.ids[i - 1] for i in rows]
