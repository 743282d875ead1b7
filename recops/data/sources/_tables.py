"""Files of known columns as SQL rows: delimited text, JSON lines or Parquet, plain or gzipped.

In: a folder and how its files are written. Out: one relation over all files that match, each row with its file, line
and raw text. Knows no table of ours: what the columns mean, the sources say.
"""

import gzip
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import duckdb
from pydantic import Field, field_validator

from recops.data.sources._text import Dialect, read_delimited, read_lines, text_file
from recops.data.sql import name, text
from recops.errors import CallError
from recops.params import Group


class FileOptions(Group):
    """How one table lies on disk. `columns` maps our names to those in the file (in JSON lines `a.b` is a field of a
    field; without a header columns are named 1, 2, …)."""

    path: str = Field(description="file or pattern such as `day-*.csv.gz`, in the folder source.path")
    format: Literal["csv", "jsonl", "parquet"] = Field(default="csv", description="csv has any delimiter")
    delimiter: str = Field(default=",", min_length=1, max_length=1)
    quote: str | None = Field(default='"', min_length=1, max_length=1)
    encoding: str = "utf-8"
    header: bool = True
    decimal: Literal[".", ","] = "."
    columns: dict[str, str] = {}

    @field_validator("delimiter", "quote")
    @classmethod
    def _is_ascii(cls, value: str | None) -> str | None:
        if value is not None and (not value.isascii() or value in "\r\n"):
            raise ValueError("must be one ASCII character, not a line end")
        return value


def open_table(
    con: duckdb.DuckDBPyConnection,
    table: str,
    folder: Path,
    options: FileOptions,
    columns: list[str],
    download: str = "",
) -> tuple[str, Callable[[str], str]]:
    """SQL of the rows with `_file`, `_line`, `_raw`, `_row`, `_reject`, and a function from a column to its SQL.

    `table` names what is registered in `con`; the SQL can be run once, as text files are streams. Raises CallError
    naming the file (and what to `download`) or the column that is missing.
    """
    paths = matching(folder, options.path)
    if not paths:
        raise CallError(f"{folder / options.path}: no such file{'; ' if download else ''}{download}")
    columns = list(dict.fromkeys(columns))
    if options.format == "parquet":
        return _open_parquet(con, table, folder, paths, columns)
    files = [text_file(path, _name(path, folder)) for path in paths]
    if options.format == "csv":
        dialect = Dialect(options.delimiter, options.quote, options.encoding, options.header)
        con.register(f"{table}_rows", read_delimited(files, dialect, columns))
        return f"{table}_rows", name
    con.register(f"{table}_rows", read_lines(files, options.encoding))
    keys = ["$." + ".".join(json.dumps(part, ensure_ascii=False) for part in column.split(".")) for column in columns]
    parsed = f"json_extract_string(TRY_CAST(_raw AS JSON), [{', '.join(map(text, keys))}])"
    relation = (
        f"(SELECT _file, _line, _raw, _row, {parsed} AS _fields, CASE "
        "WHEN NOT json_valid(_raw) THEN 'broken row: no JSON' "
        f"WHEN json_type(_raw) <> 'OBJECT' THEN 'broken row: no JSON object' END AS _reject FROM {table}_rows)"
    )
    return relation, lambda column: f"_fields[{columns.index(column) + 1}]"


def _open_parquet(
    con: duckdb.DuckDBPyConnection, table: str, folder: Path, paths: list[Path], columns: list[str]
) -> tuple[str, Callable[[str], str]]:
    spill = Path(con.execute("SELECT current_setting('temp_directory')").fetchone()[0])  # type: ignore[index]
    parts = []
    for i, path in enumerate(paths):
        local = path
        with path.open("rb") as file:
            is_gzip = file.read(2) == b"\x1f\x8b"
        if is_gzip:
            # Parquet needs to seek, so a gzipped file is unpacked beside the other temporary files.
            spill.mkdir(parents=True, exist_ok=True)
            local = spill / f"{table}-{i}.parquet"
            with gzip.open(path) as packed, local.open("wb") as unpacked:
                shutil.copyfileobj(packed, unpacked, 1 << 20)
        try:
            there = [row[0] for row in con.execute(f"DESCRIBE FROM read_parquet({text(local)})").fetchall()]
        except duckdb.Error as error:
            raise CallError(f"{path}: not readable as Parquet: {error}") from None
        missing = [column for column in columns if column not in there]
        if missing:
            raise CallError(f"{path}: no column {', '.join(map(repr, missing))}; there are {there}")
        parts.append(
            f"SELECT {', '.join(map(name, columns))}, {text(_name(path, folder))} AS _file, "
            f"file_row_number + 1 AS _line, {i} * 1000000000000 + file_row_number AS _row, "
            "to_json(_whole)::VARCHAR AS _raw, NULL AS _reject "
            f"FROM read_parquet({text(local)}, file_row_number = true) _whole"
        )
    return f"({' UNION ALL '.join(parts)})", name


def matching(folder: Path, pattern: str) -> list[Path]:
    """Files of `folder` that `pattern` names, sorted; an absolute pattern stands for itself. Empty: none."""
    path = folder / pattern
    if path.is_file():
        return [path]
    root = Path(path.anchor) if Path(pattern).is_absolute() else folder
    relative = str(path.relative_to(root)) if path.is_relative_to(root) else pattern
    if not root.is_dir() or relative in ("", "."):
        return []
    return sorted(p for p in root.glob(relative) if p.is_file())


def _name(path: Path, folder: Path) -> str:
    return str(path.relative_to(folder)) if path.is_relative_to(folder) else path.name
