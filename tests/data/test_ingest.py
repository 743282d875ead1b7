"""Every row of a source ends in its table or in rejected; ids, order, duplicates and bytes are as promised."""

import hashlib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recops.data import ingest as module
from recops.data.ingest import ingest
from recops.errors import CallError
from recops.params import EventKind, IngestParams, SourceParams
from recops.schema import TABLES

COLUMNS = {"user_id": "u", "item_id": "i", "timestamp": "t", "event": "e", "value": "v"}
POLARS = {
    "str": pl.String,
    "json": pl.String,
    "float32": pl.Float32,
    "int32": pl.Int32,
    "int64": pl.Int64,
    "bool": pl.Boolean,
    "time": pl.Datetime("us", "UTC"),
    "list[str]": pl.List(pl.String),
}


def run(folder: Path, text: str, order: str = "time", **options: Any) -> tuple[dict, pl.DataFrame, pl.DataFrame]:
    """Counts, events and rejected of a CSV log with the columns u, i, t, e, v unless `options` say otherwise."""
    (folder / "log.csv").write_text(text)
    events = {"path": "log.csv", "columns": COLUMNS, "timestamp_unit": "s"} | options
    params = SourceParams(name="files", path=".", options={"events": events}, order=order)
    counts = ingest(params, IngestParams(), folder, folder / "out")
    return counts, *(pl.read_parquet(folder / "out" / f"{table}.parquet") for table in ("events", "rejected"))


def test_each_reason_with_file_and_line(tmp_path: Path) -> None:
    counts, events, rejected = run(
        tmp_path,
        "u,i,t,e,v\n"
        "1,a,100,rating,4.5\n"
        " ,a,100,rating,4\n"
        "1,,100,rating,4\n"
        "1,a,100,haggle,4\n"
        "1,a,,rating,4\n"
        "1,a,soon,rating,4\n"
        "1,a,100,rating,four\n"
        " 1 ,a,100,rating,4.50\n"
        "1,a\n"
        "2,b,50,click,\n",
    )
    assert rejected.select("table", "file", "line", "reason").rows() == [
        ("events", "log.csv", 3, "missing user_id"),
        ("events", "log.csv", 4, "missing item_id"),
        ("events", "log.csv", 5, "unknown event"),
        ("events", "log.csv", 6, "missing timestamp"),
        ("events", "log.csv", 7, "unreadable timestamp"),
        ("events", "log.csv", 8, "unreadable value"),
        ("events", "log.csv", 9, "duplicate"),
        ("events", "log.csv", 10, "broken row: expected 5 fields, found 2"),
    ]
    assert rejected["raw"].to_list()[3] == "1,a,,rating,4"
    assert events.select("user_id", "item_id", "event", "value").rows() == [
        ("2", "b", "click", None),
        ("1", "a", "rating", 4.5),
    ]
    assert events["timestamp"].to_list() == [
        datetime(1970, 1, 1, 0, 0, 50, tzinfo=UTC),
        datetime(1970, 1, 1, 0, 1, 40, tzinfo=UTC),
    ]
    assert (counts["rows_read"], counts["events"], counts["rejected"]) == (10, 2, 8)
    assert counts["rejected_by_reason"]["broken row"] == 1


def test_all_four_tables_are_written_with_the_schema(tmp_path: Path) -> None:
    run(tmp_path, "u,i,t,e,v\n")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(f"{table}.parquet" for table in TABLES)
    for table, columns in TABLES.items():
        found = pl.read_parquet_schema(tmp_path / "out" / f"{table}.parquet")
        assert dict(found) == {name: POLARS[kind] for name, kind in columns.items()}, table


def test_event_ids_come_from_content(tmp_path: Path) -> None:
    _, events, _ = run(tmp_path, "u,i,t,e,v\n1,a,100,rating,4.5\n")
    content = "1:11:a100000000|rating|4.5"
    assert events["event_id"][0] == hashlib.md5(content.encode()).hexdigest()[:24]


def test_given_event_ids_are_kept_and_decide_what_is_a_duplicate(tmp_path: Path) -> None:
    text = "id,u,i,t,e,v\nx,1,a,1,click,\ny,1,a,1,click,\nx,2,b,2,click,\n"
    _, events, rejected = run(tmp_path, text, columns=COLUMNS | {"event_id": "id"})
    assert events["event_id"].to_list() == ["x", "y"]
    assert rejected.select("line", "reason").rows() == [(4, "duplicate")]


def test_time_order_is_stable(tmp_path: Path) -> None:
    rows = [(user, second) for user in range(400) for second in (7, 3, 3, 5)]
    text = "u,i,t,e,v\n" + "".join(f"{user},{i},{second},click,\n" for i, (user, second) in enumerate(rows))
    _, events, _ = run(tmp_path, text)
    expected = [str(i) for i, _ in sorted(enumerate(rows), key=lambda row: row[1][1])]
    assert events["item_id"].to_list() == expected


def test_ordered_logs_keep_their_order_and_repetitions(tmp_path: Path) -> None:
    text = "u,i,t,e,v\n1,b,2,click,\n1,a,1,click,\n1,b,3,click,\n"
    counts, events, _ = run(tmp_path, text, order="ordered")
    assert events["item_id"].to_list() == ["b", "a", "b"]
    assert events["timestamp"].null_count() == 3
    assert events["event_id"].n_unique() == 3
    counts, events, rejected = run(tmp_path, text, order="unordered")
    assert events["item_id"].to_list() == ["b", "a"]
    assert (counts["rejected_by_reason"], rejected["line"].to_list()) == ({"duplicate": 1}, [4])


@pytest.mark.parametrize(
    ("unit", "text", "micros"),
    [
        ("s", "978300760", 978300760_000000),
        ("s", "978300760.0", 978300760_000000),
        ("s", "978300760.25", 978300760_250000),
        ("ms", "1650812741436", 1650812741_436000),
        ("us", "1650812741436123", 1650812741_436123),
        ("iso", "2020-01-02T03:04:05+02:00", 1577927045_000000),
        ("iso", "2020-01-02 03:04:05", 1577934245_000000),
        ("iso", "2020-01-02T03:04:05.000001Z", 1577934245_000001),
        ("s", "99999999999999", None),
        ("s", "2020-01-02", None),
        ("iso", "978300760", None),
    ],
)
def test_times(tmp_path: Path, unit: str, text: str, micros: int | None) -> None:
    _, events, rejected = run(tmp_path, f"u,i,t,e,v\n1,a,{text},click,\n", timestamp_unit=unit)
    assert events["timestamp"].cast(pl.Int64).to_list() == ([] if micros is None else [micros])
    assert rejected["reason"].to_list() == (["unreadable timestamp"] if micros is None else [])


def test_time_order_without_times_says_what_to_set(tmp_path: Path) -> None:
    without = {name: column for name, column in COLUMNS.items() if name != "timestamp"}
    for options in ({}, {"columns": without}):
        with pytest.raises(CallError, match=r"source\.order"):
            run(tmp_path, "u,i,t,e,v\n1,a,,click,\n", **options)
        assert not (tmp_path / "out" / "events.parquet").exists()
        assert run(tmp_path, "u,i,t,e,v\n1,a,,click,\n", order="ordered", **options)[0]["events"] == 1
        (tmp_path / "out" / "events.parquet").unlink()


def test_a_failure_leaves_the_last_tables_as_they_were(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(tmp_path, "u,i,t,e,v\n1,a,1,click,\n")
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    monkeypatch.setattr(module, "_rejected", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run(tmp_path, "u,i,t,e,v\n2,b,1,click,\n")
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before


def test_the_same_input_gives_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recops.data.sources._text.BLOCK_BYTES", 20_000)
    monkeypatch.setattr(module, "ROW_GROUP_SIZE", 2048)
    text = "u,i,t,e,v\n" + "".join(f"{i % 97},{i % 89},{i * 7919 % 1000},rating,{i % 5}\n" for i in range(30_000))
    written = []
    for _ in range(3):
        counts, _, _ = run(tmp_path, text)
        written.append([(tmp_path / "out" / f"{table}.parquet").read_bytes() for table in TABLES])
    assert counts["events"] == 30_000
    assert written[0] == written[1] == written[2]


def test_only_named_kinds_of_event_are_kept(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("u,i,t,e,v\n1,a,1,click,\n1,b,1,wink,\n")
    events = {"path": "log.csv", "columns": COLUMNS, "timestamp_unit": "s"}
    params = SourceParams(name="files", path=".", options={"events": events})
    counts = ingest(params, IngestParams(events={"wink": EventKind(signal="positive")}), tmp_path, tmp_path / "out")
    assert counts["rejected_by_reason"] == {"unknown event": 1}
    assert pl.read_parquet(tmp_path / "out" / "events.parquet")["event"].to_list() == ["wink"]


def test_items_and_users(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("u,i\n1,a\n")
    (tmp_path / "items.csv").write_text("i,n,p,d\na,one,2.5,2020-01-01\na,two,1,\n,three,1,\nb,four,cheap,x\n")
    (tmp_path / "users.csv").write_text("u,age\n1,30\n1,31\n2,\n")
    options = {
        "events": {"path": "log.csv", "columns": {"user_id": "u", "item_id": "i"}, "event": "like"},
        "items": {"path": "items.csv", "columns": {"item_id": "i", "title": "n", "price": "p", "published_at": "d"}},
        "users": {"path": "users.csv", "columns": {"user_id": "u"}, "attributes": ["age"]},
    }
    params = SourceParams(name="files", path=".", options=options, order="unordered")
    counts = ingest(params, IngestParams(), tmp_path, tmp_path / "out")
    items, users, rejected = (
        pl.read_parquet(tmp_path / "out" / f"{t}.parquet") for t in ("items", "users", "rejected")
    )
    assert items.select("item_id", "title", "price").rows() == [("a", "one", 2.5), ("b", "four", None)]
    assert users.rows() == [("1", '{"age":"30"}'), ("2", '{"age":""}')]
    assert rejected.select("table", "line", "reason").rows() == [
        ("items", 3, "duplicate item_id"),
        ("items", 4, "missing item_id"),
        ("users", 3, "duplicate user_id"),
    ]
    assert counts["unreadable_fields"] == {"items.price": 1, "items.published_at": 1}
    for table, kept in (("items", 2), ("users", 2)):
        assert counts["tables"][table]["rows_read"] == kept + counts["tables"][table]["rejected"]


def test_broken_encoding_is_counted_not_rejected(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_bytes(b"u,i\n1,caf\xe9\n1,tea\n")
    events = {"path": "log.csv", "columns": {"user_id": "u", "item_id": "i"}, "event": "click"}
    params = SourceParams(name="files", path=".", options={"events": events}, order="unordered")
    counts = ingest(params, IngestParams(), tmp_path, tmp_path / "out")
    assert (counts["events"], counts["broken_encoding"]) == (2, 1)


def test_wrong_options_are_named(tmp_path: Path) -> None:
    with pytest.raises(CallError, match=r"source\.options\.events\.delimeter"):
        run(tmp_path, "u,i\n", delimeter=";")
    with pytest.raises(CallError, match=r"no data\.sources named"):
        ingest(SourceParams(name="nowhere"), IngestParams(), tmp_path, tmp_path / "out")


def test_movielens_small(tmp_path: Path) -> None:
    counts = ingest(SourceParams(), IngestParams(), tmp_path, tmp_path / "out")
    assert (counts["rows_read"], counts["events"], counts["items"]) == (100_004, 100_004, 9_066)
    items = pl.read_parquet(tmp_path / "out" / "items.parquet")
    assert items.filter(pl.col("item_id") == "1029")["title"].to_list() == ["Dumbo (1941)"]
    assert items["title"].null_count() == 5
    events = pl.read_parquet(tmp_path / "out" / "events.parquet")
    assert (events["user_id"].n_unique(), events["item_id"].n_unique()) == (671, 9_066)
    assert events["timestamp"].is_sorted()


cell = st.sampled_from(["1", "2", "a", "", " ", "click", "rating", "9", "1e3", "nan", "x,y", '"q"', "ü", "\ufffd"])


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.lists(cell, min_size=3, max_size=6), max_size=12), st.sampled_from(["time", "ordered", "unordered"]))
def test_counts_add_up_whatever_the_rows(tmp_path: Path, rows: list[list[str]], order: str) -> None:
    text = "u,i,t,e,v\n" + "1,a,1,click,1\n" + "".join(",".join(row) + "\n" for row in rows)
    counts, events, rejected = run(tmp_path, text, order=order)
    assert counts["rows_read"] == len(rows) + 1 == len(events) + len(rejected)
    assert counts["rejected"] == sum(counts["rejected_by_reason"].values()) == len(rejected)
    assert events["event_id"].n_unique() == len(events)
    assert not set(rejected["line"]) - set(range(2, len(rows) + 3))


def test_merged_items_are_one_and_nothing_is_lost(tmp_path: Path) -> None:
    """The events of both are those of one; of the same user at the same time they are a repetition."""
    (tmp_path / "log.csv").write_text("u,i,t\n1,a,1\n1, b ,2\n2,b,3\n2,a,3\n3,c,4\n")
    (tmp_path / "items.csv").write_text("id,name\na,A\nb,B\nc,C\n")
    events = {"path": "log.csv", "event": "click", "columns": {"user_id": "u", "item_id": "i", "timestamp": "t"}}
    events["timestamp_unit"] = "s"
    items = {"path": "items.csv", "columns": {"item_id": "id", "title": "name"}}
    source = SourceParams(name="files", path=".", options={"events": events, "items": items})
    counts = ingest(source, IngestParams(merges={"b": "a"}), tmp_path, tmp_path / "out")
    found = {name: pl.read_parquet(tmp_path / "out" / f"{name}.parquet") for name in ("events", "items", "rejected")}
    assert found["events"].select("user_id", "item_id").rows() == [("1", "a"), ("1", "a"), ("2", "a"), ("3", "c")]
    assert found["items"]["item_id"].to_list() == ["a", "c"]
    assert found["rejected"].select("table", "line", "reason").rows() == [
        ("events", 5, "duplicate"),
        ("items", 3, "merged: into a"),
    ]
    assert counts["tables"]["items"]["rejected_by_reason"] == {"merged": 1}


def test_a_chain_of_merges_is_refused() -> None:
    assert IngestParams(merges={20838: " 20835"}).merges == {"20838": "20835"}
    with pytest.raises(ValueError, match="a into b, and that into c"):
        IngestParams(merges={"a": "b", "b": "c"})


@pytest.mark.parametrize(
    "merges", [{"a": ""}, {"a": None}, {"a": True}, {"a": ["b"]}, {" ": "b"}, {1: "b", "1": "c"}, {1.5: "b"}]
)
def test_what_is_no_id_is_not_merged(merges: dict) -> None:
    with pytest.raises(ValueError, match=r"ids are text or whole numbers|an id is missing, or stands twice"):
        IngestParams(merges=merges)


def test_an_item_is_merged_only_into_one_that_there_is(tmp_path: Path) -> None:
    """Else its title would be gone. Quotes and other letters are ids like any other; one of the log alone may go."""
    (tmp_path / "log.csv").write_text("u,i\n1,it's\n2,lone\n")
    (tmp_path / "items.csv").write_text("id,name\nit's,A\nä☃,B\n")
    events = {"path": "log.csv", "event": "click", "columns": {"user_id": "u", "item_id": "i"}}
    items = {"path": "items.csv", "columns": {"item_id": "id", "title": "name"}}
    source = SourceParams(name="files", path=".", order="ordered", options={"events": events, "items": items})
    with pytest.raises(CallError, match="it's into gone: the table of items has no gone"):
        ingest(source, IngestParams(merges={"it's": "gone"}), tmp_path, tmp_path / "out")
    assert not (tmp_path / "out" / "items.parquet").exists()
    ingest(source, IngestParams(merges={"it's": "ä☃", "lone": "other"}), tmp_path, tmp_path / "out")
    assert pl.read_parquet(tmp_path / "out" / "events.parquet")["item_id"].to_list() == ["ä☃", "other"]
