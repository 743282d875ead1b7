"""Rule `filters.price`: only items with `min` <= price <= `max`. An item without a price is not shown."""

from typing import Any, ClassVar

import numpy as np
from pydantic import Field, model_validator

from recops.serving.fields import Strict


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
    where: ClassVar[str] = "filters"
    Value = PriceRange

    def allowed(self, request: Any, release: Any) -> np.ndarray | None:
        if request.filters is None or request.filters.price is None:
            return None
        price, limits = release.columns.price, request.filters.price
        mask = ~np.isnan(price)
        if limits.min is not None:
            mask &= price >= limits.min
        if limits.max is not None:
            mask &= price <= limits.max
        return mask
