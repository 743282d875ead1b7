"""Figures of tables worked by hand, and how SQL of suites is filled."""

from datetime import UTC, datetime
from pathlib import Path

import duckdb
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recops.data.profile import check_sql, filled, literal, plain, profiler


@pytest.fixture
def users(tmp_path: Path) -> Path:
    ids = ["a", "b", "b", None, "Zo\u00c3\u00ab", "x\ufffd", "Âme", "Ãgua"]
    frame = pl.DataFrame({"user_id": ids, "attributes": list(range(8)), "extra": ids})
    frame.write_parquet(tmp_path / "users.parquet")
    return tmp_path / "users.parquet"


def test_figures_and_examples_by_hand(users, tmp_path):
    metrics = {
        "nulls": "count(*) filter (user_id is null)",
        "repeats": "(select sum(n - 1) from (select count(*) n from users group by user_id))",
        "damaged": "count(*) filter (damaged(user_id))",
    }
    with profiler({"users": users}, tmp_path / "out") as profile:
        values, unbound = profile.measure("users", metrics)
        assert (values, unbound) == ({"nulls": 1, "repeats": 1.0, "damaged": 2}, {})
        assert profile.examples("users", "user_id = 'b'") == [{"user_id": "b"}, {"user_id": "b"}]
        assert profile.num_rows == {"users": 8}
    assert list((tmp_path / "out").iterdir()) == []


def test_a_column_of_another_type_is_hidden(users, tmp_path):
    with profiler({"users": users}, tmp_path) as profile:
        assert profile.types["users"] == {"user_id": "VARCHAR", "attributes": "BIGINT", "extra": "VARCHAR"}
        values, unbound = profile.measure("users", {"rows": "count(*)", "most": "max(attributes)"})
        assert values == {"rows": 8} and "attributes" in unbound["most"]
        assert profile.examples("users", "attributes = 1") == []


def test_times_do_not_depend_on_the_machines_zone(tmp_path, monkeypatch):
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    times = pl.Series([datetime(2020, 1, 1, 12, tzinfo=UTC)], dtype=pl.Datetime("us", "UTC"))
    pl.DataFrame({"item_id": ["i"], "published_at": times}).write_parquet(tmp_path / "items.parquet")
    with profiler({"items": tmp_path / "items.parquet"}, tmp_path) as profile:
        values, _ = profile.measure("items", {"last": "max(published_at)"})
    assert values == {"last": "2020-01-01T12:00:00"}


def test_sql_is_filled_with_settings_and_accepted_figures():
    sql = "n / $accepted.n > 1 and t < $now and e not in $kinds and ($accepted.high::map(varchar, double))['a'] > 1"
    expected = "n / 4 > 1 and t < null and e not in ('view') and (map {'a': 2.5}::map(varchar, double))['a'] > 1"
    assert filled(sql, {"now": None, "kinds": ["view"]}, {"n": 4, "high": {"a": 2.5}}) == expected
    assert filled("$accepted.n", {}, {}) == "null"
    with pytest.raises(KeyError, match="today"):
        filled("$today", {}, {})


TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
NUMBERS = st.integers(-(2**62), 2**62) | st.floats(allow_nan=False, allow_infinity=False)


@given(TEXT | NUMBERS | st.booleans())
def test_a_literal_is_read_back_as_it_was(value):
    found = duckdb.execute(f"select {literal(value)}").fetchall()[0][0]
    assert (float(found) if isinstance(value, float) else found) == value


def test_plain_values_are_json():
    assert plain({1: [datetime(2020, 1, 2), float("nan"), None, True]}) == {
        "1": ["2020-01-02T00:00:00", "nan", None, True]
    }


def test_wrong_sql_of_a_suite_is_named():
    assert check_sql("users", (), (("ids", "count(user_id)"),)) is None
    assert "ids: Binder Error" in (check_sql("users", (), (("ids", "count(usr_id)"),)) or "")
    assert "tables.t: Catalog Error" in (check_sql("users", (("t", "select * from nothing"),), ()) or "")
