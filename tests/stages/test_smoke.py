"""A release whose service does not answer well is undone."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from recops.bundle import Pointer, read_pointer, write_pointer
from recops.errors import RefusedError
from recops.release import releases
from recops.stages import smoke
from recops.stages.project import Project, open_project


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """Serves `two`, before it `one`; the service is a process that does nothing."""
    (tmp_path / "params.yaml").touch()
    project = open_project(tmp_path)
    write_pointer(project.releases, Pointer("two", ("one",)), expected=None)
    monkeypatch.setattr(releases, "load_bundle", lambda folder: None)
    start = subprocess.Popen
    idle = [sys.executable, "-c", "import time; time.sleep(60)"]
    monkeypatch.setattr(smoke.subprocess, "Popen", lambda command, **more: start(idle, **more))
    return project


def answering(monkeypatch: pytest.MonkeyPatch, answer: dict[str, Any] | Exception) -> None:
    def ask(url: str, process: subprocess.Popen, timeout_s: float) -> dict[str, Any]:
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(smoke, "ask", ask)


def test_a_good_answer_stays(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    answering(monkeypatch, {"release": "two", "items": [{"item_id": "a"}]})
    smoke.smoke_test(project)
    assert read_pointer(project.releases) == Pointer("two", ("one",))


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        ({"release": "two", "items": []}, "answered without items"),
        ({"release": "one", "items": [{"item_id": "a"}]}, "answered from release one"),
        (OSError("the service ended with exit code 1"), "gave no answer"),
        ({}, "gave no answer"),
    ],
)
def test_a_bad_answer_rolls_back(
    project: Project, monkeypatch: pytest.MonkeyPatch, answer: dict[str, Any] | Exception, problem: str
) -> None:
    answering(monkeypatch, answer)
    with pytest.raises(RefusedError, match=problem):
        smoke.smoke_test(project)
    assert read_pointer(project.releases) == Pointer("one", (), rolled_back="two")


def test_the_first_release_stays_for_want_of_another(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    write_pointer(project.releases, Pointer("first"), expected="two")
    answering(monkeypatch, OSError("nothing"))
    with pytest.raises(RefusedError):
        smoke.smoke_test(project)
    assert read_pointer(project.releases) == Pointer("first")


def test_a_service_that_ends_is_told_from_a_slow_one() -> None:
    with subprocess.Popen([sys.executable, "-c", "raise SystemExit(3)"]) as process:
        process.wait(20)
        with pytest.raises(OSError, match="exit code 3"):
            smoke.ask("http://127.0.0.1:9", process, timeout_s=5)
