"""Rows of text files are cut as the csv module cuts them, with the line each starts on."""

import csv
import gzip
import io
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recops.data.sources import _text
from recops.data.sources._text import Dialect, read_delimited, read_lines, text_file
from recops.errors import CallError


def rows(path: Path, columns: list[str], dialect: Dialect | None = None) -> list[tuple]:
    """(line, reject, fields…) of a file, in its order."""
    table = read_delimited([text_file(path)], dialect or Dialect(), columns).read_all().sort_by("_row")
    names = ["_line", "_reject", *columns]
    return list(zip(*(table.column(name).to_pylist() for name in names), strict=True))


def test_lines_with_quoted_newlines_blank_lines_and_crlf(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b'a,b\r\n1,x\r\n\r\n2,"two\nlines"\n3,"a ""quoted"" word"\n4\n5,y')
    assert rows(path, ["a", "b"]) == [
        (2, None, "1", "x"),
        (4, None, "2", "two\nlines"),
        (6, None, "3", 'a "quoted" word'),
        (7, "broken row: expected 2 fields, found 1", None, None),
        (8, None, "5", "y"),
    ]
    raw = read_delimited([text_file(path)], Dialect(), ["a"]).read_all().sort_by("_row")["_raw"].to_pylist()
    assert raw[1] == '2,"two\nlines"\n'


def test_an_open_quote_costs_one_line(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('a,b\n1,5" nails\n2,"never closed\n3,x\n4,"two\nlines"\n5,y\n')
    assert rows(path, ["a", "b"]) == [
        (2, None, "1", '5" nails'),
        (3, "broken row: ',' expected after '\"'", None, None),
        (4, None, "3", "x"),
        (5, None, "4", "two\nlines"),
        (7, None, "5", "y"),
    ]
    path.write_text('a,b\n1,5" nails\n2,x\n3,"never closed\n4,y\n5,z')
    assert rows(path, ["a", "b"]) == [
        (2, None, "1", '5" nails'),
        (3, None, "2", "x"),
        (4, "broken row: unexpected end of data", None, None),
        (5, None, "4", "y"),
        (6, None, "5", "z"),
    ]


@pytest.mark.parametrize("block", [16, 64, 1 << 20])
def test_blocks_make_no_difference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr(_text, "BLOCK_BYTES", block)
    path = tmp_path / "a.csv.gz"
    text = "a;b\n" + "".join(f'{i};"ü\n{i}"\n' if i % 3 else f"{i};ü{i}\n\n" for i in range(200))
    path.write_bytes(gzip.compress(text.encode("utf-16")))
    found = rows(path, ["a", "b"], Dialect(";", encoding="utf-16"))
    assert [row[2] for row in found] == [str(i) for i in range(200)]
    assert [row[3] for row in found] == [f"ü\n{i}" if i % 3 else f"ü{i}" for i in range(200)]
    lines = text.split("\n")
    assert all(lines[line - 1].startswith(f"{a};") for line, _, a, _ in found)


field = st.text(alphabet='ab,"\n;é ', max_size=6)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.lists(field, min_size=2, max_size=2), max_size=8), st.sampled_from([8, 40, 1 << 20]))
def test_what_the_csv_module_writes_is_read_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: list[list[str]], block: int
) -> None:
    monkeypatch.setattr(_text, "BLOCK_BYTES", block)
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows([["a", "b"], *written])
    path = tmp_path / "a.csv"
    path.write_text(out.getvalue(), encoding="utf-8", newline="")
    assert [[row[2], row[3]] for row in rows(path, ["a", "b"])] == written


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(alphabet='a,"\n\r', max_size=40), st.sampled_from([4, 1 << 20]))
def test_no_line_of_any_text_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, block: int) -> None:
    monkeypatch.setattr(_text, "BLOCK_BYTES", block)
    path = tmp_path / "a.csv"
    path.write_text("a,b\n" + text, newline="")
    table = read_delimited([text_file(path)], Dialect(), ["a"]).read_all().sort_by("_row")
    raw = "".join(table["_raw"].to_pylist())
    blank = text.replace("\r", "").replace("\n", "")
    assert raw.replace("\r", "").replace("\n", "") == blank
    lines = table["_line"].to_pylist()
    assert lines == sorted(set(lines))


def test_lines(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"1 2\n\n3 \xff 4\r\n5")
    table = read_lines([text_file(path), text_file(path, "again")]).read_all()
    assert table["_line"].to_pylist() == [1, 3, 4] * 2
    assert table["_raw"].to_pylist()[:3] == ["1 2\n", "3 \ufffd 4\r\n", "5"]
    assert table["_file"].to_pylist() == ["a.txt"] * 3 + ["again"] * 3
    assert table["_row"].to_pylist() == list(range(6))


def test_headers(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("x,y\n")
    with pytest.raises(CallError, match=r"a\.csv: no column 'z'; there are \['x', 'y'\]"):
        read_delimited([text_file(path)], Dialect(), ["z"])
    assert rows(path, ["2"], Dialect(has_header=False)) == [(1, None, "y")]
    path.write_text("x,x\n")
    with pytest.raises(CallError, match="same name: 'x'"):
        read_delimited([text_file(path)], Dialect(), ["x"])
    with pytest.raises(CallError, match="no encoding named 'utf-99'"):
        read_delimited([text_file(path)], Dialect(encoding="utf-99"), ["x"])


@pytest.mark.parametrize("text", ["\n\n\n", "\r\n \r\n".replace(" ", "")])
def test_a_file_of_blank_lines_has_no_rows(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(text.encode())
    assert rows(path, ["a"]) == []


@pytest.mark.parametrize("data", [b"a,b\r1,x\r2,y\r", b'"a,b\n1,x\n'])
def test_a_first_line_that_is_no_header_is_told(tmp_path: Path, data: bytes) -> None:
    """Lines that end with CR alone would all be one line, the header, and their rows would be lost."""
    path = tmp_path / "a.csv"
    path.write_bytes(data)
    with pytest.raises(CallError, match=r"a\.csv: the first line .* LF or CRLF"):
        rows(path, ["a"])


@pytest.mark.parametrize("encoding", ["klingon", "base64", "rot13", "idna"])
def test_what_is_no_encoding_of_text_is_refused(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "a.csv"
    path.write_text("a,b\n1,x\n")
    with pytest.raises(CallError, match=f"no encoding named '{encoding}'"):
        rows(path, ["a"], Dialect(encoding=encoding))
