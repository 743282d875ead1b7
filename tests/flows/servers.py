"""A real Prefect server with one work pool, one real process worker and the deployments of a project, for tests."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import yaml

from recops.ports import free_port
from recops.stages.project import Project

DONE = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")


def start(command: list[str], cwd: Path, environment: dict[str, str], log: Path) -> subprocess.Popen:
    """A process of its own group."""
    with log.open("a") as out:
        return subprocess.Popen(
            command, cwd=cwd, env=environment, stdout=out, stderr=subprocess.STDOUT, start_new_session=True
        )


def kill(process: subprocess.Popen) -> None:
    """Kills a process with all it has started."""
    family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    os.killpg(process.pid, signal.SIGKILL)
    for member in family:
        try:
            member.kill()
        except psutil.NoSuchProcess:
            continue
    process.wait(30)


def until(found: Callable[[], Any], seconds: float, what: str) -> Any:
    """The first true value of `found`, asked twice a second."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if value := found():
            return value
        time.sleep(0.5)
    pytest.fail(f"not within {seconds:.0f} s: {what}")


class Server:
    """The server and its worker, which may be killed and started again."""

    def __init__(self, project: Project) -> None:
        self.port = free_port()
        url = f"http://127.0.0.1:{self.port}/api"
        self.project, self.logs = project, project.root.parent
        self.http = httpx.Client(base_url=url, timeout=120)
        self.processes: dict[str, subprocess.Popen] = {}
        self.environment = {
            **project.environment(),
            "OMP_NUM_THREADS": "1",
            "PREFECT_API_URL": url,
            "PREFECT_WORKER_QUERY_SECONDS": "2",
            "PREFECT_CLI_COLORS": "false",
        }

    def start(self, name: str, *arguments: str) -> None:
        command = [sys.executable, "-m", "prefect", name, "start", *arguments]
        # The worker's own folder is not the project: where to work is part of the deployment.
        cwd = self.project.root if name == "server" else self.logs
        self.processes[name] = start(command, cwd, self.environment, self.logs / f"{name}.log")

    def start_server(self) -> None:
        self.start("server", "--host", "127.0.0.1", "--port", str(self.port))
        until(self.is_healthy, 120, "the server is up")

    def start_worker(self) -> None:
        self.start("worker", "--pool", "recops", "--name", "worker")

    def kill(self, *names: str) -> None:
        """The server or the worker, with all they have started."""
        for name in names:
            kill(self.processes.pop(name))

    def prefect(self, *arguments: str) -> None:
        command = [sys.executable, "-m", "prefect", "--no-prompt", *arguments]
        done = subprocess.run(
            command, cwd=self.project.root, env=self.environment, capture_output=True, text=True, timeout=180
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def is_healthy(self) -> bool:
        try:
            return self.http.get("/health").status_code == 200
        except httpx.TransportError:
            return False

    def call(self, path: str, body: Any) -> Any:
        answer = self.http.post(path, json=body)
        answer.raise_for_status()
        return answer.json() if answer.content else None

    def runs(self, flow: str) -> list[dict[str, Any]]:
        """Flow runs that were asked for, begun or not, and those of a schedule that have begun; first begun first."""
        found = self.call("/flow_runs/filter", {"flows": {"name": {"any_": [flow]}}, "sort": "START_TIME_ASC"})
        asked = [r for r in found if not r["auto_scheduled"] or r["state_type"] not in ("SCHEDULED", "PENDING")]
        return sorted(asked, key=lambda r: r["start_time"] or "9999")

    def tasks(self, run: dict[str, Any]) -> dict[str, dict[str, Any]]:
        found = self.call("/task_runs/filter", {"flow_runs": {"id": {"any_": [run["id"]]}}})
        return {task["name"]: task for task in found}

    def artifacts(self, run: dict[str, Any]) -> dict[str, dict[str, Any]]:
        found = self.call("/artifacts/filter", {"artifacts": {"flow_run_id": {"any_": [run["id"]]}}})
        return {artifact["key"]: artifact for artifact in found}

    def finished(self, flow: str, number: int, seconds: float = 400) -> dict[str, Any]:
        """The flow's run of that number (from 1), once it has ended."""

        def ended() -> dict[str, Any] | None:
            runs = self.runs(flow)
            return runs[number - 1] if len(runs) >= number and runs[number - 1]["state_type"] in DONE else None

        return until(ended, seconds, f"run {number} of {flow} ended")


@contextmanager
def deployed(project: Project, schedules: dict[str, dict[str, Any]]) -> Iterator[Server]:
    """Started, deployed, and working; of the schedules only those given by deployment: an hourly run that falls due
    meanwhile would have the one that a test asks for cancelled."""
    server = Server(project)
    try:
        server.start_server()
        server.prefect("work-pool", "create", "recops", "--type", "process")
        deployments = project.root / "prefect.yaml"
        wanted = yaml.safe_load(deployments.read_text())
        for deployment in wanted["deployments"]:
            deployment["schedules"] = [schedules[deployment["name"]]] if deployment["name"] in schedules else []
        deployments.write_text(yaml.safe_dump(wanted, sort_keys=False))
        server.prefect("deploy", "--all")
        server.prefect("automation", "create", "--from-file", "automations.yaml")
        server.start_worker()
        yield server
    finally:
        server.kill(*server.processes)
        server.http.close()


def every(seconds: float, first_in: float) -> dict[str, Any]:
    """A schedule."""
    first = (datetime.now(UTC) + timedelta(seconds=first_in)).isoformat()
    return {"interval": seconds, "anchor_date": first, "timezone": "UTC"}
