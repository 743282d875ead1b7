"""Rule `exclude`: items the caller names are not shown. Unknown ids are ignored."""

from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import Field

from recops.serving.fields import ItemId


class Exclude:
    where: ClassVar[str] = "request"
    Value = Annotated[list[ItemId], Field(max_length=10_000, description="Item ids that must not be shown.")]

    def allowed(self, request: Any, release: Any) -> np.ndarray | None:
        if not request.exclude:
            return None
        mask = np.ones(release.bundle.num_items + 1, bool)
        mask[release.bundle.rows(request.exclude)] = False
        return mask
