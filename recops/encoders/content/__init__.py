"""What the stage `encode` made of the items, read back. Free of torch and of any dataframe library.

The folder holds `items.json` (item ids in row order), a matrix `<encoder>.npy` and a folder `<encoder>/` (what encodes
a new item later) for each encoder, and `encoders.json` (what was encoded, by whom), which is written last.
The other modules here are what encoders share; parts of the socket stand one folder up.
"""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from recops.errors import CallError

ITEMS, ENCODERS = "items.json", "encoders.json"
# What the texts say of the catalogue: pairs that look like one item, and categories of items without any.
DUPLICATES, GUESSED = "duplicates.csv", "guessed_categories.json"
USERS = "users"  # a folder in it, alike, where users were encoded: their ids are in its `items.json`


@dataclass(frozen=True)
class Content:
    """Vectors of items by encoder: float16 [N, D], read from disk as they are used, a row of zeros where an item has
    nothing to encode. Row i is `item_ids[i]`. Without encoders, or without a table of items, `vectors` is empty."""

    item_ids: list[str]
    vectors: dict[str, np.ndarray]
    encoders: list[dict[str, Any]]  # name, version, sha256, dim, encoded, missing, broken; in the order of `vectors`

    @cached_property
    def row_of(self) -> dict[str, int]:
        """Item id to row, from 0."""
        return {item_id: row for row, item_id in enumerate(self.item_ids)}


def read_content(folder: Path) -> Content:
    """The content in `folder` (`data/encoded`). Raises CallError naming the file that is missing or does not fit."""
    try:
        item_ids = json.loads((folder / ITEMS).read_text(encoding="utf-8"))
        encoders = json.loads((folder / ENCODERS).read_text(encoding="utf-8"))["encoders"]
        files = {facts["name"]: folder / f"{facts['name']}.npy" for facts in encoders}
        vectors = {name: np.load(path, mmap_mode="r", allow_pickle=False) for name, path in files.items()}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CallError(f"{folder}: not readable as encoded content ({error}); run: recops encode") from None
    for facts in encoders:
        found, expected = vectors[facts["name"]], (len(item_ids), facts["dim"])
        if found.shape != expected or found.dtype != np.float16:
            raise CallError(
                f"{files[facts['name']]}: {found.dtype} {found.shape} where float16 {expected} is needed; "
                "run: recops encode"
            )
    return Content(item_ids, vectors, encoders)
