"""The suites that ship: every rule says why, covers the schema and works on the columns there are."""

from pathlib import Path

import pytest

from recops.data.interactions import SPLIT_COLUMNS
from recops.data.profile import COLUMNS, SQL_TYPES, check_sql
from recops.data.validation import read_suite
from recops.schema import TABLES

FOLDER = Path(__file__).resolve().parents[2] / "expectations"
SUITES = ["events", "items", "users", "rejected", "split"]
BUILT_IN = {"num_rows", "unreadable", "unknown_columns"}


def test_there_is_one_suite_a_table():
    assert sorted(path.stem for path in FOLDER.glob("*.json")) == sorted(SUITES)


@pytest.mark.parametrize("name", SUITES)
def test_every_rule_has_a_reason_a_known_column_and_a_figure(name):
    suite = read_suite(FOLDER / f"{name}.json")
    for rule in suite.rules:
        figure, meta = rule["kwargs"]["column"], rule["meta"]
        assert meta["why"].endswith((".", ")")) and len(meta["why"]) > 15, figure
        assert set(meta) <= {"column", "metric", "examples", "action", "first", "why", "skip"}, figure
        assert "metric" in meta or figure in BUILT_IN or figure.startswith("type."), figure
        assert meta.get("column") is None or meta["column"] in COLUMNS[name], figure
        assert meta.get("first") in (None, "warn"), figure


@pytest.mark.parametrize("name", SUITES)
def test_types_are_those_of_the_schema(name):
    rules = {rule["kwargs"]["column"]: rule for rule in read_suite(FOLDER / f"{name}.json").rules}
    columns = {column: kind for column, kind in COLUMNS[name].items() if column != "part"}
    assert {figure[5:] for figure in rules if figure.startswith("type.")} == set(columns)
    for column, kind in columns.items():
        assert rules[f"type.{column}"]["kwargs"]["value_set"] == list(SQL_TYPES[kind])
    assert tuple(columns) == (SPLIT_COLUMNS if name == "split" else tuple(TABLES[name]))


@pytest.mark.parametrize("name", SUITES)
def test_the_sql_of_metrics_and_examples_fits_the_schema(name):
    suite = read_suite(FOLDER / f"{name}.json")
    assert check_sql(name, tuple(suite.tables.items()), tuple(suite.metrics().items())) is None
    examples = {rule["kwargs"]["column"]: rule["meta"].get("examples") for rule in suite.rules}
    shown = tuple(
        (figure, f"(select count(*) from ({sql if sql.startswith('select') else f'select * from {name} where {sql}'}))")
        for figure, sql in examples.items()
        if sql
    )
    assert check_sql(name, tuple(suite.tables.items()), shown) is None
