"""What is tried again, what waits, and what `recops run` makes of a flow, without a server."""

from datetime import timedelta
from pathlib import Path

import pytest
import yaml
from prefect.events.schemas.automations import AutomationCore
from prefect.states import State, StateType

from flows import train_and_release
from flows.train_and_release import is_fault, stage
from recops.errors import CallError, RefusedError
from recops.stages import pipeline, promote
from recops.stages.project import Project, open_project

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (pipeline.StageError("killed"), True),
        (RefusedError("half the users are missing"), False),
        (CallError("no such file"), False),
        (KeyError("our own mistake"), False),
    ],
)
def test_only_faults_are_tried_again(error: Exception, again: bool) -> None:
    state = State(type=StateType.FAILED, data=error)
    assert is_fault(stage, None, state) is again


def test_the_waits_grow() -> None:
    assert stage.retries == 2
    assert stage.retry_delay_seconds == [5, 30]


def test_deployments_load_from_what_is_installed() -> None:
    """Entry points are modules: a project of `init` has no folder `flows`."""
    deployments = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
    assert {d["name"] for d in deployments} == {"nightly", "hourly", "on-drift", "reconcile"}
    for deployment in deployments:
        module, _, name = deployment["entrypoint"].rpartition(".")
        assert getattr(__import__(module, fromlist=[name]), name).name == module.partition(".")[2]


def test_automations_are_what_prefect_reads() -> None:
    """And a run may miss one sign of life before it is crashed."""
    (lost,) = yaml.safe_load((ROOT / "automations.yaml").read_text())["automations"]
    automation = AutomationCore.model_validate(lost)
    for deployment in yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]:
        heartbeat = deployment["work_pool"]["job_variables"]["env"]["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"]
        assert timedelta(seconds=2 * int(heartbeat)) < automation.trigger.within < timedelta(seconds=90)


def test_a_run_that_decided_nothing_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "params.yaml").touch()
    project: Project = open_project(tmp_path)
    monkeypatch.setattr(train_and_release, "train_and_release", lambda root: {})
    monkeypatch.setattr(promote, "outcome", lambda project: None)
    with pytest.raises(RefusedError, match="run again"):
        train_and_release.run_flow(project)
