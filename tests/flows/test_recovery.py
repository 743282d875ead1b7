"""`recops run`: two at once, killed in the middle, and refused."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import yaml

from recops.bundle import bundle_id, load_bundle, read_pointer
from recops.stages import pipeline
from recops.stages.project import Project

pytestmark = [pytest.mark.process, pytest.mark.timeout(900)]


@pytest.fixture
def start_run(shop: Project, tmp_path: Path) -> Callable[[], subprocess.Popen]:
    """Starts `recops run` as a process group of its own."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "recops.cli", "run", "-C", str(shop.root)]

    def start() -> subprocess.Popen:
        return subprocess.Popen(
            command,
            cwd=tmp_path,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    return start


def stage_process(run: subprocess.Popen, stage: str) -> psutil.Process:
    """The process of a stage under a run, as soon as there is one."""
    end = time.monotonic() + 300
    while time.monotonic() < end and run.poll() is None:
        for process in psutil.Process(run.pid).children(recursive=True):
            try:
                words = process.cmdline()
            except (psutil.NoSuchProcess, psutil.ZombieProcess):
                continue
            if words[-1:] == [stage] and any(Path(word).name == "recops" for word in words):
                return process
        time.sleep(0.02)
    pytest.fail(f"{stage} was never run: {run.communicate()[0] if run.poll() is not None else 'still waiting'}")


def ended(run: subprocess.Popen) -> str:
    """What a run has printed, once it has ended well."""
    printed = run.communicate(timeout=600)[0]
    assert run.returncode == 0, printed
    return printed


def check_whole(project: Project) -> None:
    """Everything is up to date, and what is served is the bundle that lies here."""
    assert pipeline.changed(project) == []
    pointer = read_pointer(project.releases)
    assert pointer is not None and pointer.release == bundle_id(project.bundle)
    load_bundle(project.bundle)


def test_two_at_once(shop: Project, start_run: Callable[[], subprocess.Popen]) -> None:
    runs = [start_run(), start_run()]
    printed = [ended(run) for run in runs]
    assert sorted("another run is at work here" in text for text in printed) == [False, True]
    check_whole(shop)
    pointer = read_pointer(shop.releases)
    assert pointer is not None and pointer.history == ()


def test_kills_on_the_way(shop: Project, start_run: Callable[[], subprocess.Popen]) -> None:
    params = yaml.safe_load(shop.params_file.read_text())
    shop.params_file.write_text(yaml.safe_dump({**params, "split": {"name": "global_time"}}))
    run = start_run()
    try:
        # DVC dies: its stage dies with it, and the run tries again.
        split = stage_process(run, "split")
        next(p for p in split.parents() if "dvc" in p.cmdline()).kill()
        psutil.wait_procs([split], timeout=10)
        assert not split.is_running() or split.status() == psutil.STATUS_ZOMBIE
        # A stage dies: the run tries again.
        stage_process(run, "train").kill()
        # All of it dies.
        stage_process(run, "evaluate")
    finally:
        os.killpg(run.pid, signal.SIGKILL)
    assert run.communicate()[0].count("Retry 1/2") == 2
    printed = ended(start_run())
    assert "Running stage 'split'" not in printed and "Running stage 'evaluate'" in printed
    check_whole(shop)


def test_refused_data_is_one_line(
    shop: Project, start_run: Callable[[], subprocess.Popen], write_log: Callable[[str], object]
) -> None:
    if read_pointer(shop.releases) is None:
        ended(start_run())  # a first log is only warned of
    before = read_pointer(shop.releases)
    write_log("refused")
    run = start_run()
    printed = run.communicate(timeout=600)[0]
    assert run.returncode == 1
    assert "Traceback" not in printed and "Retry" not in printed
    assert len(re.findall("^error: ", printed, re.MULTILINE)) == 1
    assert read_pointer(shop.releases) == before
