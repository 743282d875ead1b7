"""Whether the project is due for retraining, and the memory that makes many calls for one reason train once."""

import fcntl
import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from recops.bundle import canonical_json, read_pointer, write_atomically
from recops.monitoring.decisions import should_retrain
from recops.monitoring.drift import read_verdict
from recops.release.releases import read_record
from recops.stages.project import Project
from recops.store import open_store


@contextmanager
def one_at_a_time(project: Project) -> Iterator[None]:
    """Holds a lock of the project: a second caller waits, and then sees what the first has done."""
    with (project.state / "retrain.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def last_training(project: Project) -> dict[str, Any] | None:
    """`at` and `reason` of the last retraining that was started, None before the first."""
    path = project.state / "retrained.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def remember(project: Project, now: datetime, reason: str) -> None:
    """Writes down that a retraining starts now. It stands even if the training fails: the cooldown then holds too."""
    text = canonical_json({"at": now.isoformat(), "reason": reason, "drift": drift_report(project)})
    write_atomically(project.state / "retrained.json", text)


def drift_report(project: Project) -> dict[str, Any] | None:
    """The last drift verdict on what is served, the same for the same window; None where there is none or it was about
    another release."""
    report = open_store(project.store_url).report("drift")
    pointer = read_pointer(project.releases)
    if not report or pointer is None or report["release"] != pointer.release:
        return None
    return {key: value for key, value in report.items() if key != "checked_at"}


def decide(project: Project, now: datetime) -> tuple[bool, str]:
    """Whether to retrain, and why: `monitoring.decisions` on the last drift verdict and the last training."""
    pointer, last, report = read_pointer(project.releases), last_training(project), drift_report(project)
    times = [datetime.fromisoformat(last["at"])] if last else []
    if pointer is not None:
        times.append(datetime.fromisoformat(read_record(project.releases, pointer.release)["promoted_at"]))
    if report is not None and last is not None and report == last["drift"]:
        report = None  # this very verdict has been acted on
    verdict = read_verdict(report) if report else None
    return should_retrain(verdict, max(times, default=None), now, project.params.retrain)
