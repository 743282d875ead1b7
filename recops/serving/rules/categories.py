"""Rule `filters.categories`: only items in any of these categories. An item without categories is not shown."""

from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import Field

from recops.serving.fields import Text


class Categories:
    where: ClassVar[str] = "filters"
    Value = Annotated[list[Text], Field(min_length=1, max_length=100, description="Any of these.")]

    def allowed(self, request: Any, release: Any) -> np.ndarray | None:
        if request.filters is None or request.filters.categories is None:
            return None
        mask = np.zeros(release.bundle.num_items + 1, bool)
        for category in request.filters.categories:
            mask[release.columns.rows_by_category.get(category, [])] = True
        return mask
