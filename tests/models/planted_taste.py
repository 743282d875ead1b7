"""A small log with planted taste: four groups of items, each user likes one, some groups and items are liked more."""

from functools import cache

import numpy as np
import polars as pl

from recops.data.interactions import Interactions, make_interactions

CLUSTER_OF_USER = (0, 0, 0, 1, 1, 2, 3)  # repeated over the users
CLUSTER_SIZE, NUM_USERS, NUM_EVENTS = 16, 120, 7
NUM_ITEMS = CLUSTER_SIZE * (max(CLUSTER_OF_USER) + 1)


@cache
def planted() -> tuple[Interactions, np.ndarray]:
    """Train part, and the withheld last item row of each user row (entry 0 unused)."""
    generator = np.random.default_rng(7)
    share = 1 / np.arange(1, CLUSTER_SIZE + 1)
    # Every item once, so that all are in the vocabulary.
    rows = [("filler", item) for item in range(NUM_ITEMS)]
    withheld = {}
    for user in range(NUM_USERS):
        first = CLUSTER_SIZE * CLUSTER_OF_USER[user % len(CLUSTER_OF_USER)]
        own = first + generator.choice(CLUSTER_SIZE, NUM_EVENTS, replace=False, p=share / share.sum())
        rows += [(f"u{user:03}", int(item)) for item in own[:-1]]
        withheld[f"u{user:03}"] = f"i{own[-1]:02}"
    frame = pl.DataFrame(
        {
            "user_id": [user for user, _ in rows],
            "item_id": [f"i{item:02}" for _, item in rows],
            "timestamp": pl.Series(range(len(rows)), dtype=pl.Int64).cast(pl.Datetime("us", "UTC")),
            "event": "rating",
            "value": pl.Series(generator.integers(1, 6, len(rows)), dtype=pl.Float32),
            "signal": "positive",
            "weight": pl.Series([1.0] * len(rows), dtype=pl.Float32),
        }
    )
    train = make_interactions(frame)
    target = np.zeros(train.num_users + 1, np.int64)
    for user_id, item_id in withheld.items():
        target[train.users.to_idx([user_id])[0]] = train.items.to_idx([item_id])[0]
    return train, target
