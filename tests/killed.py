"""Work in a process of its own that is killed at a chosen step, and never comes to clean anything up."""

import os
import signal
import sys
from collections.abc import Callable

# What the interpreter tells an audit hook before it is done; `step` and every fsync are told by hand.
STEPS = (
    "open",
    "os.mkdir",
    "os.rename",
    "os.remove",
    "os.rmdir",
    "shutil.copyfile",
    "shutil.rmtree",
    "sqlite3.connect",
)


def in_a_child(work: Callable[[Callable[[], None]], None], kill_at: int) -> tuple[bool, int]:
    """Does `work` in a child that is killed (-9) before its n-th step on the disk (-1: never); whether it was, and how
    many steps it took. `work` is given what to call for a step that cannot be seen from outside."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            steps = 0

            def step(event: str = "step", *_) -> None:
                nonlocal steps
                if event in STEPS or event == "step":
                    if steps == kill_at:
                        os.kill(os.getpid(), signal.SIGKILL)
                    steps += 1

            def counted(function):
                def call(*arguments, **named):
                    step()
                    return function(*arguments, **named)

                return call

            os.fsync = counted(os.fsync)
            sys.addaudithook(step)
            work(step)
            os.write(writer, str(steps).encode())
        finally:
            os._exit(0)
    os.close(writer)
    _, status = os.waitpid(child, 0)
    with os.fdopen(reader) as pipe:
        text = pipe.read()
    return os.WIFSIGNALED(status), int(text or 0)
