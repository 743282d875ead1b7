"""Which users and which targets stand together: how a model does for newcomers and for rare items.

Users, by the length of their history when judged: `cold` up to COLD_EVENTS, `heavy` the most active tenth of the users
judged (from the 90 % quantile on, above cold), `warm` between. Items, by their events in the train part: `head` the
smallest set of most popular items with half of all events (ties by row), `tail` all others that were trained on, `new`
those without any event there, unknown ones included.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from recops.evaluation.protocol import RankedUsers

COLD_EVENTS = 5
HEAVY_QUANTILE = 0.9
HEAD_SHARE = 0.5
ITEM_CLASSES = ("head", "tail", "new")


def item_classes(item_counts: np.ndarray) -> np.ndarray:
    """`head`, `tail` or `new` for each row, str [N+1]; row 0 is `new`.

    >>> item_classes(np.array([0, 1, 5, 0, 4])).tolist()
    ['new', 'tail', 'head', 'new', 'tail']
    """
    order = np.argsort(-item_counts, kind="stable")
    before = np.cumsum(item_counts[order]) - item_counts[order]
    classes = np.full(len(item_counts), "tail", dtype="<U4")
    classes[order[before < HEAD_SHARE * item_counts.sum()]] = "head"
    classes[item_counts == 0] = "new"
    return classes


def user_segments(lengths: np.ndarray) -> dict[str, np.ndarray]:
    """Which users belong to each segment of users, bool [U], by the lengths of their histories, int [U]."""
    heavy_from = max(np.quantile(lengths, HEAVY_QUANTILE), COLD_EVENTS + 1) if len(lengths) else 0
    cold, heavy = lengths <= COLD_EVENTS, lengths >= heavy_from
    return {"users:cold": cold, "users:warm": ~cold & ~heavy, "users:heavy": heavy}


def segments(ranked: RankedUsers) -> dict[str, tuple[np.ndarray, RankedUsers]]:
    """For each segment which users belong to it (bool [U]) and what they are judged on.

    In a segment of users that is all their targets; in one of items, only the targets that are such items. A user
    belongs to a segment of items with at least one such target.
    """
    found = user_segments(np.array([len(h) for h in ranked.histories]))
    result = {name: (mask & (ranked.num_targets > 0), ranked) for name, mask in found.items()}
    target_class = item_classes(ranked.item_counts)[ranked.target_idx]
    for name in ITEM_CLASSES:
        part = ranked.with_targets(target_class == name)
        result[f"items:{name}"] = (part.num_targets > 0, part)
    return result
