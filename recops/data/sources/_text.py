"""Text files of any size as Arrow streams that know the file, line and raw text of every row.

In: plain or gzipped files in any encoding. Out: batches with `_file`, `_line` (from 1), `_raw`, `_row` (the place
among all rows: DuckDB's threads take batches in any order) and, for delimited files, the fields as text; a row that
cannot be cut into its fields comes with `_reject` and no fields. Undecodable bytes become the replacement character.
Knows no table and no column's meaning.
"""

import codecs
import csv
import gzip
import io
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa
from pyarrow import csv as arrow_csv

from recops.errors import CallError

BLOCK_BYTES = 8 << 20
MAX_FIELD = 131_072  # the csv module's own limit: a field that long is a quote that was never closed
NEWLINE, RETURN = 10, 13
LINE_SCHEMA = pa.schema(
    [
        ("_file", pa.dictionary(pa.int8(), pa.string())),
        ("_line", pa.int64()),
        ("_raw", pa.string()),
        ("_row", pa.int64()),
    ]
)


@dataclass(frozen=True)
class TextFile:
    """One text to read: its name in messages and rejected rows, and how to open its bytes."""

    name: str
    open: Callable[[], BinaryIO]


def text_file(path: Path, name: str | None = None) -> TextFile:
    """A plain or gzipped file: which of the two, its first bytes say. `name` is used in messages."""

    def opened() -> BinaryIO:
        with path.open("rb") as file:
            is_gzip = file.read(2) == b"\x1f\x8b"
        return gzip.open(path, "rb") if is_gzip else path.open("rb")  # type: ignore[return-value]

    return TextFile(name or path.name, opened)


def read_lines(files: Sequence[TextFile], encoding: str = "utf-8") -> pa.RecordBatchReader:
    """Lines that are not blank: `_file`, `_line`, `_raw`, `_row`. Lines end with LF or CRLF."""

    def batches() -> Iterator[pa.RecordBatch]:
        next_row = 0
        for file in files:
            line = 1
            for block in _blocks(file, encoding):
                raw, lines, num_lines = _records(block, None)
                yield _batch(LINE_SCHEMA, file.name, lines + line, raw, next_row + np.arange(len(raw)), [])
                line += num_lines
                next_row += len(raw)

    return pa.RecordBatchReader.from_batches(LINE_SCHEMA, batches())


@dataclass(frozen=True)
class Dialect:
    """How a delimited file is written. `quote` None: quotes are ordinary characters."""

    delimiter: str = ","
    quote: str | None = '"'
    encoding: str = "utf-8"
    has_header: bool = True

    def reader(self, lines: Iterator[str]) -> Iterator[list[str]]:
        if self.quote is None:
            return csv.reader(lines, delimiter=self.delimiter, quoting=csv.QUOTE_NONE)
        return csv.reader(lines, delimiter=self.delimiter, quotechar=self.quote, strict=True)


def header(file: TextFile, dialect: Dialect) -> list[str]:
    """Names of the columns: of the first row, or `1`, `2`, … without one. An empty file has none."""
    lines = _lines_of(b"", _blocks(file, dialect.encoding))
    try:
        first = next((row for row in dialect.reader(lines) if row), [])
    except csv.Error as error:
        raise CallError(
            f"{file.name}: the first line cannot be cut into fields ({error}); lines must end with LF or CRLF, and "
            "every quote must be closed"
        ) from None
    names = [name.strip() for name in first] if dialect.has_header else [str(i + 1) for i in range(len(first))]
    if len(set(names)) < len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise CallError(f"{file.name}: columns with the same name: {', '.join(map(repr, twice))}; rename them")
    return names


def read_delimited(files: Sequence[TextFile], dialect: Dialect, columns: Sequence[str]) -> pa.RecordBatchReader:
    """Rows of all files: `_file`, `_line` (where the row starts), `_raw`, `_row`, `_reject` and the
    text of `columns`.

    Blank lines are no rows. A row with more or fewer fields than the first one is rejected. Fields may hold quoted
    newlines. Raises CallError at once when a file lacks one of `columns`.
    """
    names = {file.name: header(file, dialect) for file in files}
    for file in files:
        missing = [column for column in columns if column not in names[file.name]]
        if missing and names[file.name]:
            raise CallError(f"{file.name}: no column {', '.join(map(repr, missing))}; there are {names[file.name]}")
    schema = pa.schema([*LINE_SCHEMA, ("_reject", pa.string()), *((column, pa.string()) for column in columns)])

    def batches() -> Iterator[pa.RecordBatch]:
        next_row = 0
        for file in files:
            if not names[file.name]:
                continue  # nothing but blank lines
            reader = _DelimitedFile(file, dialect, names[file.name], columns, schema, next_row)
            yield from reader.batches()
            next_row = reader.next_row

    return pa.RecordBatchReader.from_batches(schema, batches())


class _DelimitedFile:
    """Cuts one file into rows: whole blocks by Arrow and, from the first block with a quote in the middle of a field,
    row by row with the csv module, which is slower and can recover from a quote that is never closed."""

    def __init__(
        self,
        file: TextFile,
        dialect: Dialect,
        names: list[str],
        columns: Sequence[str],
        schema: pa.Schema,
        next_row: int,
    ) -> None:
        self.file, self.dialect, self.names, self.columns, self.schema = file, dialect, names, columns, schema
        self.is_header_due = dialect.has_header
        self.next_line, self.next_row = 1, next_row

    def batches(self) -> Iterator[pa.RecordBatch]:
        blocks = _blocks(self.file, self.dialect.encoding)
        rest = b""
        for block in blocks:
            block = rest + block
            end = self._whole_records(block)
            if len(block) - end > BLOCK_BYTES:
                yield from self._row_by_row(block, blocks)
                return
            whole, rest = block[:end], block[end:]
            if not whole:
                continue
            batches = self._by_block(whole)
            if batches is None:
                yield from self._row_by_row(block, blocks)
                return
            yield from batches
        if rest:
            yield from self._row_by_row(rest, iter(()))

    def _whole_records(self, block: bytes) -> int:
        """Where the last record that ends in `block` ends."""
        if self.dialect.quote is None or self.dialect.quote.encode() not in block:
            return block.rfind(b"\n") + 1
        ends, _ = _record_ends(np.frombuffer(block, np.uint8), ord(self.dialect.quote))
        return int(ends[-1]) + 1 if len(ends) else 0

    def _by_block(self, block: bytes) -> list[pa.RecordBatch] | None:
        """The rows of whole records, or None when it is not certain where a record ends."""
        if not _is_regular(block, self.dialect):
            return None
        raw, lines, num_lines = _records(block, self.dialect.quote)
        lines = lines + self.next_line
        invalid: dict[int, str] = {}

        def keep(row: arrow_csv.InvalidRow) -> str:
            invalid[row.number - 1] = f"broken row: expected {row.expected_columns} fields, found {row.actual_columns}"
            return "skip"

        skipped = 1 if self.is_header_due and len(raw) else 0
        try:
            table = arrow_csv.read_csv(
                pa.BufferReader(block),
                arrow_csv.ReadOptions(
                    use_threads=False, block_size=len(block) + 1, column_names=self.names, skip_rows_after_names=skipped
                ),
                arrow_csv.ParseOptions(
                    delimiter=self.dialect.delimiter,
                    quote_char=self.dialect.quote or False,
                    newlines_in_values=self.dialect.quote is not None,
                    invalid_row_handler=keep,
                ),
                arrow_csv.ConvertOptions(
                    check_utf8=False,
                    column_types={name: pa.string() for name in self.names},
                    include_columns=list(self.columns),
                ),
            )
        except pa.ArrowInvalid:
            return None
        if len(table) + len(invalid) + skipped != len(raw):
            return None
        self.is_header_due = self.is_header_due and not skipped
        self.next_line += num_lines
        places = self.next_row + np.arange(len(raw))
        self.next_row += len(raw)
        broken = np.zeros(len(raw), bool)
        broken[list(invalid)] = True
        good = ~broken
        good[:skipped] = False
        good_raw = raw if good.all() else raw.filter(pa.array(good))
        batches = []
        if len(table):
            fields = [table.column(column).combine_chunks() for column in self.columns]
            none = pa.nulls(len(table), pa.string())
            batches.append(_batch(self.schema, self.file.name, lines[good], good_raw, places[good], [none, *fields]))
        if invalid:
            rows = sorted(invalid)
            reasons = pa.array([invalid[row] for row in rows], pa.string())
            nothing = [pa.nulls(len(rows), pa.string()) for _ in self.columns]
            batches.append(
                _batch(self.schema, self.file.name, lines[rows], raw.take(rows), places[rows], [reasons, *nothing])
            )
        return batches

    def _row_by_row(self, block: bytes, blocks: Iterator[bytes]) -> Iterator[pa.RecordBatch]:
        """The rest of the file. A quote that is never closed costs the line it stands on, no more."""
        waiting: deque[str] = deque()
        taken: list[str] = []
        source = _lines_of(block, blocks)

        def lines() -> Iterator[str]:
            while True:
                line = waiting.popleft() if waiting else next(source, None)
                if line is None:
                    return
                taken.append(line)
                yield line

        rows: list[tuple[int, str, str | None, list[str | None]]] = []
        positions = [self.names.index(column) for column in self.columns]
        nothing: list[str | None] = [None] * len(self.columns)
        while True:
            taken.clear()
            reason = None
            try:
                row = next(self.dialect.reader(lines()), None)
                if row is None:
                    break
            except csv.Error as error:
                reason = f"broken row: {error}"
                waiting.extendleft(reversed(taken[1:]))
                del taken[1:]
                row = []
            line, raw = self.next_line, "".join(taken)
            self.next_line += len(taken)
            if not row and reason is None:
                continue
            if self.is_header_due:
                self.is_header_due = False
                continue
            if reason is None and len(row) != len(self.names):
                reason = f"broken row: expected {len(self.names)} fields, found {len(row)}"
            rows.append((line, raw, reason, nothing if reason else [row[i] for i in positions]))
            if len(rows) == 100_000:
                yield self._batch_of(rows)
                rows = []
        if rows:
            yield self._batch_of(rows)

    def _batch_of(self, rows: list[tuple[int, str, str | None, list[str | None]]]) -> pa.RecordBatch:
        fields = [pa.array([row[3][i] for row in rows], pa.string()) for i in range(len(self.columns))]
        places = self.next_row + np.arange(len(rows))
        self.next_row += len(rows)
        return _batch(
            self.schema,
            self.file.name,
            np.array([row[0] for row in rows], np.int64),
            pa.array([row[1] for row in rows], pa.string()),
            places,
            [pa.array([row[2] for row in rows], pa.string()), *fields],
        )


def _blocks(file: TextFile, encoding: str) -> Iterator[bytes]:
    """The file as UTF-8 in blocks that end at a line's end (the last one perhaps not), without a byte order mark."""
    try:
        b"a".decode(encoding, errors="replace")  # some codecs are not made for text, or cannot replace
        decoder = codecs.getincrementaldecoder(encoding)(errors="replace")
    except (LookupError, UnicodeError):
        raise CallError(f"no encoding named {encoding!r}: try utf-8, cp1252, latin-1 or utf-16") from None
    rest = b""
    is_first = True
    with file.open() as stream:
        while True:
            try:
                data = stream.read(BLOCK_BYTES)
            except (EOFError, OSError, zlib.error) as error:
                raise CallError(f"{file.name}: cannot be read to its end: {error}; get the file anew") from None
            text = decoder.decode(data, final=not data)
            if is_first and text:
                text, is_first = text.removeprefix("\ufeff"), False
            block = rest + text.encode("utf-8", errors="replace")
            if not data:
                if block:
                    yield block
                return
            end = block.rfind(b"\n") + 1
            rest = block[end:]
            if end:
                yield block[:end]


def _lines_of(block: bytes, blocks: Iterator[bytes]) -> Iterator[str]:
    """Lines with their ends, of `block` and all that follow; they end with LF or CRLF only."""
    yield from io.StringIO(block.decode(), newline="\n")
    for following in blocks:
        yield from io.StringIO(following.decode(), newline="\n")


def _record_ends(data: np.ndarray, quote: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Positions of the newlines that end a record (an even number of quotes before), and which newline each is."""
    newlines = np.flatnonzero(data == NEWLINE)
    if quote is not None:
        quotes = np.flatnonzero(data == quote)
        if len(quotes):
            is_end = np.searchsorted(quotes, newlines) % 2 == 0
            return newlines[is_end], np.flatnonzero(is_end)
    return newlines, np.arange(len(newlines))


def _is_regular(block: bytes, dialect: Dialect) -> bool:
    """Whether every quote opens or ends a whole field (or is doubled in one), so that counting them is exact."""
    if dialect.quote is None or dialect.quote.encode() not in block:
        return True
    data = np.frombuffer(b"\n" + block + b"\n", np.uint8)
    quote, delimiter = ord(dialect.quote), ord(dialect.delimiter)
    quotes = np.flatnonzero(data == quote)
    opening, closing = quotes[0::2], quotes[1::2]
    if len(opening) > len(closing):
        return False
    before, after = data[opening - 1], data[closing + 1]
    opens = (before == delimiter) | (before == NEWLINE) | (before == quote)
    closes = (after == delimiter) | (after == NEWLINE) | (after == RETURN) | (after == quote)
    return bool(opens.all() and closes.all())


def _records(block: bytes, quote: str | None) -> tuple[pa.StringArray, np.ndarray, int]:
    """Records of a block that are not blank: their raw text (with line end), the line each starts on, counted from 0,
    and the number of lines of the block."""
    data = np.frombuffer(block, np.uint8)
    ends, which = _record_ends(data, None if quote is None else ord(quote))
    num_lines = int(which[-1]) + 1 if len(which) else 0
    if not len(ends) or ends[-1] + 1 < len(data):
        ends = np.append(ends, len(data) - 1)
        which = np.append(which, num_lines)
    offsets = np.concatenate([[0], ends + 1]).astype(np.int32)
    lines = np.concatenate([[0], which[:-1] + 1]).astype(np.int64)
    raw = pa.StringArray.from_buffers(len(ends), pa.py_buffer(offsets), pa.py_buffer(block))
    length = np.diff(offsets)
    blank = (length == 1) & (data[offsets[:-1]] == NEWLINE)
    blank |= (length == 2) & (data[offsets[:-1]] == RETURN) & (data[ends] == NEWLINE)
    if blank.any():
        raw, lines = raw.filter(pa.array(~blank)), lines[~blank]
    return raw, lines, num_lines


def _batch(
    schema: pa.Schema, name: str, lines: np.ndarray, raw: pa.Array, rows: np.ndarray, fields: list[pa.Array]
) -> pa.RecordBatch:
    file = pa.DictionaryArray.from_arrays(pa.array(np.zeros(len(lines), np.int8)), pa.array([name], pa.string()))
    return pa.RecordBatch.from_arrays([file, pa.array(lines), raw, pa.array(rows), *fields], schema=schema)
