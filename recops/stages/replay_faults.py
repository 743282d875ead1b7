"""Faults planted into a replay: what is told of one day is not what happened.

In: the events of the day as they happened. Out: rows as somebody would post them to /events.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from recops.errors import CallError

BOTS = 200  # users that never were, who click as often as all others together
LOVED = 20  # items that they click


@dataclass(frozen=True)
class Fault:
    kind: str
    day: int

    @classmethod
    def read(cls, text: str) -> "Fault":
        """`kind:day`, as in bots:3. Raises CallError for another."""
        kind, _, day = text.partition(":")
        if kind not in KINDS or not day.isdigit():
            raise CallError(f"--fault: found {text!r}, expected KIND:DAY with a kind of {', '.join(KINDS)}")
        return cls(kind, int(day))

    def apply(self, frame: pl.DataFrame, seed: int) -> list[dict[str, Any]]:
        return KINDS[self.kind](frame, np.random.default_rng([seed, self.day]))


def rows_of(frame: pl.DataFrame) -> list[dict[str, Any]]:
    """Events as they are posted; what is not known is left out."""
    told = frame.with_columns(pl.col("timestamp").dt.to_string("iso:strict"))
    return [{key: value for key, value in row.items() if value is not None} for row in told.iter_rows(named=True)]


def bots(frame: pl.DataFrame, rng: np.random.Generator) -> list[dict[str, Any]]:
    """As many clicks again, by `BOTS` users on `LOVED` items."""
    items = frame["item_id"].unique().sort()
    loved = items.gather(np.sort(rng.permutation(len(items))[:LOVED]))
    made = frame.with_columns(
        user_id=pl.Series([f"bot-{bot}" for bot in rng.integers(0, BOTS, len(frame))]),
        item_id=loved.gather(rng.integers(0, len(loved), len(frame))),
        session_id=pl.lit(None, pl.String),
    )
    return rows_of(pl.concat([frame, made]).sort("timestamp", maintain_order=True))


def renamed(frame: pl.DataFrame, rng: np.random.Generator) -> list[dict[str, Any]]:
    """The column item_id is called article."""
    return rows_of(frame.rename({"item_id": "article"}))


def doubled(frame: pl.DataFrame, rng: np.random.Generator) -> list[dict[str, Any]]:
    """Everything is told twice."""
    return rows_of(pl.concat([frame, frame]))


def items_gone(frame: pl.DataFrame, rng: np.random.Generator) -> list[dict[str, Any]]:
    """Half of the items are not in it."""
    items = frame["item_id"].unique().sort()
    kept = items.gather(np.sort(rng.permutation(len(items))[: len(items) // 2]))
    return rows_of(frame.filter(pl.col("item_id").is_in(kept.implode())))


KINDS: dict[str, Callable[[pl.DataFrame, np.random.Generator], list[dict[str, Any]]]] = {
    "bots": bots,
    "renamed": renamed,
    "doubled": doubled,
    "items_gone": items_gone,
}
