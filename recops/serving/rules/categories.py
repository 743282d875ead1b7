"""Rule `categories`: only items in any of these categories. An item without categories is not shown."""

from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from recops.serving.fields import Text
from recops.serving.occasion import Occasion


class Categories:
    step: ClassVar[str] = "filter"
    where: ClassVar[tuple[str, ...]] = ("filters", "file")
    is_lasting: ClassVar[bool] = True
    Value = Annotated[list[Text], Field(min_length=1, max_length=100, description="Any of these.")]

    def hidden(self, value: list[str], occasion: Occasion) -> np.ndarray | None:
        mask = np.ones(occasion.release.bundle.num_items + 1, bool)
        for category in value:
            mask[occasion.release.columns.rows_by_category.get(category, [])] = False
        return mask
