"""What the encoders say of the items, in the rows that models and evaluation use.

In: the folder of the stage `encode` and the vocabulary of the train part. Out: `ItemContent`. Knows nothing about how a
vector was made, or what a model makes of it.

Shapes: N items, those trained on first (row 0 is padding), C columns of all encoders that are asked for.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from recops.data.vocabulary import Vocabulary
from recops.encoders.content import ENCODERS, read_content
from recops.errors import CallError


@dataclass(frozen=True)
class ItemContent:
    """Vectors of N items by encoder: in the rows of the train part's vocabulary, then items that were never trained on
    and of which some encoder says something."""

    items: Vocabulary
    vectors: Mapping[str, np.ndarray]  # float16 [N+1, D]; zeros in row 0 and where there was nothing to encode
    facts: Mapping[str, Mapping[str, Any]]  # of each encoder: name, version, sha256, dim and what else it says

    def blocks(self, encoders: Sequence[str], where: str) -> list[np.ndarray]:
        """The vectors of those encoders, in that order. Raises CallError, naming the setting `where`, for one that was
        not run."""
        for name in encoders:
            if name not in self.vectors:
                made = ", ".join(self.vectors) or "none"
                raise CallError(f"{where}: no vectors of the encoder {name}; encode.encoders made {made}")
        return [self.vectors[name] for name in encoders]


def read_item_content(folder: Path, trained: Vocabulary) -> ItemContent | None:
    """What the stage `encode` wrote to `folder`, in the rows of `trained` and beyond; None where it encoded nothing."""
    if not (folder / ENCODERS).exists():
        return None
    found = read_content(folder)
    if not found.vectors:
        return None
    return item_content(found.item_ids, found.vectors, trained, {facts["name"]: facts for facts in found.encoders})


def item_content(
    item_ids: Sequence[str],
    vectors: Mapping[str, np.ndarray],
    trained: Vocabulary,
    facts: Mapping[str, Mapping[str, Any]] | None = None,
) -> ItemContent:
    """`vectors` [M, D] of `item_ids`, put in rows. An item of which no encoder says anything gets no new row; one that
    was trained on and is not among `item_ids` has zeros."""
    has_any = np.zeros(len(item_ids), bool)
    for rows in vectors.values():
        has_any |= rows.any(1)
    items = trained.followed_by(item_id for item_id, has in zip(item_ids, has_any, strict=True) if has)
    idx = items.to_idx(item_ids)
    placed = {}
    for name, rows in vectors.items():
        placed[name] = np.zeros((len(items) + 1, rows.shape[1]), np.float16)
        placed[name][idx[idx > 0]] = rows[idx > 0]
    return ItemContent(items, placed, dict(facts or {}))
