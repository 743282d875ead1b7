"""Whether the project is due for retraining, and the memory that makes many calls for one reason train once.

In: a project, the time that counts as now. Out: a decision, recorded in the store's report `retrain` and, wherever it
is another one than before, in the audit log. `.recops/retrained.json` is the training that was begun last, and says
whether it has ended: a training that a kill or a restart cut off is begun again by whoever decides next.
"""

import fcntl
import json
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Any

from recops.bundle import canonical_json, read_pointer, release_folder, write_atomically
from recops.monitoring.decisions import Decision, Signals
from recops.monitoring.decisions import decide as decide_by
from recops.monitoring.drift import read_verdict
from recops.release.releases import read_record
from recops.stages.online import fall
from recops.stages.project import Project
from recops.store import Store, open_store

REPORT, ASKED = "retrain", "retrain asked"
MAX_TRIES = 3  # of one training that is cut off again and again


@contextmanager
def one_at_a_time(project: Project) -> Iterator[None]:
    """Holds a lock of the project: a second caller waits, and then sees what the first has done."""
    with (project.state / "retrain.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def ask(project: Project, by: str, why: str, now: datetime) -> None:
    """A person asks for a training: it is written down first, so that no restart loses it. Asked again before it is
    begun, it stays one."""
    facts = {"by": by, "why": why, "at": now.isoformat()}
    with closing(open_store(project.store_url)) as store:
        store.change_report(ASKED, lambda before: before or facts, ASKED, facts)


def last_training(project: Project) -> dict[str, Any] | None:
    """`at`, `reason`, `trigger`, `ended` (None: it is under way, or was cut off) and `outcome` of the last retraining
    that was begun, None before the first."""
    path = project.state / "retrained.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def remember(project: Project, now: datetime, decision: Decision) -> None:
    """Writes down that a training starts now. It stands even if the training fails: the cooldown then holds too."""
    last = last_training(project) or {}
    is_again = decision.trigger == "cut off"
    started = [at for at in last.get("started", []) if now - datetime.fromisoformat(at) < timedelta(days=1)]
    with closing(open_store(project.store_url)) as store:
        begun = {
            "at": now.isoformat(),
            "trigger": last.get("trigger") if is_again else decision.trigger,
            "reason": last.get("reason") if is_again else decision.reason,
            "tries": last.get("tries", 1) + 1 if is_again else 1,
            "drift": last.get("drift") if is_again else drift_report(project, store),
            "num_events": num_events(project),
            "started": started if is_again else [*started, now.isoformat()],
            "ended": None,
            "outcome": None,
        }
        write_atomically(project.state / "retrained.json", canonical_json(begun))
        store.change_report(ASKED, lambda before: None, ASKED, {"begun": now.isoformat()})


def end(project: Project, now: datetime, outcome: str) -> None:
    """Writes down how the training that was begun last ended."""
    last = last_training(project)
    assert last is not None, "called after `remember`"
    text = canonical_json({**last, "ended": now.isoformat(), "outcome": outcome})
    write_atomically(project.state / "retrained.json", text)
    with closing(open_store(project.store_url)) as store:
        store.log_decision("retrained", {"trigger": last.get("trigger"), "outcome": outcome}, now)


def drift_report(project: Project, store: Store) -> dict[str, Any] | None:
    """The last drift verdict on what is served, the same for the same window; None where there is none or it was about
    another release."""
    report = store.report("drift")
    pointer = read_pointer(project.releases)
    if not report or pointer is None or report["release"] != pointer.release:
        return None
    return {key: value for key, value in report.items() if key != "checked_at"}


def decide(project: Project, now: datetime) -> Decision:
    """Whether to retrain, and why (`monitoring.decisions`), written down where it is new."""
    with closing(open_store(project.store_url)) as store:
        decision = decide_by(signals(project, store, now), now, project.params.retrain)
        told = asdict(decision)
        # A yes has a time, so that two trainings for the same reason are two lines of the audit log.
        body = {**told, "at": now.isoformat()} if decision.is_wanted else told
        store.change_report(REPORT, lambda before: body, REPORT, body)
    return decision


def signals(project: Project, store: Store, now: datetime) -> Signals:
    """What is known now. Called under `one_at_a_time`: a training that has not ended is then one that was cut off."""
    pointer, last, report = read_pointer(project.releases), last_training(project), drift_report(project, store)
    times = [datetime.fromisoformat(last["at"])] if last else []
    record = read_record(project.releases, pointer.release) if pointer is not None else {}
    if pointer is not None:
        times.append(promoted_at(project, pointer.release))
    if report is not None and last is not None and report == last["drift"]:
        report = None  # this very verdict has been acted on
    trained = record.get("profile", {}).get("events", {}).get("num_rows", 0)
    last_trained_at = max(times, default=None)
    asked = store.report(ASKED)
    return Signals(
        last_trained_at,
        read_verdict(report) if report else None,
        num_trained=trained,
        num_new=num_events(project) - max(trained, (last or {}).get("num_events", 0)),
        online_fall=None if last_trained_at is None else fall(project, store, last_trained_at, now),
        asked=f"asked by {asked['by']}: {asked['why']}" if asked else None,
        cut_off=_cut_off(last),
        started=tuple(datetime.fromisoformat(at) for at in (last or {}).get("started", [])),
    )


def promoted_at(project: Project, release: str) -> datetime:
    """When a release was promoted; of a challenger that a person promoted, when it was kept."""
    if at := read_record(project.releases, release).get("promoted_at"):
        return datetime.fromisoformat(at)
    return datetime.fromtimestamp(release_folder(project.releases, release).stat().st_mtime, UTC)


def num_events(project: Project) -> int:
    """Events of the tables as ingest wrote them last, 0 before."""
    path = project.tables / "counts.json"
    return json.loads(path.read_text(encoding="utf-8"))["events"] if path.exists() else 0


def _cut_off(last: dict[str, Any] | None) -> str | None:
    if last is None or last.get("ended", True) is not None or last["tries"] >= MAX_TRIES:
        return None
    return f"the training begun {last['at']} was cut off ({last['reason']})"
