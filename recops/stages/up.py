"""`recops up` and `recops down`: everything of a project on this machine, and its clean end.

In: a project. Out: a supervisor (supervisor.py) that runs on, or nothing that does. What stands where is asked of
status.py.
"""

import fcntl
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from recops.bundle import read_pointer
from recops.errors import CallError, RecopsError
from recops.serving.guard import is_loopback
from recops.serving.launch import check_port
from recops.stages import processes, supervisor
from recops.stages.prefect_api import PrefectApi
from recops.stages.project import Project
from recops.stages.status import parts, read_state, waits_for

PATIENCE_S = 300.0  # a Prefect server that makes its database on a busy machine takes a minute
DOWN_S = 120.0  # what a supervisor may take to end its parts, before all is killed


class StartError(RecopsError):
    """Something that was to be started does not run."""

    exit_code = 1


@contextmanager
def one_at_a_time(project: Project) -> Iterator[None]:
    """Two calls of `up` and `down` at once would each see half of the other."""
    project.up.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (project.up / "command.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def up(
    project: Project,
    port: int | None = None,
    say: Callable[[str], None] = print,
    patience_s: float = PATIENCE_S,
) -> bool:
    """Starts what does not run yet and comes back once all of it is healthy; False where it all ran before.

    Before the first release the service waits for one. Raises CallError for a taken port and wrong settings, StartError
    for a part that ends or is not healthy within `patience_s`; what was started is then ended again.
    """
    with one_at_a_time(project):
        if supervisor.is_up(project):
            state = _state(project)
            if port is not None and port != state["port"]:
                raise CallError(f"--port {port}: it is up with port {state['port']}; `recops down` ends that first")
            _wait(project, say, patience_s, None)
            return False
        port = _prepared(project, port)
        child = _launch(project, port)
        try:
            _wait(project, say, patience_s, child)
        except BaseException:
            _end(project)
            raise
        return True


def _prepared(project: Project, port: int | None) -> int:
    """The port, once nothing stands in the way of a start. Raises CallError for what does."""
    port = port or project.params.serve.port
    check(project, port)
    processes.sweep(project.state)  # what a supervisor that was killed has left, which may hold the ports
    check_ports(project, port)
    (project.up / "state.json").unlink(missing_ok=True)
    return port


def foreground(project: Project, port: int | None = None) -> None:
    """As `up`, in this process, until it is told to end. What does not come up is tried again, for as long as it takes:
    whoever started this looks after it. Raises CallError as `up` does, and where it is up already."""
    with one_at_a_time(project):
        if supervisor.is_up(project):
            raise CallError(f"{project.root}: is up already; `recops down` ends it")
        port = _prepared(project, port)
    os.environ.update(project.environment())
    supervisor.supervise(project, port)


def check(project: Project, port: int) -> None:
    """Raises CallError for settings that could not work."""
    params = project.params
    if params.up.workers > 1 and supervisor.database_url(project) is None:
        raise CallError(
            f"up.workers: {params.up.workers} workers lock each other out of an SQLite file; set up.database or "
            "RECOPS_PREFECT_DATABASE to postgresql://HOST/DATABASE"
        )
    if port == params.up.server_port:
        raise CallError(f"{port}: is the port of the service and of the Prefect server (up.server_port)")
    if not is_loopback(params.serve.host) and not project.keys_file.exists() and not os.environ.get("RECOPS_API_KEYS"):
        raise CallError(f"serve.host {params.serve.host}: not loopback, and there are no keys (`recops keys add`)")


def check_ports(project: Project, port: int) -> None:
    """Raises CallError for a port that another program holds."""
    params = project.params
    check_port(params.serve.host, port)
    check_port(supervisor.HOST, params.up.server_port, advice="set up.server_port in params.yaml to a free one")


def _launch(project: Project, port: int) -> subprocess.Popen[bytes]:
    log_file = project.up / "supervisor.log"
    supervisor.rotate(log_file)
    with log_file.open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", supervisor.MODULE, str(project.root), str(port)],
            cwd=project.root,
            env=project.environment(),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def _state(project: Project) -> dict[str, Any]:
    """What the supervisor last wrote; waits a moment for one that has only just been started."""
    until = time.monotonic() + 30
    while (state := read_state(project)) is None:
        if time.monotonic() > until:
            raise StartError(f"{project.up / 'supervisor.log'}: the supervisor says nothing; {_last_line(project)}")
        time.sleep(0.1)
    return state


def _wait(
    project: Project, say: Callable[[str], None], patience_s: float, child: subprocess.Popen[bytes] | None
) -> None:
    """Until all is healthy, saying of each part once that it is. `child`: a supervisor that has just been started."""
    until, told = time.monotonic() + patience_s, set()
    while True:
        if child is not None and child.poll() is not None:
            raise StartError(f"the supervisor ended with {child.returncode}: {_last_line(project)}")
        found = parts(project)
        for part in found:
            if child is not None and part["restarts"]:
                raise StartError(f"{part['name']}: ended with {part['last_exit']}: {last_line(Path(part['log']))}")
            if part["healthy"] and part["name"] not in told:
                told.add(part["name"])
                say(f"{part['name']}: {part['what']}")
        missing = waits_for(found)
        if found and not missing:
            return
        if time.monotonic() > until:
            names = ", ".join(f"{part['name']} ({part['what']}; {part['log']})" for part in missing)
            raise StartError(f"not healthy after {patience_s:.0f} s: {names or 'the supervisor'}")
        time.sleep(0.5)


def down(project: Project) -> bool:
    """Ends everything, whatever has become of it; False where nothing ran."""
    with one_at_a_time(project):
        return _end(project)


def _end(project: Project) -> bool:
    pid = supervisor.holder(project)
    if pid is not None:
        try:
            process = psutil.Process(pid)
            process.terminate()
            process.wait(DOWN_S)
        except psutil.TimeoutExpired:
            process.kill()
            process.wait(10)
        except psutil.NoSuchProcess:
            pass
    left = processes.sweep(project.state)
    (project.up / "state.json").unlink(missing_ok=True)
    return pid is not None or left > 0


def last_line(log: Path) -> str:
    """The last thing that a log file says, for an error to name."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.exists() else []
    said = [line.strip() for line in lines if line.strip() and not line.startswith("---")]
    return said[-1].removeprefix("error: ") if said else f"{log} says nothing"


def _last_line(project: Project) -> str:
    return last_line(project.up / "supervisor.log")


def client_environment(project: Project) -> dict[str, str]:
    """Where a flow that is run by hand is to be told of: the server of `recops up`, while it is up. A temporary server
    beside it would lock the same SQLite file."""
    state = read_state(project)
    if state is None or os.environ.get("PREFECT_API_URL"):
        return {}
    with PrefectApi(state["server"]) as api:
        return {"PREFECT_API_URL": state["server"]} if api.is_healthy() else {}


def nothing_served(project: Project) -> str | None:
    """What to say where nothing is released yet."""
    if read_pointer(project.releases) is not None:
        return None
    return "nothing is released yet, so the service waits: recops run (or the nightly run) trains and releases"
