"""Looks at a file nobody has described: format, compression, encoding, delimiter, header and a sample of its rows.

In: a path. Out: `Sniffed`. Knows nothing of what the columns mean (see guess.py). Reads the first rows, and all bytes
once where the encoding has to be told from them.
"""

import codecs
import csv
import gzip
import json
import re
import zlib
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import duckdb

from recops.data.sources._text import text_file
from recops.data.sql import text
from recops.errors import CallError

SAMPLE_ROWS = 5_000
SAMPLE_BYTES = 4 << 20
DELIMITERS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar", " ": "space"}
NUMBER = re.compile(r"[+-]?\d+([.,]\d+)?([eE][+-]?\d+)?")


@dataclass
class Sniffed:
    """`options` are those of sources/files.py but for columns; `why` says what each was told from; `rows` is a sample
    by column (texts, None where empty), `columns` their names in order (1, 2, … without a header)."""

    path: Path
    options: dict[str, Any]
    why: dict[str, str]
    columns: list[str]
    rows: list[dict[str, str | None]]
    has_header: bool = True

    def values(self, column: str) -> list[str]:
        """Sampled values of a column that are not empty."""
        return [value for row in self.rows if (value := row[column]) is not None and value.strip()]


def sniff(path: Path) -> Sniffed:
    """Raises CallError when the file is missing, empty, or of no format that can be read."""
    if not path.is_file():
        raise CallError(f"{path}: no such file")
    try:
        with text_file(path).open() as stream:
            sample = stream.read(SAMPLE_BYTES)
            is_whole = not stream.read(1)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise CallError(f"{path}: damaged gzip file: {error}") from None
    with path.open("rb") as file:
        is_gzip = file.read(2) == b"\x1f\x8b"
    packed = "gzipped, by its first bytes" if is_gzip else "not gzipped"
    if sample.startswith(b"PAR1"):
        return _sniff_parquet(path, packed, is_gzip)
    encoding, told = _encoding(path, sample)
    content = codecs.getincrementaldecoder(encoding)(errors="replace").decode(sample).removeprefix("\ufeff")
    lines = [line for line in content.splitlines() if line.strip()]
    if not is_whole and len(lines) > 1:
        lines.pop()
    if not lines:
        raise CallError(f"{path}: the file is empty")
    why = {"encoding": told}
    if lines[0].lstrip().startswith("{"):
        why["format"] = f"JSON lines, as the first line is an object; {packed}"
        return _sniff_json(path, lines, {"format": "jsonl", "encoding": encoding}, why)
    if lines[0].lstrip().startswith("[{") or lines[0].strip() == "[":
        raise CallError(f"{path}: a JSON array; write JSON lines, one object on each line (jq -c '.[]' does it)")
    why["format"] = f"delimited text; {packed}"
    return _sniff_delimited(path, content, is_whole, {"format": "csv", "encoding": encoding}, why)


def _encoding(path: Path, sample: bytes) -> tuple[str, str]:
    for mark, name in (
        (codecs.BOM_UTF8, "utf-8-sig"),
        (codecs.BOM_UTF16_LE, "utf-16"),
        (codecs.BOM_UTF16_BE, "utf-16"),
    ):
        if sample.startswith(mark):
            return name, "byte order mark"
    head = sample[:1000]
    for name, zeros in (("utf-16-le", head[1::2]), ("utf-16-be", head[0::2])):
        if len(zeros) > 1 and zeros.count(0) > 0.7 * len(zeros):
            return name, "every other byte is zero"
    decoder = codecs.getincrementaldecoder("utf-8")()
    high: set[int] = set()
    is_utf8 = True
    with text_file(path).open() as stream:
        while block := stream.read(SAMPLE_BYTES):
            if block.isascii() and is_utf8:
                block = block[-1:]
            high.update(block)
            if is_utf8:
                try:
                    decoder.decode(block)
                except UnicodeDecodeError:
                    is_utf8 = False
    if is_utf8:
        return "utf-8", "every byte is valid UTF-8"
    # Bytes 80 to 9F are letters and signs in Windows' code page and control characters in Latin-1.
    if any(0x80 <= byte <= 0x9F for byte in high):
        return "cp1252", "not valid UTF-8, and bytes 80 to 9F are there"
    return "latin-1", "not valid UTF-8, and no bytes 80 to 9F"


def _sniff_parquet(path: Path, packed: str, is_gzip: bool) -> Sniffed:
    if is_gzip:
        raise CallError(f"{path}: a gzipped Parquet file cannot be looked into; unpack it first (gunzip)")
    try:
        with duckdb.connect() as con:
            result = con.execute(f"SELECT * FROM read_parquet({text(path)}) LIMIT {SAMPLE_ROWS}")
            columns = [column[0] for column in result.description or []]
            found = result.fetchall()
    except duckdb.Error as error:
        raise CallError(f"{path}: not readable as Parquet: {error}") from None
    rows = [
        {column: None if value is None else str(value) for column, value in zip(columns, row, strict=True)}
        for row in found
    ]
    return Sniffed(path, {"format": "parquet"}, {"format": f"Parquet, by its first bytes; {packed}"}, columns, rows)


def _sniff_json(path: Path, lines: list[str], options: dict[str, Any], why: dict[str, str]) -> Sniffed:
    rows: list[dict[str, str | None]] = []
    for line in lines[:SAMPLE_ROWS]:
        try:
            row = json.loads(line)
            if isinstance(row, dict):
                rows.append(_flat(row))
        except (ValueError, RecursionError):
            continue
    if not rows:
        raise CallError(f"{path}: starts like JSON lines but no line is a JSON object; write one object on each line")
    columns = list(dict.fromkeys(column for row in rows for column in row))
    return Sniffed(path, options, why, columns, [{column: row.get(column) for column in columns} for row in rows])


def _flat(row: dict[str, Any], prefix: str = "") -> dict[str, str | None]:
    """Fields of fields as `a.b`."""
    flat: dict[str, str | None] = {}
    for key, value in row.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        elif value is None or isinstance(value, str):
            flat[prefix + key] = value
        else:
            flat[prefix + key] = json.dumps(value)
    return flat


def _sniff_delimited(path: Path, content: str, is_whole: bool, options: dict[str, Any], why: dict[str, str]) -> Sniffed:
    best: tuple[float, int, str, list[list[str]]] | None = None
    for delimiter in DELIMITERS:
        rows = [row for row in islice(_rows(content, delimiter), SAMPLE_ROWS + 1) if row]
        if not is_whole and 1 < len(rows) <= SAMPLE_ROWS:
            rows.pop()
        width = len(rows[0]) if rows else 0
        agreement = sum(len(row) == width for row in rows) / max(len(rows), 1)
        if width > 1 and agreement >= 0.8 and (best is None or (agreement > 0.95, width) > (best[0] > 0.95, best[1])):
            best = agreement, width, delimiter, rows
    if best is None:
        first = content.splitlines()[0][:80]
        raise CallError(
            f"{path}: no delimiter of {', '.join(DELIMITERS.values())} gives rows of the same length; "
            f"the first line is {first!r}"
        )
    agreement, width, delimiter, rows = best
    options["delimiter"] = delimiter
    why["delimiter"] = f"{DELIMITERS[delimiter]}: {agreement:.0%} of the rows then have {width} fields"
    has_header, told = _header(rows)
    options["header"], why["header"] = has_header, told
    columns = [name.strip() for name in rows[0]] if has_header else [str(i + 1) for i in range(width)]
    rows = [row for row in rows[1 if has_header else 0 :] if len(row) == width]
    return Sniffed(path, options, why, columns, [dict(zip(columns, row, strict=True)) for row in rows], has_header)


def _rows(content: str, delimiter: str) -> Any:
    reader = csv.reader(content.splitlines(keepends=True), delimiter=delimiter)
    while True:
        try:
            row = next(reader, None)
        except csv.Error:
            continue
        if row is None:
            return
        yield row


def _header(rows: list[list[str]]) -> tuple[bool, str]:
    first = [cell.strip() for cell in rows[0]]
    if any(not cell or NUMBER.fullmatch(cell) or re.match(r"\d{1,4}[-./]\d", cell) for cell in first):
        return False, "the first row holds numbers or times"
    if len(set(first)) < len(first):
        return False, "the first row repeats a value"
    for i, cell in enumerate(first):
        below = [row[i] for row in rows[1:200] if len(row) == len(first)]
        if below and cell not in below and sum(bool(re.match(r"[+-]?\d", value)) for value in below) > 0.8 * len(below):
            return True, f"{cell!r} stands above numbers or times"
    return True, "no field of the first row is a number or a time"
