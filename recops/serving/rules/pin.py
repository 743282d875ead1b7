"""Rule `pin`: items stand at fixed ranks, where they pass the filters. In a list that ends before its rank an item
stands at the end; a rank beyond `k` pins nothing. Unknown ids are ignored."""

from collections import Counter
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, Field

from recops.serving.fields import ItemId, Strict
from recops.serving.occasion import Occasion


class Pinned(Strict):
    item_id: ItemId
    rank: int = Field(ge=1, le=1000)


def _are_each_once(pins: list[Pinned]) -> list[Pinned]:
    for what, given in (("item", [pin.item_id for pin in pins]), ("rank", [pin.rank for pin in pins])):
        value, times = Counter[Any](given).most_common(1)[0] if given else (None, 0)
        if times > 1:
            raise ValueError(f"{what} {value!r} is pinned twice")
    return pins


class Pin:
    step: ClassVar[str] = "place"
    where: ClassVar[tuple[str, ...]] = ("file",)
    Value = Annotated[list[Pinned], Field(max_length=1000), AfterValidator(_are_each_once)]

    def places(self, value: list[Pinned], occasion: Occasion) -> dict[int, int]:
        row_of = occasion.release.row_of
        return {pin.rank: row_of[pin.item_id] for pin in value if pin.item_id in row_of}

    def named(self, value: list[Pinned]) -> list[str]:
        return [pin.item_id for pin in value]
