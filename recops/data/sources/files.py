"""The user's own log: CSV, TSV, JSON lines or Parquet, each also gzipped, with any names of columns.

In: files in the folder `source.path`, named and described by `source.options`. Out: events and, where there are such
files, items and users. Rows that cannot be cut into fields are handed on with the reason, file, line and raw text.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import duckdb
from pydantic import Field

from recops.data.sources._tables import FileOptions, open_table
from recops.data.sql import name, text
from recops.errors import CallError
from recops.params import Group
from recops.schema import EVENTS, ITEMS, USERS


class EventFileOptions(FileOptions):
    event: str | None = Field(default=None, description="the kind of every event; or name a column in columns.event")
    event_map: dict[str, str] = Field(default={}, description="from the file's kinds of event to ours")
    timestamp_unit: Literal["s", "ms", "us", "iso"] = "iso"
    timestamp_format: str | None = Field(
        default=None, description="strptime format of times that are not ISO, read as UTC"
    )
    context: list[str] = Field(default=[], description="further columns to keep, as JSON")


class EntityFileOptions(FileOptions):
    categories_separator: str | None = Field(default=None, description="between the categories of an item")
    attributes: list[str] = Field(default=[], description="further columns to keep, as JSON")


class Files:
    class Options(Group):
        events: EventFileOptions
        items: EntityFileOptions | None = None
        users: EntityFileOptions | None = None

        @property
        def timestamp_unit(self) -> str:
            return self.events.timestamp_unit

    download = "put your files there; `recops init DIR --events F` looks at them and writes these settings"

    def __init__(self, options: Options, path: Path | None) -> None:
        self.options = options
        self.folder = Path() if path is None else path

    def relations(self, con: duckdb.DuckDBPyConnection) -> dict[str, str]:
        """The tables named in the options. Raises CallError naming the file or column that is missing."""
        result = {"events": self._events(con)}
        if self.options.items:
            result["items"] = self._entities(con, "items", self.options.items, list(ITEMS))
        if self.options.users:
            result["users"] = self._entities(con, "users", self.options.users, list(USERS))
        return result

    def _events(self, con: duckdb.DuckDBPyConnection) -> str:
        options = self.options.events
        _check_columns("events", options, list(EVENTS), ("user_id", "item_id"))
        if (options.event is None) == ("event" not in options.columns):
            raise CallError(
                "source.options.events: set either `event` (one kind for all rows) or `columns.event` (a column of "
                f"kinds); found event={options.event!r} and columns.event={options.columns.get('event')!r}"
            )
        relation, field = open_table(
            con, "events", self.folder, options, [*options.columns.values(), *options.context], self.download
        )
        select = {column: field(theirs) for column, theirs in options.columns.items()}
        reject = "_reject"
        if options.event is not None:
            select["event"] = text(options.event)
        elif options.event_map:
            cases = " ".join(f"WHEN {text(theirs)} THEN {text(ours)}" for theirs, ours in options.event_map.items())
            kind = f"trim({select['event']}::VARCHAR)"
            select["event"] = f"CASE {kind} {cases} ELSE {kind} END"
        if "value" in select:
            select["value"] = _decimal(select["value"], options)
        if options.timestamp_format is not None and "timestamp" in select:
            raw = f"nullif(trim({select['timestamp']}::VARCHAR), '')"
            select["timestamp"] = f"try_strptime({raw}, {text(options.timestamp_format)})"
            unreadable = f"{raw} IS NOT NULL AND {select['timestamp']} IS NULL"
            reject = f"CASE WHEN _reject IS NOT NULL THEN _reject WHEN {unreadable} THEN 'unreadable timestamp' END"
        if options.context:
            select["context"] = _json(field, options.context)
        return _select(select, reject, relation)

    def _entities(
        self, con: duckdb.DuckDBPyConnection, table: str, options: EntityFileOptions, known: list[str]
    ) -> str:
        _check_columns(table, options, known, (known[0],))
        relation, field = open_table(
            con, table, self.folder, options, [*options.columns.values(), *options.attributes], self.download
        )
        select = {column: field(theirs) for column, theirs in options.columns.items()}
        if "price" in select:
            select["price"] = _decimal(select["price"], options)
        if "categories" in select and options.categories_separator is not None:
            parts = f"string_split({select['categories']}::VARCHAR, {text(options.categories_separator)})"
            select["categories"] = f"list_filter(list_transform({parts}, lambda x: trim(x)), lambda x: x <> '')"
        elif "categories" in select and options.format == "jsonl":
            raw = select["categories"]
            select["categories"] = f"CASE WHEN {raw} LIKE '[%' THEN {raw}::JSON::VARCHAR[] ELSE [{raw}] END"
        if options.attributes:
            select["attributes"] = _json(field, options.attributes)
        return _select(select, "_reject", relation)


def _check_columns(table: str, options: FileOptions, known: list[str], required: tuple[str, ...]) -> None:
    for column in options.columns:
        if column not in known:
            raise CallError(f"source.options.{table}.columns: {column!r} is no column of {table}; there are {known}")
    for column in required:
        if column not in options.columns:
            raise CallError(f"source.options.{table}.columns: {column} must name a column of {options.path}")


def _decimal(column: str, options: FileOptions) -> str:
    """A number as it stands, or with its decimal comma (and points between thousands) made a decimal point."""
    return f"replace(replace({column}::VARCHAR, '.', ''), ',', '.')" if options.decimal == "," else column


def _json(field: Callable[[str], str], columns: list[str]) -> str:
    return f"json_object({', '.join(f'{text(column)}, {field(column)}' for column in columns)})::VARCHAR"


def _select(select: dict[str, str], reject: str, relation: str) -> str:
    columns = ", ".join(f"{sql} AS {name(column)}" for column, sql in select.items())
    return f"SELECT _file, _line, _raw, _row, {reject} AS _reject, {columns} FROM {relation}"
