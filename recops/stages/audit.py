"""The audit log of a project: who decided what, when, why and by which numbers, in the store, from which nothing goes.

A decision is first written to `.recops/audit.jsonl`, on disk, and then brought into the store. Where that does not
answer, the line stays, and the next decision, or `recops audit`, brings it in with its own time.
"""

import fcntl
import getpass
import json
import socket
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from os import fsync
from pathlib import Path
from typing import Any

from recops.bundle import write_atomically
from recops.stages.project import Project
from recops.store import Store, open_store
from recops.store.values import as_json

SHOWN = (
    "why",
    "reasons",
    "verdict",
    "release",
    "from",
    "name",
    "version",
    "parts",
    "releases",
    "deleted",
)  # of `facts`, in a table


def person() -> str:
    """Who calls: the user of the operating system and the machine's name."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container whose user has no name
        user = "nobody"
    return f"{user}@{socket.gethostname()}"


def log(project: Project, what: str, facts: Mapping[str, Any]) -> None:
    """Appends a decision that has been made. Never raises for a store that is away, or a full disk: what was decided
    holds, and is told on stderr."""
    line = as_json({"time": time.time_ns() // 1000, "what": what, "facts": facts})
    try:
        with _spool(project):
            _append(project.audit_spool, line)
            try:
                with closing(open_store(project.store_url)) as store:
                    _bring_in(project, store)
            except Exception as error:  # each database has its own for not being there
                print(f"audit: the store did not take it ({error}); kept in {project.audit_spool}", file=sys.stderr)
    except OSError as error:
        print(f"audit: not written down ({error}): {line}", file=sys.stderr)


def _append(path: Path, line: str) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(f"\n{line}\n")  # after one that a power cut left without its end
        file.flush()
        fsync(file.fileno())


def entries(project: Project, after: int = 0) -> list[dict[str, Any]]:
    """The audit log after a place, oldest first, what was waiting for the store included: `place`, `time`, `what`,
    `facts`. Raises CallError where the store cannot be used."""
    with closing(open_store(project.store_url)) as store:
        with _spool(project):
            _bring_in(project, store)
        return store.decisions(after)


def waiting(project: Project) -> list[dict[str, Any]]:
    """Decisions that the store has not taken yet, oldest first: `time` (µs), `what`, `facts`."""
    if not project.audit_spool.exists():
        return []
    found = []
    for line in filter(None, project.audit_spool.read_text(encoding="utf-8").splitlines()):
        with suppress(ValueError):  # a line that was cut short was never told to anybody as written
            found.append(json.loads(line))
    return found


def summary(facts: Mapping[str, Any]) -> str:
    """The facts of a decision that matter most, in one line."""
    said = {name: facts[name] for name in SHOWN if facts.get(name) not in (None, "", [])}
    return "; ".join(f"{name} {_brief(value)}" for name, value in (said or dict(facts)).items() if name != "by")


def _brief(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{inner} {name}" for name, inner in value.items())
    text = "; ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text[:12] if len(text) == 64 and " " not in text else text


def _bring_in(project: Project, store: Store) -> None:
    """A kill between both steps leaves lines that stand in the store already: they are not taken twice."""
    if not (decisions := waiting(project)):
        return
    for decision in decisions:
        store.log_decision(decision["what"], decision["facts"], decision["time"], once=True)
    write_atomically(project.audit_spool, "")


@contextmanager
def _spool(project: Project) -> Iterator[None]:
    project.state.mkdir(exist_ok=True)
    with (project.state / "audit.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
