"""Rule `price`: only items with `min` <= price <= `max`. An item without a price is not shown."""

from typing import ClassVar

import numpy as np
from pydantic import Field, model_validator

from recops.serving.fields import Strict
from recops.serving.occasion import Occasion


class PriceRange(Strict):
    min: float | None = Field(None, description="Lowest price, inclusive.")
    max: float | None = Field(None, description="Highest price, inclusive.")

    @model_validator(mode="after")
    def _is_a_range(self) -> "PriceRange":
        if self.min is None and self.max is None:
            raise ValueError("give min, max or both")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError("min is above max")
        return self


class Price:
    step: ClassVar[str] = "filter"
    where: ClassVar[tuple[str, ...]] = ("filters", "file")
    is_lasting: ClassVar[bool] = True
    Value = PriceRange

    def hidden(self, value: PriceRange, occasion: Occasion) -> np.ndarray | None:
        price = occasion.release.columns.price
        mask = np.isnan(price)
        if value.min is not None:
            mask |= price < value.min
        if value.max is not None:
            mask |= price > value.max
        return mask
