"""What the flow `reconcile` does about runs that died and work left undone, without a server."""

import fcntl
import logging
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import pytest
from prefect.exceptions import ObjectNotFound
from prefect.states import Completed, Running

from flows import reconcile as module
from flows import runs
from recops.stages.locks import alone
from recops.stages.project import Project, open_project
from recops.store import open_store


class Client:
    """Knows runs by id, and takes new states of them."""

    def __init__(self) -> None:
        self.states: dict[UUID, Any] = {}

    def read_flow_run(self, run_id: UUID) -> Any:
        if run_id not in self.states:
            raise ObjectNotFound(Exception("404"))
        return SimpleNamespace(id=run_id, name=f"run-{run_id}", state=self.states[run_id])

    def set_flow_run_state(self, run_id: UUID, state: Any, force: bool) -> None:
        self.states[run_id] = state


@pytest.fixture
def project(tmp_path: Path) -> Project:
    (tmp_path / "params.yaml").touch()
    return open_project(tmp_path)


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Client:
    client = Client()

    @contextmanager
    def get_client(sync_client: bool):
        yield client

    monkeypatch.setattr(runs, "get_client", get_client)
    return client


def files(project: Project) -> list[Path]:
    return sorted((project.state / "runs").glob("*"))


def test_only_a_run_whose_process_is_gone_is_crashed(
    project: Project, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    living, dead, done, unknown = (uuid4() for _ in range(4))
    client.states = {living: Running(), dead: Running(), done: Completed()}
    monkeypatch.setattr(runs, "runtime", SimpleNamespace(flow_run=SimpleNamespace(id=str(living))))
    with runs.held(project):
        for run_id in (dead, done, unknown):
            (project.state / "runs" / str(run_id)).touch()
        assert runs.crash_the_dead(project) == [f"run-{dead}"]
        assert [path.name for path in files(project)] == [str(living)]
    assert (
        client.states[dead].is_crashed() and client.states[living].is_running() and client.states[done].is_completed()
    )
    assert files(project) == []


@pytest.fixture
def called(project: Project, client: Client, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Which flows `reconcile` calls; nothing is due unless a test says otherwise."""
    called: list[str] = []
    monkeypatch.setattr(module, "get_run_logger", lambda: logging.getLogger("test"))
    monkeypatch.setattr(module, "advance", lambda root: None)
    monkeypatch.setattr(module, "retrain", lambda root: called.append("retrain") or {"retrained": False})
    monkeypatch.setattr(module, "train_and_release", lambda root: called.append("train_and_release"))
    monkeypatch.setattr(module, "undone", lambda project: None)
    return called


def test_where_all_is_done_nothing_is_run(project: Project, called: list[str]) -> None:
    found = module.reconcile.fn(str(project.root))
    assert found == {"crashed": [], "busy": False, "rollout": None, "retrained": False, "repaired": None}
    assert called == ["retrain"]


def test_what_was_left_undone_is_run_again_and_recorded(
    project: Project, called: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "undone", lambda project: "the run died")
    assert module.reconcile.fn(str(project.root))["repaired"] == "the run died"
    assert called == ["retrain", "train_and_release"]
    (line,) = open_store(project.store_url).decisions()
    assert (line["what"], line["facts"]) == ("reconcile", {"why": "the run died"})


def test_one_training_does_for_both(project: Project, called: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "undone", lambda project: "the run died")
    monkeypatch.setattr(module, "retrain", lambda root: {"retrained": True})
    assert module.reconcile.fn(str(project.root))["repaired"] is None and called == []


@pytest.mark.parametrize("lock", ["run", "command", "retrain"])
def test_a_run_at_work_is_left_alone(project: Project, called: list[str], lock: str) -> None:
    with alone(project, name=lock):
        assert module.reconcile.fn(str(project.root))["busy"]
    assert called == []
    with (project.state / "feedback.lock").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        assert not module.reconcile.fn(str(project.root))["busy"]
