"""A bundle that passed the gate comes to be served by degrees (`release.strategy: canary`): shadow, canary, promoted.

In: a project, the time that counts as now. Out: the challenger `rollout` in the store's traffic, and the next step once
its time has come. Where it stands is told by `.recops/rollout.json` and the traffic alone, so that a step that was
missed is made by the next call. Guardrails are looked at by the service, which halts.
"""

import json
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any

from recops.bundle import canonical_json, read_pointer, write_atomically
from recops.release import releases
from recops.serving.traffic import control
from recops.stages import traffic
from recops.stages.project import Project
from recops.store import open_store

NAME = "rollout"
UNDER_WAY = ("shadow", "canary")


def read(project: Project) -> dict[str, Any] | None:
    """`candidate`, `champion`, `state` (shadow, canary, promoted, halted, replaced), `why`, `at`, `figures`; None
    before the first."""
    path = project.state / "rollout.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def begin(project: Project, now: datetime) -> dict[str, Any]:
    """Sets bundle/, which the gate said to promote, beside what is served. One that is on its way, or was halted, stays
    so; another one that was on its way gives place."""
    path = project.state / "decision.json"
    decision = json.loads(path.read_text(encoding="utf-8"))
    found = read(project)
    if found is None or found["candidate"] != decision["candidate"] or found["state"] not in (*UNDER_WAY, "halted"):
        mode = "shadow" if project.params.release.shadow_hours else "canary"
        _set(project, "candidate", mode)
        names = {name: decision[name] for name in ("candidate", "champion")}
        found = _write(project, {**names, "why": "; ".join(decision["reasons"])}, mode, now)
    write_atomically(path, canonical_json({**decision, "is_rolled_out": True}))
    return found


def advance(project: Project, now: datetime) -> dict[str, Any] | None:
    """The step whose time has come; None where there is nothing to do. What it was decided by is in the audit log."""
    found, settings = read(project), project.params.release
    if found is None or found["state"] not in UNDER_WAY:
        return None
    pointer = read_pointer(project.releases)
    arms = {arm.name: arm for arm in _arms(project)}
    arm = arms.get(NAME)
    if pointer is not None and pointer.release == found["candidate"]:
        return _end(project, found, "promoted", "served already", now)
    if arm is None or arm.release != found["candidate"]:
        return _end(project, found, "halted", "taken off by hand", now)
    if pointer is None or pointer.release != found["champion"]:
        return _end(project, found, "replaced", "another release is served than it was judged against", now)
    if arm.halted is not None:
        return _end(project, found, "halted", arm.halted, now)
    stood = now - datetime.fromtimestamp(arm.since / 1e6, UTC)
    if arm.mode == "shadow":
        if stood < timedelta(hours=settings.shadow_hours):
            return None
        figures = _figures(project)
        _set(project, found["candidate"], "canary")
        return _write(project, {**found, "why": f"{settings.shadow_hours:g} h in shadow"}, "canary", now, figures)
    users = _figures(project)[1]["users"]
    if stood < timedelta(hours=settings.canary_hours) or users < settings.canary_users:
        return None
    releases.note(project.releases, found["candidate"], {"promoted_at": now.isoformat(timespec="seconds")})
    releases.point_to(project.releases, found["candidate"], expected=found["champion"])
    why = f"{settings.canary_hours:g} h as canary for {users} users without halt"
    return _end(project, found, "promoted", why, now)


def _set(project: Project, release: str, mode: str) -> None:
    settings = project.params.release
    if mode == "shadow":
        traffic.put(project, release, NAME, mode, 1.0, [])
    else:
        traffic.put(project, release, NAME, mode, settings.canary_share, settings.guardrails)


def _arms(project: Project) -> list[Any]:
    with closing(open_store(project.store_url)) as store:
        return control.read(store).arms


def _figures(project: Project) -> list[dict[str, Any]]:
    """Of what is served, and of the challenger."""
    return next(arm["variants"] for arm in traffic.figures(project) if arm["name"] == NAME)


def _end(project: Project, found: dict[str, Any], state: str, why: str, now: datetime) -> dict[str, Any]:
    arms = {arm.name for arm in _arms(project)}
    figures = _figures(project) if NAME in arms else None
    if NAME in arms:
        traffic.take_off(project, NAME)
    return _write(project, {**found, "why": why}, state, now, figures)


def _write(
    project: Project, found: dict[str, Any], state: str, now: datetime, figures: list[dict[str, Any]] | None = None
) -> dict[str, Any]:
    written = {**found, "state": state, "at": now.isoformat(), "figures": figures}
    with closing(open_store(project.store_url)) as store:
        store.log_decision("rollout", written, now)
    write_atomically(project.state / "rollout.json", canonical_json(written))
    return written
