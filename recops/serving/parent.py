"""Ends a worker process when the process that started it has ended, so that a kill -9 leaves the port free.

BentoML's workers leave the process group and hold the listening socket. On Linux the kernel ends the worker at once;
elsewhere, and for a parent that was gone before the kernel was asked, the worker looks at who its parent is.
"""

import ctypes
import os
import signal
import sys

PARENT = "RECOPS_PARENT"  # process id of the supervisor, left in the environment for its workers
PR_SET_PDEATHSIG = 1


def be_parent() -> None:
    """Called in the supervisor, before it starts workers."""
    os.environ[PARENT] = str(os.getpid())


def follow_parent() -> None:
    """Called in a worker, as early as can be."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    end_without_parent()


def end_without_parent() -> None:
    """Ends this process, without clean-up, when its supervisor is gone; called now and then in a worker."""
    if PARENT in os.environ and os.getppid() != int(os.environ[PARENT]):
        os.kill(os.getpid(), signal.SIGKILL)
