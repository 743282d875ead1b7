"""What `up` refuses before it starts anything, and what `status` says while nothing is up."""

import json
import os
import socket
from pathlib import Path

import pytest

from recops.errors import CallError
from recops.stages import supervisor
from recops.stages.project import Project, open_project
from recops.stages.status import read_state, status
from recops.stages.up import check, client_environment, down, last_line, nothing_served, up


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    for name in ("RECOPS_PREFECT_DATABASE", "RECOPS_API_KEYS", "RECOPS_STORE", "PREFECT_API_URL"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "params.yaml").touch()
    return open_project(tmp_path)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ("up: {workers: 2}", r"up\.workers: 2 workers .* set up\.database"),
        ("up: {server_port: 3000}", r"3000: is the port of the service and of the Prefect server"),
        ("serve: {host: 0.0.0.0}", r"serve\.host 0\.0\.0\.0: not loopback"),
        ("up: {database: 'sqlite:///x'}", r"up\.database: .*must start with postgresql://"),
    ],
)
def test_settings_that_cannot_work(project: Project, params: str, message: str) -> None:
    project.params_file.write_text(params)
    with pytest.raises(CallError, match=message):
        check(project, 3000)


def test_two_workers_with_a_database_are_fine(project: Project) -> None:
    project.params_file.write_text("up: {workers: 2, database: 'postgresql://db/prefect'}")
    check(project, 3000)


@pytest.mark.process
@pytest.mark.parametrize("whose", ["service", "server"])
def test_a_taken_port_is_named_and_nothing_is_started(project: Project, whose: str) -> None:
    with socket.socket() as taken, socket.socket() as free:
        for one in (taken, free):
            one.bind(("127.0.0.1", 0))
            one.listen()
        port, other = taken.getsockname()[1], free.getsockname()[1]
        free.close()
        service, server = (port, other) if whose == "service" else (other, port)
        project.params_file.write_text(f"up: {{server_port: {server}}}")
        advice = "choose another --port" if whose == "service" else r"set up\.server_port"
        with pytest.raises(CallError, match=rf"127\.0\.0\.1:{port}: .*{advice}"):
            up(project, service)
    assert not supervisor.is_up(project) and not (project.up / "state.json").exists()


def test_status_of_what_is_down(project: Project) -> None:
    found = status(project)
    assert (found["up"], found["healthy"], found["parts"]) == (False, False, [])
    assert (found["served"], found["drift"], found["next_runs"]) == (None, None, None)
    assert not (project.state / "store.sqlite").exists()  # looking changes nothing
    assert "recops run" in (nothing_served(project) or "")


def test_down_where_nothing_is_up(project: Project) -> None:
    assert down(project) is False


def test_a_state_that_a_killed_supervisor_left_is_none(project: Project) -> None:
    """Its number may be another program's by now, here this one's."""
    lock = supervisor.lock_supervisor(project)
    assert lock is not None
    state = {"pid": os.getpid(), "server": "http://127.0.0.1:9/api"}
    (project.up / "state.json").write_text(json.dumps(state))
    assert read_state(project) == state
    lock.close()
    assert read_state(project) is None
    assert client_environment(project) == {}


def test_the_last_line_of_a_log(tmp_path: Path) -> None:
    log = tmp_path / "service.log"
    assert last_line(log).endswith("says nothing")
    log.write_text("--- recops up\nerror: x: wrong\n\n")
    assert last_line(log) == "x: wrong"


def test_names_of_workers_differ_by_project(project: Project, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "params.yaml").write_text("up: {workers: 2}")
    other = supervisor.worker_names(open_project(tmp_path / "other"))
    assert len(set(other)) == 2 and not set(other) & set(supervisor.worker_names(project))
