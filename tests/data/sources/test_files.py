"""The source `files`: every format, plain and gzipped, with globs, and messages that name file and column."""

import gzip
import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from recops.data.ingest import ingest
from recops.errors import CallError
from recops.params import IngestParams, SourceParams

ROWS = [
    ("1", "a", "2020-01-01", "buy", 1.5),
    ("1", "b", "2020-01-02", "look", 2.0),
    ("2", "a", "2020-01-03", "buy", 3.0),
]
NAMES = ["u", "i", "t", "k", "v"]
COLUMNS = {"user_id": "u", "item_id": "i", "timestamp": "t", "event": "k", "value": "v"}
EVENT_MAP = {"buy": "purchase", "look": "view"}


def read(folder: Path, order: str = "time", **options: Any) -> tuple[list[tuple], pl.DataFrame]:
    events = {"columns": COLUMNS, "event_map": EVENT_MAP} | options
    events = {name: value for name, value in events.items() if value is not None}
    params = SourceParams(name="files", path=".", options={"events": events}, order=order)
    ingest(params, IngestParams(), folder, folder / "out")
    found = pl.read_parquet(folder / "out" / "events.parquet")
    return found.select("user_id", "item_id", "event", "value").rows(), pl.read_parquet(
        folder / "out" / "rejected.parquet"
    )


def write(path: Path, format: str, delimiter: str = ",", is_gzip: bool = False) -> None:
    if format == "parquet":
        pl.DataFrame(ROWS, schema=NAMES, orient="row").write_parquet(path)
    elif format == "jsonl":
        path.write_text("\n".join(json.dumps(dict(zip(NAMES, row, strict=True))) for row in ROWS))
    else:
        path.write_text("\n".join(delimiter.join(map(str, row)) for row in [NAMES, *ROWS]))
    if is_gzip:
        path.write_bytes(gzip.compress(path.read_bytes()))


@pytest.mark.parametrize("is_gzip", [False, True])
@pytest.mark.parametrize(
    ("format", "delimiter"), [("csv", ","), ("csv", "\t"), ("csv", "|"), ("jsonl", ","), ("parquet", ",")]
)
def test_formats(tmp_path: Path, format: str, delimiter: str, is_gzip: bool) -> None:
    write(tmp_path / "log", format, delimiter, is_gzip)
    found, rejected = read(tmp_path, path="log", format=format, delimiter=delimiter)
    assert found == [("1", "a", "purchase", 1.5), ("1", "b", "view", 2.0), ("2", "a", "purchase", 3.0)]
    assert len(rejected) == 0


def test_patterns_read_files_in_the_order_of_their_names(tmp_path: Path) -> None:
    (tmp_path / "days").mkdir()
    for day in ("02", "01"):
        (tmp_path / "days" / f"{day}.csv").write_text(f"i,u\nx{day},1\nx{day},\n")
    columns = {"user_id": "u", "item_id": "i"}
    found, rejected = read(tmp_path, "ordered", path="days/*.csv", columns=columns, event_map={}, event="click")
    assert [row[1] for row in found] == ["x01", "x02"]
    assert rejected.select("file", "line").rows() == [("days/01.csv", 3), ("days/02.csv", 3)]


def test_columns_of_the_files_may_stand_in_any_order_but_not_be_missing(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("u,i\n1,x\n")
    (tmp_path / "b.csv").write_text("i,u\ny,2\n")
    columns = {"user_id": "u", "item_id": "i"}
    options = {"path": "*.csv", "columns": columns, "event_map": {}, "event": "click"}
    assert [row[:2] for row in read(tmp_path, "ordered", **options)[0]] == [("1", "x"), ("2", "y")]
    (tmp_path / "c.csv").write_text("u,item\n1,x\n")
    with pytest.raises(CallError, match=r"c\.csv: no column 'i'; there are \['u', 'item'\]"):
        read(tmp_path, "ordered", **options)


def test_json_lines_that_are_broken_and_fields_of_fields(tmp_path: Path) -> None:
    lines = [
        '{"a":{"u":1},"i":"x y","n":[1,2]}',
        "",
        '{"a":{"u":2},',
        "[1]",
        '{"a":{},"i":"z"}',
        '{"a":{"u":7},"i":"é"}',
    ]
    (tmp_path / "log").write_text("\n".join(lines), encoding="utf-8")
    columns = {"user_id": "a.u", "item_id": "i"}
    options = {
        "path": "log",
        "format": "jsonl",
        "columns": columns,
        "event_map": {},
        "event": "click",
        "context": ["n"],
    }
    found, rejected = read(tmp_path, "ordered", **options)
    assert found == [("1", "x y", "click", None), ("7", "é", "click", None)]
    assert rejected.select("line", "reason", "raw").rows() == [
        (3, "broken row: no JSON", '{"a":{"u":2},'),
        (4, "broken row: no JSON object", "[1]"),
        (5, "missing user_id", '{"a":{},"i":"z"}'),
    ]
    context = pl.read_parquet(tmp_path / "out" / "events.parquet")["context"].to_list()
    assert [json.loads(value) for value in context] == [{"n": "[1,2]"}, {"n": None}]


def test_parquet_rows_are_counted_from_one_and_kept_as_json(tmp_path: Path) -> None:
    pl.DataFrame({"u": [1, None], "i": [10, 20]}).write_parquet(tmp_path / "log")
    columns = {"user_id": "u", "item_id": "i"}
    options = {"path": "log", "format": "parquet", "columns": columns, "event_map": {}, "event": "click"}
    found, rejected = read(tmp_path, "ordered", **options)
    assert found == [("1", "10", "click", None)]
    assert rejected.row(0)[1:4] == ("log", 2, "missing user_id")
    assert json.loads(rejected["raw"][0]) == {"u": None, "i": 20, "file_row_number": 1}


def test_times_in_another_format_and_decimal_commas(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("u;i;t;v\n1;a;24.12.2019 18:30;1.234,5\n1;b;12/24/2019;1\n1;c;;1\n")
    columns = {"user_id": "u", "item_id": "i", "timestamp": "t", "value": "v"}
    options = {
        "path": "log",
        "columns": columns,
        "event_map": {},
        "event": "purchase",
        "delimiter": ";",
        "decimal": ",",
    }
    found, rejected = read(tmp_path, timestamp_format="%d.%m.%Y %H:%M", **options)
    assert found == [("1", "a", "purchase", 1234.5)]
    assert rejected["reason"].to_list() == ["unreadable timestamp", "missing timestamp"]
    times = pl.read_parquet(tmp_path / "out" / "events.parquet")["timestamp"]
    assert times.dt.to_string("%Y-%m-%d %H:%M").to_list() == ["2019-12-24 18:30"]


@pytest.mark.parametrize("block", [1000, 1 << 20])
def test_a_damaged_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr("recops.data.sources._text.BLOCK_BYTES", block)
    text = ",".join(NAMES) + "\n" + "".join(f"{i},{i * 7919},2020-01-01,buy,{i}\n" for i in range(5000))
    packed = gzip.compress(text.encode())
    (tmp_path / "log").write_bytes(packed[: len(packed) // 2])
    with pytest.raises(CallError, match="log: cannot be read to its end"):
        read(tmp_path, path="log")
    assert not (tmp_path / "out" / "events.parquet").exists()
    (tmp_path / "log").write_bytes(b"PAR1 and no more")
    with pytest.raises(CallError, match="not readable as Parquet"):
        read(tmp_path, path="log", format="parquet")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"path": "none.csv"}, r"none\.csv: no such file"),
        ({"event": "click"}, r"set either `event`"),
        ({"columns": {"user_id": "u"}, "event": "click"}, "item_id must name a column"),
        ({"columns": COLUMNS | {"colour": "c"}}, "'colour' is no column of events"),
        ({"delimiter": "::"}, r"source\.options\.events\.delimiter"),
        ({"encoding": "klingon"}, "no encoding named 'klingon'"),
    ],
)
def test_wrong_settings_are_named(tmp_path: Path, options: dict, says: str) -> None:
    write(tmp_path / "log", "csv")
    with pytest.raises(CallError, match=says):
        read(tmp_path, **({"path": "log"} | options))


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    write(tmp_path / "events.csv", "csv")
    for path in (".", ""):
        with pytest.raises(CallError, match="no such file"):
            read(tmp_path, path=path)


@pytest.mark.parametrize(
    "times",
    [
        pl.Series([2**62, -(2**61), 1_577_836_800_000_000]).cast(pl.Datetime("us")),
        pl.Series([2**30, -(2**29), 18_262]).cast(pl.Date),
    ],
)
def test_typed_times_that_no_calendar_holds_are_rejected(tmp_path: Path, times: pl.Series) -> None:
    frame = pl.DataFrame({"u": ["1", "2", "3"], "i": ["a"] * 3, "t": times, "k": ["buy"] * 3, "v": [1.0] * 3})
    frame.write_parquet(tmp_path / "events.parquet")
    events, rejected = read(tmp_path, path="events.parquet", format="parquet")
    assert events == [("3", "a", "purchase", 1.0)]
    assert rejected["reason"].to_list() == ["unreadable timestamp"] * 2
    kept = pl.read_parquet(tmp_path / "out" / "events.parquet")["timestamp"]
    assert kept.dt.year().to_list() == [2020]


def test_typed_times_that_cannot_be_read_at_all_are_told(tmp_path: Path) -> None:
    times = pl.Series([2**55]).cast(pl.Datetime("ms", "UTC"))
    pl.DataFrame({"u": ["1"], "i": ["a"], "t": times, "k": ["buy"], "v": [1.0]}).write_parquet(tmp_path / "e.parquet")
    with pytest.raises(CallError, match="a value that cannot be read"):
        read(tmp_path, path="e.parquet", format="parquet")
