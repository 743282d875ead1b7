"""How the end of a stage under DVC is told: refused, a user's mistake, or a fault that is worth another try."""

import threading
from pathlib import Path

import pytest
import yaml

from recops.errors import CallError, RecopsError, RefusedError
from recops.stages import pipeline
from recops.stages.project import Project, open_project

pytestmark = pytest.mark.process

SAYS = (
    """echo '{{"stage": "{stage}", "message": "because", "exit_code": {code}}}' > .recops/refused.json; exit {code}"""
)
STAGES = {
    "done": "touch out-done",
    "refused": SAYS.format(stage="refused", code=1),
    "wrong": SAYS.format(stage="wrong", code=2),
    "broken": "exit 3",
    "killed": "kill -9 $$",
    "chatty": "echo the line is busy; exit 3",
    "hungry": "true",
}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    folder: Path = tmp_path_factory.mktemp("repro")
    (folder / "params.yaml").touch()
    stages: dict[str, dict] = {name: {"cmd": command, "outs": [f"out-{name}"]} for name, command in STAGES.items()}
    stages["hungry"]["deps"] = ["gone.csv"]
    (folder / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}))
    project = open_project(folder)
    pipeline.prepare(project)
    return project


@pytest.mark.parametrize(
    ("stage", "kind", "words"),
    [
        ("refused", RefusedError, "^refused: because$"),
        ("wrong", CallError, "^wrong: because$"),
        ("broken", pipeline.StageError, "exited with 3"),
        ("killed", pipeline.StageError, "exited with -9"),
        ("chatty", pipeline.StageError, "exited with 3"),
        ("hungry", CallError, "gone.csv"),
    ],
)
def test_tells_why_a_stage_ended(project: Project, stage: str, kind: type[RecopsError], words: str) -> None:
    with pytest.raises(kind, match=words) as caught:
        pipeline.repro(project, stage, say=lambda text: None)
    assert type(caught.value) is kind


def test_says_what_dvc_says(project: Project) -> None:
    said: list[str] = []
    pipeline.repro(project, "done", say=said.append)
    assert "Running stage 'done':" in said
    said.clear()
    pipeline.repro(project, "done", say=said.append)
    assert not any("Running" in line for line in said)


def test_a_broken_map_is_a_mistake_told_in_one_line(project: Project) -> None:
    path = project.root / "dvc.yaml"
    text = path.read_text()
    path.write_text(text + "  odd: {comand: x}\n")
    with pytest.raises(CallError, match=r"dvc\.yaml") as caught:
        pipeline.repro(project, "done", say=lambda text: None)
    path.write_text(text)
    assert "\n" not in str(caught.value)


def test_two_at_once_both_end_well_and_one_waits(project: Project) -> None:
    path = project.root / "dvc.yaml"
    stages = yaml.safe_load(path.read_text())["stages"]
    path.write_text(
        yaml.safe_dump({"stages": {**stages, "slow": {"cmd": "sleep 3; touch out-slow", "outs": ["out-slow"]}}})
    )
    said: list[list[str]] = [[], []]
    threads = [threading.Thread(target=pipeline.repro, args=(project, "slow", one.append)) for one in said]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    lines = [line for one in said for line in one]
    assert (
        lines.count("Running stage 'slow':") == 1 and "slow: another command is at work here; waiting for it" in lines
    )
    assert (project.root / "out-slow").exists()
