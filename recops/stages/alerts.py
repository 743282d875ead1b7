"""Alerts of a project: what happened is written down, said once, and tried again where nobody could be reached.

In: a project; what stages say (`tell`) and what a look finds (`look`: halted canaries, a stale model). Out: alerts sent
(monitoring/alerts.py) and `.recops/alerts.json`. Nothing here ever fails the run that alerts.
"""

import fcntl
import json
import logging
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from recops.bundle import canonical_json, read_pointer, write_atomically
from recops.monitoring.alerts import Alert, channels, send
from recops.release.releases import read_record
from recops.serving.traffic import control
from recops.stages.project import Project, open_project
from recops.store import open_store

logger = logging.getLogger("recops.alerts")
REFUSED, GATE, HALTED, STALE = "refused_data", "failed_gate", "halted_canary", "stale_model"
KEPT_DAYS = 7  # an alert that could not be sent is tried that long
MOST_WAITING = 100


def tell(project: Project, kind: str, text: str, todo: str, facts: Mapping[str, Any] | None = None) -> None:
    """Sends an alert now, if `alerts.kinds` names its kind and the same was not said within `alerts.repeat_hours`."""
    _safely(project, [_alert(project, kind, text, todo, facts or {})])


def refused(project: Project, stage: str, why: str) -> None:
    """A stage refused the data, or the model that was made of it; what is served stays."""
    text = f"The stage {stage} refused: {why}. What is served stays."
    todo = f"{project.reports / 'index.html'} and the run's page in Prefect have the details"
    tell(project, REFUSED, text, todo, {"stage": stage, "why": why})


def not_promoted(project: Project, decision: Mapping[str, Any]) -> None:
    """The gate kept the champion, or could not decide."""
    candidate, champion = decision["candidate"], decision["champion"]
    said = "kept the champion" if decision["verdict"] == "keep" else "could not decide"
    text = f"The gate {said}: {'; '.join(decision['reasons'])}."
    todo = "What is served stays; recops promote candidate serves the new one all the same"
    tell(project, GATE, text, todo, {"candidate": candidate, "champion": champion, "verdict": decision["verdict"]})


def look(project: Project) -> None:
    """Sends what nobody tells: halted canaries, a stale model, and what could not be sent before."""
    try:
        found = [*halted(project), *stale(project, datetime.now(UTC))]
    except Exception as error:
        logger.warning("alerts: could not look (%s: %s)", type(error).__name__, error)
        found = []
    _safely(project, found)


def halted(project: Project) -> Iterator[Alert]:
    with closing(open_store(project.store_url)) as store:
        arms = control.read(store).arms
    for arm in arms:
        if arm.halted is not None:
            facts = {"name": arm.name, "release": arm.release, "why": arm.halted, "since": arm.since}
            text = f"The {arm.mode} {arm.name} ({arm.release[:12]}) is no longer shown: {arm.halted}."
            yield _alert(project, HALTED, text, f"recops traffic report; recops traffic off {arm.name}", facts)


def stale(project: Project, now: datetime) -> Iterator[Alert]:
    """What is served was promoted longer ago than `alerts.stale_days`: retraining does not do what it should."""
    pointer, params = read_pointer(project.releases), project.params
    if pointer is None:
        return
    promoted = read_record(project.releases, pointer.release).get("promoted_at")
    limit = params.alerts.stale_days or 1.5 * params.retrain.max_age_days
    if promoted and now - datetime.fromisoformat(promoted) > timedelta(days=limit):
        text = f"The served release {pointer.release[:12]} was promoted at {promoted}, more than {limit:g} days ago."
        todo = "recops status shows the last runs and why they failed"
        yield _alert(project, STALE, text, todo, {"release": pointer.release, "promoted_at": promoted})


def _alert(project: Project, kind: str, text: str, todo: str, facts: Mapping[str, Any]) -> Alert:
    at = datetime.now(UTC).isoformat(timespec="seconds")
    return Alert(kind=kind, project=project.root.name, text=text, todo=todo, at=at, facts=dict(facts))


def _safely(project: Project, alerts: list[Alert]) -> None:
    try:
        _send(project, alerts, datetime.now(UTC))
    except Exception as error:  # a full disk, settings that are wrong by now: the run has its own errors to tell
        logger.warning("alerts: %s: %s", type(error).__name__, error)


def _send(project: Project, alerts: list[Alert], now: datetime) -> None:
    params = project.params.alerts
    to = channels(params)
    if not to:
        return
    with _memory(project) as memory:
        since = (now - timedelta(hours=params.repeat_hours)).isoformat()
        memory["sent"] = {key: at for key, at in memory["sent"].items() if at >= since}
        oldest = (now - timedelta(days=KEPT_DAYS)).isoformat()
        waiting = [entry for entry in memory["waiting"] if entry["alert"]["at"] >= oldest]
        for alert in alerts:
            if alert.kind in params.kinds and alert.key not in memory["sent"]:
                memory["sent"][alert.key] = now.isoformat()
                waiting.append({"alert": asdict(alert), "channels": list(to)})
        memory["waiting"] = []
        away: set[str] = set()
        for entry in waiting[-MOST_WAITING:]:
            # Who did not answer just now is not waited for once more: a run waits for this.
            asked = {name: to[name] for name in entry["channels"] if name in to and name not in away}
            alert = Alert(**entry["alert"])
            failed = {name: why for name, why in send(alert, asked).items() if why is not None}
            for name, why in failed.items():
                logger.warning("alerts: %s could not be told of %s (%s); tried again", name, alert.kind, why)
            left = [name for name in entry["channels"] if name in away or name in failed]
            away |= failed.keys()
            if left:
                memory["waiting"].append({"alert": entry["alert"], "channels": left})


@contextmanager
def _memory(project: Project) -> Iterator[dict[str, Any]]:
    """`sent`: when what was said; `waiting`: alerts, and the channels still to be told. Kept when the block ends."""
    path = project.state / "alerts.json"
    with (project.state / "alerts.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            memory = json.loads(path.read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            memory = {}
        memory = {"sent": {}, "waiting": [], **memory}
        yield memory
        write_atomically(path, canonical_json(memory))


def main() -> None:
    """`python -m recops.stages.alerts FOLDER`: one look, as the supervisor of `recops up` takes it."""
    logging.basicConfig(format="%(asctime)s %(message)s")
    look(open_project(Path(sys.argv[1])))


if __name__ == "__main__":
    main()
