"""Flow runs whose process is gone: Prefect shows them as running for ever, here they are told to be crashed.

Each flow run holds the lock of a file `.recops/runs/ID` while it lives, and the kernel frees it however the process
ends. On this machine alone: a run elsewhere has no file here, and is left to the automation of automations.yaml.
"""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

from prefect import runtime
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State
from prefect.exceptions import ObjectNotFound
from prefect.states import Crashed

from recops.stages.locks import is_held
from recops.stages.project import Project


@contextmanager
def held(project: Project) -> Iterator[None]:
    """Shows that this flow run lives."""
    path = project.state / "runs" / str(runtime.flow_run.id)
    path.parent.mkdir(exist_ok=True)
    new = path.with_name(f".{path.name}")  # until it is locked, it would look like a dead one's
    with new.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        new.rename(path)
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def crash_the_dead(project: Project) -> list[str]:
    """Tells Prefect of the runs whose process is gone; returns their names."""
    crashed = []
    with get_client(sync_client=True) as client:
        for path in sorted((project.state / "runs").glob("[0-9a-f]*")):
            if is_held(path):
                continue
            try:
                run = client.read_flow_run(UUID(path.name))
                if run.state is None or not run.state.is_final():
                    state: State = Crashed(message="Its process is gone.")
                    client.set_flow_run_state(run.id, state, force=True)
                    crashed.append(run.name)
            except ObjectNotFound:
                pass  # of a temporary server
            path.unlink(missing_ok=True)
    return crashed
