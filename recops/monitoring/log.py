"""The event log as numpy arrays in time order, and what was known of it at any moment.

In: the events table (a Parquet file or a frame). Out: `EventLog`. Everything is counted by position in the order of
time, so that "before the cut" is a prefix. Knows no model and no drift test.

Shapes: E events, U users, N items of the log.
"""

from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import polars as pl

COLUMNS = ("user_id", "item_id", "timestamp", "event", "value")
NUM_POPULARITY_BINS = 10


@dataclass(frozen=True)
class EventLog:
    """Parallel arrays [E] in stable time order; `user`, `item` and `kind` are positions in the sorted name lists.

    `time` is None for a log without timestamps, which then stands in row order. `num_untimed` rows of a log that
    has timestamps elsewhere were left out for want of one. `in_history` marks the events a model sees as history.
    """

    time: np.ndarray | None  # int64, microseconds UTC
    user: np.ndarray  # int32
    item: np.ndarray  # int32
    kind: np.ndarray  # int32
    value: np.ndarray  # float32, NaN where null
    in_history: np.ndarray  # bool
    user_ids: list[str]
    item_ids: list[str]
    kinds: list[str]
    num_untimed: int

    def __len__(self) -> int:
        return len(self.user)

    def position(self, moment: int) -> int:
        """Number of events before `moment` (microseconds UTC). The log must have times."""
        assert self.time is not None
        return int(np.searchsorted(self.time, moment, side="left"))

    @cached_property
    def first_by_user(self) -> np.ndarray:
        """Position of each user's first event, int64 [U]."""
        return first_positions(self.user, len(self.user_ids))

    @cached_property
    def first_by_item(self) -> np.ndarray:
        """Position of each item's first event, int64 [N]."""
        return first_positions(self.item, len(self.item_ids))

    @cached_property
    def by_user(self) -> tuple[np.ndarray, np.ndarray]:
        """Positions sorted by user and then time, and where each user's slice starts (int64 [U+1])."""
        order = np.argsort(self.user, kind="stable")
        return order, np.searchsorted(self.user[order], np.arange(len(self.user_ids) + 1))

    @cached_property
    def history_length(self) -> np.ndarray:
        """How many history events of the same user stand before each event, int64 [E]."""
        order, starts = self.by_user
        marks = self.in_history[order].astype(np.int64)
        before = np.cumsum(marks) - marks
        lengths = np.empty(len(order), np.int64)
        lengths[order] = before - before[starts[:-1]][self.user[order]] if len(order) else before
        return lengths

    def history(self, user: int, end: int) -> np.ndarray:
        """Items of one user's history before position `end`, oldest first (positions in `item_ids`)."""
        return self.item[self.history_positions(user, end)]

    def history_positions(self, user: int, end: int) -> np.ndarray:
        """Where in the log the events of `history` stand, rising."""
        order, starts = self.by_user
        positions = order[starts[user] : starts[user + 1]]
        positions = positions[positions < end]
        return positions[self.in_history[positions]]

    def popularity_shares(self, cut: int) -> np.ndarray:
        """float64 [N, 10]: how an item's events spread over tenths of popularity as of position `cut`.

        Items stand in order of their events before `cut`, most popular first, and the first tenth is as far as a
        tenth of those events reaches. An item across a border belongs to both sides in part: were it counted on one,
        two items of like popularity changing places would look like drift. Rows of items without an event are 0.
        """
        counts = np.bincount(self.item[:cut], minlength=len(self.item_ids))
        order = np.argsort(-counts, kind="stable")
        upper = np.empty(len(counts))
        upper[order] = np.cumsum(counts[order]) / max(cut, 1) * NUM_POPULARITY_BINS
        lower = upper - counts / max(cut, 1) * NUM_POPULARITY_BINS
        tenth = np.arange(NUM_POPULARITY_BINS)
        overlap = np.minimum(upper[:, None], tenth + 1) - np.maximum(lower[:, None], tenth)
        shares = np.maximum(overlap, 0.0)
        total = shares.sum(axis=1, keepdims=True)
        return np.divide(shares, total, out=np.zeros_like(shares), where=(total > 0) & (counts > 0)[:, None])


def first_positions(codes: np.ndarray, num: int) -> np.ndarray:
    """Where each of the values 0..num-1 stands first in `codes`; len(codes) for one that never does."""
    first = np.full(num, len(codes), np.int64)
    first[codes[::-1]] = np.arange(len(codes) - 1, -1, -1)
    return first


def read_log(events: Path | pl.DataFrame, history_events: Collection[str] | None = None) -> EventLog:
    """The log in `events` (columns `COLUMNS`; value may be missing). An empty table gives an empty log.

    `history_events` are the kinds that make a user's history; None means every kind but impressions.
    """
    lazy = events.lazy() if isinstance(events, pl.DataFrame) else pl.scan_parquet(events)
    present = lazy.collect_schema().names()
    frame = lazy.select(c for c in COLUMNS if c in present).collect()
    untimed = frame["timestamp"].null_count() if "timestamp" in present else frame.height
    time = None
    if untimed < frame.height:
        frame = frame.filter(pl.col("timestamp").is_not_null()).sort("timestamp", maintain_order=True)
        time = frame["timestamp"].dt.cast_time_unit("us").cast(pl.Int64).to_numpy()
    user, user_ids = coded(frame["user_id"])
    item, item_ids = coded(frame["item_id"])
    kind, kinds = coded(frame["event"])
    is_history = np.array([k != "impression" if history_events is None else k in history_events for k in kinds], bool)
    if "value" in present:
        value = frame["value"].cast(pl.Float32).fill_null(float("nan")).to_numpy()
    else:
        value = np.full(frame.height, np.nan, np.float32)
    return EventLog(
        time=time,
        user=user,
        item=item,
        kind=kind,
        value=value,
        in_history=is_history[kind],
        user_ids=user_ids,
        item_ids=item_ids,
        kinds=kinds,
        num_untimed=untimed if time is not None else 0,
    )


def coded(column: pl.Series) -> tuple[np.ndarray, list[str]]:
    """Each text as its position (int32) in the sorted list of different texts, and that list."""
    names = column.cast(pl.String).unique().sort()
    codes = column.cast(pl.Enum(names)).to_physical()
    return codes.cast(pl.Int32).to_numpy(), names.to_list()
