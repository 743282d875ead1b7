"""Divides the log in train, valid and test, and counts what takes no part.

In: events.parquet of ingest. Out: a folder with train.parquet, valid.parquet, test.parquet and, of a splitter that has
any, context.parquet (SPLIT_COLUMNS, in the order of the log), first_seen.parquet (item_id, timestamp), refused.parquet
(user_id, item_id, timestamp from which the item is not to be recommended to the user, null: never) and split.json. How
rows are divided stands in `splitters/*`.
"""

import json
import shutil
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl

from recops import plugins
from recops.data.dislikes import refused_pairs, without_turned_down
from recops.data.interactions import SPLIT_COLUMNS
from recops.errors import CallError
from recops.params import EventKind, SplitParams

JUDGED_PARTS = ("train", "valid", "test")


def split_events(
    events: Path, out: Path, split: SplitParams, kinds: dict[str, EventKind], remove_seen: bool
) -> dict[str, Any]:
    """Writes the parts of `events` to the folder `out`, replacing it as a whole, and returns what split.json says.

    Each row gets the signal and weight of its kind; a positive kind with `min_value` is a negative below it and where
    it has no value, and a positive of an item that its user has turned down is a negative. Rows of kind `ignored` are
    in no part. split.json counts every row: `rows` is the sum of all parts and of `unused` by reason. Raises CallError
    when a kind of event is not in `kinds`, or when train, valid or test would be empty of positives.
    """
    frame = pl.read_parquet(events, columns=["user_id", "item_id", "timestamp", "event", "value"])
    num_rows = len(frame)
    first_seen = frame.group_by("item_id").agg(pl.col("timestamp").min()).sort("item_id")
    watermark = frame["timestamp"].max()

    frame = recent(frame, split.window_days, events)
    num_old = num_rows - len(frame)
    frame = with_signal(frame, kinds, events)
    num_ignored = int((frame["signal"] == "ignored").sum())
    if num_ignored:
        frame = frame.filter(pl.col("signal") != "ignored")
    frame = without_turned_down(frame, kinds, is_past=False)
    part = plugins.load("data.splitters", split.name)().split(
        frame.select("user_id", "item_id", "timestamp", "signal"), remove_seen=remove_seen, params=split
    )
    # A positive that no splitter could place is always a repeat: every other one after a cut is judged.
    unused = frame["signal"].filter(part == "unused")
    counts: dict[str, Any] = {
        "split": split.name,
        "remove_seen": remove_seen,
        "rows": num_rows,
        "parts": {},
        "unused": {
            **({"before split.window_days": num_old} if num_old else {}),
            "of an ignored kind": num_ignored,
            "positive after the cut, item seen before": int((unused == "positive").sum()),
            "not positive, after the cut": int((unused != "positive").sum()),
        },
        "data_watermark": _iso(watermark),
    }

    partial = out.with_name(out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    names = [*JUDGED_PARTS, *(["context"] if (part == "context").any() else [])]
    for name in names:
        rows = frame.filter(part == name).select(SPLIT_COLUMNS).rechunk()
        if name == "train":
            rows = without_turned_down(rows, kinds, is_past=True).rechunk()
            refused = refused_pairs(frame, rows, kinds, split.pairs == "undirected")
        counts["parts"][name] = _counted(rows)
        rows.write_parquet(partial / f"{name}.parquet", row_group_size=1_000_000)
    first_seen.rechunk().write_parquet(partial / "first_seen.parquet")
    refused.rechunk().write_parquet(partial / "refused.parquet")
    empty = [name for name in JUDGED_PARTS if not counts["parts"][name]["positives"]]
    if empty:
        shutil.rmtree(partial)
        raise CallError(
            f"{events}: split.name {split.name} leaves no positives for {', '.join(empty)} out of {num_rows} events; "
            "see split.min_user_events and what ingest.events calls positive"
        )
    text = json.dumps(counts, indent=2, ensure_ascii=False) + "\n"
    (partial / "split.json").write_text(text, encoding="utf-8")
    shutil.rmtree(out, ignore_errors=True)
    partial.rename(out)
    return counts


def recent(frame: pl.DataFrame, days: float | None, events: Path) -> pl.DataFrame:
    """The rows of the last so many days before the newest one; all where `days` is None. Raises CallError for a log
    without times."""
    if days is None:
        return frame
    if frame["timestamp"].null_count():
        raise CallError(
            f"{events}: column timestamp has empty cells, which split.window_days cannot use; set it to null"
        )
    return frame.filter(pl.col("timestamp") > pl.col("timestamp").max() - timedelta(days=days))


def with_signal(frame: pl.DataFrame, kinds: dict[str, EventKind], events: Path) -> pl.DataFrame:
    unknown = frame.filter(~pl.col("event").is_in(list(kinds)).fill_null(False))["event"]
    if len(unknown):
        names = ", ".join(sorted({str(name) for name in unknown.unique()}))
        raise CallError(
            f"{events}: column event has kinds that ingest.events does not explain: {names} ({len(unknown)} rows); "
            "add them there, as ignored if they mean nothing"
        )
    signals = pl.Enum(["positive", "negative", "exposure", "ignored"])
    signal = pl.col("event").replace_strict({k: v.signal for k, v in kinds.items()}, return_dtype=signals)
    weight = pl.col("event").replace_strict({k: v.weight for k, v in kinds.items()}, return_dtype=pl.Float32)
    for name, kind in kinds.items():
        if kind.signal == "positive" and kind.min_value is not None:
            low = (pl.col("event") == name) & ~(pl.col("value") >= kind.min_value).fill_null(False)
            signal = pl.when(low).then(pl.lit("negative", dtype=signals)).otherwise(signal)
    return frame.with_columns(signal.alias("signal"), weight.alias("weight"))


def _counted(rows: pl.DataFrame) -> dict[str, Any]:
    return {
        "rows": len(rows),
        "positives": int((rows["signal"] == "positive").sum()),
        "users": rows["user_id"].n_unique(),
        "items": rows["item_id"].n_unique(),
        "from": _iso(rows["timestamp"].min()),
        "to": _iso(rows["timestamp"].max()),
    }


def _iso(time: Any) -> str | None:
    return time.isoformat(timespec="microseconds") if time is not None else None
