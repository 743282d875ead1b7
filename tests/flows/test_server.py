"""The deployments of prefect.yaml on a real Prefect server with a real process worker."""

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import polars as pl
import psutil
import pytest
import yaml

from recops.bundle import read_pointer, release_folder
from recops.ports import free_port
from recops.stages.erase import collect, verify
from recops.stages.project import Project
from recops.store import Known, Store, open_store

pytestmark = [pytest.mark.process, pytest.mark.timeout(900)]
DONE = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")


@contextmanager
def running(command: list[str], cwd: Path, environment: dict[str, str], log: Path) -> Iterator[subprocess.Popen]:
    """A process of its own group, killed at the end with all it has started."""
    with log.open("w") as out:
        process = subprocess.Popen(
            command, cwd=cwd, env=environment, stdout=out, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        yield process
    finally:
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
    """A Prefect server with one work pool, one worker and the deployments of a project."""

    def __init__(self, project: Project, url: str, environment: dict[str, str]) -> None:
        self.project, self.environment = project, environment
        self.http = httpx.Client(base_url=url, timeout=30)

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

    def finished(self, flow: str, number: int, seconds: float = 300) -> dict[str, Any]:
        """The flow's run of that number (from 1), once it has ended."""

        def ended() -> dict[str, Any] | None:
            runs = self.runs(flow)
            return runs[number - 1] if len(runs) >= number and runs[number - 1]["state_type"] in DONE else None

        return until(ended, seconds, f"run {number} of {flow} ended")


@pytest.fixture(scope="module")
def server(shop: Project) -> Iterator[Server]:
    """Started, deployed, and working; the first run of `nightly` is due in a few seconds, by its schedule."""
    port = free_port()
    url = f"http://127.0.0.1:{port}/api"
    environment = {
        **shop.environment(),
        "OMP_NUM_THREADS": "1",
        "PREFECT_API_URL": url,
        "PREFECT_WORKER_QUERY_SECONDS": "2",
        "PREFECT_CLI_COLORS": "false",
    }
    logs = shop.root.parent
    prefect = [sys.executable, "-m", "prefect"]
    with ExitStack() as stack:
        start = [*prefect, "server", "start", "--host", "127.0.0.1", "--port", str(port)]
        stack.enter_context(running(start, shop.root, environment, logs / "server.log"))
        server = Server(shop, url, environment)
        stack.callback(server.http.close)
        until(server.is_healthy, 120, "the server is up")
        server.prefect("work-pool", "create", "recops", "--type", "process")

        deployments = shop.root / "prefect.yaml"
        wanted = yaml.safe_load(deployments.read_text())
        first = (datetime.now(UTC) + timedelta(seconds=15)).isoformat()
        # Only this schedule: an hourly run that falls due meanwhile would have the one that a test asks for cancelled.
        for deployment in wanted["deployments"]:
            deployment["schedules"] = []
            if deployment["name"] == "nightly":
                deployment["schedules"] = [{"interval": 240, "anchor_date": first, "timezone": "UTC"}]
        deployments.write_text(yaml.safe_dump(wanted, sort_keys=False))
        server.prefect("deploy", "--all")

        # The worker's own folder is not the project: where to work is part of the deployment.
        worker = [*prefect, "worker", "start", "--pool", "recops", "--name", "worker"]
        stack.enter_context(running(worker, logs, environment, logs / "worker.log"))
        yield server


@pytest.fixture(scope="module")
def first_run(server: Server) -> dict[str, Any]:
    """The scheduled run, ended; the schedule is then paused."""
    run = server.finished("train_and_release", 1, 600)
    deployment = server.http.get("/deployments/name/train_and_release/nightly").json()
    # 503: the database of the server was locked for too long, and the caller is to ask again.
    pause = f"/deployments/{deployment['id']}"
    until(lambda: server.http.patch(pause, json={"paused": True}).status_code != 503, 60, "the schedule is paused")
    assert server.http.get(pause).json()["paused"]
    return run


def test_schedule_trains_and_releases(server: Server, shop: Project, first_run: dict[str, Any]) -> None:
    assert first_run["state_type"] == "COMPLETED", first_run["state"]
    assert first_run["auto_scheduled"]
    assert read_pointer(shop.releases) is not None
    artifacts = server.artifacts(first_run)
    assert {"validation", "metrics", "links"} <= set(artifacts)
    rows = json.loads(artifacts["metrics"]["data"])
    assert {row["model"] for row in rows} == {"item_knn", "most_popular"} and "ndcg@10" in rows[0]
    assert (shop.reports / "index.html").as_uri() in artifacts["links"]["data"]


def test_drift_retrains_once(
    server: Server, shop: Project, first_run: dict[str, Any], write_log: Callable[[str], object]
) -> None:
    assert first_run["state_type"] == "COMPLETED"
    before = read_pointer(shop.releases)
    assert before is not None
    write_log("drifted")
    with closing(open_store(shop.store_url)) as store:
        tell(store)
    server.prefect("deployment", "run", "monitor/hourly")
    monitor = server.finished("monitor", 1)
    assert monitor["state_type"] == "COMPLETED", monitor["state"]
    assert any(row.get("drifted") for row in json.loads(server.artifacts(monitor)["drift"]["data"]))

    until(lambda: server.runs("retrain"), 60, "the event has started a retraining")
    resource = {"prefect.resource.id": f"recops.release.{before.release}"}
    again = {"event": "recops.drift", "resource": resource, "related": [], "payload": {}}
    duplicates = [{**again, "id": str(uuid.uuid4()), "occurred": datetime.now(UTC).isoformat()} for _ in range(20)]
    server.call("/events", duplicates)
    # A start that the trigger cannot know to be for the same drift: it waits, and then finds it dealt with.
    server.prefect("deployment", "run", "retrain/on-drift")

    retrain, second = server.finished("retrain", 1), server.finished("retrain", 2)
    assert [retrain["state_type"], second["state_type"]] == ["COMPLETED", "COMPLETED"], (retrain, second)
    assert len(server.runs("retrain")) == 2
    trainings = [run for run in server.runs("train_and_release") if run["parent_task_run_id"]]
    assert len(trainings) == 1
    after = read_pointer(shop.releases)
    assert after is not None and after.history == (before.release,)
    with closing(open_store(shop.store_url)) as store:
        check_what_was_told(shop, store, before.release, after.release)


def tell(store: Store) -> None:
    """A new user's two views; u1, who is known, is told of and then erased."""
    at = int(datetime(2024, 3, 10, tzinfo=UTC).timestamp() * 1e6)
    view = {"event": "view", "timestamp": at, "user_id": "live"}
    store.put_events(
        [
            {**view, "event_id": "e1", "item_id": "i41"},
            {**view, "event_id": "e2", "item_id": "i44", "timestamp": at + 1},
            {**view, "event_id": "e3", "item_id": "i44", "user_id": "u1"},
        ]
    )
    assert store.known("none", "live") is not None
    store.erase_user("u1", datetime.now(UTC))


def check_what_was_told(shop: Project, store: Store, before: str, after: str) -> None:
    """Trained on and in the new release's histories, once; for the old release still beside its histories. Of the
    erased user nothing is left, and the release says so."""
    assert [row.item_id for row in store.known(before, "live").events] == ["i41", "i44"]
    assert store.known(after, "live") == Known(["i41", "i44"], None, [], [])
    events = pl.read_parquet(shop.tables / "events.parquet")
    assert events.filter(pl.col("user_id") == "live")["event_id"].to_list() == ["e1", "e2"]
    assert "u1" not in events["user_id"] and store.history(after, "u1") is None
    rejected = pl.read_parquet(shop.tables / "rejected.parquet").filter(pl.col("reason") == "erased")
    assert len(rejected) > 10 and rejected["raw"].null_count() == len(rejected)
    named = {place.name: place.found for place in verify(shop, "u1")}
    assert named.pop("DVC cache") > 0 and set(named.values()) == {0}
    assert [line.split()[0] for line in collect(shop)] == ["release", "Bento", "DVC's"]
    assert {place.found for place in verify(shop, "u1")} == {0}
    assert {place.name: place.found for place in verify(shop, "live")}["tables"] == 2
    pointer = read_pointer(shop.releases)
    assert pointer is not None and (pointer.release, pointer.history) == (after, ())
    manifest = json.loads((release_folder(shop.releases, after) / "manifest.json").read_text())
    assert manifest["erasures"] == {"honoured": 1, "rows": len(rejected)}


def test_refused_data_fails_without_a_retry(
    server: Server, shop: Project, first_run: dict[str, Any], write_log: Callable[[str], object]
) -> None:
    assert first_run["state_type"] == "COMPLETED"
    before, num_runs = read_pointer(shop.releases), len(server.runs("train_and_release"))
    write_log("refused")
    server.prefect("deployment", "run", "train_and_release/nightly")
    run = server.finished("train_and_release", num_runs + 1)
    assert run["state_type"] == "FAILED"
    assert "RefusedError" in run["state"]["message"]
    tasks = server.tasks(run)
    assert tasks["validate"]["state_type"] == "FAILED" and tasks["validate"]["run_count"] == 1
    assert "train" not in tasks
    assert read_pointer(shop.releases) == before
