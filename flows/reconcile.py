"""The flow reconcile: makes up by schedule for what events missed, so that nothing depends on events alone.

A run whose process is gone is told to be crashed; a release on its way by shadow and canary goes on; a cause to retrain
that was never acted on (drift, age, new events, the online metric, a person) is acted on, a training that was cut off
begun again; a run that died is run again, and a decision of the gate that was not carried out is.
"""

from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger, task
from prefect.artifacts import create_table_artifact

from flows import runs
from flows.retrain import retrain
from flows.train_and_release import train_and_release
from recops.stages import rollout
from recops.stages.locks import alone, is_at_work
from recops.stages.project import open_project
from recops.stages.reconcile import undone
from recops.stages.smoke import smoke_test
from recops.store import open_store


@task
def advance(root: str) -> dict[str, Any] | None:
    """A release on its way by shadow and canary goes as far as it may; each step is an artifact with its figures."""
    project = open_project(Path(root))
    with alone(project, get_run_logger().info):
        found = rollout.advance(project, datetime.now(UTC))
        if found and found["state"] == "promoted":
            smoke_test(project)
    if found:
        rows = [{"state": found["state"], **side} for side in found["figures"] or [{}]]
        create_table_artifact(rows, key="rollout", description=found["why"])
    return found


@flow(name="reconcile", persist_result=False)
def reconcile(root: str = ".") -> dict[str, Any]:
    """What was found and done: `crashed` runs, `busy`, `rollout`, `retrained`, and `repaired` (why a run was
    made anew)."""
    project, say = open_project(Path(root)), get_run_logger().info
    found: dict[str, Any] = {"crashed": runs.crash_the_dead(project), "busy": is_at_work(project)}
    if found["crashed"]:
        say("runs that died: %s", ", ".join(found["crashed"]))
    if found["busy"]:
        say("a run is at work: it is left alone")
        return found
    found["rollout"] = advance(root)
    found |= {"retrained": retrain(root)["retrained"], "repaired": None}
    if not found["retrained"] and (why := undone(project)):
        say("running again: %s", why)
        with closing(open_store(project.store_url)) as store:
            store.log_decision("reconcile", {"why": why})
        train_and_release(root)
        found["repaired"] = why
    return found
