"""Rule `filters.available`: only items whose `available` is this value. An item where it is unknown is not shown."""

from typing import Any, ClassVar

import numpy as np


class Available:
    where: ClassVar[str] = "filters"
    Value = bool

    def allowed(self, request: Any, release: Any) -> np.ndarray | None:
        if request.filters is None or request.filters.available is None:
            return None
        return release.columns.available == int(request.filters.available)
