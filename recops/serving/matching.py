"""Which items a rule speaks of, written as filters are: `{categories: [Drama], price: {max: 10}}`.

An item matches where it holds all that is said, as it would pass these filters; `items` names some by id.
"""

from collections.abc import Iterable
from typing import Annotated, Any

import numpy as np
from pydantic import Field, create_model, model_validator
from pydantic_core import PydanticCustomError

from recops.serving.fields import ItemId, Strict
from recops.serving.occasion import Occasion
from recops.serving.rules.attributes import Attributes
from recops.serving.rules.available import Available
from recops.serving.rules.categories import Categories
from recops.serving.rules.minimum_freshness import MinimumFreshness
from recops.serving.rules.price import Price
from recops.serving.rules.published_after import PublishedAfter

FILTERS: dict[str, Any] = {
    "categories": Categories(),
    "attributes": Attributes(),
    "price": Price(),
    "available": Available(),
    "published_after": PublishedAfter(),
    "minimum_freshness": MinimumFreshness(),
}
ItemIds = Annotated[list[ItemId], Field(min_length=1, max_length=10_000, description="Any of these.")]
_fields: dict[str, Any] = {name: (rule.Value | None, None) for name, rule in FILTERS.items()}


class Match(create_model("MatchFields", __base__=Strict, **_fields)):  # type: ignore[misc]
    items: ItemIds | None = None

    @model_validator(mode="after")
    def _says_something(self) -> "Match":
        if all(getattr(self, name) is None for name in ("items", *FILTERS)):
            raise PydanticCustomError("nothing", f"say which items: {', '.join(('items', *FILTERS))}")
        return self

    def rows(self, occasion: Occasion) -> np.ndarray:
        """bool [N+1]: the items that match."""
        release = occasion.release
        mask = np.ones(release.bundle.num_items + 1, bool)
        if self.items is not None:
            mask = occasion.having(release.bundle.rows(self.items))
        for name, rule in FILTERS.items():
            if (value := getattr(self, name)) is not None:
                mask &= ~rule.hidden(value, occasion)
        return mask


def named(matches: Iterable[Match]) -> list[str]:
    """Ids of the items that they name."""
    return [item_id for match in matches for item_id in match.items or ()]
