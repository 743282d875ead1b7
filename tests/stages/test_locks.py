"""One run at a time, and DVC's locks of processes that were killed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from recops.stages.locks import alone, remove_dead_locks
from recops.stages.project import Project, open_project


@pytest.fixture
def project(tmp_path: Path) -> Project:
    (tmp_path / "params.yaml").touch()
    (tmp_path / ".dvc" / "tmp").mkdir(parents=True)
    return open_project(tmp_path)


def rwlock(project: Project) -> Path:
    return project.root / ".dvc" / "tmp" / "rwlock"


@pytest.mark.parametrize(
    "text",
    [
        "",
        '{"write": {"/data": {"pid": ',
        "{}",
        # Alive, but no DVC: the number was given to another process.
        json.dumps({"write": {"/data": {"pid": os.getppid(), "cmd": "dvc repro"}}, "read": {}}),
        json.dumps({"write": {}, "read": {"/data": [{"pid": 2**22 + 1, "cmd": "dvc repro"}]}}),
    ],
)
def test_removes_what_a_kill_left(project: Project, text: str) -> None:
    rwlock(project).write_text(text)
    remove_dead_locks(project)
    assert not rwlock(project).exists()
    remove_dead_locks(project)


def test_keeps_the_lock_of_a_living_dvc(project: Project) -> None:
    sleeper = "import time; time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", sleeper, "dvc", "repro"]) as process:
        try:
            text = json.dumps({"read": {"/data": [{"pid": process.pid, "cmd": "dvc repro"}]}})
            rwlock(project).write_text(text)
            remove_dead_locks(project)
            assert rwlock(project).read_text() == text
        finally:
            process.kill()


def test_a_second_run_waits(project: Project) -> None:
    second = (
        "import sys; from pathlib import Path; from recops.stages.locks import alone;"
        "from recops.stages.project import Project\n"
        "with alone(Project(Path(sys.argv[1])), lambda text: print(text, flush=True)): print('in', flush=True)"
    )
    with alone(project):
        process = subprocess.Popen([sys.executable, "-c", second, str(project.root)], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        assert "waiting" in process.stdout.readline()
        assert process.poll() is None
    assert process.communicate(timeout=20)[0] == "in\n"
    assert process.returncode == 0
