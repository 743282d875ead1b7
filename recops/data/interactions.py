"""The train part as arrays, sorted by user and then by time, which is what models are fitted on.

In: Parquet of the split stage (columns of `SPLIT_COLUMNS`). Out: `Interactions`. Knows nothing about models.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from recops.data.content import ItemContent, read_item_content
from recops.data.vocabulary import Vocabulary
from recops.encoders.content import USERS

# Written by the split stage; row order is the stable time order of the log.
SPLIT_COLUMNS = ("user_id", "item_id", "timestamp", "event", "value", "signal", "weight")


@dataclass(frozen=True)
class Catalogue:
    """What the table of items says of each of N item rows, as it stands now."""

    published_at: np.ndarray  # float64 [N+1], seconds since 1970, NaN where unknown
    price: np.ndarray  # float32 [N+1], NaN where unknown
    category_offsets: np.ndarray  # int64 [N+2]: the categories of row i are category_idx[offsets[i]:offsets[i + 1]]
    category_idx: np.ndarray  # int32, rising within an item; places in the sorted names


@dataclass(frozen=True)
class Interactions:
    """Positives as parallel arrays [E], user by user, each user's in stable time order.

    The slice of user row u is `offsets[u]:offsets[u + 1]`; row 0 is empty. `timestamp` is None for a log without time.
    """

    user_idx: np.ndarray  # int32 [E], 1..num_users
    item_idx: np.ndarray  # int32 [E], 1..num_items
    timestamp: np.ndarray | None  # int64 [E], microseconds UTC
    value: np.ndarray  # float32 [E], NaN where the event has none
    weight: np.ndarray  # float32 [E], of the event kind
    offsets: np.ndarray  # int64 [num_users + 2]
    users: Vocabulary
    items: Vocabulary
    catalogue: "Catalogue | None" = None  # of `all_items`
    content: ItemContent | None = None
    user_attributes: ItemContent | None = None  # of which `items` are the users: those trained on, then others

    @property
    def all_users(self) -> Vocabulary:
        """The vocabulary of the users, followed by those without any event of whom attributes are known."""
        return self.users if self.user_attributes is None else self.user_attributes.items

    @property
    def all_items(self) -> Vocabulary:
        """The vocabulary of the items, followed by those that were never trained on and have content."""
        return self.items if self.content is None else self.content.items

    @property
    def num_users(self) -> int:
        return len(self.users)

    @property
    def num_items(self) -> int:
        return len(self.items)

    def __len__(self) -> int:
        return len(self.item_idx)

    def history(self, user_idx: int) -> np.ndarray:
        """Item rows of one user, oldest first (int32, may be empty)."""
        return self.item_idx[self.span(user_idx)]

    def span(self, user_idx: int) -> slice:
        """Where the events of one user lie; empty for row 0."""
        return slice(int(self.offsets[user_idx]), int(self.offsets[user_idx + 1]))


def make_interactions(
    frame: pl.DataFrame, users: Vocabulary | None = None, items: Vocabulary | None = None
) -> Interactions:
    """Arrays of the positives in `frame` (SPLIT_COLUMNS, stable time order).

    Vocabularies are fitted on `frame` when not given; given ones drop rows they do not know (a fitted model cannot
    use them; the caller counts them). An empty frame gives empty arrays.
    """
    frame = frame.filter(pl.col("signal") == "positive")
    users = users or Vocabulary(frame["user_id"].unique())
    items = items or Vocabulary(frame["item_id"].unique())

    def rows(column: str, vocabulary: Vocabulary) -> np.ndarray:
        lookup = pl.DataFrame(
            {
                column: pl.Series(vocabulary.ids, dtype=pl.String),
                "_idx": np.arange(1, len(vocabulary) + 1, dtype=np.int32),
            }
        )
        found = frame.select(column).join(lookup, on=column, how="left", maintain_order="left")
        return found["_idx"].fill_null(0).to_numpy()

    user_idx, item_idx = rows("user_id", users), rows("item_id", items)
    order = np.argsort(user_idx, kind="stable")
    order = order[(user_idx[order] > 0) & (item_idx[order] > 0)]
    user_idx, item_idx = user_idx[order], item_idx[order]
    timestamp = None
    if frame["timestamp"].null_count() == 0:
        timestamp = frame["timestamp"].cast(pl.Int64).to_numpy()[order]
    return Interactions(
        user_idx=user_idx,
        item_idx=item_idx,
        timestamp=timestamp,
        value=frame["value"].cast(pl.Float32).fill_null(float("nan")).to_numpy()[order],
        weight=frame["weight"].cast(pl.Float32).to_numpy()[order],
        offsets=np.searchsorted(user_idx, np.arange(len(users) + 2)).astype(np.int64),
        users=users,
        items=items,
    )


def read_interactions(path: Path, items: Path | None = None, encoded: Path | None = None) -> Interactions:
    """`make_interactions` of a Parquet file, with vocabularies fitted on that file alone; `items` (items.parquet) adds
    the catalogue, `encoded` (the folder of the stage encode) the content of the items."""
    return with_facts(make_interactions(pl.read_parquet(path)), items, encoded)


def with_facts(found: Interactions, items: Path | None, encoded: Path | None) -> Interactions:
    """The same events with what was encoded of items and users, and then the catalogue of the items, where a file or
    folder is given."""
    if encoded is not None:
        found = replace(found, content=read_item_content(encoded, found.items))
        found = replace(found, user_attributes=read_item_content(encoded / USERS, found.users))
    return found if items is None else replace(found, catalogue=read_catalogue(items, found.all_items))


def read_catalogue(path: Path, items: Vocabulary) -> Catalogue:
    """Columns of items.parquet for the rows of the vocabulary; of an item that the table lacks, and of all where there
    is no table, nothing is known."""
    types: dict[str, Any] = {
        "item_id": pl.String,
        "published_at": pl.Int64,
        "price": pl.Float32,
        "categories": pl.List(pl.String),
    }
    table = pl.read_parquet(path, columns=list(types)) if path.exists() else pl.DataFrame(schema=types)
    known = pl.DataFrame({"item_id": items.ids}, schema={"item_id": pl.String}).join(
        table.unique("item_id", keep="first"), on="item_id", how="left", maintain_order="left"
    )
    pairs = known.with_row_index("row", offset=1).explode("categories").drop_nulls("categories")
    pairs = pairs.select("row", "categories").unique().sort("row", "categories")
    names = pairs["categories"].unique().sort()
    return Catalogue(
        published_at=_padded(known["published_at"].cast(pl.Int64).cast(pl.Float64) // 1_000_000),
        price=_padded(known["price"]).astype(np.float32),
        category_offsets=np.searchsorted(pairs["row"].to_numpy(), np.arange(len(items) + 2)).astype(np.int64),
        category_idx=names.search_sorted(pairs["categories"]).to_numpy().astype(np.int32),
    )


def _padded(column: pl.Series) -> np.ndarray:
    """float64 [N+1]: row 0 and nulls are NaN."""
    return np.concatenate(([np.nan], column.cast(pl.Float64).fill_null(float("nan")).to_numpy()))
