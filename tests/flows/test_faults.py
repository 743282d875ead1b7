"""What the loop survives on a real Prefect server: a restart between detection and action, and a kill in training."""

import json
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import pytest

from recops.bundle import read_pointer
from recops.stages import drift, feedback, pipeline
from recops.stages.project import Project
from recops.store import open_store
from tests.flows.servers import Server, deployed, until

pytestmark = [pytest.mark.process, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def server(shop: Project) -> Iterator[Server]:
    """After the first release."""
    with deployed(shop, {}) as server:
        server.prefect("deployment", "run", "train_and_release/nightly")
        assert server.finished("train_and_release", 1, 600)["state_type"] == "COMPLETED"
        yield server


def retrained(project: Project) -> list[dict[str, Any]]:
    """Trainings in the audit log."""
    with closing(open_store(project.store_url)) as store:
        return [line["facts"] for line in store.decisions() if line["what"] == "retrained"]


def test_a_restart_between_detection_and_action_loses_nothing(
    server: Server, shop: Project, write_log: Callable[[str], object]
) -> None:
    before = read_pointer(shop.releases)
    assert before is not None
    write_log("drifted")
    # Detected, and before the event has left, all of it dies.
    feedback.seal(shop)
    pipeline.repro(shop, "ingest", say=lambda line: None)
    assert drift.drift(shop, drift.newest_window(shop), None)["verdict"] == "drift"
    server.kill("worker", "server")
    server.start_server()
    server.start_worker()
    server.prefect("deployment", "run", "reconcile/reconcile")
    assert server.finished("reconcile", 1)["state_type"] == "COMPLETED"
    after = read_pointer(shop.releases)
    assert after is not None and after.history == (before.release,)

    # The event comes after all, a hundred times.
    resource = {"prefect.resource.id": f"recops.release.{before.release}"}
    late = {"event": "recops.drift", "resource": resource, "related": [], "payload": {}}
    now = datetime.now(UTC).isoformat()
    server.call("/events", [{**late, "id": str(uuid.uuid4()), "occurred": now} for _ in range(100)])
    until(lambda: len(server.runs("retrain")) == 2, 60, "the events have started one run")
    server.finished("retrain", 2)
    server.prefect("deployment", "run", "reconcile/reconcile")
    server.finished("reconcile", 2)
    assert [line["trigger"] for line in retrained(shop)] == ["drift"]
    assert read_pointer(shop.releases) == after


def training(worker: subprocess.Popen) -> bool:
    """Whether the stage train runs under a worker."""
    for process in psutil.Process(worker.pid).children(recursive=True):
        try:
            words = process.cmdline()
        except (psutil.NoSuchProcess, psutil.ZombieProcess):
            continue
        if words[-1:] == ["train"] and any(Path(word).name == "recops" for word in words):
            return True
    return False


def metrics(project: Project) -> dict[str, float]:
    found = json.loads((project.reports / "metrics.json").read_text())["models"]
    return {f"{model} {name}": figure["value"] for model in found for name, figure in found[model]["metrics"].items()}


def test_a_worker_killed_in_training(server: Server, shop: Project, write_log: Callable[[str], object]) -> None:
    before = read_pointer(shop.releases)
    assert before is not None
    write_log("drifted" if len(before.history) == 0 else "ordinary")
    undisturbed = Project(shop.root.parent / "undisturbed")
    shutil.copytree(shop.root, undisturbed.root, symlinks=True)
    num = len(server.runs("train_and_release"))
    server.prefect("deployment", "run", "train_and_release/nightly")
    end = time.monotonic() + 300
    while not training(server.processes["worker"]):
        assert time.monotonic() < end, "train was never run"
        time.sleep(0.02)
    server.kill("worker")
    killed = time.monotonic()
    assert server.runs("train_and_release")[num]["state_type"] == "RUNNING"
    server.start_worker()
    run = until(
        lambda: next(iter(r for r in server.runs("train_and_release")[num:] if r["state_type"] != "RUNNING"), None),
        90 - (time.monotonic() - killed),
        "the run is no longer shown as running",
    )
    assert run["state_type"] == "CRASHED" and read_pointer(shop.releases) == before

    num = len(server.runs("reconcile"))
    for number in (1, 2):
        server.prefect("deployment", "run", "reconcile/reconcile")
        assert server.finished("reconcile", num + number)["state_type"] == "COMPLETED"
    after = read_pointer(shop.releases)
    assert after is not None and after.history == (*before.history, before.release), "exactly one new release"
    command = [sys.executable, "-m", "recops.cli", "run", "-C", str(undisturbed.root)]
    subprocess.run(command, env=undisturbed.environment(), check=True, capture_output=True, timeout=400)
    assert metrics(shop) == pytest.approx(metrics(undisturbed), abs=1e-6)
