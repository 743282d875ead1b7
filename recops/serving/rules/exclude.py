"""Rule `exclude`: items that are named are not shown. Unknown ids are ignored."""

from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from recops.serving.fields import ItemId
from recops.serving.occasion import Occasion


class Exclude:
    step: ClassVar[str] = "filter"
    where: ClassVar[tuple[str, ...]] = ("request", "file")
    is_lasting: ClassVar[bool] = True
    Value = Annotated[list[ItemId], Field(max_length=10_000, description="Item ids that must not be shown.")]

    def hidden(self, value: list[str], occasion: Occasion) -> np.ndarray | None:
        return occasion.release.bundle.rows(value)

    def named(self, value: list[str]) -> list[str]:
        return value
