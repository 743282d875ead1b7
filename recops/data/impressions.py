"""What users were shown, at which rank, in the requests that led to a choice of the part that is judged.

In: events.parquet of ingest and the positives of one part of the split. Out: `Impressions`. Knows no models.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from recops.data.split import with_signal
from recops.data.vocabulary import Vocabulary
from recops.errors import CallError
from recops.params import EventKind

CHOSEN_WITHIN_MINUTES = 30  # of being shown, for a choice that does not name its request


@dataclass(frozen=True)
class Impressions:
    """I lists of at most S items as shown, those of a user one after the other."""

    user: np.ndarray  # int64 [I], rising: row of the users judged
    rows: np.ndarray  # int64 [I, S], item rows; 0 is padding or an item that the vocabulary does not know
    position: np.ndarray  # int64 [I, S], ranks from 1 on, 0 where `rows` is
    is_chosen: np.ndarray  # bool [I, S]

    def of(self, users: np.ndarray) -> "Impressions":
        """Those of some users, int [U'] rising, who are then counted anew."""
        kept = np.isin(self.user, users)
        return Impressions(
            np.searchsorted(users, self.user[kept]), self.rows[kept], self.position[kept], self.is_chosen[kept]
        )


def read_impressions(
    events: Path, kinds: dict[str, EventKind], part: Path, user_ids: Sequence[str], items: Vocabulary
) -> Impressions:
    """Lists shown to `user_ids` from which a positive of `part` (a Parquet file of the split) was chosen.

    A list is what one request showed: the same `request_id`, or where there is none the same user, session and time. A
    positive was chosen from a list that showed its item under its `request_id`, or where it has none, to the same user
    (and in the same session, where both name one) at most 30 minutes before. Raises CallError where no exposure has a
    rank, or none led to a choice.
    """
    keys = ["user_id", "item_id", "timestamp"]
    columns = [*keys, "event", "value", "request_id", "rank", "session_id"]
    frame = with_signal(pl.read_parquet(events, columns=columns), kinds, events)
    shown = frame.filter((pl.col("signal") == "exposure") & (pl.col("rank") >= 1))
    if shown.is_empty():
        num = int((frame["signal"] == "exposure").sum())
        raise CallError(
            f"{events}: learn_from: impressions needs the column rank (from 1 on) of exposures; {num} exposures, none "
            "with a rank; log it, or set learn_from: validation"
        )
    judged = pl.DataFrame({"user_id": list(user_ids), "user": np.arange(len(user_ids), dtype=np.int64)})
    by_place = pl.concat_str(
        "user_id", pl.col("session_id").fill_null(""), pl.col("timestamp").cast(pl.String).fill_null(""), separator="\0"
    )
    shown = shown.join(judged, on="user_id").with_columns(list=pl.coalesce("request_id", by_place))
    shown = shown.unique(["list", "user_id", "item_id"], keep="first", maintain_order=True).with_row_index("shown")
    wanted = pl.read_parquet(part, columns=[*keys, "signal"]).filter(pl.col("signal") == "positive").select(keys)
    chosen = frame.filter(pl.col("signal") == "positive").join(wanted.unique(), on=keys, how="semi", nulls_equal=True)
    chosen = chosen.select(*keys, "request_id", "session_id")
    pairs = shown.join(chosen, on=["user_id", "item_id"], suffix="_chosen")
    passed = pl.col("timestamp_chosen") - pl.col("timestamp")
    soon = passed.is_between(pl.duration(), pl.duration(minutes=CHOSEN_WITHIN_MINUTES)).fill_null(False)
    same_session = (pl.col("session_id") == pl.col("session_id_chosen")).fill_null(True)
    named = pl.col("request_id_chosen").is_not_null()
    by_request = (pl.col("request_id") == pl.col("request_id_chosen")).fill_null(False)
    taken = pairs.filter(pl.when(named).then(by_request).otherwise(soon & same_session))["shown"].unique()
    shown = shown.with_columns(
        row=pl.Series(items.to_idx(shown["item_id"].to_list()), dtype=pl.Int64),
        is_chosen=pl.col("shown").is_in(taken.implode()),
    )
    lists = (
        shown.sort("rank", maintain_order=True)
        .group_by("list", "user", maintain_order=True)
        .agg("row", "rank", "is_chosen")
        .filter(pl.col("is_chosen").list.any())
        .sort("user", "list")
    )
    if lists.is_empty():
        raise CallError(
            f"{events}: learn_from: impressions, but none of {len(shown)} impressions with a rank led to a positive of "
            f"{part.name}; positives need the request_id of what they were chosen from, or a time soon after it"
        )
    length = int(lists["row"].list.len().max())  # type: ignore[arg-type]

    def padded(column: str) -> np.ndarray:
        return np.array([[*values, *[0] * (length - len(values))] for values in lists[column].to_list()], np.int64)

    rows = padded("row")
    return Impressions(
        lists["user"].to_numpy(), rows, np.where(rows > 0, padded("rank"), 0), (padded("is_chosen") > 0) & (rows > 0)
    )
