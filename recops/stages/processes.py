"""Processes that `recops up` started, found again whatever became of their parents, process groups and sessions.

Each carries in its environment the project's state folder and the part it belongs to, and hands both on to all that it
starts: so that a kill -9 anywhere leaves nothing that `down`, or the next start, does not find.
"""

import os
import time
from collections.abc import Iterable
from pathlib import Path

import psutil

TAG = "RECOPS_UP"  # the state folder of the project
PART = "RECOPS_UP_PART"


def tags(state: Path, part: str) -> dict[str, str]:
    """What the environment of a process carries."""
    return {TAG: str(state), PART: part}


def tagged(state: Path, part: str | None = None) -> list[psutil.Process]:
    """Living processes of the project, or of one part of it; never this process nor one above it."""
    own = {os.getpid(), *(process.pid for process in psutil.Process().parents())}
    found = []
    for process in psutil.process_iter():
        try:
            environment = process.environ()
        except (psutil.Error, OSError):  # ended meanwhile, a zombie, or of another user
            continue
        if environment.get(TAG) == str(state) and part in (None, environment.get(PART)) and process.pid not in own:
            found.append(process)
    return found


def told_to_end(processes: Iterable[psutil.Process], patience_s: float) -> None:
    """Tells processes to end, and kills those that still live after `patience_s`."""
    alive = list(processes)
    for process in alive:
        try:
            process.terminate()
        except psutil.NoSuchProcess:
            continue
    _, alive = psutil.wait_procs(alive, patience_s)
    killed(alive)


def killed(processes: Iterable[psutil.Process]) -> None:
    """Kills processes, and comes back once they are gone."""
    alive = list(processes)
    for process in alive:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(alive, 10)


def sweep(state: Path, part: str | None = None) -> int:
    """Kills all that is left of a project, or of one part; how many there were. What is started meanwhile is seen by
    the next look."""
    number, until = 0, time.monotonic() + 30
    while (found := tagged(state, part)) and time.monotonic() < until:
        killed(found)
        number += len(found)
    return number
