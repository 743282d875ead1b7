"""Which lists of impressions are read, and which of their items count as chosen."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from recops.data.impressions import read_impressions
from recops.data.vocabulary import Vocabulary
from recops.errors import CallError
from recops.params import EventKind

KINDS = {"impression": EventKind(signal="exposure"), "click": EventKind(signal="positive")}
START = datetime(2024, 1, 1, tzinfo=UTC)
ITEMS = Vocabulary(["a", "b", "c", "d"])

# user, item, minute, event, request_id, rank, session_id
Row = tuple[str, str, float, str, str | None, int | None, str | None]
SCHEMA = ["user_id", "item_id", "minute", "event", "request_id", "rank", "session_id"]


def read(folder: Path, rows: list[Row], valid: list[int]) -> list[tuple[int, list[int], list[int], list[bool]]]:
    """(user, rows, positions, chosen) of each list; `valid` are the places of the rows in the validation part."""
    types = {"request_id": pl.String, "rank": pl.Int32, "session_id": pl.String, "minute": pl.Float64}
    frame = pl.DataFrame(rows, orient="row", schema=SCHEMA, schema_overrides=types)
    times = [START + timedelta(minutes=minute) for minute in frame["minute"]]
    frame = frame.drop("minute").with_columns(
        pl.Series("timestamp", times, dtype=pl.Datetime("us", "UTC")), pl.lit(None, pl.Float32).alias("value")
    )
    frame.write_parquet(folder / "events.parquet")
    frame[valid].with_columns(signal=pl.lit("positive")).write_parquet(folder / "valid.parquet")
    found = read_impressions(folder / "events.parquet", KINDS, folder / "valid.parquet", ["u", "v"], ITEMS)
    return [
        (user, own.tolist(), place.tolist(), chosen.tolist())
        for user, own, place, chosen in zip(found.user, found.rows, found.position, found.is_chosen, strict=True)
    ]


def shown(user: str, items: str, minute: float, request: str | None, session: str | None = None) -> list[Row]:
    return [(user, item, minute, "impression", request, rank, session) for rank, item in enumerate(items, start=1)]


def clicked(user: str, item: str, minute: float, request: str | None, session: str | None = None) -> Row:
    return user, item, minute, "click", request, None, session


def test_a_click_belongs_to_the_request_it_names(tmp_path: Path) -> None:
    rows = [
        *shown("v", "ab", 0, "r1"),
        *shown("u", "bca", 1, "r2"),
        *shown("u", "dc", 2, "r3"),  # no click
        clicked("u", "c", 3, "r2"),
        clicked("v", "b", 90, "r1"),
    ]
    assert read(tmp_path, rows, [7, 8]) == [
        (0, [2, 3, 1], [1, 2, 3], [False, True, False]),
        (1, [1, 2, 0], [1, 2, 0], [False, True, False]),
    ]


def test_only_clicks_of_the_validation_part_count(tmp_path: Path) -> None:
    rows = [
        *shown("u", "ab", 0, "r1"),
        clicked("u", "a", 1, "r1"),
        *shown("u", "ab", 5, "r2"),
        clicked("u", "b", 6, "r2"),
    ]
    assert read(tmp_path, rows, [5]) == [(0, [1, 2], [1, 2], [False, True])]


def test_without_a_request_the_same_user_and_session_soon_after(tmp_path: Path) -> None:
    rows = [
        *shown("u", "ab", 0, None, "s"),
        *shown("u", "ab", 50, None, "s"),  # 31 minutes before the click
        *shown("u", "bc", 60, None, "t"),  # another session
        *shown("u", "cba", 70, None, "s"),
        *shown("v", "ba", 70, None),  # somebody else, who names no session
        clicked("u", "b", 81, None, "s"),
        clicked("v", "a", 99, None, "s"),
    ]
    assert read(tmp_path, rows, [11, 12]) == [
        (0, [3, 2, 1], [1, 2, 3], [False, True, False]),
        (1, [2, 1, 0], [1, 2, 0], [False, True, False]),
    ]


def test_unknown_items_are_padding(tmp_path: Path) -> None:
    rows = [*shown("u", "azb", 0, "r"), clicked("u", "b", 1, "r")]
    assert read(tmp_path, rows, [3]) == [(0, [1, 0, 2], [1, 0, 3], [False, False, True])]


def test_a_log_without_ranks_names_the_column(tmp_path: Path) -> None:
    rows: list[Row] = [("u", "a", 0, "impression", "r", None, None), clicked("u", "a", 1, "r")]
    with pytest.raises(CallError, match=r"column rank .* 1 exposures"):
        read(tmp_path, rows, [1])


def test_impressions_that_led_to_nothing_say_so(tmp_path: Path) -> None:
    with pytest.raises(CallError, match="none of 2 impressions"):
        read(tmp_path, [*shown("u", "ab", 0, "r"), clicked("u", "c", 1, "r")], [2])
