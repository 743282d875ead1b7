"""What a user has turned down: items that are never recommended to that user again, and never train as a positive.

In: the log with signals. Out: pairs of user and item. Kinds whose signal is `negative` turn an item down (a dislike, a
return); an event that is negative for its low value only (a short watch) does not. Knows no splits and no models.
"""

import polars as pl

from recops.params import EventKind


def turned_down(events: pl.DataFrame, kinds: dict[str, EventKind]) -> pl.DataFrame:
    """user_id, item_id and timestamp (null in a log without times) of the first event of a negative kind, by pair."""
    return (
        _of_negative_kinds(events, kinds)
        .group_by("user_id", "item_id")
        .agg(pl.col("timestamp").min())
        .sort("user_id", "item_id")
    )


def without_turned_down(events: pl.DataFrame, kinds: dict[str, EventKind], is_past: bool) -> pl.DataFrame:
    """`events` (with signal, in the order of the log) where a positive of an item that its user has turned down is a
    negative: by then, or where all of the log `is_past`, at any time."""
    if not any(kind.signal == "negative" for kind in kinds.values()):
        return events
    place = pl.col("timestamp").cast(pl.Int64) if events["timestamp"].null_count() == 0 else pl.int_range(pl.len())
    placed = events.with_columns(place.alias("_place"))
    first = _of_negative_kinds(placed, kinds).group_by("user_id", "item_id").agg(pl.min("_place").alias("_no"))
    placed = placed.join(first, on=["user_id", "item_id"], how="left", maintain_order="left")
    is_no = pl.col("_no").is_not_null() & (pl.lit(is_past) | (pl.col("_no") <= pl.col("_place")))
    signal = pl.when(is_no & (pl.col("signal") == "positive")).then(pl.lit("negative", placed["signal"].dtype))
    return placed.with_columns(signal.otherwise(pl.col("signal")).alias("signal")).drop("_place", "_no")


def _of_negative_kinds(events: pl.DataFrame, kinds: dict[str, EventKind]) -> pl.DataFrame:
    return events.filter(pl.col("event").is_in([name for name, kind in kinds.items() if kind.signal == "negative"]))


def refused_pairs(
    log: pl.DataFrame, train: pl.DataFrame, kinds: dict[str, EventKind], items_are_users: bool
) -> pl.DataFrame:
    """user_id, item_id, timestamp from which the item is no candidate for the user (null: always).

    Of a log without times only what `train` holds is known. Where items are users, nobody is recommended to themselves.
    """
    is_timed = log["timestamp"].null_count() == 0
    pairs = turned_down(log if is_timed else train, kinds)
    if items_are_users:
        selves = log.select("item_id").unique().sort("item_id")
        selves = selves.select(pl.col("item_id").alias("user_id"), "item_id").with_columns(
            pl.lit(None, pairs["timestamp"].dtype).alias("timestamp")
        )
        pairs = pl.concat([pairs, selves])
    return pairs
