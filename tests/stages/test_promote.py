"""What follows the DVC stages: histories, the profile that new data is judged by, and whether a decision stands."""

import json
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from recops.bundle import Pointer, canonical_json, write_pointer
from recops.data.feedback import Erased, Feedback
from recops.errors import CallError
from recops.stages import pipeline, promote
from recops.stages.project import Project, open_project
from recops.store import open_store, refused_in


@pytest.fixture
def project(tmp_path: Path) -> Project:
    params = "ingest: {events: {view: {signal: positive}, dislike: {signal: negative}}}\n"
    (tmp_path / "params.yaml").write_text(params)
    return open_project(tmp_path)


def events(project: Project, times: list[datetime | None]) -> None:
    project.tables.mkdir(parents=True)
    columns = {
        "user_id": ["u", "v", "u", "u"],
        "item_id": ["a", "b", "c", "d"],
        "timestamp": times,
        "event": ["view", "view", "dislike", "view"],
        "value": [None] * 4,
    }
    schema = {"timestamp": pl.Datetime("us", "UTC"), "value": pl.Float32}
    pl.DataFrame(columns, schema_overrides=schema).write_parquet(project.tables / "events.parquet")


def test_histories_are_the_positives_of_each_user(project: Project) -> None:
    events(project, [datetime(1970, 1, 1, 0, 0, second, tzinfo=UTC) for second in range(4)])
    found = {user: (items, times) for user, items, times in promote.histories(project)}
    assert found == {"u": (["a", "d"], [0, 3_000_000]), "v": (["b"], [1_000_000])}


def test_histories_of_a_log_without_times(project: Project) -> None:
    events(project, [None] * 4)
    assert dict((user, times) for user, _, times in promote.histories(project)) == {"u": None, "v": None}


def test_a_store_that_was_only_just_named_gets_the_histories(project: Project) -> None:
    url = f"sqlite:///{project.root / 'another.sqlite'}"
    write_pointer(project.releases, Pointer("older", ()), expected=None)
    write_pointer(project.releases, Pointer("served", ("older",)), expected="older")
    assert promote.move_in(project, url) == ["served", "older"]  # no events are here
    events(project, [datetime(1970, 1, 1, 0, 0, second, tzinfo=UTC) for second in range(4)])
    (project.tables / "counts.json").write_text("{}")
    with closing(open_store(url)) as store:
        store.put_histories("older", [("w", ["z"], None)])
        assert promote.move_in(project, url) == []
        assert store.history("served", "u") == ["a", "d"] and store.history(refused_in("served"), "u") == ["c"]
        assert store.history("older", "u") is None and store.history("older", "w") == ["z"]  # it was there
        store.drop_release("served")
        Feedback("another", 0, (), (Erased("hash", 1),)).write(project.feedback)
        with pytest.raises(CallError, match="1 users were erased here, and the store lists 0"):
            promote.move_in(project, url)
        assert store.num_histories("served") is None


def test_new_data_is_judged_by_the_served_release(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    promote.refresh_accepted(project)
    assert json.loads(project.accepted.read_text()) == {}  # nothing is served

    write_pointer(project.releases, Pointer("one"), expected=None)
    record = {"events_hash": "first", "profile": {"num_events": 7}}
    (project.releases / "main" / "one.json").write_text(canonical_json(record))
    monkeypatch.setattr(pipeline, "events_hash", lambda project: "first")
    promote.refresh_accepted(project)
    assert json.loads(project.accepted.read_text()) == {}  # its own data: a second run has nothing to do

    monkeypatch.setattr(pipeline, "events_hash", lambda project: "second")
    promote.refresh_accepted(project)
    assert json.loads(project.accepted.read_text()) == {"profile": {"num_events": 7}}


@pytest.mark.parametrize(
    ("verdict", "pointer", "settled"),
    [
        ("keep", None, True),
        ("undecided", Pointer("old"), True),
        ("promote", None, False),
        ("promote", Pointer("old"), False),
        ("promote", Pointer("new", ("old",)), True),
        ("promote", Pointer("newer", ("old", "new")), True),
        ("promote", Pointer("old", (), rolled_back="new"), True),
        ("served", Pointer("new"), True),
    ],
)
def test_a_decision_stands_until_it_is_carried_out(verdict: str, pointer: Pointer | None, settled: bool) -> None:
    assert promote.is_settled({"verdict": verdict, "candidate": "new"}, pointer) is settled


def test_nothing_is_served_before_the_first_promotion(project: Project) -> None:
    assert promote.outcome(project) is None
    with pytest.raises(CallError, match="recops run"):
        promote.served_manifest(project)
