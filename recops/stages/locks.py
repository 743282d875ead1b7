"""One run of a project at a time; no lock and no stage that outlives the DVC it belongs to.

In: a project. Out: a held lock. Knows where DVC writes down which paths are in use, nothing else of DVC.
"""

import fcntl
import json
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from recops.serving.parent import follow_parent
from recops.stages.project import Project


@contextmanager
def alone(project: Project, say: Callable[[str], None] = print, name: str = "run") -> Iterator[None]:
    """Holds the project for one run: a second run waits, and then finds done what the first has done.

    `name` tells locks apart that are held one inside the other. The kernel frees the lock of a run that was killed;
    what such a run left of DVC's own locks is removed.
    """
    with (project.state / f"{name}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another run is at work here; waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        remove_dead_locks(project)
        yield


def is_held(path: Path) -> bool:
    """Whether a process that lives holds the lock file `path`; one that was killed holds none."""
    try:
        with path.open("r+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        pass
    return False


def is_at_work(project: Project) -> bool:
    """Whether a run or a retraining is under way."""
    return any(is_held(project.state / f"{name}.lock") for name in ("run", "command", "retrain"))


def remove_dead_locks(project: Project) -> None:
    """Removes DVC's list of the paths in use where nobody in it lives.

    DVC itself goes by process ids alone, so it takes any process for the holder that has got the number since, and it
    refuses a list that a kill cut short.
    """
    path = project.root / ".dvc" / "tmp" / "rwlock"
    try:
        locks = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return
    except ValueError:
        path.unlink()
        return
    holders = [*locks.get("write", {}).values(), *(i for infos in locks.get("read", {}).values() for i in infos)]
    if not any(is_dvc(holder["pid"]) for holder in holders):
        path.unlink()


def is_dvc(pid: int) -> bool:
    """Whether the process lives and is a DVC command."""
    try:
        return any("dvc" in part for part in psutil.Process(pid).cmdline())
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return False


def follow_dvc() -> None:
    """Called in a stage that DVC has started: it ends when DVC is killed, so that no orphan writes what it no longer
    should into the folder of the next try. Elsewhere than on Linux only a DVC that is gone already is noticed."""
    follow_parent()
    if not any(is_dvc(process.pid) for process in psutil.Process().parents()):
        os.kill(os.getpid(), signal.SIGKILL)
