"""Quotes values and names for DuckDB's SQL. Knows no table."""


def text(value: object) -> str:
    """`value` as an SQL string."""
    return "'" + str(value).replace("'", "''") + "'"


def name(value: str) -> str:
    """`value` as the name of a column or table."""
    return '"' + value.replace('"', '""') + '"'
