"""What was started is found and ended whatever became of its parent, group and session."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from recops.stages import processes

pytestmark = pytest.mark.process


@pytest.fixture
def orphan(tmp_path: Path) -> Iterator[psutil.Process]:
    """A process whose parent was killed, in a session of its own."""
    environment = {**os.environ, **processes.tags(tmp_path, "service")}
    parent = subprocess.Popen(
        ["sh", "-c", "setsid sleep 60 & echo $!; wait"], env=environment, stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    orphan = psutil.Process(int(parent.stdout.readline()))
    parent.kill()
    parent.wait()
    parent.stdout.close()
    yield orphan
    if orphan.is_running():
        orphan.kill()


def is_gone(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def test_an_orphan_is_found_by_part_and_project(tmp_path: Path, orphan: psutil.Process) -> None:
    assert processes.tagged(tmp_path) == processes.tagged(tmp_path, "service") == [orphan]
    assert processes.tagged(tmp_path, "worker") == processes.tagged(tmp_path / "other") == []


def test_a_sweep_leaves_nothing(tmp_path: Path, orphan: psutil.Process) -> None:
    assert processes.sweep(tmp_path, "worker") == 0 and not is_gone(orphan)
    assert processes.sweep(tmp_path) == 1
    assert is_gone(orphan) and processes.tagged(tmp_path) == []


def test_who_does_not_end_is_killed(tmp_path: Path) -> None:
    stubborn = subprocess.Popen(["sh", "-c", "trap '' TERM; echo; sleep 60"], stdout=subprocess.PIPE)
    assert stubborn.stdout is not None
    stubborn.stdout.readline()  # it no longer hears
    stubborn.stdout.close()
    process = psutil.Process(stubborn.pid)
    child = process.children()
    processes.told_to_end([process], patience_s=0.1)
    assert is_gone(process)
    processes.killed(child)
    stubborn.wait()


def test_who_asks_is_never_found(tmp_path: Path) -> None:
    code = "from recops.stages.processes import tagged; import pathlib, sys; print(tagged(pathlib.Path(sys.argv[1])))"
    environment = {**os.environ, **processes.tags(tmp_path, "worker")}
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
