"""Items by the values of their attributes (columns of the items table that are the project's own).

In: the attributes of each item as JSON objects. Out: rows by value. A value is a text, a number or true or false; a
list counts with each of its values; anything else says nothing.
"""

from collections.abc import Sequence
from math import isfinite
from typing import Any

import numpy as np

LONGEST = 512  # characters of a text that can be asked for
Key = tuple[bool, str | float]  # true is not 1


def key_of(value: Any) -> Key | None:
    """What values that are equal share; None for what is no value to ask for."""
    if isinstance(value, str):
        return (False, value) if 0 < len(value) <= LONGEST else None
    if isinstance(value, float) and not isfinite(value):
        return None
    return (isinstance(value, bool), value) if isinstance(value, int | float) else None


def keys_of(value: Any) -> list[Key]:
    """Each value once; empty where there is none."""
    keys = (key_of(one) for one in (value if isinstance(value, list) else [value]))
    return list(dict.fromkeys(key for key in keys if key is not None))


def usable(attributes: Any) -> dict[str, Any] | None:
    """What can be asked for of an item's attributes; None where that is nothing."""
    if not isinstance(attributes, dict):
        return None
    found = {
        name: [one for one in value if key_of(one)] if isinstance(value, list) else value
        for name, value in attributes.items()
        if keys_of(value)
    }
    return found or None


class Attributes:
    """`items`: the attributes of each item, None where it has none; entry 0 is row 1. Raises TypeError for others."""

    def __init__(self, items: Sequence[dict[str, Any] | None]) -> None:
        if not all(item is None or isinstance(item, dict) for item in items):
            raise TypeError("attributes are not an object for each item")
        self._items = items
        self._rows: dict[str, dict[Key | None, np.ndarray]] = {}

    def rows(self, name: str) -> dict[Key | None, np.ndarray]:
        """int64 rows by value of one attribute, each ascending. Looked for once."""
        if (known := self._rows.get(name)) is None:
            found: dict[Key, list[int]] = {}
            for row, item in enumerate(self._items, start=1):
                if item is not None and name in item:
                    for key in keys_of(item[name]):
                        found.setdefault(key, []).append(row)
            known = self._rows[name] = {key: np.array(rows, np.int64) for key, rows in found.items()}
        return known

    def keys(self, name: str, row: int) -> list[Key]:
        """The values of one attribute of an item."""
        item = self._items[row - 1]
        return [] if item is None or name not in item else keys_of(item[name])
