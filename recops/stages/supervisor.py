"""The process that `recops up` leaves behind: starts the parts of a project, and starts again those that die.

In: a project, the service's port. Out: `.recops/up/state.json`, a log file a part, and the processes: the Prefect
server, its workers, `prefect deploy` once, and the service as soon as something is released. It is small and does
nothing else, so that it is the last to die; where it does, its parts end with it, and systemd or the next `up` starts
all anew. Whoever holds the lock is the supervisor: the kernel frees it with the process.
"""

import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any, TextIO

import httpx
import psutil

from recops.bundle import canonical_json, read_pointer, write_atomically
from recops.errors import BundleError, CallError
from recops.monitoring.alerts import channels
from recops.serving.parent import follow_parent
from recops.stages import processes
from recops.stages.prefect_api import POOL, PrefectApi
from recops.stages.project import Project, open_project

SERVER, WORKER, DEPLOYMENTS, SERVICE, ALERTS = "server", "worker", "deployments", "service", "alerts"
MODULE = "recops.stages.supervisor"
HOST = "127.0.0.1"  # of the Prefect server: whoever reaches it may run code
TICK_S = 0.5
STEADY_S = 60.0  # after so long a part counts as well again
LONGEST_WAIT_S = 60.0  # before a part that keeps dying is tried again
LOG_BYTES = 20_000_000  # a longer log file is kept as .1, in place of the one before
ALERTS_S = 300.0  # between two looks for what nobody tells: halted canaries, a stale model
FLOWS_END_S = 20.0  # runs that are told to end, to say so


def server_url(project: Project) -> str:
    return f"http://{HOST}:{project.params.up.server_port}/api"


def lock_supervisor(project: Project) -> TextIO | None:
    """The lock, held until it is closed; None while another process holds it, which then is the supervisor."""
    project.up.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = (project.up / "supervisor.lock").open("a+")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        return None
    lock.truncate(0)
    lock.write(str(os.getpid()))
    lock.flush()
    return lock


def holder(project: Project) -> int | None:
    """Process id of the supervisor; None where none lives."""
    return int((project.up / "supervisor.lock").read_text() or 0) or None if is_up(project) else None


def is_up(project: Project) -> bool:
    """Whether a supervisor lives. Whoever only looks takes no lock that keeps another looker out."""
    try:
        with (project.up / "supervisor.lock").open("r") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def worker_names(project: Project) -> list[str]:
    """Names of the workers in Prefect, where those of other machines and projects may stand beside them."""
    name = f"{socket.gethostname()}-{sha256(str(project.root).encode()).hexdigest()[:8]}"
    return [f"{name}-{n}" for n in range(1, project.params.up.workers + 1)]


@dataclass
class Part:
    """One process that has to be there. `before` is called before each start; where it raises httpx.HTTPError, or
    `waits_for` says for what, the part is not started yet."""

    name: str
    command: list[str]
    label: str = ""  # the address, or the name in Prefect
    waits_for: Callable[[], str | None] = lambda: None
    before: Callable[[], None] = lambda: None
    is_once: bool = False  # done when it has ended well
    every_s: float | None = None  # then done again, so much later
    environment: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None
    is_done: bool = False
    since: str | None = None  # of what `state` says
    begun: float = 0.0
    failures: int = 0  # in a row
    restarts: int = 0
    last_exit: int | None = None
    not_before: float = 0.0
    waiting: str | None = None

    @property
    def state(self) -> str:
        if self.process is not None:
            return "running"
        if self.last_exit is None:
            return "waiting"
        return "done" if self.is_once and self.last_exit == 0 else "died"

    def facts(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "label": self.label,
            "state": self.state,
            "pid": self.process.pid if self.process else None,
            "since": self.since,
            "restarts": self.restarts,
            "last_exit": self.last_exit,
            "waits_for": self.waiting,
        }


class Supervisor:
    def __init__(self, project: Project, port: int) -> None:
        self.project, self.port = project, port
        self.started_at = datetime.now(UTC).isoformat(timespec="seconds")
        self.api = PrefectApi(server_url(project), timeout_s=5)
        self.is_ending = False
        self.written = ""
        self.environment = {
            **project.environment(),
            "PREFECT_API_URL": server_url(project),
            "PREFECT_CLI_COLORS": "false",
            "PYTHONUNBUFFERED": "1",
        }
        self.parts = self._parts()

    def _parts(self) -> list[Part]:
        prefect = [sys.executable, "-m", "prefect", "--no-prompt"]
        params = self.project.params
        server = [*prefect, "server", "start", "--host", HOST, "--port", str(params.up.server_port)]
        names = worker_names(self.project)
        label = server_url(self.project).removesuffix("/api")
        parts = [Part(SERVER, server, label, environment=server_environment(self.project))]
        for n, name in enumerate(names):
            parts.append(
                Part(
                    WORKER if n == 0 else f"{WORKER}-{n + 1}",
                    [*prefect, "worker", "start", "--pool", POOL, "--type", "process", "--name", name],
                    name,
                    waits_for=lambda: None if self.api.is_healthy() else "the server",
                    before=lambda name=name: self._tidy(name),  # type: ignore[misc]
                )
            )
        if (self.project.root / "prefect.yaml").exists():
            parts.append(
                Part(
                    DEPLOYMENTS,
                    [*prefect, "deploy", "--all"],
                    "registered",
                    waits_for=lambda: self._no_worker(),
                    is_once=True,
                )
            )
        serve = [sys.executable, "-m", "recops.cli", "serve", "-C", str(self.project.root), "--port", str(self.port)]
        parts.append(Part(SERVICE, serve, f"{params.serve.host}:{self.port}", waits_for=self._nothing_released))
        if channels(params.alerts):
            look = [sys.executable, "-m", "recops.stages.alerts", str(self.project.root)]
            parts.append(Part(ALERTS, look, "looked for what nobody tells", is_once=True, every_s=ALERTS_S))
        return parts

    def _tidy(self, worker: str) -> None:
        self.api.crash(worker, "its worker was killed")
        self.api.drop_missed(datetime.now(UTC))

    def _no_worker(self) -> str | None:
        # The pool is made by the first worker, which knows what its template has to be.
        return None if self.api.workers() else "a worker"

    def _nothing_released(self) -> str | None:
        try:
            return None if read_pointer(self.project.releases) else "the first release"
        except BundleError as error:
            return str(error)

    def run(self) -> None:
        """Until it is told to end; then ends all parts, the server last."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._told_to_end)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        processes.sweep(self.project.state)  # what a supervisor that was killed has left
        rotated = 0.0
        while not self.is_ending:
            for part in self.parts:
                self._look_after(part)
            self._write_state()
            if time.monotonic() - rotated > 60:
                rotated = time.monotonic()
                for part in self.parts:
                    rotate(self._log(part))
            time.sleep(TICK_S)
        self._end()

    def _told_to_end(self, *_: Any) -> None:
        self.is_ending = True

    def _look_after(self, part: Part) -> None:
        now = time.monotonic()
        if part.process is not None:
            code = part.process.poll()
            if code is not None:
                self._has_ended(part, code)
            elif now - part.begun > STEADY_S:
                part.failures = 0
            return
        if part.is_done or now < part.not_before or self.is_ending:
            return
        try:
            part.waiting = part.waits_for()
            if part.waiting is None:
                part.before()
                self._start(part)
        except httpx.HTTPError as error:
            part.waiting = f"the server ({error or type(error).__name__})"

    def _start(self, part: Part) -> None:
        environment = {**self.environment, **part.environment, **processes.tags(self.project.state, part.name)}
        with self._log(part).open("ab") as log:
            log.write(f"--- recops up, {datetime.now(UTC).isoformat(timespec='seconds')}\n".encode())
            log.flush()
            part.process = subprocess.Popen(
                part.command,
                cwd=self.project.root,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=follow_parent,
            )
        part.begun, part.since = time.monotonic(), datetime.now(UTC).isoformat(timespec="seconds")

    def _has_ended(self, part: Part, code: int) -> None:
        part.process, part.last_exit = None, code
        part.since = datetime.now(UTC).isoformat(timespec="seconds")
        # Of a worker that was killed the runs, of a service the processes that hold the port.
        left = processes.sweep(self.project.state, part.name)
        if part.is_once and code == 0:
            part.is_done, part.failures = part.every_s is None, 0
            part.not_before = time.monotonic() + (part.every_s or 0)
            return
        part.failures += 1
        part.restarts += 1
        wait = min(2.0 ** (part.failures - 1), LONGEST_WAIT_S)
        part.not_before = time.monotonic() + wait
        also = f" ({left} processes left by it were killed)" if left else ""
        say(f"{part.name} ended with {code}{also}; started again in {wait:g} s")

    def _end(self) -> None:
        say("told to end")
        settings = self.project.params.serve
        service = [p.process for p in self.parts if p.name == SERVICE and p.process is not None]
        for process in service:
            process.terminate()  # itself ends its workers, once they have answered
        # Runs are told as well: they say that they crashed, and are not waited for by their worker.
        flows = [p for part in self.parts if part.name not in (SERVER, SERVICE) for p in self._tagged(part)]
        processes.told_to_end(flows, FLOWS_END_S)
        for process in service:
            try:
                process.wait(settings.grace_s + settings.timeout_s + 15)
            except subprocess.TimeoutExpired:
                process.kill()
        for part in self.parts:
            if part.name != SERVER:
                processes.sweep(self.project.state, part.name)
        for name in worker_names(self.project):
            try:
                self.api.crash(name, "ended by recops down")
            except httpx.HTTPError:
                continue
        self.api.close()
        processes.told_to_end(self._tagged(self.parts[0]), 15)
        processes.sweep(self.project.state)
        (self.project.up / "state.json").unlink(missing_ok=True)
        say("ended")

    def _tagged(self, part: Part) -> list[psutil.Process]:
        return processes.tagged(self.project.state, part.name)

    def _log(self, part: Part) -> Path:
        return self.project.up / f"{part.name}.log"

    def _write_state(self) -> None:
        facts = {
            "pid": os.getpid(),
            "started_at": self.started_at,
            "port": self.port,
            "server": server_url(self.project),
            "parts": [{**part.facts(), "log": str(self._log(part))} for part in self.parts],
        }
        text = canonical_json(facts)
        if text != self.written:
            write_atomically(self.project.up / "state.json", text)
            self.written = text


def server_environment(project: Project) -> dict[str, str]:
    """What the Prefect server alone is told: its database, and whose pages may ask it."""
    port = project.params.up.server_port
    found = {
        # By default any page that a browser of this machine shows may.
        "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": f"http://{HOST}:{port},http://localhost:{port}",
        "PREFECT_SERVER_DATABASE_TIMEOUT": "60",
    }
    if url := database_url(project):
        found["PREFECT_SERVER_DATABASE_CONNECTION_URL"] = "postgresql+asyncpg://" + url.partition("://")[2]
    return found


def database_url(project: Project) -> str | None:
    """RECOPS_PREFECT_DATABASE or `up.database`; None: a file in the project."""
    return os.environ.get("RECOPS_PREFECT_DATABASE") or project.params.up.database


def rotate(log: Path) -> None:
    """Keeps a log file that has grown long as `.1`; its writers append, and go on at the start of the emptied one."""
    if log.exists() and log.stat().st_size > LOG_BYTES:
        shutil.copyfile(log, log.with_name(log.name + ".1"))
        os.truncate(log, 0)


def say(text: str) -> None:
    print(f"{datetime.now(UTC).isoformat(timespec='seconds')} {text}", flush=True)


def supervise(project: Project, port: int) -> None:
    """Until told to end. Raises CallError where another supervisor does."""
    until = time.monotonic() + 2
    while (lock := lock_supervisor(project)) is None:  # also one who only looks holds it, for a moment
        if time.monotonic() > until:
            raise CallError(f"{project.root}: is up already")
        time.sleep(0.05)
    with lock:
        Supervisor(project, port).run()


def main() -> None:
    """`python -m recops.stages.supervisor FOLDER PORT`."""
    supervise(open_project(Path(sys.argv[1])), int(sys.argv[2]))


if __name__ == "__main__":
    main()
