"""What `recops up` and `recops status` ask of the project's Prefect server, over its HTTP interface.

Without the package: importing Prefect takes longer than most questions, and `flows/` is its one door.
"""

import base64
import os
from datetime import UTC, datetime
from typing import Any

import httpx

POOL = "recops"
ASLEEP_S = 120.0  # a worker that has said nothing for so long counts as gone; it speaks every 30 s


class PrefectApi:
    """`url` ends with /api. Calls raise httpx.HTTPError where the server is away or refuses."""

    def __init__(self, url: str, timeout_s: float = 10.0) -> None:
        auth = os.environ.get("PREFECT_API_AUTH_STRING") or os.environ.get("PREFECT_SERVER_API_AUTH_STRING")
        headers = {"Authorization": f"Basic {base64.b64encode(auth.encode()).decode()}"} if auth else {}
        # Never through a proxy: it is on this machine.
        self.http = httpx.Client(base_url=url, timeout=timeout_s, headers=headers, trust_env=False)

    def close(self) -> None:
        self.http.close()

    def __enter__(self) -> "PrefectApi":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def is_healthy(self) -> bool:
        """Whether it answers, its database included."""
        try:
            return self.http.get("/ready").status_code == 200
        except httpx.HTTPError:
            return False

    def ask(self, path: str, **body: Any) -> Any:
        answer = self.http.post(path, json=body)
        answer.raise_for_status()
        return answer.json() if answer.content else None

    def workers(self) -> dict[str, datetime]:
        """When each worker of the pool was last heard of; empty where there is no pool yet."""
        answer = self.http.post(f"/work_pools/{POOL}/workers/filter", json={})
        if answer.status_code == 404:
            return {}
        answer.raise_for_status()
        return {w["name"]: _time(w["last_heartbeat_time"]) for w in answer.json() if w["last_heartbeat_time"]}

    def deployments(self) -> dict[str, str]:
        """`flow/deployment` of this pool by the deployment's id."""
        found = self.ask("/deployments/filter", work_pools={"name": {"any_": [POOL]}})
        flows = {flow["id"]: flow["name"] for flow in self.ask("/flows/filter")}
        return {d["id"]: f"{flows.get(d['flow_id'], '?')}/{d['name']}" for d in found}

    def next_runs(self) -> list[dict[str, Any]]:
        """The next run of each deployment, soonest first: `deployment`, `at` (ISO) and `state`."""
        names = self.deployments()
        soonest: dict[str, dict[str, Any]] = {}
        for run in self._runs(["SCHEDULED"], "EXPECTED_START_TIME_ASC"):
            if name := names.get(run["deployment_id"]):
                facts = {"deployment": name, "at": run["expected_start_time"], "state": run["state_name"]}
                soonest.setdefault(name, facts)
        return list(soonest.values())

    def last_runs(self, number: int = 5) -> list[dict[str, Any]]:
        """The runs begun last, newest first: `flow_run`, `name`, `deployment`, `state`, `at`, `took_s`, `why`."""
        names = self.deployments()
        begun = ["RUNNING", "COMPLETED", "FAILED", "CRASHED", "CANCELLED", "CANCELLING", "PAUSED"]
        return [
            {
                "flow_run": run["id"],
                "name": run["name"],
                "deployment": names.get(run["deployment_id"]),
                "state": run["state_name"],
                "at": run["start_time"],
                "took_s": run["total_run_time"],
                "why": run["state"]["message"] if run["state_type"] in ("FAILED", "CRASHED") else None,
            }
            for run in self._runs(begun, "START_TIME_DESC", number)
        ]

    def drop_missed(self, now: datetime) -> int:
        """Of scheduled runs that fell due while nobody worked only the newest of each deployment stays; how many went.

        They would otherwise all be made up for, one after the other, and hold up what is due now.
        """
        due = {"before_": now.isoformat()}
        runs = self.ask(
            "/flow_runs/filter",
            flow_runs={"state": {"type": {"any_": ["SCHEDULED"]}}, "expected_start_time": due},
            sort="EXPECTED_START_TIME_DESC",
        )
        seen, number = set(), 0
        for run in runs:
            if not run["auto_scheduled"] or run["run_count"]:
                continue
            if run["deployment_id"] in seen:
                self.http.delete(f"/flow_runs/{run['id']}").raise_for_status()
                number += 1
            seen.add(run["deployment_id"])
        return number

    def crash(self, worker: str, why: str) -> int:
        """Marks runs that the worker had taken and not ended, and runs inside them, as crashed; how many. To be called
        while none can live: Prefect itself would leave them running for ever, and their places in limits taken."""
        begun = self._runs(["PENDING", "RUNNING", "CANCELLING"], "START_TIME_DESC")
        dead = {
            run["id"]
            for run in begun
            # A run that has only just been taken does not name its worker yet.
            if run["deployment_id"] and run["labels"].get("prefect.worker.name", worker) == worker
        }
        if dead:
            inner = {run["parent_task_run_id"]: run["id"] for run in begun if run["parent_task_run_id"]}
            tasks = self.ask("/task_runs/filter", flow_runs={"id": {"any_": list(dead)}})
            dead |= {inner[task["id"]] for task in tasks if task["id"] in inner}
        for run_id in dead:
            state = {"type": "CRASHED", "name": "Crashed", "message": why}
            self.ask(f"/flow_runs/{run_id}/set_state", state=state, force=True)
        return len(dead)

    def _runs(self, states: list[str], sort: str, limit: int = 200) -> list[dict[str, Any]]:
        runs = {"state": {"type": {"any_": states}}}
        return self.ask("/flow_runs/filter", flow_runs=runs, sort=sort, limit=limit)


def is_awake(heard: datetime | None, since: datetime) -> bool:
    """Whether a worker that was started at `since` has been heard of after that, and lately."""
    return heard is not None and heard >= since and (datetime.now(UTC) - heard).total_seconds() < ASLEEP_S


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text.replace("Z", "+00:00"))
