"""The flow monitor: reads the log anew, compares its newest window with the served release, tells when it drifted.

The event `recops.drift` is what the deployment of `retrain` is triggered by (prefect.yaml).
"""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger, task
from prefect.artifacts import create_table_artifact
from prefect.events import emit_event

from flows import runs
from flows.train_and_release import stage
from recops.bundle import read_pointer
from recops.stages import drift as drift_stage
from recops.stages import feedback, pipeline
from recops.stages.locks import alone
from recops.stages.project import open_project

DRIFT_EVENT = "recops.drift"


@task
def check(root: str, since: str | None, until: str | None) -> dict[str, Any]:
    """Compares the window and keeps the figures as an artifact."""
    project = open_project(Path(root))
    start = since or drift_stage.newest_window(project)
    verdict = drift_stage.drift(project, start, until)
    rows = [{k: r[k] for k in ("feature", "test", "statistic", "threshold", "drifted")} for r in verdict["results"]]
    create_table_artifact(rows or [{"verdict": verdict["verdict"]}], key="drift", description=verdict["verdict"])
    return verdict


@flow(name="monitor", persist_result=False)
def monitor(root: str = ".", since: str | None = None, until: str | None = None) -> dict[str, Any]:
    """The verdict on the window from `since` (default: `drift.window_days` before the log's end) to `until`.

    Before the first release there is nothing to compare with, and the verdict says so. Waits while a run is at work.
    """
    project = open_project(Path(root))
    where = str(project.root)
    pipeline.prepare(project)
    with runs.held(project), alone(project, get_run_logger().info):
        pointer = read_pointer(project.releases)
        if pointer is None:
            return {"verdict": "nothing released"}
        feedback.seal(project)
        stage(where, "ingest")
        verdict = check(where, since, until)
    if verdict["verdict"] == "drift":
        emit_event(
            DRIFT_EVENT,
            resource={"prefect.resource.id": f"recops.release.{pointer.release}"},
            occurred=datetime.now(UTC),
            payload={"features": list(verdict["features"]), "since": verdict["since"], "until": verdict["until"]},
        )
    return verdict
