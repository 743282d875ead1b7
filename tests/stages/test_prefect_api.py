"""What is asked of the Prefect server, against answers of its shape; the real one is asked in test_up_process.py."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from recops.stages.prefect_api import PrefectApi, is_awake

NOW = datetime(2026, 1, 2, 3, 0, tzinfo=UTC)


class Server:
    """Answers from lists, and remembers what was changed."""

    def __init__(self) -> None:
        self.runs: list[dict[str, Any]] = []
        self.tasks: list[dict[str, Any]] = []
        self.changed: list[tuple[str, str]] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        path, body = request.url.path, json.loads(request.content or "{}")
        if path.endswith("/flow_runs/filter"):
            wanted = body["flow_runs"]
            found = [r for r in self.runs if r["state_type"] in wanted["state"]["type"]["any_"]]
            if before := wanted.get("expected_start_time", {}).get("before_"):
                found = [r for r in found if r["expected_start_time"] < before]
            is_newest_first = body["sort"].endswith("DESC")
            return httpx.Response(
                200, json=sorted(found, key=lambda r: r["expected_start_time"], reverse=is_newest_first)
            )
        if path.endswith("/task_runs/filter"):
            ids = body["flow_runs"]["id"]["any_"]
            return httpx.Response(200, json=[t for t in self.tasks if t["flow_run_id"] in ids])
        if path.endswith("/deployments/filter"):
            return httpx.Response(200, json=[{"id": "d1", "name": "nightly", "flow_id": "f1"}])
        if path.endswith("/flows/filter"):
            return httpx.Response(200, json=[{"id": "f1", "name": "train_and_release"}])
        self.changed.append((request.method, path.removeprefix("/api")))
        return httpx.Response(204 if request.method == "DELETE" else 201, json={})

    def add(self, name: str, state: str, hours: float, **more: Any) -> None:
        facts = {
            "id": name,
            "name": name,
            "state_type": state,
            "state_name": state.title(),
            "state": {"message": "why"},
            "deployment_id": "d1",
            "parent_task_run_id": None,
            "expected_start_time": (NOW + timedelta(hours=hours)).isoformat(),
            "start_time": None,
            "total_run_time": 0.0,
            "auto_scheduled": True,
            "run_count": 0,
            "labels": {},
        }
        self.runs.append({**facts, **more})


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def api(server: Server) -> PrefectApi:
    api = PrefectApi("http://server/api")
    api.http = httpx.Client(transport=httpx.MockTransport(server), base_url="http://server/api")
    return api


def test_the_next_run_of_each_deployment(server: Server, api: PrefectApi) -> None:
    server.add("second", "SCHEDULED", 24)
    server.add("first", "SCHEDULED", 1)
    server.add("of nobody", "SCHEDULED", 0.5, deployment_id=None)
    at = (NOW + timedelta(hours=1)).isoformat()
    assert api.next_runs() == [{"deployment": "train_and_release/nightly", "at": at, "state": "Scheduled"}]


def test_of_missed_runs_the_newest_stays(server: Server, api: PrefectApi) -> None:
    server.add("old", "SCHEDULED", -48)
    server.add("newest", "SCHEDULED", -2)
    server.add("older", "SCHEDULED", -24)
    server.add("to come", "SCHEDULED", 1)
    server.add("asked for", "SCHEDULED", -50, auto_scheduled=False)
    server.add("tried again", "SCHEDULED", -51, run_count=1)
    assert api.drop_missed(NOW) == 2
    assert server.changed == [("DELETE", "/flow_runs/older"), ("DELETE", "/flow_runs/old")]


def test_runs_of_a_dead_worker_crash_with_what_ran_inside(server: Server, api: PrefectApi) -> None:
    server.add("mine", "RUNNING", -1, labels={"prefect.worker.name": "me"})
    server.add("just-taken", "PENDING", -1)
    server.add("inner", "RUNNING", -1, deployment_id=None, parent_task_run_id="task")
    server.add("another's", "RUNNING", -1, labels={"prefect.worker.name": "you"})
    server.add("another's inner", "RUNNING", -1, deployment_id=None, parent_task_run_id="other task")
    server.add("by hand", "RUNNING", -1, deployment_id=None)
    server.add("done", "COMPLETED", -1, labels={"prefect.worker.name": "me"})
    server.tasks = [{"id": "task", "flow_run_id": "mine"}, {"id": "other task", "flow_run_id": "another's"}]
    assert api.crash("me", "killed") == 3
    assert sorted(path for _, path in server.changed) == [
        f"/flow_runs/{name}/set_state" for name in ("inner", "just-taken", "mine")
    ]


def test_a_server_that_is_away_is_not_healthy() -> None:
    with PrefectApi("http://127.0.0.1:9/api", timeout_s=1) as api:
        assert not api.is_healthy()
        with pytest.raises(httpx.HTTPError):
            api.workers()


@pytest.mark.parametrize(
    ("heard", "awake"),
    [
        (lambda now: None, False),
        (lambda now: now - timedelta(seconds=40), True),
        (lambda now: now - timedelta(seconds=300), False),
        (lambda now: now - timedelta(seconds=61), False),  # before it was started
    ],
)
def test_a_worker_is_awake_when_it_spoke_lately(heard: Callable[[datetime], datetime | None], awake: bool) -> None:
    now = datetime.now(UTC)
    assert is_awake(heard(now), now - timedelta(seconds=60)) is awake


def test_a_server_with_a_password_is_told_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_SERVER_API_AUTH_STRING", "admin:secret")
    with PrefectApi("http://server/api") as api:
        assert api.http.headers["Authorization"] == "Basic YWRtaW46c2VjcmV0"
