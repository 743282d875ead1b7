"""Some items to vectors, what was made before taken from where it is kept.

In: an encoder, items, and a place that keeps vectors by the digest of what they were made from. Out: rows of a matrix,
and what became of the items.
"""

import hashlib
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from recops.encoders.content.item_encoder import UnreadableError
from recops.protocols import Encoder, Item


class KeptVectors(Protocol):
    """Keys are digests of contents, `encoder` is the digest of the encoder, vectors are float16 [D]."""

    def get(self, encoder: str, keys: Collection[bytes]) -> dict[bytes, np.ndarray]: ...

    def put(self, encoder: str, vectors: Mapping[bytes, np.ndarray]) -> None: ...


@dataclass
class Counts:
    """What became of the items: each is `encoded`, `missing` (nothing to encode) or `broken`, by reason. `reused` is
    how many of the encoded had their vector already."""

    encoded: int = 0
    missing: int = 0
    broken: Counter[str] = field(default_factory=Counter)
    reused: int = 0


def encode_chunk(
    encoder: Encoder, items: Sequence[Item], out_BD: np.ndarray, kept: KeptVectors | None, counts: Counts
) -> None:
    """Fills the rows of `items` in `out_BD` (float16, zeros) from what is kept or by the encoder, and counts them."""
    contents: dict[bytes, bytes] = {}
    rows_of: dict[bytes, list[int]] = {}  # of the same content: encoded once
    for row, item in enumerate(items):
        try:
            content = encoder.content(item)
        except UnreadableError as error:
            counts.broken[str(error)] += 1
            continue
        if content is None:
            counts.missing += 1
            continue
        key = hashlib.sha256(content).digest()
        contents[key] = content
        rows_of.setdefault(key, []).append(row)
    known = {} if kept is None else kept.get(encoder.sha256, rows_of)
    counts.reused += sum(len(rows_of[key]) for key in known)
    if new := [key for key in contents if key not in known]:
        vectors_BD, reasons = encoder.encode_contents([contents[key] for key in new])
        made = {}
        for key, vector_D, reason in zip(new, vectors_BD.astype(np.float16), reasons, strict=True):
            if reason is None:
                made[key] = vector_D
            else:
                counts.broken[reason] += len(rows_of[key])
        if kept is not None:
            kept.put(encoder.sha256, made)
        known |= made
    for key, vector_D in known.items():
        out_BD[rows_of[key]] = vector_D
        counts.encoded += len(rows_of[key])
