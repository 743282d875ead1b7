"""The real log of a replay, day by day: what was known on a morning, and what users did that day.

In: a source, read once by the stage's own ingest. Out: the events before a morning, the events of a day, and who is
asked about on it. A day is one of UTC, counted from 1. Nothing here looks past the day that it is asked about.
"""

import shutil
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from recops.data.ingest import ingest
from recops.data.split import with_signal
from recops.errors import CallError
from recops.params import EventKind, IngestParams, SourceParams

TOLD = ("user_id", "item_id", "timestamp", "event", "value", "session_id")
DESCRIBED = (
    "item_id",
    "title",
    "categories",
    "published_at",
)  # price and the like are known at their latest state only


@dataclass(frozen=True)
class Asked:
    """Whom a morning's lists are for, and what they went on to choose. `targets` hold what was alive by that morning;
    `new_share` is the share of the day's choices that was not, and that no list of the morning could hold."""

    users: list[str]
    targets: list[list[str]]
    new_share: float


@dataclass(frozen=True)
class ReplayLog:
    """The tables of a log in `folder`; `kinds` say what its events mean."""

    folder: Path
    kinds: dict[str, EventKind]

    @property
    def path(self) -> Path:
        return self.folder / "events.parquet"

    @cached_property
    def first(self) -> date:
        return pl.scan_parquet(self.path).select(pl.col("timestamp").min()).collect().item().date()

    @cached_property
    def first_seen(self) -> pl.DataFrame:
        """item_id, and the time of its first event."""
        return pl.scan_parquet(self.path).group_by("item_id").agg(first=pl.col("timestamp").min()).collect()

    def morning(self, day: int) -> datetime:
        """When the day begins."""
        return datetime.combine(self.first + timedelta(days=day - 1), time(), UTC)

    def before(self, day: int) -> pl.DataFrame:
        """Every event before the day."""
        return self._events(pl.col("timestamp") < self.morning(day))

    def of(self, day: int) -> pl.DataFrame:
        """The events of the day."""
        since = pl.col("timestamp") >= self.morning(day)
        return self._events(since & (pl.col("timestamp") < self.morning(day + 1)))

    def items(self, day: int) -> pl.DataFrame:
        """What the table of items says of those that were published or seen before the day."""
        cut = self.morning(day)
        rows = pl.read_parquet(self.folder / "items.parquet", columns=list(DESCRIBED))
        rows = rows.join(self.first_seen, on="item_id", how="left", maintain_order="left")
        return rows.filter((pl.col("first") < cut) | (pl.col("published_at") < cut)).drop("first")

    def asked(self, day: int, num_users: int, seed: int, remove_seen: bool) -> Asked:
        """At most `num_users` of those who chose on that day what was alive in the morning, drawn by the seed."""
        chosen = self._positives(self.of(day)).select("user_id", "item_id").unique()
        if remove_seen:
            known = self._positives(self.before(day)).select("user_id", "item_id")
            chosen = chosen.join(known, on=["user_id", "item_id"], how="anti")
        num_chosen = len(chosen)
        alive = self.first_seen.filter(pl.col("first") < self.morning(day))
        chosen = chosen.join(alive, on="item_id", how="semi")
        lists = chosen.sort("user_id", "item_id").group_by("user_id", maintain_order=True).agg("item_id")
        drawn = np.random.default_rng([seed, day]).permutation(len(lists))[:num_users]
        lists = lists[np.sort(drawn)]
        new_share = 1 - len(chosen) / num_chosen if num_chosen else 0.0
        return Asked(lists["user_id"].to_list(), lists["item_id"].to_list(), new_share)

    def _events(self, condition: pl.Expr) -> pl.DataFrame:
        return pl.scan_parquet(self.path).filter(condition).select(TOLD).collect()

    def _positives(self, frame: pl.DataFrame) -> pl.DataFrame:
        return with_signal(frame, self.kinds, self.path).filter(pl.col("signal") == "positive")


def read_log(source: SourceParams, settings: IngestParams, base: Path, out: Path) -> ReplayLog:
    """The log of a source, ingested to the folder `out` unless it is there. Raises CallError for one without times."""
    if source.order != "time":
        raise CallError(f"source.order is {source.order!r}: a log without times has no days to replay")
    if not out.exists():
        partial = out.with_name(f"{out.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        ingest(source, settings, base, partial)
        partial.rename(out)
    return ReplayLog(out, dict(settings.events))


def source_of(log: ReplayLog, day: int, folder: Path) -> dict[str, Any]:
    """Writes the log before the day to `folder`, as a user's own files, and returns the group `source` for them."""
    folder.mkdir(parents=True, exist_ok=True)
    log.before(day).write_parquet(folder / "events.parquet")
    options: dict[str, Any] = {"events": _described("events", TOLD)}
    if write_items(log, day, folder):
        options["items"] = _described("items", DESCRIBED)
    return {"name": "files", "path": folder.name, "order": "time", "options": options}


def write_items(log: ReplayLog, day: int, folder: Path) -> bool:
    """Brings the table of items up to the morning of a day; False where the log describes none."""
    if pl.scan_parquet(log.folder / "items.parquet").select(pl.len()).collect().item() == 0:
        return False
    log.items(day).write_parquet(folder / "items.parquet")
    return True


def _described(table: str, columns: tuple[str, ...]) -> dict[str, Any]:
    return {"path": f"{table}.parquet", "format": "parquet", "columns": {name: name for name in columns}}
