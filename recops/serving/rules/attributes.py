"""Rule `attributes`: only items whose every named attribute is this value, or any of a list of values. An item without
the attribute is not shown. Of an attribute that is a list one value is enough."""

from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import AfterValidator, Field, WithJsonSchema

from recops.serving.attributes import LONGEST, key_of
from recops.serving.fields import Text
from recops.serving.occasion import Occasion

MOST = 1000  # values of one attribute


def _is_wanted(value: Any) -> Any:
    values = value if isinstance(value, list) else [value]
    if not 1 <= len(values) <= MOST or any(key_of(one) is None for one in values):
        raise ValueError(f"expected a text of at most {LONGEST} characters, a number, true or false, or a list of them")
    return value


_SCALAR = {"type": ["string", "number", "boolean"]}
Wanted = Annotated[
    Any,
    AfterValidator(_is_wanted),
    WithJsonSchema({"anyOf": [_SCALAR, {"type": "array", "items": _SCALAR, "minItems": 1, "maxItems": MOST}]}),
]


class Attributes:
    step: ClassVar[str] = "filter"
    where: ClassVar[tuple[str, ...]] = ("filters", "file")
    is_lasting: ClassVar[bool] = True
    Value = Annotated[
        dict[Text, Wanted],
        Field(min_length=1, max_length=20, description="Value, or list of values, by name of the attribute."),
    ]

    def hidden(self, value: dict[str, Any], occasion: Occasion) -> np.ndarray | None:
        mask = occasion.having(np.zeros(0, np.int64))
        for name, wanted in value.items():
            rows = occasion.release.attributes.rows(name)
            lacking = np.ones(len(mask), bool)
            for one in wanted if isinstance(wanted, list) else [wanted]:
                lacking[rows.get(key_of(one), [])] = False
            mask |= lacking
        return mask
