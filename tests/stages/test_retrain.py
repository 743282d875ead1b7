"""When a retraining is due, and that one reason starts one."""

import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from recops.bundle import Pointer, canonical_json, write_pointer
from recops.monitoring.drift import DriftVerdict
from recops.stages import retrain
from recops.stages.project import Project, open_project
from recops.store import open_store

NOW = datetime(2024, 5, 1, 12, tzinfo=UTC)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """Serves release `one`, promoted ten days ago."""
    (tmp_path / "params.yaml").write_text("retrain: {max_age_days: 30, cooldown_minutes: 60}\n")
    project = open_project(tmp_path)
    promoted(project, "one", NOW - timedelta(days=10))
    return project


def promoted(project: Project, release: str, at: datetime, expected: str | None = None) -> None:
    write_pointer(project.releases, Pointer(release), expected=expected)
    record = project.releases / "main" / f"{release}.json"
    record.write_text(canonical_json({"promoted_at": at.isoformat()}))


def report(
    project: Project, verdict: Any, release: str = "one", since: str = "2024-04-24", checked_at: datetime = NOW
) -> None:
    """Keeps what the monitor found about a release."""
    found = DriftVerdict(verdict, 900, since, "2024-05-01", 168.0, 168.0, features=("user_id",) * (verdict == "drift"))
    kept = {**found.as_json(), "release": release, "checked_at": checked_at.isoformat()}
    open_store(project.store_url).put_report("drift", kept)


@pytest.mark.parametrize(
    ("verdict", "wanted", "reason"), [("none", False, "no drift"), ("drift", True, "drift in user_id")]
)
def test_drift_decides(project: Project, verdict: str, wanted: bool, reason: str) -> None:
    report(project, verdict)
    decided, why = retrain.decide(project, NOW)
    assert decided is wanted
    assert why.startswith(reason)


def test_a_drift_that_was_acted_on_starts_nothing_more(project: Project) -> None:
    report(project, "drift")
    retrain.remember(project, NOW, "drift in user_id")
    later = NOW + timedelta(days=2)
    assert not retrain.decide(project, later)[0]
    report(project, "drift", checked_at=later)  # the same window, looked at again
    assert not retrain.decide(project, later)[0]
    report(project, "drift", since="2024-04-26")
    assert retrain.decide(project, later)[0]


def test_nothing_within_the_cooldown(project: Project) -> None:
    retrain.remember(project, NOW, "by hand")
    report(project, "drift")
    assert not retrain.decide(project, NOW + timedelta(minutes=59))[0]
    assert retrain.decide(project, NOW + timedelta(minutes=60))[0]


def test_drift_of_a_release_that_is_gone_counts_no_more(project: Project) -> None:
    report(project, "drift")
    promoted(project, "two", NOW - timedelta(days=1), expected="one")
    assert not retrain.decide(project, NOW)[0]


def test_age_makes_up_for_a_lost_event(project: Project) -> None:
    assert not retrain.decide(project, NOW + timedelta(days=19))[0]
    assert retrain.decide(project, NOW + timedelta(days=20))[0]


def test_nothing_released_yet(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").touch()
    assert retrain.decide(open_project(tmp_path), NOW) == (True, "nothing has been trained yet")


def test_two_callers_train_once(project: Project) -> None:
    report(project, "drift")
    trained = []
    start = threading.Barrier(4)

    def call() -> None:
        start.wait(10)
        with retrain.one_at_a_time(project):
            wanted, reason = retrain.decide(project, NOW)
            if wanted:
                retrain.remember(project, NOW, reason)
                trained.append(reason)

    threads = [threading.Thread(target=call) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(trained) == 1
