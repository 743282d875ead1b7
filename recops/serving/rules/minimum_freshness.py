"""Rule `minimum_freshness`: only items published within this time before the call, or to be published later. An item
without a date is not shown."""

import re
from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import AfterValidator, WithJsonSchema

from recops.serving.occasion import Occasion

SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
LONGEST_S = 100 * 366 * SECONDS["d"]


def _microseconds(value: Any) -> int:
    found = re.fullmatch(r"(\d{1,9}(?:\.\d{1,6})?)([smhdw])", value) if isinstance(value, str) else None
    if found is None or not 0 < (seconds := float(found[1]) * SECONDS[found[2]]) <= LONGEST_S:
        raise ValueError("expected a time such as 30d, 12h or 2w (s, m, h, d, w; at most 100 years)")
    return round(seconds * 1_000_000)


class MinimumFreshness:
    step: ClassVar[str] = "filter"
    where: ClassVar[tuple[str, ...]] = ("file",)
    is_lasting: ClassVar[bool] = False
    Value = Annotated[Any, AfterValidator(_microseconds), WithJsonSchema({"type": "string"})]

    def hidden(self, value: int, occasion: Occasion) -> np.ndarray | None:
        return occasion.release.columns.published_at < occasion.moment - value
