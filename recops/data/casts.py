"""Casts of a source's columns to the types of `schema.py`, as DuckDB's SQL. Knows no table."""

SQL_TYPES = {
    "str": "VARCHAR",
    "json": "VARCHAR",
    "float32": "FLOAT",
    "int32": "INTEGER",
    "int64": "BIGINT",
    "bool": "BOOLEAN",
    "time": "TIMESTAMPTZ",
    "list[str]": "VARCHAR[]",
}
FIRST_TIME, LAST_TIME = -62135596800000000, 253402300799999999  # years 1 to 9999, in microseconds


def typed(name: str, kind: str, found: str, unit: str) -> str:
    """SQL of the source's column `name` (of SQL type `found`) in our type; null where it cannot be read."""
    if kind == "str":
        return f"nullif(trim({name}::VARCHAR), '')"
    if kind == "time":
        if found.startswith(("TIMESTAMP", "DATE")):
            return _in_range(f"epoch_us(TRY_CAST({name} AS TIMESTAMPTZ))")
        return _time(name, unit if name == "timestamp" else "iso")
    if kind == "float32":
        return f"CASE WHEN isfinite(TRY_CAST({name} AS FLOAT)) THEN TRY_CAST({name} AS FLOAT) END"
    if kind == "list[str]":
        return f"{name}::VARCHAR[]" if found.endswith("[]") else f"[{name}::VARCHAR]"
    if kind == "json":
        return f"CASE WHEN json_valid({name}::VARCHAR) THEN {name}::VARCHAR END"
    return f"TRY_CAST({name} AS {SQL_TYPES[kind]})"


def _time(name: str, unit: str) -> str:
    """SQL of a text or number column as a time: `unit` is s, ms or us since 1970, or iso (no zone means UTC)."""
    if unit == "iso":
        micros = f"epoch_us(TRY_CAST(trim({name}::VARCHAR) AS TIMESTAMPTZ))"
    elif unit == "us":
        micros = f"TRY_CAST({name} AS BIGINT)"
    else:
        # A double holds microseconds exactly up to the year 2255, and reads the "978300760.0" of pandas.
        micros = f"round(TRY_CAST({name} AS DOUBLE) * {dict(s=1_000_000, ms=1_000)[unit]})"
    return _in_range(micros)


def _in_range(micros: str) -> str:
    """SQL of microseconds since 1970 as a time; null outside of the years that everything downstream can hold."""
    return f"make_timestamptz(CASE WHEN {micros} BETWEEN {FIRST_TIME} AND {LAST_TIME} THEN {micros}::BIGINT END)"


def is_missing(name: str, columns: dict[str, str]) -> str:
    """SQL that is true where the source gives nothing for `name`: no column, null, empty text or a float's NaN."""
    if name not in columns:
        return "true"
    if columns[name] in ("FLOAT", "DOUBLE"):
        return f"coalesce(isnan({name}), true)"
    return f"coalesce(trim({name}::VARCHAR) = '', true)"
