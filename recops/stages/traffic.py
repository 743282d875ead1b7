"""`recops traffic`: sets challengers beside the served release of a project, and says what came of them.

In: a project. Out: the traffic in its store, which every worker of a running service reads within a second.
"""

from contextlib import closing
from typing import Any

from recops.bundle import read_manifest, read_pointer, release_folder
from recops.errors import CallError
from recops.release import releases
from recops.serving.live import Kinds
from recops.serving.traffic import control
from recops.serving.traffic.arms import EPSILON, Arm
from recops.serving.traffic.outcomes import METRICS
from recops.serving.traffic.running import Running
from recops.stages import audit, quarantine_list
from recops.stages.project import Project
from recops.stages.promote import keep, served_manifest
from recops.store import open_store

BY = "recops traffic"


def put(
    project: Project, release: str, name: str, mode: str, share: float, guardrails: list[str]
) -> tuple[Arm, list[str]]:
    """Sets a challenger: a kept release (its id or the start of it) or `candidate`, which becomes one. Returns it, and
    what to know of it. Raises CallError before the first promotion, and for what does not fit."""
    served_manifest(project)
    rails = [_guardrail(text) for text in guardrails]
    values = {"name": name, "release": "candidate", "mode": mode, "share": share, "guardrails": rails}
    control.arm_of(values)  # before anything is kept
    if release == "candidate":
        found = keep(project, {"by": f"{BY} {mode}"})
    else:
        found = releases.find_release(release, project.releases)
        quarantine_list.refuse_release(project, found)
        read_manifest(release_folder(project.releases, found))
    pointer = read_pointer(project.releases)
    if pointer is not None and found == pointer.release:
        raise CallError(f"{found[:12]} is what is served: it cannot challenge itself")
    with closing(open_store(project.store_url)) as store:
        before = {arm.name: arm.release for arm in control.read(store).arms}.get(name, found)
        set_to = control.put(store, control.arm_of({**values, "release": found}), audit.person())
    notes = [] if before == found else [f"in place of {before[:12]}; another --name lets both stand"]
    if rails and sum(arm.share for arm in set_to.arms if arm.mode != "shadow") > 1 - EPSILON:
        notes.append("no user is left to the served release, so that the guardrails have nothing to compare with")
    return next(arm for arm in set_to.arms if arm.name == name), notes


def _guardrail(text: str) -> dict[str, Any]:
    metric, _, margin = text.partition(":")
    try:
        return {"metric": metric, "margin": float(margin or 0)}
    except ValueError:
        raise CallError(f"--guardrail {text}: expected METRIC or METRIC:SHARE, such as hit_rate:0.02") from None


def take_off(project: Project, name: str) -> None:
    """Raises CallError for a name there is not."""
    with closing(open_store(project.store_url)) as store:
        control.remove(store, name, audit.person())


def figures(project: Project) -> list[dict[str, Any]]:
    """As `serving.traffic.control.report`; empty where there is no challenger."""
    kinds = Kinds.of(served_manifest(project))
    with closing(open_store(project.store_url)) as store:
        return control.report(Running(store, project.params.feedback.window_us), control.read(store), kinds)


def table(arm: dict[str, Any]) -> tuple[str, list[str], list[list[Any]]]:
    """Title, columns and rows of one challenger's figures."""
    control_side, challenger = arm["variants"]
    rows: list[list[Any]] = [
        [name, control_side[name], challenger[name], ""] for name in ("users", "answers", "events")
    ]
    for metric in METRICS:
        difference = arm["differences"][metric]
        told = "too few users" if difference["low"] is None else _interval(difference)
        rows.append([metric, f"{control_side[metric]:.4f}", f"{challenger[metric]:.4f}", told])
    if challenger["overlap"] is not None:
        rows.append(["overlap with what was shown", "", f"{challenger['overlap']:.4f}", ""])
    if challenger["instead"]:
        rows.append(["answers of the served release instead", "", challenger["instead"], "on neither side"])
    title = f"{arm['mode'].capitalize()} {arm['name']} ({arm['release'][:12]}), {arm['share']:g}"
    if arm["halted"]:
        title += f", figures until it was halted: {arm['halted']}"
    return title, ["", "served", arm["name"], "difference, 95 % at any time"], rows


def _interval(difference: dict[str, float]) -> str:
    return f"{difference['value']:+.4f} [{difference['low']:+.4f}, {difference['high']:+.4f}]"
