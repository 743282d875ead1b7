"""The data over time: schema, volume, freshness and what each validation rule observed, one point a validation.

In: what `reports/validation.json` says, and the points so far. Out: the points with one more, JSON values only. Judges
nothing: the rules have their own limits, in `expectations/`.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

MAX_POINTS = 200  # a year of nights has more, and the last half-year is what is looked at
OUTCOMES = ("stopped", "warned", "passed")
TYPE = "type."


def data_point(validation: Mapping[str, Any], of: str, at: datetime) -> dict[str, Any]:
    """`of` names the validation, so that one that is read twice is one point.

    `rows` by table, `newest` event and its age in hours, `schema` by column, `rules` with a number observed, and which
    rules stopped the thread or warned. Names are TABLE.NAME.
    """
    profile = validation["profile"]
    newest = profile.get("events", {}).get("max_timestamp")
    rules = [rule for outcome in OUTCOMES for rule in validation[outcome]]
    named = {f"{rule['table']}.{rule['rule']}": rule["observed"] for rule in rules}
    return {
        "of": of,
        "at": at.isoformat(timespec="seconds"),
        "ok": validation["ok"],
        "rows": {table: entry["num_rows"] for table, entry in profile.items() if "num_rows" in entry},
        "newest": newest,
        "hours_old": None if newest is None else round((at - as_utc(newest)).total_seconds() / 3600, 3),
        "schema": {f"{r['table']}.{r['column']}": r["observed"] for r in rules if r["rule"].startswith(TYPE)},
        "rules": {
            name: value
            for name, value in named.items()
            if isinstance(value, int | float) and not isinstance(value, bool)
        },
        **{
            outcome: sorted(f"{rule['table']}.{rule['rule']}" for rule in validation[outcome])
            for outcome in ("stopped", "warned")
        },
    }


def as_utc(text: str) -> datetime:
    """An ISO time, which is UTC where it names no zone."""
    time = datetime.fromisoformat(text)
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def with_point(points: Sequence[Mapping[str, Any]], point: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The points in order, the newest MAX_POINTS of them; one of a validation that is there already changes nothing."""
    if any(one["of"] == point["of"] for one in points):
        return list(points)
    return [*points, point][-MAX_POINTS:]


def changed_columns(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Columns that came, went or changed their type between two points: `TABLE.COLUMN: was > is`."""
    ours, theirs = before["schema"], now["schema"]
    names = sorted(name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name))
    return [f"{name}: {ours.get(name, 'missing')} > {theirs.get(name, 'missing')}" for name in names]
