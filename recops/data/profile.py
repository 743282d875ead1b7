"""Aggregates over every row of the project's tables, in bounded memory: what expectations judge.

In: Parquet files by table name. Out: one value per metric (a SQL aggregate over a table), types of the columns, and a
few rows that show what is wrong. DuckDB reads the files in passes and spills to disk. Knows no rule and no verdict.
"""

import math
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import date, datetime
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import duckdb

from recops.errors import CallError
from recops.schema import TABLES

MEMORY_LIMIT = "3GB"
NUM_EXAMPLES = 5

# How a type of schema.py reads in Parquet, in DuckDB's words.
SQL_TYPES = {
    "str": ("VARCHAR",),
    "json": ("VARCHAR", "JSON"),
    "float32": ("FLOAT",),
    "int32": ("INTEGER",),
    "int64": ("BIGINT",),
    "bool": ("BOOLEAN",),
    "time": ("TIMESTAMP WITH TIME ZONE",),
    "list[str]": ("VARCHAR[]",),
}
SPLIT = {
    "user_id": "str",
    "item_id": "str",
    "timestamp": "time",
    "event": "str",
    "value": "float32",
    "signal": "str",
    "weight": "float32",
}
PARTS = ("train", "valid", "test")
COLUMNS: dict[str, dict[str, str]] = {**TABLES, **dict.fromkeys(PARTS, SPLIT), "split": {**SPLIT, "part": "str"}}

# What DuckDB says of a column or table that is not there.
UNBOUND = (duckdb.BinderException, duckdb.CatalogException)

# Marks of text decoded with the wrong encoding: the replacement character, UTF-8 read as Latin-1 or Windows-1252.
DAMAGE = r"\x{FFFD}|[ÃÂ][\x{80}-\x{BF}]|Ã[ƒ€‚„…†‡ˆ‰Š‹ŒŽ‘’“”•–—˜™š›œžŸ]|â€[\x{80}-\x{BF}™œ“”˜¦¢]|ï»¿"


def literal(value: Any) -> str:
    """`value` (JSON-like, or a datetime) as SQL. A list gives a tuple for IN, a dict a map; None gives null."""
    if value is None:
        return "null"
    if isinstance(value, bool | int):
        return str(value).lower()
    if isinstance(value, float):
        return repr(value) if math.isfinite(value) else "null"
    if isinstance(value, Mapping):
        return "map {" + ", ".join(f"{literal(k)}: {literal(v)}" for k, v in value.items()) + "}" if value else "null"
    if isinstance(value, list | tuple):
        return "(" + ", ".join(map(literal, value or [""])) + ")"
    return "'" + str(value).replace("'", "''") + "'"


def filled(sql: str, settings: Mapping[str, Any], accepted: Mapping[str, Any]) -> str:
    """`sql` with `$name` replaced by a setting and `$accepted.name` by a figure of the last accepted profile.

    A figure that was not accepted before is null. Raises KeyError for an unknown setting.

    >>> filled("max(value) > $accepted.high and event not in $kinds", {"kinds": ["view", "it's"]}, {})
    "max(value) > null and event not in ('view', 'it''s')"
    """

    def replace(match: re.Match[str]) -> str:
        name = match.group(1)
        return literal(accepted.get(name[9:]) if name.startswith("accepted.") else settings[name])

    return re.sub(r"\$([a-z_]+(?:\.[a-z_]+)?)", replace, sql)


def plain(value: Any) -> Any:
    """A value of DuckDB as JSON: times as ISO text in UTC, non-finite numbers as text."""
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    return value if value is None or isinstance(value, bool | int | float | str) else float(value)


class Profiler:
    """Metrics over a set of tables. A column whose type is not that of its table's schema is hidden from metrics."""

    def __init__(self, con: duckdb.DuckDBPyConnection, tables: Mapping[str, Path]) -> None:
        self.con = con
        self.types: dict[str, dict[str, str]] = {}
        self.num_rows: dict[str, int] = {}
        self.unreadable: dict[str, str] = {}
        for name, path in tables.items():
            self._open(name, path)

    def _open(self, name: str, path: Path) -> None:
        if not path.is_file():
            raise CallError(f"{path}: no such file, expected the table {name}; run `recops ingest` first")
        source = f"read_parquet({literal(path)})"
        self.types[name], self.num_rows[name] = {}, 0
        try:
            described = self.con.execute(f"describe select * from {source}").fetchall()
            self.num_rows[name] = self.con.execute(f"select count(*) from {source}").fetchall()[0][0]
        except duckdb.Error as error:
            self.unreadable[name] = str(error).splitlines()[0].replace(str(path), path.name)
            return
        self.types[name] = {column: kind for column, kind, *_ in described}
        columns = []
        for column, kind in COLUMNS[name].items():
            if self.types[name].get(column) in SQL_TYPES[kind]:
                # Times without a zone, in UTC: arithmetic then does not depend on the machine's time zone.
                time = f'make_timestamp(epoch_us("{column}")) as "{column}"'
                columns.append(time if kind == "time" else f'"{column}"')
        if columns:
            self.con.execute(f"create view {name} as select {', '.join(columns)} from {source}")

    def union(self, name: str, parts: tuple[str, ...]) -> None:
        """A view `name` over the tables `parts`, with the column `part`. Its types are those all parts agree on."""
        columns = {column for part in parts for column in self.types[part]}
        for column in sorted(columns):
            kinds = sorted({self.types[part].get(column, "absent") for part in parts})
            self.types.setdefault(name, {})[column] = kinds[0] if len(kinds) == 1 else " or ".join(kinds)
        self.num_rows[name] = sum(self.num_rows[part] for part in parts)
        if broken := [f"{part}: {self.unreadable[part]}" for part in parts if part in self.unreadable]:
            self.unreadable[name] = "; ".join(broken)
        selects = [f"select *, '{part}' as part from {part}" for part in parts]
        self.create({name: " union all by name ".join(selects)}, view=True)

    def create(self, tables: Mapping[str, str], *, view: bool = False) -> None:
        """Intermediate results that several metrics share. One that lacks its columns is left out."""
        for name, sql in tables.items():
            try:
                self.con.execute(f"create {'view' if view else 'temp table'} {name} as {sql}")
            except UNBOUND:
                continue

    def measure(self, table: str, metrics: Mapping[str, str]) -> tuple[dict[str, Any], dict[str, str]]:
        """Value of each metric over `table`, and why for those that the table's columns do not allow.

        A metric that starts with `(select` stands alone; all others are computed in one pass.
        """
        alone = {name: f"select {sql}" for name, sql in metrics.items() if sql.startswith("(select")}
        together = {name: sql for name, sql in metrics.items() if name not in alone}
        values: dict[str, Any] = {}
        unbound: dict[str, str] = {}
        if together:
            try:
                row = self.con.execute(f"select {', '.join(together.values())} from {table}").fetchall()[0]
                values.update(zip(together, row, strict=True))
            except UNBOUND:
                alone |= {name: f"select {sql} from {table}" for name, sql in together.items()}
        for name, query in alone.items():
            try:
                values[name] = self.con.execute(query).fetchall()[0][0]
            except UNBOUND as error:
                unbound[name] = str(error).splitlines()[0]
        return {name: plain(values[name]) for name in metrics if name in values}, unbound

    def examples(self, table: str, sql: str) -> list[dict[str, Any]]:
        """Up to five rows, in a fixed order, without their empty columns. `sql`: a predicate, or a whole query."""
        query = sql if sql.startswith("select") else f"select * from {table} where {sql}"
        try:
            result = self.con.execute(f"select * from ({query}) order by all limit {NUM_EXAMPLES}")
        except UNBOUND:
            return []
        names = [column[0] for column in result.description]
        rows = [dict(zip(names, map(plain, row), strict=True)) for row in result.fetchall()]
        return [{name: value for name, value in row.items() if value is not None} for row in rows]


@contextmanager
def profiler(tables: Mapping[str, Path], out: Path) -> Iterator[Profiler]:
    """A Profiler over `tables` that spills under `out` and leaves nothing there.

    Raises CallError for a file that is not there; one that is no Parquet is kept as `unreadable`.
    """
    out.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=out, prefix=".spill-") as spill, duckdb.connect() as con:
        con.execute(f"set memory_limit = '{MEMORY_LIMIT}'; set temp_directory = {literal(spill)}")
        con.execute(f"create macro damaged(t) as regexp_matches(t, {literal(DAMAGE)})")
        yield Profiler(con, tables)


@cache
def check_sql(table: str, tables: tuple[tuple[str, str], ...], metrics: tuple[tuple[str, str], ...]) -> str | None:
    """What is wrong with the SQL of a suite, tried on empty tables of the right columns; None when nothing is."""
    settings: dict[str, Any] = {"now": None, "live": False, "order": "time", "kinds": [], "split": ""}
    with duckdb.connect() as con:
        con.execute(f"create macro damaged(t) as regexp_matches(t, {literal(DAMAGE)})")
        for name, columns in COLUMNS.items():
            types = {"TIMESTAMP WITH TIME ZONE": "TIMESTAMP"}
            specs = [f'"{c}" {types.get(SQL_TYPES[k][0], SQL_TYPES[k][0])}' for c, k in columns.items()]
            con.execute(f"create table {name} ({', '.join(specs)})")
        for name, sql in tables:
            try:
                con.execute(f"create temp table {name} as {filled(sql, settings, {})}")
            except duckdb.Error as error:
                return f"tables.{name}: {error}"
        for name, sql in metrics:
            try:
                sql = filled(sql, settings, {})
                con.execute(f"select {sql}" if sql.startswith("(select") else f"select {sql} from {table}")
            except duckdb.Error as error:
                return f"{name}: {error}"
    return None
