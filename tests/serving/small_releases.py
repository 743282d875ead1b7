"""Releases made in memory, of a few items, for rules to work on."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from recops.bundle import Bundle
from recops.links import Links
from recops.runtime import Scorer
from recops.serving.release import Release


def small_release(
    items: Sequence[dict[str, Any]],
    *,
    vectors: np.ndarray | None = None,
    links: np.ndarray | None = None,
    scores: np.ndarray | None = None,
    fallback: Sequence[float] = (),
    remove_seen: bool = True,
) -> Release:
    """Items have `item_id` and any other columns. Scored by `vectors` [N, D] of which a history adds up its own, by
    `links` [N, N] from a history item to others, or by fixed `scores` [N]; else `fallback` [N] answers all."""
    names = ("item_id", "title", "categories", "price", "available", "published_at", "attributes")
    columns = {name: [item.get(name) for item in items] for name in names}
    num_items = len(items)
    popular = np.array([0, *(fallback or np.arange(num_items, 0, -1))], np.float32)
    table = None if vectors is None else np.concatenate([np.zeros((1, vectors.shape[1])), vectors]).astype(np.float32)
    linked = np.zeros((num_items + 1, num_items + 1), np.float32)
    if links is not None:
        linked[1:, 1:] = links
    rows, to = linked.nonzero()
    scorer = Scorer(
        num_items=num_items,
        encode=None if table is None else lambda item_idx: table[item_idx].sum(1),
        item_vectors=table,
        links=Links(
            indptr=np.searchsorted(rows, np.arange(num_items + 2)).astype(np.int64),
            indices=to.astype(np.int32),
            weights=linked[rows, to],
            decay=None,
            floor=0.0,
            window=None,
        )
        if table is None and scores is None
        else None,
        item_scores=None if scores is None else np.array([0, *scores], np.float32),
        needs_history=scores is None,
        fallback=popular,
    )
    return Release(Bundle(Path("nowhere"), "made", {"remove_seen": remove_seen}, columns, scorer, popular), {})
