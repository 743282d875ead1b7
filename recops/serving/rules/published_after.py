"""Rule `published_after`: only items published later than this moment. An item without a date is not shown."""

from typing import ClassVar

import numpy as np

from recops.serving.fields import Moment
from recops.serving.occasion import Occasion


class PublishedAfter:
    step: ClassVar[str] = "filter"
    where: ClassVar[tuple[str, ...]] = ("filters", "file")
    is_lasting: ClassVar[bool] = True
    Value = Moment

    def hidden(self, value: int, occasion: Occasion) -> np.ndarray | None:
        return occasion.release.columns.published_at <= value
