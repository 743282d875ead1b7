"""When a retraining is due, and that one reason starts one."""

import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from recops.bundle import Pointer, canonical_json, write_atomically, write_pointer
from recops.monitoring.decisions import Decision
from recops.monitoring.drift import DriftVerdict
from recops.stages import retrain
from recops.stages.project import Project, open_project
from recops.store import open_store

NOW = datetime(2024, 5, 1, 12, tzinfo=UTC)
DRIFT = Decision(True, "drift", "drift in user_id")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """Serves release `one`, promoted ten days ago."""
    monkeypatch.setattr("recops.stages.online.read_manifest", lambda folder: {})
    (tmp_path / "params.yaml").write_text("retrain: {max_age_days: 30, cooldown_minutes: 60}\n")
    project = open_project(tmp_path)
    promoted(project, "one", NOW - timedelta(days=10))
    return project


def promoted(project: Project, release: str, at: datetime, expected: str | None = None) -> None:
    write_pointer(project.releases, Pointer(release), expected=expected)
    record = project.releases / "main" / f"{release}.json"
    record.write_text(canonical_json({"promoted_at": at.isoformat(), "profile": {"events": {"num_rows": 1000}}}))


def report(
    project: Project, verdict: Any, release: str = "one", since: str = "2024-04-24", checked_at: datetime = NOW
) -> None:
    """Keeps what the monitor found about a release."""
    found = DriftVerdict(verdict, 900, since, "2024-05-01", 168.0, 168.0, features=("user_id",) * (verdict == "drift"))
    kept = {**found.as_json(), "release": release, "checked_at": checked_at.isoformat()}
    open_store(project.store_url).put_report("drift", kept)


def train(project: Project, now: datetime, decision: Decision) -> None:
    retrain.remember(project, now, decision)
    retrain.end(project, now, "promote: better")


def audit(project: Project, what: str) -> list[dict[str, Any]]:
    """Facts of the audit log's lines of a kind."""
    return [line["facts"] for line in open_store(project.store_url).decisions() if line["what"] == what]


@pytest.mark.parametrize(
    ("verdict", "wanted", "reason"), [("none", False, "no drift"), ("drift", True, "drift in user_id")]
)
def test_drift_decides(project: Project, verdict: str, wanted: bool, reason: str) -> None:
    report(project, verdict)
    decision = retrain.decide(project, NOW)
    assert decision.is_wanted is wanted
    assert decision.reason.startswith(reason)


def test_a_drift_that_was_acted_on_starts_nothing_more(project: Project) -> None:
    report(project, "drift")
    train(project, NOW, DRIFT)
    later = NOW + timedelta(days=2)
    assert not retrain.decide(project, later).is_wanted
    report(project, "drift", checked_at=later)  # the same window, looked at again
    assert not retrain.decide(project, later).is_wanted
    report(project, "drift", since="2024-04-26")
    assert retrain.decide(project, later).is_wanted


def test_nothing_within_the_cooldown(project: Project) -> None:
    train(project, NOW, DRIFT)
    report(project, "drift")
    assert not retrain.decide(project, NOW + timedelta(minutes=59)).is_wanted
    assert retrain.decide(project, NOW + timedelta(minutes=60)).is_wanted


def test_drift_of_a_release_that_is_gone_counts_no_more(project: Project) -> None:
    report(project, "drift")
    promoted(project, "two", NOW - timedelta(days=1), expected="one")
    assert not retrain.decide(project, NOW).is_wanted


def test_age_makes_up_for_a_lost_event(project: Project) -> None:
    assert not retrain.decide(project, NOW + timedelta(days=19)).is_wanted
    assert retrain.decide(project, NOW + timedelta(days=20)).trigger == "age"


def test_nothing_released_yet(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").touch()
    assert retrain.decide(open_project(tmp_path), NOW) == Decision(True, "first", "nothing has been trained yet")


def test_two_callers_train_once(project: Project) -> None:
    report(project, "drift")
    trained = []
    start = threading.Barrier(4)

    def call() -> None:
        start.wait(10)
        with retrain.one_at_a_time(project):
            decision = retrain.decide(project, NOW)
            if decision.is_wanted:
                train(project, NOW, decision)
                trained.append(decision.reason)

    threads = [threading.Thread(target=call) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(trained) == 1


def test_a_hundred_calls_for_one_reason_are_one_training_and_two_lines(project: Project) -> None:
    report(project, "drift")
    for minutes in range(100):
        now = NOW + timedelta(minutes=minutes)
        with retrain.one_at_a_time(project):
            if (decision := retrain.decide(project, now)).is_wanted:
                train(project, now, decision)
    assert [line["outcome"] for line in audit(project, "retrained")] == ["promote: better"]
    assert [(line["is_wanted"], line["trigger"]) for line in audit(project, "retrain")] == [
        (True, "drift"),
        (False, None),
    ]


def test_what_is_held_back_is_done_later_without_another_event(project: Project) -> None:
    train(project, NOW, DRIFT)
    report(project, "drift", since="2024-04-26")
    for minutes in (1, 2, 30):
        assert retrain.decide(project, NOW + timedelta(minutes=minutes)).is_held
    assert len(audit(project, "retrain")) == 1
    assert retrain.decide(project, NOW + timedelta(minutes=61)).is_wanted


def test_no_more_trainings_a_day_than_are_allowed(project: Project) -> None:
    times = []
    for hour in range(48):
        now = NOW + timedelta(hours=2 * hour)
        report(project, "drift", since=now.isoformat())
        if (decision := retrain.decide(project, now)).is_wanted:
            train(project, now, decision)
            times.append(2 * hour)
    assert times == [0, 2, 4, 6, 24, 26, 28, 30, 48, 50, 52, 54, 72, 74, 76, 78]


def test_a_training_that_was_cut_off_is_begun_again(project: Project) -> None:
    report(project, "drift")
    retrain.remember(project, NOW, retrain.decide(project, NOW))
    for tries in (2, 3):
        now = NOW + timedelta(minutes=tries)
        decision = retrain.decide(project, now)
        assert (decision.is_wanted, decision.trigger) == (True, "cut off") and "drift in user_id" in decision.reason
        retrain.remember(project, now, decision)
        last = retrain.last_training(project)
        assert last is not None and (last["tries"], last["trigger"], len(last["started"])) == (tries, "drift", 1)
    assert not retrain.decide(project, NOW + timedelta(minutes=4)).is_wanted, "after three tries it is left"


def test_a_person_is_heard_once(project: Project) -> None:
    for name in ("anna", "bert"):
        retrain.ask(project, name, "new shelves", NOW)
    decision = retrain.decide(project, NOW)
    assert decision == Decision(True, "person", "asked by anna: new shelves")
    train(project, NOW, decision)
    assert retrain.decide(project, NOW).trigger is None
    assert len(audit(project, retrain.ASKED)) == 2, "asked, and begun"


def test_new_events_ask_until_they_were_trained_on(project: Project) -> None:
    project.tables.mkdir(parents=True)
    for events, trigger in ((1199, None), (1200, "volume")):
        write_atomically(project.tables / "counts.json", canonical_json({"events": events}))
        assert retrain.decide(project, NOW).trigger == trigger
    train(project, NOW, retrain.decide(project, NOW))  # and the gate left the old release
    for events, trigger in ((1399, None), (1400, "volume")):
        write_atomically(project.tables / "counts.json", canonical_json({"events": events}))
        assert retrain.decide(project, NOW + timedelta(hours=2)).trigger == trigger


def test_a_training_from_before_an_upgrade_has_ended(project: Project) -> None:
    old = {"at": (NOW - timedelta(days=1)).isoformat(), "reason": "drift in user_id", "drift": None}
    write_atomically(project.state / "retrained.json", canonical_json(old))
    assert retrain.decide(project, NOW).trigger is None
