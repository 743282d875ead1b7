"""`recops up`, `status` and `down` with a real Prefect server, worker and service."""

import json
import os
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from recops.stages import processes
from recops.stages.project import Project
from tests.stages.conftest import BIN, Shop, new_shop

pytestmark = [pytest.mark.process, pytest.mark.timeout(900)]


def free_ports() -> tuple[int, int]:
    with socket.socket() as one, socket.socket() as two:
        for each in (one, two):
            each.bind(("127.0.0.1", 0))
        return one.getsockname()[1], two.getsockname()[1]


def status(shop: Shop) -> dict[str, Any]:
    return json.loads(shop.done("recops", "status", "--json"))


def pids(found: dict[str, Any]) -> dict[str, int]:
    return {part["name"]: part["pid"] for part in found["parts"]}


def until(found: Callable[[], Any], what: str, seconds: float = 180) -> Any:
    end = time.monotonic() + seconds
    while not (value := found()):
        assert time.monotonic() < end, f"not within {seconds:.0f} s: {what}"
        time.sleep(0.5)
    return value


def check_all_gone(shop: Shop, ports: tuple[int, int]) -> None:
    assert processes.tagged(shop.folder / ".recops") == []
    for port in ports:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))


@pytest.fixture
def ports() -> tuple[int, int]:
    """Of the service and of the Prefect server."""
    return free_ports()


def settled(shop: Shop, ports: tuple[int, int]) -> Iterator[Shop]:
    params = shop.folder / "params.yaml"
    params.write_text(f"{params.read_text()}up: {{server_port: {ports[1]}}}\n")
    yield shop
    shop.call("recops", "down")
    processes.sweep(shop.folder / ".recops")


@pytest.fixture
def ready(shop: Shop, ports: tuple[int, int]) -> Iterator[Shop]:
    """A released project with ports of its own."""
    yield from settled(shop, ports)


@pytest.fixture
def fresh(tmp_path: Path, log: Path, ports: tuple[int, int]) -> Iterator[Shop]:
    """The same, nothing released."""
    yield from settled(new_shop(tmp_path / "shop", log), ports)


def test_up_status_kills_down(ready: Shop, ports: tuple[int, int]) -> None:
    printed = ready.done("recops", "up", "--port", str(ports[0]))
    assert all(name in printed for name in ("server: ", "worker: ", "deployments: ", "service: "))
    first = status(ready)
    assert first["healthy"] and all(part["healthy"] and not part["restarts"] for part in first["parts"])
    assert {run["deployment"] for run in first["next_runs"]} >= {"train_and_release/nightly", "monitor/hourly"}
    assert first["served"]["release"] and first["served"]["promoted_at"] and first["served"]["data"]
    assert "train_and_release/nightly" in ready.done("recops", "status")

    assert "It was up already" in ready.done("recops", "up")
    assert pids(status(ready)) == pids(first)
    wrong = ready.call("recops", "up", "--port", str(ports[1]))
    assert wrong.returncode == 2 and "recops down" in wrong.stderr

    # Each of them dies, and comes back; the service with its worker processes.
    for name in ("service", "worker", "server"):
        os.kill(pids(first)[name], signal.SIGKILL)
    found = until(lambda: (now := status(ready))["healthy"] and now, "all has come back")
    assert {part["name"]: part["restarts"] for part in found["parts"]}["service"] == 1
    assert all(pids(found)[name] != pids(first)[name] for name in ("service", "worker", "server"))
    with urllib.request.urlopen(f"http://127.0.0.1:{ports[0]}/readyz") as answer:
        assert json.load(answer)["release"] == first["served"]["release"]

    assert "Everything has ended" in ready.done("recops", "down")
    check_all_gone(ready, ports)
    assert "Nothing was up" in ready.done("recops", "down")
    assert not status(ready)["up"]


def test_a_killed_supervisor_leaves_no_orphans(ready: Shop, ports: tuple[int, int]) -> None:
    ready.done("recops", "up", "--port", str(ports[0]))
    first = status(ready)
    psutil.Process(first["supervisor"]).kill()
    until(lambda: not processes.tagged(ready.folder / ".recops"), "its parts have ended with it", 30)
    assert not status(ready)["up"]
    ready.done("recops", "up", "--port", str(ports[0]))
    again = status(ready)
    assert again["healthy"] and again["supervisor"] != first["supervisor"]
    psutil.Process(again["supervisor"]).kill()
    ready.call("recops", "down")
    check_all_gone(ready, ports)


def test_before_the_first_release(fresh: Shop, ports: tuple[int, int]) -> None:
    """The service waits; `recops run` tells the server that is up, and what it releases is served at once. A worker
    killed in a training takes its run with it, and Prefect does not go on to call that running."""
    assert "nothing is released yet" in fresh.done("recops", "up", "--port", str(ports[0]))
    found = status(fresh)
    assert found["healthy"] and found["served"] is None
    assert found["parts"][-1]["what"] == "waits for the first release"

    environment = {
        "PREFECT_API_URL": f"http://127.0.0.1:{ports[1]}/api",
        "PREFECT_HOME": str(fresh.folder / ".recops/p"),
    }
    fresh.done("prefect", "deployment", "run", "train_and_release/nightly", **environment)
    until(lambda: any(run["state"] == "Running" for run in status(fresh)["last_runs"]), "the run is at work")
    os.kill(pids(status(fresh))["worker"], signal.SIGKILL)
    crashed = until(
        lambda: [run for run in status(fresh)["last_runs"] if run["state"] == "Crashed"], "the run is marked", 90
    )
    assert "killed" in crashed[0]["why"]
    until(lambda: status(fresh)["healthy"], "the worker is back")

    fresh.done("recops", "run")
    assert status(fresh)["last_runs"][0]["state"] == "Completed"
    until(lambda: status(fresh)["parts"][-1]["healthy"], "the release is served")
    fresh.done("recops", "down")
    check_all_gone(fresh, ports)


def test_what_the_service_refuses_is_told_and_nothing_stays(ready: Shop, ports: tuple[int, int]) -> None:
    (ready.folder / ".recops" / "keys.json").write_text("no keys\n")
    refused = ready.call("recops", "up", "--port", str(ports[0]))
    assert refused.returncode == 1 and "service" in refused.stderr and "keys.json" in refused.stderr
    check_all_gone(ready, ports)
    assert not Project(ready.folder).up.joinpath("state.json").exists()


def test_two_workers_on_postgresql_in_the_foreground(
    ready: Shop, ports: tuple[int, int], new_database: Callable[[], str]
) -> None:
    params = ready.folder / "params.yaml"
    params.write_text(params.read_text().replace("up: {", "up: {workers: 2, "))
    environment = {**os.environ, "RECOPS_PREFECT_DATABASE": new_database(), "OMP_NUM_THREADS": "1"}
    command = [BIN / "recops", "up", "--foreground", "--port", str(ports[0])]
    with (ready.folder / "up.log").open("w") as log:
        process = subprocess.Popen(command, cwd=ready.folder, env=environment, stdout=log, stderr=subprocess.STDOUT)
    try:
        found = until(lambda: (now := status(ready))["healthy"] and now, "both workers are up")
        assert {"worker", "worker-2"} <= set(pids(found)) and found["supervisor"] == process.pid
        assert not (ready.folder / ".recops" / "prefect" / "prefect.db").exists()
        assert "It was up already" in ready.done("recops", "up")
        process.terminate()
        assert process.wait(120) == 0
    finally:
        process.kill()
        process.wait()
    check_all_gone(ready, ports)
