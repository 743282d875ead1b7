"""Brings any source into the four tables of `schema.py`: what can be used, and what was rejected and why.

In: the relations of a source (see protocols.Source). Out: events, items, users and rejected as Parquet, always all
four, the same bytes for the same input. Knows no file format of any source, and does not judge whether the data is fit
to train on: `data/validation.py` does. Works in bounded memory: rows are staged on disk, DuckDB streams them.
"""

import re
import shutil
from pathlib import Path
from typing import Any

import duckdb

from recops import plugins
from recops.data import casts
from recops.data.casts import SQL_TYPES, is_missing
from recops.data.feedback import NOTHING_TOLD, Told, is_erased_sql, make_erased
from recops.data.sql import text
from recops.errors import CallError
from recops.params import IngestParams, SourceParams, checked
from recops.schema import REJECTED, TABLES

REQUIRED = {"events": ("user_id", "item_id"), "items": ("item_id",), "users": ("user_id",)}
# Text that makes the event id where the source has none; lengths keep ("ab", "c") and ("a", "bc") apart.
CONTENT = (
    "concat(length(user_id), ':', user_id, length(item_id), ':', item_id, epoch_us(timestamp), '|', event, '|', value)"
)
ROW_GROUP_SIZE = 122_880
MEMORY_LIMIT = "2GB"


def ingest(
    source_params: SourceParams, ingest_params: IngestParams, base: Path, out: Path, told: Told = NOTHING_TOLD
) -> dict[str, Any]:
    """Writes events, items, users and rejected `.parquet` in the folder `out`; returns the counts.

    `source_params.path` is relative to `base`. Events are sorted by time (equal times keep the source's order) where
    `order` is `time`, else they keep the source's order and have no timestamp. A row is rejected for the first of:
    the source's own reason, a missing user or item, a kind of event that `ingest.events` does not name, an unreadable
    timestamp or value, and being a repetition: the same event id or, where there are no ids, the same user, item,
    time, event and value. In an `ordered` log the place is the time, so the same content again is another event.
    Of items and users with the same id the first is kept. Other fields that cannot be read are null and counted.

    Counts: `rows_read`, `events`, `rejected` and `rejected_by_reason` of the log, `items` and `users` that are kept,
    the same in full by table under `tables`, `broken_encoding` (rows with the replacement character of undecodable
    bytes) and `unreadable_fields` (by table and column). An item of `ingest.merges` is rejected as merged, and its
    events are those of the item that it is merged into. A reason is counted under what stands before its colon.
    Events that were `told` follow those of the source, and one that the source holds as well is rejected. A row of an
    erased user is rejected without its text: all of a user's up to the erasure, in a log without times simply all.
    Raises CallError when files are missing, options are wrong, an item would be merged into one that the table of items
    lacks, or `order` is `time` and the log has no times.
    """
    kind = plugins.load("data.sources", source_params.name)
    options = checked(kind.Options, source_params.options, "source.options")
    path = None if source_params.path is None else base / source_params.path
    source = kind(options, path)

    out.mkdir(parents=True, exist_ok=True)
    work = out / ".ingest"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    try:
        with duckdb.connect(":memory:") as con:
            con.execute(f"SET memory_limit = '{MEMORY_LIMIT}'; SET temp_directory = {text(work / 'spill')}")
            con.execute(
                "SET TimeZone = 'UTC'; SET enable_progress_bar = false; SET autoinstall_known_extensions = false"
            )
            relations = source.relations(con)
            make_erased(con, told)
            assert "events" in relations and set(relations) <= set(REQUIRED), sorted(relations)
            unit = getattr(options, "timestamp_unit", "iso")
            counts = _write_tables(con, relations, source_params, ingest_params, unit, work, told)
        for name in TABLES:
            (work / f"{name}.parquet").replace(out / f"{name}.parquet")
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return counts


def _write_tables(
    con: duckdb.DuckDBPyConnection,
    relations: dict[str, str],
    source_params: SourceParams,
    ingest_params: IngestParams,
    unit: str,
    work: Path,
    told: Told,
) -> dict[str, Any]:
    """Stages and writes every table under `work`; returns the counts."""
    counts: dict[str, Any] = {"tables": {}, "broken_encoding": 0, "unreadable_fields": {}}
    for table in REQUIRED:
        staged = work / f"{table}.staged"
        if table in relations:
            broken = _stage(con, table, relations[table], source_params.order, ingest_params, unit, staged)
            counts["broken_encoding"] += broken.pop("_broken")
            if table == "items":
                _require_merged_into(con, staged, ingest_params.merges)
            counts["unreadable_fields"] |= {f"{table}.{column}": n for column, n in broken.items() if n}
        else:
            _copy(con, _empty_stage(table), staged)
        if table == "events":
            _require_times(con, staged, source_params)
            if told.events is not None:
                also = work / "told.staged"
                kinds = ingest_params.model_copy(update={"events": dict(told.kinds)})
                broken = _stage(con, table, told.events, source_params.order, kinds, "us", also)
                counts["broken_encoding"] += broken["_broken"]
                _append(con, staged, also)
            _find_repeated_events(con, staged, source_params.order == "ordered")
        else:
            _find_repeated_ids(con, table, staged)
        counts["tables"][table] = _count(con, table, staged)
        _write_kept(con, table, staged, source_params.order, work / f"{table}.parquet")
        written = _value(con, f"SELECT count(*) FROM read_parquet({text(work / f'{table}.parquet')})")
        assert counts["tables"][table]["kept"] == written, f"{table}: {written} rows written"
    rejected = " UNION ALL ".join(_rejected(table, work / f"{table}.staged", i) for i, table in enumerate(REQUIRED))
    columns = ", ".join(f'"{name}"' for name in REJECTED)
    _copy(con, f"SELECT {columns} FROM ({rejected}) ORDER BY _table, file, line, _row", work / "rejected.parquet")
    num_rejected = _value(con, f"SELECT count(*) FROM read_parquet({text(work / 'rejected.parquet')})")
    assert num_rejected == sum(c["rejected"] for c in counts["tables"].values()), (
        f"{num_rejected} rejected rows written"
    )
    log = counts["tables"]["events"]
    return {
        "rows_read": log["rows_read"],
        "events": log["kept"],
        "rejected": log["rejected"],
        "rejected_by_reason": log["rejected_by_reason"],
        "items": counts["tables"]["items"]["kept"],
        "users": counts["tables"]["users"]["kept"],
        **counts,
    }


def _stage(
    con: duckdb.DuckDBPyConnection,
    table: str,
    relation: str,
    order: str,
    params: IngestParams,
    unit: str,
    staged: Path,
) -> dict[str, int]:
    """Writes the rows of `relation` with our types and the reason that rejects them (null: none) to `staged`.

    One pass: sources may hand out streams that can be read only once. Returns how many rows have broken encoding
    (`_broken`) and how many fields of each optional column could not be read.
    """
    columns = {name: str(kind) for name, kind, *_ in con.execute(f"DESCRIBE {relation}").fetchall()}
    unknown = set(columns) - set(TABLES[table]) - {"_file", "_line", "_raw", "_row", "_reject"}
    assert not unknown, f"{table}: unknown columns {sorted(unknown)}"
    if table == "events" and order == "time" and "timestamp" not in columns:
        raise CallError(_no_times())
    typed = {
        name: casts.typed(name, kind, columns[name], unit) if name in columns else f"NULL::{SQL_TYPES[kind]}"
        for name, kind in TABLES[table].items()
    }
    if table == "events" and order != "time":
        typed["timestamp"] = "NULL::TIMESTAMPTZ"
    reasons = [f"WHEN {name} IS NULL THEN 'missing {name}'" for name in REQUIRED[table]]
    is_erased = is_erased_sql(con, table)
    if is_erased is not None:
        reasons.insert(0, f"WHEN {is_erased} THEN 'erased'")
    merged = f"MAP {{{', '.join(f'{text(one)}: {text(into)}' for one, into in params.merges.items())}}}"
    if params.merges and table == "events":
        typed["item_id"] = f"coalesce({merged}[{typed['item_id']}], {typed['item_id']})"
    elif params.merges and table == "items":
        reasons.append(f"WHEN {merged}[item_id] IS NOT NULL THEN 'merged: into ' || {merged}[item_id]")
    judged = set(REQUIRED[table])
    if table == "events":
        kinds = ", ".join(map(text, params.events))
        reasons.append(f"WHEN event IS NULL OR event NOT IN ({kinds}) THEN 'unknown event'")
        if order == "time":
            reasons.append("WHEN _no_timestamp THEN 'missing timestamp'")
            reasons.append("WHEN timestamp IS NULL THEN 'unreadable timestamp'")
        reasons.append("WHEN value IS NULL AND NOT _no_value THEN 'unreadable value'")
        judged |= {"event", "timestamp", "value"}
    missing = [f"{is_missing(name, columns)} AS _no_{name}" for name in ("timestamp", "value") if table == "events"]
    optional = [
        name for name, kind in TABLES[table].items() if name in columns and name not in judged and kind != "str"
    ]
    lost = [f"({typed[name]}) IS NULL AND NOT {is_missing(name, columns)} AS _lost_{name}" for name in optional]
    select = ", ".join(
        [f"{sql} AS {name}" for name, sql in typed.items()]
        + ["_file", "_line", "_raw", ("_row" if "_row" in columns else "row_number() OVER ()") + "::BIGINT AS _row"]
        + [("_reject" if "_reject" in columns else "NULL") + "::VARCHAR AS _reject"]
        + missing
        + lost
    )
    first, *others = reasons if is_erased is not None else ["", *reasons]
    reason = f"CASE {first} WHEN _reject IS NOT NULL THEN _reject {' '.join(others)} END AS _reason"
    raw = "_raw" if is_erased is None else f"CASE WHEN NOT coalesce({is_erased}, false) THEN _raw END"
    identity = f"hash({REQUIRED[table][0]})"
    if table == "events":
        identity = (
            "CASE WHEN event_id IS NULL THEN hash(user_id, item_id, timestamp, event, value) ELSE hash(event_id) END"
        )
    names = ", ".join(TABLES[table])
    flags = "".join(f", _lost_{name}" for name in optional)
    # With one thread a scan keeps the source's order; `_row` lets all threads work.
    con.execute("RESET threads" if "_row" in columns else "SET threads = 1")
    _copy_source(
        con,
        f"SELECT {names}, _file::VARCHAR AS _file, _line::BIGINT AS _line, ({raw})::VARCHAR AS _raw, _row, {reason}, "
        f"{identity} AS _hash, contains(_raw, chr(65533)) AS _broken, false AS _told{flags} "
        f"FROM (SELECT {select} FROM ({relation}))",
        staged,
    )
    con.execute("RESET threads")
    sums = ", ".join(
        [f"count(*) FILTER ({flag}) AS {flag}" for flag in ["_broken", *(f"_lost_{name}" for name in optional)]]
    )
    found = con.execute(f"SELECT {sums} FROM read_parquet({text(staged)})").fetchone()
    assert found is not None
    return dict(zip(["_broken", *optional], found, strict=True))


def _append(con: duckdb.DuckDBPyConnection, staged: Path, more: Path) -> None:
    """Puts the rows of `more` after those of `staged`, marked as told."""
    both = staged.with_suffix(".both")
    (first,) = con.execute(f"SELECT coalesce(max(_row), 0) FROM read_parquet({text(staged)})").fetchall()[0]
    _copy(
        con,
        f"SELECT * FROM read_parquet({text(staged)}) UNION ALL BY NAME "
        f"SELECT * REPLACE (_row + {first} AS _row, true AS _told) FROM read_parquet({text(more)})",
        both,
        compression="lz4",
    )
    both.replace(staged)


def _require_times(con: duckdb.DuckDBPyConnection, staged: Path, source_params: SourceParams) -> None:
    if source_params.order != "time":
        return
    timed, untimed = con.execute(
        "SELECT count(*) FILTER (_reason IS NULL OR _reason LIKE 'unreadable %'), "
        f"count(*) FILTER (_reason = 'missing timestamp') FROM read_parquet({text(staged)})"
    ).fetchall()[0]
    if untimed and not timed:
        raise CallError(_no_times())


def _require_merged_into(con: duckdb.DuckDBPyConnection, staged: Path, merges: dict[str, str]) -> None:
    """What the table says of a merged item would be lost for one of which it says nothing."""
    if not merges:
        return
    ids = ", ".join(map(text, {*merges, *merges.values()}))
    rows = f"read_parquet({text(staged)}) WHERE item_id IN ({ids})"
    is_kept = dict(con.execute(f"SELECT item_id, bool_or(_reason IS NULL) FROM {rows} GROUP BY item_id").fetchall())
    for one, into in merges.items():
        if one in is_kept and not is_kept.get(into, False):
            raise CallError(f"ingest.merges: {one} into {into}: the table of items has no {into}")


def _no_times() -> str:
    return (
        "source.order is 'time' but the log has no timestamps: name their column in source.options, or set "
        "source.order to 'ordered' (rows stand in the order they happened) or 'unordered'"
    )


def _find_repeated_events(con: duckdb.DuckDBPyConnection, staged: Path, is_ordered: bool) -> None:
    """Makes the table `repeated`: `_row`, `nth` (2 for the second of its kind) and `rejected` of repeated events.

    Only rows whose 64-bit hash stands twice are compared in full, so that 20 million rows need no table of ids.
    """
    content = ["user_id", "item_id", "timestamp", "event", "value"]
    keys = ", ".join(f"CASE WHEN event_id IS NULL THEN {name} END" for name in content)
    _make_repeated(con, staged, f"event_id, {keys}", "event_id IS NOT NULL" if is_ordered else "true")


def _find_repeated_ids(con: duckdb.DuckDBPyConnection, table: str, staged: Path) -> None:
    _make_repeated(con, staged, REQUIRED[table][0], "true")


def _make_repeated(con: duckdb.DuckDBPyConnection, staged: Path, keys: str, rejected: str) -> None:
    rows = f"read_parquet({text(staged)})"
    con.execute(
        f"""
        CREATE OR REPLACE TEMP TABLE twice AS
            SELECT _hash FROM {rows} WHERE _reason IS NULL GROUP BY _hash HAVING count(*) > 1;
        CREATE OR REPLACE TEMP TABLE repeated AS
            SELECT _row, nth, {rejected} AS rejected FROM (
                SELECT _row, {keys.split(", ")[0]}, row_number() OVER (PARTITION BY {keys} ORDER BY _row) AS nth
                FROM {rows} WHERE _reason IS NULL AND _hash IN (FROM twice)
            ) WHERE nth > 1;
        """
    )


def _judged(table: str, staged: Path) -> str:
    """SQL of the staged rows with `_row` and the final `_reason`, repetitions included."""
    duplicate = "'duplicate'" if table == "events" else f"'duplicate {REQUIRED[table][0]}'"
    if table == "events":
        duplicate = f"CASE WHEN _told THEN 'told, and in the log' ELSE {duplicate} END"
    return (
        f"(SELECT s.* EXCLUDE (_reason), r.nth, "
        f"CASE WHEN r.rejected THEN {duplicate} ELSE s._reason END AS _reason "
        f"FROM read_parquet({text(staged)}) s "
        f"LEFT JOIN repeated r ON r._row = s._row)"
    )


def _count(con: duckdb.DuckDBPyConnection, table: str, staged: Path) -> dict[str, Any]:
    con.execute(f"CREATE OR REPLACE TEMP TABLE {table}_repeated AS FROM repeated")
    by_reason = dict(
        con.execute(
            f"SELECT split_part(_reason, ':', 1) AS reason, count(*) FROM {_judged(table, staged)} "
            "GROUP BY reason ORDER BY reason"
        ).fetchall()
    )
    rows_read = _value(con, f"SELECT count(*) FROM read_parquet({text(staged)})")
    kept = by_reason.pop(None, 0)
    rejected = sum(by_reason.values())
    assert rows_read == kept + rejected, f"{table}: {rows_read} rows read, {kept} kept, {rejected} rejected"
    return {"rows_read": rows_read, "kept": kept, "rejected": rejected, "rejected_by_reason": by_reason}


def _write_kept(con: duckdb.DuckDBPyConnection, table: str, staged: Path, order: str, path: Path) -> None:
    names = list(TABLES[table])
    columns = ", ".join(names)
    by = "timestamp, _row" if table == "events" and order == "time" else "_row"
    if table == "events":
        # Made after the sort, which then carries less.
        nth = "CASE WHEN nth > 1 THEN '#' || nth ELSE '' END"
        made = f"coalesce(event_id, left(md5({CONTENT} || {nth}), 24)) AS event_id"
        names[0] = made
    _copy(
        con,
        f"SELECT {', '.join(names)} FROM (SELECT {columns}, _row, nth FROM {_judged(table, staged)} "
        f"WHERE _reason IS NULL ORDER BY {by})",
        path,
    )


def _rejected(table: str, staged: Path, position: int) -> str:
    rows = _judged(table, staged).replace("LEFT JOIN repeated", f"LEFT JOIN {table}_repeated")
    return (
        f"SELECT {position} AS _table, _row, '{table}' AS \"table\", _file AS file, _line AS line, _reason AS reason, "
        f"rtrim(_raw, E'\\r\\n') AS raw FROM {rows} WHERE _reason IS NOT NULL"
    )


def _empty_stage(table: str) -> str:
    columns = {name: SQL_TYPES[kind] for name, kind in TABLES[table].items()}
    columns |= {
        "_file": "VARCHAR",
        "_line": "BIGINT",
        "_raw": "VARCHAR",
        "_row": "BIGINT",
        "_reason": "VARCHAR",
        "_hash": "UBIGINT",
        "_told": "BOOLEAN",
    }
    return f"SELECT {', '.join(f'NULL::{kind} AS {name}' for name, kind in columns.items())} WHERE false"


def _copy(con: duckdb.DuckDBPyConnection, query: str, path: Path, compression: str = "zstd") -> None:
    con.execute(
        f"COPY ({query}) TO {text(path)} (FORMAT parquet, COMPRESSION {compression}, ROW_GROUP_SIZE {ROW_GROUP_SIZE})"
    )


def _copy_source(con: duckdb.DuckDBPyConnection, query: str, path: Path) -> None:
    """As `_copy`; an error that a source's stream raised while DuckDB read it comes out as that error."""
    try:
        _copy(con, query, path, compression="lz4")
    except duckdb.InvalidInputException as error:
        told = re.search(r"failed: Invalid: (.*?)\. Detail: Python exception.*CallError", str(error), re.DOTALL)
        if told is None:
            raise
        raise CallError(told[1]) from None
    except duckdb.ConversionException as error:
        # What DuckDB cannot hold, such as a time in the year 300000, ends its reading of a Parquet file.
        raise CallError(f"a file of the source holds a value that cannot be read: {error}") from None


def _value(con: duckdb.DuckDBPyConnection, query: str) -> int:
    row = con.execute(query).fetchone()
    assert row is not None
    return int(row[0])
