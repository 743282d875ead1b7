"""What is found undone after a kill, and that what has come to an end is left alone."""

import multiprocessing
import os
import signal
from datetime import UTC, datetime
from pathlib import Path

import pytest

from recops.bundle import Pointer, canonical_json, write_atomically, write_pointer
from recops.errors import RefusedError
from recops.stages import reconcile
from recops.stages.locks import alone, is_at_work
from recops.stages.project import Project, open_project
from recops.stages.reconcile import under_way, undone

NOW = datetime(2024, 5, 1, tzinfo=UTC)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    (tmp_path / "params.yaml").touch()
    return open_project(tmp_path)


def run_and_die(project: Project) -> None:
    """In a process of its own."""

    def die() -> None:
        with alone(project), under_way(project, NOW):
            os.kill(os.getpid(), signal.SIGKILL)

    process = multiprocessing.get_context("fork").Process(target=die)
    process.start()
    process.join(30)
    assert process.exitcode == -signal.SIGKILL


def test_a_run_that_died_is_to_be_run_again_three_times_at_most(project: Project) -> None:
    assert undone(project) is None
    for tries in (1, 2, 3):
        run_and_die(project)
        assert not is_at_work(project)
        assert undone(project) == (f"the run begun {NOW.isoformat()} died" if tries < 3 else None)
    with under_way(project, NOW):
        pass
    run_and_die(project)
    assert undone(project) is not None, "a run that came to its end forgives those before"


@pytest.mark.parametrize("error", [None, RefusedError("half of it is missing"), KeyboardInterrupt()])
def test_a_run_that_came_to_an_end_leaves_nothing(project: Project, error: BaseException | None) -> None:
    try:
        with alone(project), under_way(project, NOW):
            assert is_at_work(project)
            if error:
                raise error
    except type(error or RefusedError("")):
        pass
    assert undone(project) is None and not is_at_work(project)


def test_a_promotion_that_was_decided_and_not_made_is_found(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    project.bundle.mkdir()
    monkeypatch.setattr(reconcile, "bundle_id", lambda bundle: "two")
    write_pointer(project.releases, Pointer("one"), expected=None)
    for verdict, is_undone in (("keep", False), ("promote", True)):
        decision = {"verdict": verdict, "reasons": [], "candidate": "two", "champion": "one"}
        write_atomically(project.state / "decision.json", canonical_json(decision))
        assert (undone(project) is not None) is is_undone
    # Rolled back since: it was served, and that is the end of it.
    write_pointer(project.releases, Pointer("one", (), rolled_back="two"), expected="one")
    assert undone(project) is None
