"""`attributes`: categories, price, time of publication and the columns of `attributes` as one vector.

A column for each category, each frequent value of an attribute of words, and each number. Which columns there are,
their means and deviations are learnt from the items of the train part alone. Every column is standardised; a number
that is missing counts as the mean. Age is the time of publication with another sign, so that no moment has to be chosen
from which it would be counted.
"""

import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from recops.encoders.content.item_encoder import ItemEncoder, attributes_of, categories_of
from recops.encoders.content.item_encoder import Options as EncoderOptions
from recops.errors import CallError
from recops.protocols import Item

DAY_S = 86_400
CATEGORY, WORD, NUMBER = "category", "word", "number"
Column = tuple[str, str, str]  # its kind, the column of the table it comes from, and for categories and words which one
MAX_DEVIATIONS = 100.0  # float16, which vectors are stored as, ends at 65,504
MAX_NUMBER = 1e100  # what is larger has a square that is not finite
AUDIO = "audio"  # the attribute that the encoder of sounds reads: a path says nothing here


class Attributes(ItemEncoder):
    class Options(EncoderOptions):
        min_items: int = Field(2, ge=1, description="values that fewer items of the train part have get no column")
        max_values: int = Field(256, ge=1, description="columns of the categories, and of each attribute of words")

    chunk_size = 4096
    options: "Attributes.Options"

    def __init__(self, folder: Path, threads: int = 1, source: Path | None = None) -> None:
        super().__init__(folder, threads, source)
        columns: list[Column] = [(kind, key, value) for kind, key, value in self.settings["columns"]]
        self._place_of = {column: place for place, column in enumerate(columns)}
        self._mean, self._std = np.array(self.settings["mean"]), np.array(self.settings["std"])
        is_number = np.array([kind == NUMBER for kind, _, _ in columns])
        self._nothing_D = np.where(is_number, self._mean, 0)

    @classmethod
    def fit(cls, options: "Attributes.Options", items: Iterable[Item]) -> dict[str, Any]:
        """`columns`, `mean`, `std` and `dim` from the items of the train part. An attribute is a number where all its
        values can be read as one. Columns that are the same in all items are left out; raises CallError where none is
        left."""
        num_items = 0
        num_with: Counter[Column] = Counter()
        total: defaultdict[Column, float] = defaultdict(float)
        squares: defaultdict[Column, float] = defaultdict(float)
        words: set[str] = set()  # attributes with a value that is no number
        for item in items:
            num_items += 1
            values = dict(_values(item))
            numbers = {key for kind, key, _ in values if kind == NUMBER}
            words |= {key for kind, key, _ in values if kind == WORD and key not in numbers}
            for column, value in values.items():
                num_with[column] += 1
                if column[0] == NUMBER:
                    total[column] += value
                    squares[column] += value * value
        found: dict[Column, tuple[float, float]] = {}
        kept: Counter[tuple[str, str]] = Counter()
        for column, count in sorted(num_with.items(), key=lambda entry: (-entry[1], entry[0])):
            kind, key, _ = column
            if kind == NUMBER and key not in words:
                mean = total[column] / count
                variance = max(squares[column] / count - mean * mean, 0)
                # Below that, the difference is rounding.
                if variance > 1e-12 * max(mean * mean, 1e-12):
                    found[column] = (mean, math.sqrt(variance))
            elif kind == CATEGORY or (kind == WORD and key in words):
                share = count / num_items
                if options.min_items <= count < num_items and kept[kind, key] < options.max_values:
                    kept[kind, key] += 1
                    found[column] = (share, math.sqrt(share * (1 - share)))
        if not found:
            raise CallError(
                f"encode.encoders: attributes has nothing to encode: no category, price, time of publication or "
                f"attribute differs between the {num_items} items of the train part"
            )
        columns = sorted(found)
        return {
            "columns": [list(column) for column in columns],
            "mean": [found[column][0] for column in columns],
            "std": [found[column][1] for column in columns],
            "dim": len(columns),
        }

    def content(self, item: Item) -> bytes | None:
        """The values that columns stand for, as JSON; None where there are none."""
        places = ((self._place_of.get(column), value) for column, value in _values(item))
        known = sorted((place, value) for place, value in places if place is not None)
        return json.dumps(known).encode() if known else None

    def encode_contents(self, contents: Sequence[bytes]) -> tuple[np.ndarray, list[str | None]]:
        values_BD = np.tile(self._nothing_D, (len(contents), 1))
        for row, content in enumerate(contents):
            for place, value in json.loads(content):
                values_BD[row, place] = value
        standardised = np.clip((values_BD - self._mean) / self._std, -MAX_DEVIATIONS, MAX_DEVIATIONS)
        return standardised.astype(np.float32), [None] * len(contents)


def _values(item: Item) -> Iterator[tuple[Column, float]]:
    """Columns and values of an item, each column once. A word that can be read as a number comes as both."""
    for category in categories_of(item):
        yield (CATEGORY, "", category), 1.0
    price = _number(item.get("price"))
    if price is not None:
        yield (NUMBER, "price", ""), math.copysign(math.log1p(abs(price)), price)
    if (published := item.get("published_at")) is not None:
        yield (NUMBER, "published_at", ""), published.timestamp() / DAY_S
    for name, value in attributes_of(item).items():
        key = f"attributes.{name}"
        number = _number(value)
        if number is not None:
            yield (NUMBER, key, ""), number
        if name != AUDIO:
            for word in dict.fromkeys(_words(value)):
                yield (WORD, key, word), 1.0


def _number(value: Any) -> float | None:
    """A number, also of text, if it is finite; truth values are words."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) and abs(number) < MAX_NUMBER else None


def _words(value: Any) -> list[str]:
    if isinstance(value, list):
        return [word for entry in value if not isinstance(entry, list) for word in _words(entry)]
    if isinstance(value, bool):
        return [str(value).lower()]
    if isinstance(value, str):
        return [value.strip()] if value.strip() else []
    return [str(value)] if isinstance(value, int | float) else []
