"""The hit rate of the served release's last days against its first: what counts as a fall, and what does not."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from recops.bundle import Pointer, release_folder, write_pointer
from recops.stages.online import fall
from recops.stages.project import Project, open_project
from recops.store import open_store

SINCE = datetime(2024, 5, 1, tzinfo=UTC)
NOW = SINCE + timedelta(days=31)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    (tmp_path / "params.yaml").write_text("retrain: {online_days: 7}\nfeedback: {window: 1d}\n")
    project = open_project(tmp_path)
    release_folder(project.releases, "one").mkdir(parents=True)
    write_pointer(project.releases, Pointer("one"), expected=None)
    return project


@pytest.fixture(autouse=True)
def no_manifest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recops.stages.online.read_manifest", lambda folder: {})


def tell(project: Project, day: float, share: float, num: int = 600, release: str = "one") -> None:
    """Answers to `num` users on a day, of whom a share chose what stood first."""
    store, at = open_store(project.store_url), SINCE + timedelta(days=day)
    ids = [f"{release}-{day}-{n}" for n in range(num)]
    items = [{"item_id": "a", "rank": 1, "score": 1.0, "propensity": 1.0}]
    known = {"time": at, "items": items, "release": release, "variant": "default", "source": "model"}
    store.log_answers({**known, "request_id": one, "user_id": f"u{one}"} for one in ids)
    event = {"item_id": "a", "event": "click", "timestamp": int(at.timestamp() * 1e6) + 1}
    chosen = ids[: round(share * num)]
    store.put_events([{**event, "event_id": one, "user_id": f"u{one}", "request_id": one} for one in chosen])


def found(project: Project, now: datetime = NOW) -> str | None:
    return fall(project, open_store(project.store_url), SINCE, now)


def test_a_fall_is_told_with_its_figures(project: Project) -> None:
    tell(project, 1, 0.5)
    tell(project, 25, 0.3)
    assert str(found(project)).startswith("hit_rate 0.3000 of the last 7 days against 0.5000 of the first: -0.2000 [")


@pytest.mark.parametrize("share", [0.5, 0.49, 0.6])
def test_what_is_not_proven_is_no_fall(project: Project, share: float) -> None:
    tell(project, 1, 0.5)
    tell(project, 25, share)
    assert found(project) is None


def test_few_users_say_nothing(project: Project) -> None:
    tell(project, 1, 0.9, num=20)
    tell(project, 25, 0.0, num=20)
    assert found(project) is None


def test_only_complete_answers_of_this_release_are_judged(project: Project) -> None:
    tell(project, 1, 0.5)
    tell(project, 25, 0.5)
    tell(project, 30.5, 0.0)  # what follows these is still to come
    tell(project, 26, 0.0, release="two")
    assert found(project) is None


def test_the_first_days_are_not_compared_with_themselves(project: Project) -> None:
    tell(project, 1, 0.5)
    tell(project, 8, 0.3)
    assert found(project, SINCE + timedelta(days=14)) is None
    assert json.dumps(found(project, SINCE + timedelta(days=15))) != "null"
