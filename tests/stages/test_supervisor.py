"""How the supervisor looks after its parts, with small programs in their place; the real ones: test_up_process.py."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from recops.bundle import Pointer, write_pointer
from recops.stages import processes, supervisor
from recops.stages.project import Project, open_project
from recops.stages.supervisor import Part, Supervisor

pytestmark = pytest.mark.process


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    monkeypatch.delenv("RECOPS_PREFECT_DATABASE", raising=False)
    (tmp_path / "params.yaml").touch()
    project = open_project(tmp_path)
    project.up.mkdir()
    yield project
    processes.sweep(project.state)


@pytest.fixture
def watching(project: Project) -> Iterator[Supervisor]:
    """Its processes are ended and waited for at the end."""
    found, started, start = Supervisor(project, 3000), [], Supervisor._start

    def remembered(part: Part) -> None:
        start(found, part)
        started.append(part.process)

    found._start = remembered  # type: ignore[method-assign]
    yield found
    found.api.close()
    for process in started:
        if process is not None:
            process.kill()
            process.wait()


def until(found: Callable[[], bool], watching: Supervisor, part: Part) -> None:
    end = time.monotonic() + 30
    while not found():
        assert time.monotonic() < end, part
        watching._look_after(part)
        time.sleep(0.02)


def test_who_dies_comes_back_and_leaves_nothing(watching: Supervisor, project: Project) -> None:
    """Here a process that went into a session of its own, as BentoML's workers do."""
    part = Part("service", ["sh", "-c", "setsid sleep 60 & sleep 60"])
    watching._look_after(part)
    until(lambda: len(processes.tagged(project.state)) == 3, watching, part)
    first, old = part.process, processes.tagged(project.state)
    assert first is not None
    first.kill()
    until(lambda: part.restarts == 1 and part.process is not None, watching, part)
    assert part.last_exit == -9 and part.process is not None and part.process.pid != first.pid
    assert not {p.pid for p in old} & {p.pid for p in processes.tagged(project.state)}


def test_who_keeps_dying_is_tried_less_and_less(watching: Supervisor) -> None:
    part = Part("service", ["false"])
    waits = []
    for number in range(1, 9):
        part.not_before = 0
        until(lambda number=number: part.failures == number, watching, part)  # type: ignore[misc]
        waits.append(part.not_before - time.monotonic())
    assert [round(wait) for wait in waits] == [1, 2, 4, 8, 16, 32, 60, 60]


def test_a_part_waits_for_what_it_needs(watching: Supervisor) -> None:
    part = Part("worker", ["sleep", "60"], waits_for=lambda: "the server")
    watching._look_after(part)
    assert (part.process, part.waiting, part.state) == (None, "the server", "waiting")

    def fails() -> None:
        raise httpx.ConnectError("refused")

    part.waits_for, part.before = lambda: None, fails
    watching._look_after(part)
    assert (part.process, part.waiting) == (None, "the server (refused)")
    part.before = lambda: None
    watching._look_after(part)
    assert part.process is not None and part.waiting is None and part.restarts == 0


def test_what_has_to_be_done_once_is(watching: Supervisor) -> None:
    part = Part("deployments", ["true"], is_once=True)
    until(lambda: part.is_done, watching, part)
    watching._look_after(part)
    assert (part.process, part.state, part.restarts) == (None, "done", 0)


def test_the_service_waits_for_a_release(watching: Supervisor, project: Project) -> None:
    service = watching.parts[-1]
    assert service.name == "service" and service.waits_for() == "the first release"
    write_pointer(project.releases, Pointer("one"), expected=None)
    assert service.waits_for() is None


def test_parts_die_with_the_supervisor(project: Project) -> None:
    code = """
import sys, time
from pathlib import Path
from recops.stages.project import open_project
from recops.stages.supervisor import Part, Supervisor
found = Supervisor(open_project(Path(sys.argv[1])), 3000)
part = Part("service", ["sleep", "60"])
found._look_after(part)
print(part.process.pid, flush=True)
time.sleep(60)
"""
    watching = subprocess.Popen([sys.executable, "-c", code, str(project.root)], stdout=subprocess.PIPE, text=True)
    assert watching.stdout is not None
    part = psutil.Process(int(watching.stdout.readline()))
    watching.kill()
    watching.wait()
    watching.stdout.close()
    if sys.platform == "linux":
        psutil.wait_procs([part], 10)
        assert not part.is_running() or part.status() == psutil.STATUS_ZOMBIE


def test_only_one_holds_the_lock(project: Project) -> None:
    lock = supervisor.lock_supervisor(project)
    assert lock is not None and supervisor.lock_supervisor(project) is None
    lock.close()
    again = supervisor.lock_supervisor(project)
    assert again is not None
    again.close()


def test_the_state_says_what_is(watching: Supervisor, project: Project) -> None:
    watching._write_state()
    state = json.loads((project.up / "state.json").read_text())
    assert (state["pid"], state["port"], state["server"]) == (os.getpid(), 3000, "http://127.0.0.1:4200/api")
    assert [(part["name"], part["state"]) for part in state["parts"]] == [
        ("server", "waiting"),
        ("worker", "waiting"),
        ("service", "waiting"),
    ]


def test_a_long_log_is_put_aside_and_written_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "LOG_BYTES", 10)
    log = tmp_path / "service.log"
    with log.open("ab", buffering=0) as writer:
        writer.write(b"short")
        supervisor.rotate(log)
        assert log.read_bytes() == b"short"
        writer.write(b" and then long")
        supervisor.rotate(log)
        writer.write(b"new")
    assert log.read_bytes() == b"new"
    assert log.with_name("service.log.1").read_bytes() == b"short and then long"


def test_a_database_is_named_to_the_server_alone(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECOPS_PREFECT_DATABASE", "postgresql://me:secret@db/prefect")
    server, worker, *_ = Supervisor(project, 3000).parts
    key = "PREFECT_SERVER_DATABASE_CONNECTION_URL"
    assert server.environment[key] == "postgresql+asyncpg://me:secret@db/prefect"
    assert key not in worker.environment


def test_it_stays_small() -> None:
    """It lives for months, and is the last that may run out of memory."""
    heavy = ("torch", "prefect", "bentoml", "dvc", "onnxruntime", "polars")
    code = f"import sys, recops.stages.supervisor; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
