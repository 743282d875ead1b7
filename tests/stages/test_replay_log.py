"""The log of a replay by day, and what is told of a day with a fault in it."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from recops.errors import CallError
from recops.params import IngestParams, SourceParams
from recops.stages.replay_faults import Fault, rows_of
from recops.stages.replay_log import ReplayLog, read_log, source_of

START = datetime(2024, 1, 1, 9, tzinfo=UTC)
# user, item, day, event; x comes on day 2, y on day 3
EVENTS = [
    ("ann", "a", 1, "click"),
    ("bob", "b", 1, "click"),
    ("ann", "x", 2, "click"),
    ("bob", "a", 2, "impression"),
    ("ann", "a", 3, "click"),
    ("ann", "b", 3, "click"),
    ("bob", "y", 3, "click"),
    ("bob", "x", 3, "click"),
    ("bob", "a", 3, "impression"),
    ("cat", "y", 3, "click"),
]
ITEMS = [("a", 1), ("b", 1), ("x", None), ("y", None), ("soon", 3), ("never", None)]


@pytest.fixture
def log(tmp_path: Path) -> ReplayLog:
    frame = pl.DataFrame(EVENTS, schema=["user_id", "item_id", "day", "event"], orient="row").with_columns(
        timestamp=pl.lit(START) + pl.duration(days=pl.col("day") - 1),
        value=pl.lit(None, pl.Float32),
        session_id=pl.lit(None, pl.String),
    )
    frame.drop("day").write_parquet(tmp_path / "events.parquet")
    items = pl.DataFrame(ITEMS, schema={"item_id": pl.String, "day": pl.Int64}, orient="row").with_columns(
        published_at=pl.lit(START) + pl.duration(days=pl.col("day") - 1),
        title=pl.lit(None, pl.String),
        categories=pl.lit(None, pl.List(pl.String)),
    )
    items.write_parquet(tmp_path / "items.parquet")
    return ReplayLog(tmp_path, dict(IngestParams().events))


def test_a_day_is_one_of_utc(log: ReplayLog) -> None:
    assert log.morning(2) == datetime(2024, 1, 2, tzinfo=UTC)
    assert [len(log.of(day)) for day in (1, 2, 3, 4)] == [2, 2, 6, 0]
    assert [len(log.before(day)) for day in (1, 2, 3)] == [0, 2, 4]


def test_items_are_those_seen_or_published_before(log: ReplayLog) -> None:
    assert [log.items(day)["item_id"].to_list() for day in (1, 2, 3, 4)] == [
        [],
        ["a", "b"],
        ["a", "b", "x"],
        ["a", "b", "x", "y", "soon"],
    ]


def test_asked_is_who_chose_what_was_alive_and_new_to_them(log: ReplayLog) -> None:
    asked = log.asked(3, 10, seed=1, remove_seen=True)
    assert (asked.users, asked.targets) == (["ann", "bob"], [["b"], ["x"]])
    assert asked.new_share == pytest.approx(2 / 4)  # y of bob and cat; ann's a is no new choice
    assert log.asked(3, 10, seed=1, remove_seen=False).targets == [["a", "b"], ["x"]]
    assert log.asked(9, 10, seed=1, remove_seen=True).users == []
    drawn = [log.asked(3, 1, seed, remove_seen=True).users for seed in (1, *range(1, 20))]
    assert drawn[0] == drawn[1] and ["ann"] in drawn and ["bob"] in drawn


def test_the_source_before_a_day_holds_nothing_later(log: ReplayLog, tmp_path: Path) -> None:
    source = source_of(log, 3, tmp_path / "source")
    assert set(source["options"]) == {"events", "items"}
    assert pl.read_parquet(tmp_path / "source" / "events.parquet")["timestamp"].max() < log.morning(3)
    again = read_log(SourceParams(**source), IngestParams(), tmp_path, tmp_path / "again")
    assert again.before(9)["item_id"].to_list() == ["a", "b", "x", "a"]
    assert again.items(9)["item_id"].to_list() == ["a", "b", "x"]


def test_a_log_without_times_has_no_days(tmp_path: Path) -> None:
    with pytest.raises(CallError, match=r"source\.order"):
        read_log(SourceParams(order="ordered"), IngestParams(), tmp_path, tmp_path / "log")


def test_faults_are_seeded(log: ReplayLog) -> None:
    frame = log.of(3)
    told = {kind: Fault.read(f"{kind}:3").apply(frame, 7) for kind in ("bots", "renamed", "doubled", "items_gone")}
    assert told == {kind: Fault(kind, 3).apply(frame, 7) for kind in told}
    assert len(told["bots"]) == 12 and sum(row["user_id"].startswith("bot-") for row in told["bots"]) == 6
    assert all("article" in row and "item_id" not in row for row in told["renamed"])
    assert told["doubled"] == 2 * rows_of(frame)
    assert len({row["item_id"] for row in told["items_gone"]}) == 2  # of a, b, x and y
    assert rows_of(frame)[0] == {
        **{"user_id": "ann", "item_id": "a", "event": "click"},
        **{"timestamp": (START + timedelta(days=2)).isoformat(timespec="microseconds")},
    }


@pytest.mark.parametrize("text", ["bots", "bots:x", "floods:3", ":3"])
def test_another_fault_is_refused(text: str) -> None:
    with pytest.raises(CallError, match="--fault"):
        Fault.read(text)
