"""What a kill, a restart or a lost event left undone in a project, told from its files alone, without any event.

In: a project. Out: why it needs another run, or None. `.recops/under_way.json` stands while a run is at work; where it
stands and nobody is, the run died.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

from recops.bundle import bundle_id, canonical_json, read_pointer, write_atomically
from recops.errors import RecopsError
from recops.stages.project import Project
from recops.stages.promote import is_settled

MAX_TRIES = 3  # of a run that dies again and again


@contextmanager
def under_way(project: Project, now: datetime) -> Iterator[None]:
    """Held around a run by whoever holds its lock. A run that comes to an end, by a refusal too, leaves nothing."""
    path = project.state / "under_way.json"
    tries = json.loads(path.read_text(encoding="utf-8"))["tries"] if path.exists() else 0
    write_atomically(path, canonical_json({"at": now.isoformat(), "tries": tries + 1}))
    try:
        yield
    except (RecopsError, KeyboardInterrupt):
        path.unlink()
        raise
    path.unlink()


def undone(project: Project) -> str | None:
    """Why another run is needed, while nobody is at work; None where all is done, or was tried often enough."""
    path = project.state / "under_way.json"
    if path.exists():
        died = json.loads(path.read_text(encoding="utf-8"))
        return f"the run begun {died['at']} died" if died["tries"] < MAX_TRIES else None
    path = project.state / "decision.json"
    if not (path.exists() and project.bundle.exists()):
        return None
    decision = json.loads(path.read_text(encoding="utf-8"))
    if decision["candidate"] == bundle_id(project.bundle) and not is_settled(decision, read_pointer(project.releases)):
        return f"the gate said to promote {decision['candidate'][:12]}, and it was never served"
    return None
