"""The flow train_and_release: walks dvc.yaml, then gate, promotion and a smoke test of what is served.

Orchestration only: every step is a function of recops/stages. DVC decides what must run.
"""

import logging
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger, runtime, task
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.client.schemas.objects import State, TaskRun

from flows import runs
from recops.errors import RefusedError
from recops.stages import feedback, pipeline, promote, retention, rollout
from recops.stages.locks import alone
from recops.stages.project import Project, open_project
from recops.stages.reconcile import under_way
from recops.stages.smoke import smoke_test


def is_fault(task: Any, run: TaskRun, state: State) -> bool:
    """Only faults are tried again: data or a model that was refused stays refused."""
    return isinstance(state.result(raise_on_failure=False), pipeline.StageError)


@task(
    task_run_name="{name}",
    retries=2,
    retry_delay_seconds=[5, 30],
    retry_condition_fn=is_fault,
    persist_result=False,
)
def stage(root: str, name: str) -> None:
    """Brings one stage of dvc.yaml up to date."""
    pipeline.repro(Project(Path(root)), name, get_run_logger().info)


@task
def publish(root: str) -> None:
    """Keeps the tables of this run as Prefect artifacts: validation, metrics, links."""
    from recops.stages.tables import metrics_table, validation_table

    project = Project(Path(root))
    create_table_artifact(validation_table(project), key="validation", description="Rules that did not pass")
    create_table_artifact(metrics_table(project), key="metrics", description="Test metrics, 95 % intervals")
    links = "\n".join(f"- [{p.name}]({p.as_uri()})" for p in (project.reports / "index.html", project.bundle))
    create_markdown_artifact(links, key="links", description="Where everything lies")


@task
def gate(root: str) -> dict[str, Any]:
    """Judges the bundle against the champion."""
    return promote.decide(Project(Path(root)))


@task
def release(root: str, expected: str | None) -> str:
    """Promotes the bundle and asks the served release for an answer; a failing one is rolled back."""
    project = Project(Path(root))
    name = promote.promote(
        project,
        expected=expected,
        now=datetime.now(UTC).isoformat(timespec="seconds"),
        run={"flow_run": str(runtime.flow_run.id), "flow_run_name": runtime.flow_run.name},
    )
    smoke_test(project)
    return name


@task
def roll_out(root: str) -> dict[str, Any]:
    """Sets the bundle beside what is served; `reconcile` takes it further."""
    found = rollout.begin(Project(Path(root)), datetime.now(UTC))
    create_table_artifact([found], key="rollout", description=found["why"])
    return found


@task
def tidy(root: str) -> dict[str, int]:
    """Removes what `retention:` no longer keeps."""
    return retention.tidy(Project(Path(root)), datetime.now(UTC))


@flow(name="train_and_release", persist_result=False)
def train_and_release(root: str = ".") -> dict[str, Any]:
    """The whole thread for the project in `root`; raises RefusedError where a rule or the gate's inputs refuse.

    One run a project at a time: a second one waits for the first.
    """
    project = open_project(Path(root))
    pipeline.prepare(project)
    where = str(project.root)
    with runs.held(project), alone(project, get_run_logger().info), under_way(project, datetime.now(UTC)):
        feedback.seal(project)
        for name in pipeline.stage_names(project):
            stage(where, name)
            if name == "ingest":
                promote.refresh_accepted(project)
        publish(where)
        decision = gate(where)
        if decision["verdict"] == "promote":
            if decision["champion"] is not None and project.params.release.strategy == "canary":
                roll_out(where)
            else:
                release(where, decision["champion"])
        tidy(where)
    return decision


def run_flow(project: Project) -> dict[str, Any]:
    """Runs the flow in this process, against the Prefect API that is configured or a temporary one of its own.

    A second command waits before it starts its own: two temporary servers would share one SQLite file.
    """
    for name in ("prefect.flow_runs", "prefect.task_runs"):
        # The command line says once, in its own words, what went wrong.
        logging.getLogger(name).addFilter(lambda record: record.levelno < logging.ERROR)
    with alone(project, name="command"):
        train_and_release(str(project.root))
    result = promote.outcome(project)
    if result is None:
        raise RefusedError("the run ended without a decision: another run changed the bundle; run again")
    return result
