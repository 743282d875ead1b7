"""A made-up shop whose traffic is the same every day, so that what a test plants is the only drift there is."""

from collections.abc import Callable
from datetime import UTC, datetime

import numpy as np
import polars as pl
import pytest

START = datetime(2024, 1, 1, tzinfo=UTC)
NUM_ITEMS = 300


def make_log(seed: int, days: int, per_day: int = 1000, first_day: int = 0, num_users: int = 5000) -> pl.DataFrame:
    """`days` days of events from `first_day` (days after START), busy by day and quiet by night.

    `num_users` are active on a day; each day a tenth of them goes and as many come, so that histories do not grow.
    """
    rng = np.random.default_rng([seed, first_day])
    num = rng.poisson(per_day * days)
    rhythm = 1 + 0.8 * np.sin(np.arange(24) / 24 * 2 * np.pi)
    hour = rng.choice(24, num, p=rhythm / rhythm.sum())
    day = first_day + rng.integers(0, days, num)
    user = day * (num_users // 10) + rng.integers(0, num_users, num)
    seconds = day * 86_400 + hour * 3600 + rng.integers(0, 3600, num)
    popularity = 1 / np.arange(1, NUM_ITEMS + 1)
    return pl.DataFrame(
        {
            "user_id": np.char.add("u", user.astype(str)),
            "item_id": np.char.add("i", rng.choice(NUM_ITEMS, num, p=popularity / popularity.sum()).astype(str)),
            "timestamp": pl.Series(int(START.timestamp() * 1e6) + seconds * 1_000_000).cast(pl.Datetime("us", "UTC")),
            "event": rng.choice(["click", "purchase"], num, p=[0.8, 0.2]),
            "value": rng.integers(1, 6, num).astype(np.float32),
        }
    ).sort("timestamp", maintain_order=True)


@pytest.fixture(scope="session")
def shop() -> Callable[..., pl.DataFrame]:
    return make_log


@pytest.fixture(scope="session")
def catalogue() -> pl.DataFrame:
    """Items i0 to i299, each in one of five categories."""
    names = ["books", "games", "music", "tools", "toys"]
    return pl.DataFrame(
        {
            "item_id": [f"i{n}" for n in range(NUM_ITEMS)],
            "categories": [[names[n % 5]] for n in range(NUM_ITEMS)],
        }
    )
