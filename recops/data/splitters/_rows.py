"""What all splitters need: the names of the parts, ids as numbers, and which rows are somebody's first of an item.

Row order is the order of time. Knows nothing about how a log is divided.
"""

import numpy as np
import polars as pl

PART = pl.Enum(["train", "valid", "test", "unused", "context"])
TRAIN, VALID, TEST, UNUSED, CONTEXT = range(5)


def codes(ids: pl.Series) -> np.ndarray:
    """One number an id (int64 [E]), equal for equal ids. The numbers themselves mean nothing and are not stable."""
    return ids.cast(pl.Categorical).to_physical().cast(pl.Int64).to_numpy()


def first_of_pair(user: np.ndarray, item: np.ndarray, positive: np.ndarray) -> np.ndarray:
    """bool [E]: rows that are positive and whose user has no earlier positive with the same item."""
    first = np.zeros(len(user), dtype=bool)
    pair = (user[positive] << 32) | item[positive]
    first[positive] = pl.Series(pair).is_first_distinct().to_numpy()
    return first


def as_parts(part: np.ndarray) -> pl.Series:
    """The splitter's answer from part numbers [E] (TRAIN, VALID, TEST, UNUSED)."""
    return pl.Series("part", part.astype(np.uint8)).cat.to(PART)
