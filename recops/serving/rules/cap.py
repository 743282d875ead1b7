"""Rule `cap`: at most so many items of one category, or of one value of an attribute, in a list; the next best take the
places of the others. An item without categories, or without the attribute, is capped by nothing; one of several
counts in each. What is pinned counts, and is never taken out."""

from collections import Counter
from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import Field

from recops.serving.fields import Strict
from recops.serving.occasion import Occasion

ATTRIBUTES = "attributes."


class Capped(Strict):
    by: str = Field(
        pattern=r"^(categories|attributes\.[^\x00]{1,512})$", description="`categories`, or `attributes.NAME`."
    )
    most: int = Field(ge=1, le=1000)


class Cap:
    step: ClassVar[str] = "order"
    where: ClassVar[tuple[str, ...]] = ("file",)
    Value = Annotated[list[Capped], Field(max_length=20)]

    def preference(self, value: list[Capped], rows: np.ndarray, occasion: Occasion) -> "Counts":
        return Counts(value, occasion)


class Counts:
    """How many of each category or value the list has."""

    weighs = False

    def __init__(self, caps: list[Capped], occasion: Occasion) -> None:
        self._release = occasion.release
        self._caps = caps
        self._counts: list[Counter[Any]] = [Counter() for _ in caps]
        self.closed = occasion.having(np.zeros(0, np.int64))

    def weighed(self, values: np.ndarray) -> np.ndarray:
        return values

    def take(self, row: int) -> None:
        release = self._release
        for cap, counts in zip(self._caps, self._counts, strict=True):
            if cap.by == "categories":
                keys: Any = dict.fromkeys(release.bundle.items["categories"][row - 1] or ())
                rows_by: Any = release.columns.rows_by_category
            else:
                name = cap.by.removeprefix(ATTRIBUTES)
                keys, rows_by = release.attributes.keys(name, row), release.attributes.rows(name)
            for key in keys:
                counts[key] += 1
                if counts[key] == cap.most:
                    self.closed[rows_by[key]] = True
