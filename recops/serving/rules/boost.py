"""Rule `boost`: items that match stand higher: their lead over the lowest score that may be shown is multiplied."""

from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from recops.serving.matching import Match, named
from recops.serving.occasion import Occasion


class Boosted(Match):
    factor: float = Field(gt=1, le=1000)


def lowest(keys: np.ndarray) -> float:
    """The lowest key of an item that may be shown; 0 where there is none."""
    found = float(np.min(keys, where=keys > -np.inf, initial=np.inf))
    return found if found < np.inf else 0.0


class Boost:
    step: ClassVar[str] = "adjust"
    where: ClassVar[tuple[str, ...]] = ("file",)
    Value = Annotated[list[Boosted], Field(max_length=100)]

    def adjusted(self, value: list[Boosted], keys: np.ndarray, occasion: Occasion) -> np.ndarray:
        low = lowest(keys)
        for boosted in value:
            rows = boosted.rows(occasion)
            keys = np.where(rows, low + (keys - low) * boosted.factor, keys)
        return keys

    def named(self, value: list[Boosted]) -> list[str]:
        return named(value)
