"""Rule `minimum_freshness`: only items published within this time before the call, or to be published later. An item
without a date is not shown."""

from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import AfterValidator, WithJsonSchema

from recops.schema import duration_us
from recops.serving.occasion import Occasion


class MinimumFreshness:
    step: ClassVar[str] = "filter"
    where: ClassVar[tuple[str, ...]] = ("file",)
    is_lasting: ClassVar[bool] = False
    Value = Annotated[Any, AfterValidator(duration_us), WithJsonSchema({"type": "string"})]

    def hidden(self, value: int, occasion: Occasion) -> np.ndarray | None:
        return occasion.release.columns.published_at < occasion.moment - value
