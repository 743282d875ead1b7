"""What was told as files: parts that hold each event once, and users who are gone from all of them."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from recops.data.feedback import Erased, Feedback, Told, read_part, relation, settle
from recops.data.ingest import ingest
from recops.errors import CallError
from recops.params import EventKind, IngestParams, Params, SourceParams
from recops.user_hash import user_hash

KEY = "key"
AT = 1_600_000_000_000_000


def event(place: int, user_id: str = "u1", item_id: str = "a", **more: Any) -> dict[str, Any]:
    facts = {"event": "click", "timestamp": AT + place, "received_at": AT + 1000 + place, "is_made": False}
    empty = dict.fromkeys(("value", "request_id", "rank", "session_id", "context"))
    return {"place": place, "event_id": f"e{place}", "user_id": user_id, "item_id": item_id, **empty, **facts, **more}


def test_parts_are_added_and_read_back(tmp_path: Path) -> None:
    empty = Feedback.read(tmp_path / "feedback.json")
    assert empty == Feedback() and empty.with_part(tmp_path, [], 7) == empty
    first = empty.with_part(tmp_path, [event(1, context={"page": "ä"}, value=2.5, rank=3), event(3)], 3)
    both = first.with_part(tmp_path, [event(4)], 4)
    assert [part["file"] for part in both.parts] == [
        "000000000001-000000000003.parquet",
        "000000000004-000000000004.parquet",
    ]
    both.write(tmp_path / "feedback.json")
    assert Feedback.read(tmp_path / "feedback.json") == both and both.events_until == 4
    row = read_part(tmp_path, both.parts[0]).row(0, named=True)
    assert (row["context"], row["value"], row["rank"]) == ('{"page":"ä"}', 2.5, 3)
    assert row["timestamp"] == datetime.fromtimestamp(1_600_000_000, UTC).replace(microsecond=1)


def test_a_part_that_is_gone_or_altered_is_named(tmp_path: Path) -> None:
    feedback = Feedback().with_part(tmp_path, [event(1)], 1)
    path = tmp_path / feedback.parts[0]["file"]
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(CallError, match=rf"{path.name}: is not what was sealed"):
        relation(tmp_path, feedback.parts, False)
    path.unlink()
    with pytest.raises(CallError, match=rf"{path.name}: missing"):
        relation(tmp_path, feedback.parts, False)
    (tmp_path / "feedback.json").write_text("[1]")
    with pytest.raises(CallError, match=r"feedback.json: not a readable list"):
        Feedback.read(tmp_path / "feedback.json")


def test_another_store_counts_anew_and_takes_no_part_away(tmp_path: Path) -> None:
    first = Feedback(store="s1").with_part(tmp_path, [event(1, item_id="a")], 1)
    second = Feedback(first.parts, "s2", 0).with_part(tmp_path, [event(1, item_id="b")], 1)
    assert [read_part(tmp_path, part)["item_id"].to_list() for part in second.parts] == [["a"], ["b"]]


def test_erased_users_leave_the_parts(tmp_path: Path) -> None:
    feedback = Feedback().with_part(tmp_path, [event(1), event(2, "u2")], 2).with_part(tmp_path, [event(3, "u2")], 3)
    erased = (Erased(user_hash(KEY, "u1"), AT + 1002),)
    found = feedback.without_erased(tmp_path, KEY, erased)
    # A kill here, before the list is written: all is as it was, and the next one does it again.
    settle(tmp_path, feedback.parts)
    assert len(read_part(tmp_path, feedback.parts[0])) == 2 and len(list(tmp_path.iterdir())) == 2
    found = feedback.without_erased(tmp_path, KEY, erased)
    for _ in range(2):  # a kill after the list was written: whoever comes next puts the part in its place
        settle(tmp_path, found.parts)
    assert read_part(tmp_path, found.parts[0])["user_id"].to_list() == ["u2"]
    assert len(list(tmp_path.iterdir())) == 2
    assert found.parts[1] == feedback.parts[1] and found.erased == erased
    # What came after the erasure stays, and an entry that was honoured is not looked at again.
    later = (*erased, Erased(user_hash(KEY, "u2"), AT + 1002))
    found = found.without_erased(tmp_path, KEY, later)
    settle(tmp_path, found.parts)
    assert [len(read_part(tmp_path, part)) for part in found.parts] == [0, 1]


LOG = "u,i,t,e\nu1,a,1600000000,click\nu2,a,1600000001,click\n"


def run(folder: Path, told: Told, order: str = "time") -> tuple[dict, pl.DataFrame, pl.DataFrame]:
    (folder / "log.csv").write_text(LOG)
    columns = {"user_id": "u", "item_id": "i", "event": "e"} | ({"timestamp": "t"} if order == "time" else {})
    options = {"events": {"path": "log.csv", "columns": columns, "timestamp_unit": "s"}}
    source = SourceParams(name="files", path=".", options=options, order=order)
    counts = ingest(source, IngestParams(events={"click": EventKind(signal="positive")}), folder, folder / "out", told)
    return counts, *(pl.read_parquet(folder / "out" / f"{table}.parquet") for table in ("events", "rejected"))


def test_told_events_follow_the_log_and_count_once(tmp_path: Path) -> None:
    feedback = Feedback().with_part(
        tmp_path,
        [
            event(1, "u3", "b", timestamp=AT + 500_000),
            event(2, "u2", "a", timestamp=AT + 1_000_000, is_made=True),  # stands in the log as well
            event(3, "u3", "c", event="purchase"),  # a kind that the log does not have
            event(4, "u3", "c", event="wink"),
        ],
        4,
    )
    told = Told(relation(tmp_path, feedback.parts, False), Params().kinds)
    counts, events, rejected = run(tmp_path, told)
    assert events.select("user_id", "item_id", "event").rows() == [
        ("u1", "a", "click"),
        ("u3", "c", "purchase"),
        ("u3", "b", "click"),
        ("u2", "a", "click"),
    ]
    assert events["event_id"].to_list()[1:3] == ["e3", "e1"]
    part = feedback.parts[0]["file"]
    assert rejected.select("file", "line", "reason").rows() == [
        (part, 2, "told, and in the log"),
        (part, 4, "unknown event"),
    ]
    assert '"item_id":"a"' in rejected["raw"][0]
    assert (counts["rows_read"], counts["events"], counts["rejected"]) == (6, 4, 2)


def test_in_a_log_without_times_told_events_are_the_last(tmp_path: Path) -> None:
    feedback = Feedback().with_part(tmp_path, [event(1, "u1", "a", is_made=True), event(2, "u1", "b")], 2)
    told = Told(relation(tmp_path, feedback.parts, keeps_made_ids=True), Params().kinds)
    counts, events, _ = run(tmp_path, told, order="ordered")
    assert events["item_id"].to_list() == ["a", "a", "a", "b"] and counts["rejected"] == 0
    assert events["timestamp"].null_count() == 4


def test_rows_of_an_erased_user_are_rejected_without_their_text(tmp_path: Path) -> None:
    feedback = Feedback().with_part(tmp_path, [event(1, "u1", "b", received_at=AT + 3_000_000)], 1)
    erased = [Erased(user_hash(KEY, "u1"), AT + 2_000_000), Erased(user_hash(KEY, "u9"), AT)]
    told = Told(relation(tmp_path, feedback.parts, False), Params().kinds, erased, KEY)
    _, events, rejected = run(tmp_path, told)
    assert events.select("user_id", "item_id").rows() == [("u1", "b"), ("u2", "a")]  # who came back is somebody new
    assert rejected.select("file", "line", "reason", "raw").rows() == [("log.csv", 2, "erased", None)]
    # Without times nothing says what came after.
    _, events, rejected = run(tmp_path, Told(None, {}, erased, KEY), order="ordered")
    assert events["user_id"].to_list() == ["u2"] and rejected["reason"].to_list() == ["erased"]


def test_an_erasure_of_old_leaves_newer_rows_of_the_log(tmp_path: Path) -> None:
    erased = [Erased(user_hash(KEY, "u2"), AT + 1_000_000 - 1), Erased(user_hash(KEY, "u1"), AT)]
    _, events, rejected = run(tmp_path, Told(None, {}, erased, KEY))
    assert events["user_id"].to_list() == ["u2"] and rejected["line"].to_list() == [2]
