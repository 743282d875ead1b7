"""What all encoders have in common: the folder they are made from, and going from items to rows of a matrix.

Shapes: B batch, D width.
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from pydantic import BaseModel, ConfigDict

from recops.protocols import Item

SETTINGS, NETWORK = "settings.json", "model.onnx"


class UnreadableError(Exception):
    """An item's content cannot be read or decoded. The message is a reason to count by, the same for all such items."""


class Options(BaseModel):
    """Settings of one encoder, `encode.NAME` in params.yaml; unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)
    # Names of those that do not change a vector, and so need no new encoding when they change.
    harmless: ClassVar[frozenset[str]] = frozenset()


class ItemEncoder(ABC):
    """Base of all encoders; see `protocols.Encoder`. A part says what `content` and `encode_contents` do.

    `folder` is what the stage wrote (`data/encoded/<encoder>/`): settings.json with `sha256`, `dim`, `options` and
    what the encoder adds, and where there is a network model.onnx.
    """

    Options: ClassVar[type[Options]] = Options
    version: ClassVar[str] = "1"
    chunk_size: ClassVar[int] = 1024

    def __init__(self, folder: Path, threads: int = 1, source: Path | None = None) -> None:
        self.settings: dict[str, Any] = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
        self.options = self.Options.model_validate(self.settings["options"])
        self.sha256: str = self.settings["sha256"]
        self.dim: int = self.settings["dim"]

    @abstractmethod
    def content(self, item: Item) -> bytes | None: ...

    @abstractmethod
    def encode_contents(self, contents: Sequence[bytes]) -> tuple[np.ndarray, list[str | None]]: ...

    def encode(self, items: Sequence[Item]) -> np.ndarray:
        """float32 [B, D]; a row of zeros for an item with nothing to encode, or nothing that can be read."""
        contents: dict[int, bytes] = {}
        for row, item in enumerate(items):
            try:
                found = self.content(item)
            except UnreadableError:
                continue
            if found is not None:
                contents[row] = found
        vectors_BD = np.zeros((len(items), self.dim), np.float32)
        if contents:
            vectors_BD[list(contents)] = self.encode_contents([*contents.values()])[0]
        return vectors_BD


def normalised(vectors_BD: np.ndarray) -> np.ndarray:
    """Rows as float32 of length 1; a row of zeros, and one that holds anything not finite, becomes zeros."""
    vectors_BD = np.asarray(vectors_BD, np.float32)
    lengths_B = np.linalg.norm(vectors_BD, axis=1, keepdims=True)
    fine_B = np.isfinite(lengths_B) & (lengths_B > 0)
    return np.where(fine_B, vectors_BD / np.where(fine_B, lengths_B, 1), 0).astype(np.float32)


def categories_of(item: Item) -> list[str]:
    """The categories of an item, each once, in their order; empty where it has none."""
    return list(dict.fromkeys(category for category in item.get("categories") or () if category))


def attributes_of(item: Item) -> dict[str, Any]:
    """The attributes of an item, empty where it has none or they are no JSON object."""
    try:
        found = json.loads(item.get("attributes") or "{}")
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
