"""Ids to rows and back. Row 0 is padding; ids are sorted, so that "ties by id" is "ties by row".

Fitted on the train part only; ids that were never trained on can follow it in rows of their own. Knows nothing about
events.
"""

from collections.abc import Iterable, Sequence

import numpy as np


class Vocabulary:
    """A frozen list of ids; `idx` runs from 1 to `len(vocabulary)`. Sorted, but for ids added with `followed_by`.

    >>> v = Vocabulary(["b", "a", "b"])
    >>> v.ids, v.to_idx(["a", "zz", "b"]).tolist()
    (['a', 'b'], [1, 0, 2])
    """

    def __init__(self, ids: Iterable[str]) -> None:
        self._set(sorted(set(ids)))

    def _set(self, ids: list[str]) -> None:
        self.ids = ids
        self._idx = {id_: row for row, id_ in enumerate(ids, start=1)}

    @classmethod
    def in_order(cls, ids: Sequence[str]) -> "Vocabulary":
        """The ids in the order given. Raises ValueError where one stands twice.

        >>> Vocabulary.in_order(["b", "a"]).ids
        ['b', 'a']
        """
        found = cls(())
        found._set(list(ids))
        if len(found._idx) < len(ids):
            raise ValueError(f"{len(ids) - len(found._idx)} of {len(ids)} ids stand twice")
        return found

    def followed_by(self, ids: Iterable[str]) -> "Vocabulary":
        """The same rows, and after them those of the ids that it does not have, sorted.

        >>> Vocabulary(["b", "d"]).followed_by(["c", "b", "a"]).ids
        ['b', 'd', 'a', 'c']
        """
        return Vocabulary.in_order([*self.ids, *sorted(set(ids) - self._idx.keys())])

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
