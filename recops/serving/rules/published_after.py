"""Rule `filters.published_after`: only items published later than this moment. An item without a date is not shown."""

from typing import Any, ClassVar

import numpy as np

from recops.serving.fields import Moment


class PublishedAfter:
    where: ClassVar[str] = "filters"
    Value = Moment

    def allowed(self, request: Any, release: Any) -> np.ndarray | None:
        if request.filters is None or request.filters.published_after is None:
            return None
        return release.columns.published_at > request.filters.published_after
