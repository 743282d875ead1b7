"""Points of the data over time: once a validation, with what changed between two."""

from datetime import UTC, datetime
from typing import Any

import pytest

from recops.monitoring import data_history
from recops.monitoring.data_history import changed_columns, data_point, with_point
from recops.monitoring.report_sections import data_section, outcome_section

AT = datetime(2024, 5, 1, 12, tzinfo=UTC)


def rule(table: str, name: str, observed: Any, column: str | None = None) -> dict[str, Any]:
    return {"table": table, "rule": name, "observed": observed, "column": column}


def validation(rows: int = 900, **other: Any) -> dict[str, Any]:
    passed = [rule("events", "type.item_id", "VARCHAR", "item_id"), rule("events", "unreadable", "no")]
    return {
        "ok": True,
        "stopped": [],
        "warned": [rule("events", "repeat_share", 0.4)],
        "skipped": [rule("users", "volume_ratio", None)],
        "passed": [*passed, rule("events", "num_rows", rows)],
        "profile": {"events": {"num_rows": rows, "max_timestamp": "2024-05-01T06:00:00"}, "users": {"num_rows": 0}},
        **other,
    }


def test_a_point_says_schema_volume_freshness_and_rules():
    point = data_point(validation(), "v1", AT)
    assert point["rows"] == {"events": 900, "users": 0}
    assert point["hours_old"] == 6
    assert point["schema"] == {"events.item_id": "VARCHAR"}
    assert point["rules"] == {"events.repeat_share": 0.4, "events.num_rows": 900}
    assert (point["stopped"], point["warned"]) == ([], ["events.repeat_share"])
    undated = validation(profile={"events": {"num_rows": 3, "max_timestamp": None}})
    assert data_point(undated, "v1", AT)["hours_old"] is None


def test_one_point_a_validation_and_not_for_ever(monkeypatch):
    monkeypatch.setattr(data_history, "MAX_POINTS", 3)
    points: list[Any] = []
    for name in ("a", "a", "b", "c", "d", "d"):
        points = with_point(points, data_point(validation(), name, AT))
    assert [point["of"] for point in points] == ["b", "c", "d"]


def test_a_retyped_column_and_a_missing_one_are_named():
    before = {"schema": {"events.a": "VARCHAR", "events.b": "FLOAT"}}
    now = {"schema": {"events.a": "FLOAT", "events.c": "VARCHAR"}}
    assert changed_columns(before, now) == [
        "events.a: VARCHAR > FLOAT",
        "events.b: FLOAT > missing",
        "events.c: missing > VARCHAR",
    ]


@pytest.mark.parametrize("rows", [900, 450])
def test_the_page_shows_what_moved(rows):
    points = [data_point(validation(), "v1", AT), data_point(validation(rows), "v2", AT)]
    section = "".join(data_section(points))
    assert ("<td>events.num_rows</td><td class=n>450</td><td class=n>900</td>" in section) == (rows == 450)
    assert "events.repeat_share" in section
    assert data_section([]) == outcome_section(None) == []


def test_names_are_escaped():
    nasty = validation(warned=[rule("events", "<script>", 1)])
    assert "<script>" not in "".join(data_section([data_point(nasty, "v1", AT)]))
