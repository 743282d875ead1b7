"""Feedback that is sealed while users are erased: nobody comes back, whatever is killed or exchanged."""

from contextlib import closing
from pathlib import Path

import pytest

from recops.data.feedback import Feedback, read_part
from recops.errors import CallError
from recops.stages import feedback
from recops.stages.project import Project
from recops.store import open_store

NOW = 10**15


@pytest.fixture
def project(tmp_path: Path) -> Project:
    (tmp_path / "params.yaml").write_text("")
    (tmp_path / ".recops").mkdir()
    return Project(tmp_path)


def tell(project: Project, *users: str) -> None:
    with closing(open_store(project.store_url)) as store:
        event = {"item_id": "a", "timestamp": 1, "received_at": 1, "event": "click"}
        store.put_events([{**event, "event_id": f"e-{user}", "user_id": user} for user in users])


def erase(project: Project, user: str) -> None:
    with closing(open_store(project.store_url)) as store:
        store.erase_user(user, NOW)


def users(project: Project) -> list[str]:
    parts = Feedback.read(project.feedback).parts
    return [user for part in parts for user in read_part(project.feedback_parts, part)["user_id"].to_list()]


@pytest.mark.parametrize("step", ["write", "settle"])
def test_a_kill_between_part_and_list_costs_nothing(
    project: Project, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    tell(project, "u1", "u2")
    feedback.seal(project)
    erase(project, "u1")

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        if step == "write":
            patched.setattr(Feedback, "write", killed)
        else:
            settle, calls = feedback.settle, iter([False, True])
            patched.setattr(feedback, "settle", lambda *rest: killed() if next(calls) else settle(*rest))
        with pytest.raises(KeyboardInterrupt):
            feedback.seal(project)
    tell(project, "u3")
    feedback.seal(project)
    assert users(project) == ["u2", "u3"]
    assert sorted(path.name for path in project.feedback_parts.iterdir()) == [
        part["file"] for part in Feedback.read(project.feedback).parts
    ]


def test_another_store_that_does_not_know_who_was_erased_is_refused(project: Project) -> None:
    """Their rows of the log would else be trained on again."""
    tell(project, "u1")
    erase(project, "u1")
    feedback.seal(project)
    for file in project.state.glob("*store.sqlite*"):
        file.unlink()
    tell(project, "u2")
    with pytest.raises(CallError, match=r"1 users were erased here, and the store lists 0.*recops erase --user"):
        feedback.seal(project)
    erase(project, "u1")
    feedback.seal(project)
    assert users(project) == ["u2"] and len(Feedback.read(project.feedback).erased) == 1
