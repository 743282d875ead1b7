"""Real days through the loop: what policies are worth, that nothing of the future is known, and that a kill costs
nothing."""

import copy
import csv
import random
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from recops.bundle import read_pointer
from recops.errors import CallError
from recops.stages import replay as stage
from recops.stages import replay_policy
from recops.stages.project import open_project
from recops.stages.replay import Plan, merged, read_days, replay, settings_for
from recops.stages.replay_faults import Fault
from recops.stages.replay_report import COLUMNS, fault_rows, rows

FIRST, LAST = 3, 5
START = datetime(2024, 1, 1, tzinfo=UTC)


def news(days: int) -> list[list[str]]:
    """Clicks of 200 readers of four tastes on articles that live about a day."""
    source, found = random.Random(0), []
    for day in range(days):
        of_day = []
        for _ in range(600):
            at = START + timedelta(days=day, seconds=source.randrange(86_400))
            reader = source.randrange(200)
            born = max(day - int(source.expovariate(1.2)), 0)
            of_day.append([f"u{reader}", f"i{born}-{reader % 4}-{int(source.expovariate(0.3)) % 12}", at.isoformat()])
        found += sorted(of_day, key=lambda row: row[2])
    return found


def plan_of(folder: Path, days: int, last: int = LAST, faults: tuple[Fault, ...] = ()) -> Plan:
    """A replay of the log of that many days."""
    folder.mkdir(parents=True)
    with (folder / "events.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["user", "item", "time"], *news(days)])
    columns = {"user_id": "user", "item_id": "item", "timestamp": "time"}
    events = {"path": "events.csv", "event": "click", "columns": columns}
    settings = {
        "source": {"name": "files", "path": str(folder), "options": {"events": events}},
        "split": {"name": "global_time", "window_days": 2.0},
        "train": {"model": "recent_popular", "baselines": ["most_popular"], "threads": 1},
        "evaluate": {"bootstrap_samples": 100},
        "export": {"parity_users": 50},
        "gate": {"min_users": 30},
        "drift": {"min_events": 100},
    }
    settings["train"]["models"] = {"recent_popular": {"half_life_days": 0.3}}
    return Plan(settings, FIRST, last, users=100, faults=faults)


@pytest.fixture(scope="module")
def played(tmp_path_factory) -> tuple[Plan, Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("replay")
    plan = plan_of(folder / "log", days=6)
    return plan, folder / "out", replay(plan, ["never", "nightly"], folder / "out", say=lambda _: None)


def without_times(found: Any) -> Any:
    """Without seconds, which no two runs share."""
    if isinstance(found, dict):
        return {key: without_times(value) for key, value in found.items() if not key.endswith("cpu_s")}
    return [without_times(value) for value in found] if isinstance(found, list) else found


def morning(found: dict[str, Any], policy: str, day: int) -> dict[str, Any]:
    return found["policies"][policy]["days"][day - FIRST]["morning"]


def test_a_model_that_is_never_trained_again_decays(played) -> None:
    _, _, found = played
    never, nightly = found["policies"]["never"], found["policies"]["nightly"]
    assert (never["trained"], nightly["trained"], nightly["promoted"]) == (0, 2, 2)
    assert nightly["train_cpu_s"] > 0 == never["train_cpu_s"]
    # All begin with the same release, asked by the same users.
    assert morning(found, "never", FIRST) == morning(found, "nightly", FIRST)
    assert nightly["above_first"]["ndcg@10"][1] > 0
    stale, fresh = (morning(found, policy, LAST)["metrics"]["ndcg@10"] for policy in ("never", "nightly"))
    assert (
        stale[2] < fresh[1] and morning(found, "never", LAST)["release"] != morning(found, "nightly", LAST)["release"]
    )


def test_users_are_asked_for_what_was_alive_that_morning(played) -> None:
    _, _, found = played
    for day in range(FIRST, LAST + 1):
        facts = morning(found, "nightly", day)
        assert 0 < facts["users"] <= 100 and 0 < facts["new_share"] < 1
        assert facts["trained_until"] < (START + timedelta(days=day - 1)).isoformat()
        assert sum(facts["sources"].values()) == facts["users"]


def test_what_comes_later_changes_nothing(played, tmp_path: Path) -> None:
    _, _, found = played
    short = replay(plan_of(tmp_path / "log", days=LAST - 1, last=LAST - 1), ["nightly"], tmp_path / "out", say=print)
    for day in range(FIRST, LAST):
        assert morning(short, "nightly", day) == morning(found, "nightly", day)


def test_a_killed_replay_goes_on_to_the_same_end(played, tmp_path: Path, monkeypatch) -> None:
    plan, out, found = played
    again = tmp_path / "out"
    for name in ("log", "start"):
        shutil.copytree(out / name, again / name, symlinks=True)
    train, serve = replay_policy.train_and_judge, replay_policy.promote_bundle
    killed = []

    def end(name: str, function: Any, is_done: bool) -> Any:
        def once(*arguments: Any) -> Any:
            if name in killed:
                return function(*arguments)
            killed.append(name)
            if is_done:
                function(*arguments)
            raise KeyboardInterrupt

        return once

    monkeypatch.setattr(replay_policy, "train_and_judge", end("before training", train, False))
    monkeypatch.setattr(replay_policy, "promote_bundle", end("after promotion", serve, True))
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            replay(plan, ["nightly"], again, say=lambda _: None)
    result = replay(plan, ["nightly"], again, say=lambda _: None)
    assert killed == ["before training", "after promotion"]
    expected = copy.deepcopy(found["policies"]["nightly"]["days"])
    assert without_times(result["policies"]["nightly"]["days"]) == without_times(expected)


def test_a_finished_replay_is_told_again_and_no_other_takes_its_place(played) -> None:
    plan, out, found = played
    before = read_pointer(open_project(out / "nightly").releases)
    assert without_times(replay(plan, ["never", "nightly"], out, say=lambda _: None)) == without_times(found)
    assert read_pointer(open_project(out / "nightly").releases) == before
    with pytest.raises(CallError, match="another replay lies here"):
        replay(Plan(plan.settings, FIRST, LAST, users=7), ["never"], out)
    table = rows(found)
    assert [row[0] for row in table] == ["never", "nightly"] and all(len(row) == len(COLUMNS) for row in table)
    assert (out / "replay.svg").read_text().count("<svg") == 1


def test_the_loop_answers_planted_faults(tmp_path: Path) -> None:
    faults = (Fault("renamed", FIRST), Fault("doubled", FIRST + 1))
    found = replay(plan_of(tmp_path / "log", 6, faults=faults), ["drift"], tmp_path / "out", say=lambda _: None)
    renamed, doubled = found["faults"]
    assert "POST /events refused 600 of 600 events (events[0].item_id: Field required)" in renamed["said"]
    assert renamed["outcome"] == "not trained, kept" and renamed["against_last_good"] == {}
    assert "POST /events counted 600 of 1200 events as repeated" in doubled["said"]
    assert not renamed["silent"] and not doubled["silent"]
    nights = [day["night"] for day in found["policies"]["drift"]["days"] if "night" in day]
    assert nights[0]["due"]["reason"] == "nothing new" and nights[1]["due"]["drift"]["verdict"] == "drift"
    assert [row[:3] for row in fault_rows(found)] == [["renamed", "3", "drift"], ["doubled", "4", "drift"]]


@pytest.mark.parametrize("text", ["1-3", "5-4", "3", "x", ""])
def test_days_are_read(text: str) -> None:
    if text == "3":
        assert read_days(text) == (3, 3)
        return
    with pytest.raises(CallError, match="--days"):
        read_days(text)


def test_wrong_calls_are_named(tmp_path: Path, monkeypatch) -> None:
    plan = Plan({}, 3, 5, faults=(Fault("bots", 5),))
    with pytest.raises(CallError, match="--fault: day 5"):
        replay(plan, ["never"], tmp_path)
    with pytest.raises(CallError, match="--policy: found 'hourly'"):
        replay(plan, ["hourly"], tmp_path)
    with pytest.raises(CallError, match="--source"):
        settings_for("newspaper", tmp_path, tmp_path, None)
    monkeypatch.setenv("RECOPS_STORE", "sqlite:///x")
    with pytest.raises(CallError, match="RECOPS_STORE"):
        replay(Plan({}, 3, 5), ["never"], tmp_path)


@pytest.mark.parametrize("source", stage.CLOSED)
def test_each_source_has_settings_that_are_right(source: str, tmp_path: Path) -> None:
    settings = settings_for(source, tmp_path, tmp_path, "ease")
    assert settings["source"]["name"] == source and settings["train"]["model"] == "ease"


def test_settings_are_merged_by_group() -> None:
    assert merged({"a": {"b": 1, "c": 2}, "d": 3}, {"a": {"c": 4}, "e": 5}) == {"a": {"b": 1, "c": 4}, "d": 3, "e": 5}
