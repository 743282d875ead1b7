"""Rule `bury`: items that match stand lower: their lead over the lowest score that may be shown is multiplied by a
factor below 1. Without a factor they stand behind all others."""

from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from recops.serving.matching import Match, named
from recops.serving.occasion import Occasion
from recops.serving.rules.boost import lowest


class Buried(Match):
    factor: float = Field(0.0, ge=0, lt=1)


class Bury:
    step: ClassVar[str] = "adjust"
    where: ClassVar[tuple[str, ...]] = ("file",)
    Value = Annotated[list[Buried], Field(max_length=100)]

    def adjusted(self, value: list[Buried], keys: np.ndarray, occasion: Occasion) -> np.ndarray:
        for buried in value:
            low = lowest(keys)
            high = max(float(keys.max()), low)
            if buried.factor:
                moved = low + (keys - low) * buried.factor
            else:  # below the lowest, in the order they had
                moved = keys - (high - low) - max(high - low, 1.0)
            keys = np.where(buried.rows(occasion), moved, keys)
        return keys

    def named(self, value: list[Buried]) -> list[str]:
        return named(value)
