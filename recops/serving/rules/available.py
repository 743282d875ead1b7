"""Rule `available`: only items whose `available` is this value. An item where it is unknown is not shown."""

from typing import ClassVar

import numpy as np

from recops.serving.occasion import Occasion


class Available:
    step: ClassVar[str] = "filter"
    where: ClassVar[tuple[str, ...]] = ("filters", "file")
    is_lasting: ClassVar[bool] = True
    Value = bool

    def hidden(self, value: bool, occasion: Occasion) -> np.ndarray | None:
        return occasion.release.columns.available != int(value)
