"""`recops status`: what runs, what is served, since when and from which data, how it drifts, and what runs next.

In: a project; what the supervisor wrote, the pointer, the store, and the Prefect server where it answers. Changes
nothing.
"""

import json
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx

from recops.bundle import read_manifest, read_pointer, release_folder
from recops.errors import BundleError
from recops.release.releases import list_releases, read_record
from recops.stages import supervisor
from recops.stages.prefect_api import PrefectApi, is_awake
from recops.stages.project import Project
from recops.stages.serve import readyz
from recops.store import open_store


def read_state(project: Project) -> dict[str, Any] | None:
    """What the supervisor last wrote, if that one lives: `pid`, `started_at`, `port`, `server`, `parts`."""
    if not supervisor.is_up(project):
        return None
    try:
        return json.loads((project.up / "state.json").read_text(encoding="utf-8"))
    except FileNotFoundError:  # it starts, or ends
        return None


def parts(project: Project) -> list[dict[str, Any]]:
    """Each part as the supervisor sees it, with `healthy` (asked now) and `what` (in words). Empty when down."""
    state = read_state(project)
    if state is None:
        return []
    with PrefectApi(state["server"], timeout_s=5) as api:
        is_answering = api.is_healthy()
        try:
            heard = api.workers() if is_answering else {}
        except httpx.HTTPError:
            heard = {}
    found = []
    for part in state["parts"]:
        name, is_running = part["name"], part["state"] == "running"
        if name == supervisor.SERVER:
            is_healthy = is_running and is_answering
        elif name.startswith(supervisor.WORKER):
            is_healthy = is_running and is_awake(heard.get(part["label"]), datetime.fromisoformat(part["since"]))
        elif name == supervisor.SERVICE:
            is_healthy = is_running and readyz(project.params.serve, state["port"]) == 200
        else:
            is_healthy = part["state"] == "done" or (is_running and name == supervisor.ALERTS)
        what = part["label"]
        if not is_healthy:
            waits = f"waits for {part['waits_for']}" if part["waits_for"] else None
            what = waits or ("starting" if is_running else f"ended with {part['last_exit']}, is started again")
        found.append({**part, "healthy": is_healthy, "what": what})
    return found


def waits_for(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Parts that are not healthy and should be: a service before the first release is as it should be."""
    return [
        part
        for part in found
        if not part["healthy"] and not (part["name"] == supervisor.SERVICE and part["state"] == "waiting")
    ]


def status(project: Project) -> dict[str, Any]:
    """`up`, `healthy`, `parts`, `served`, `drift`, `last_runs`, `next_runs`; what cannot be known is null."""
    state, found = read_state(project), parts(project)
    result: dict[str, Any] = {
        "up": state is not None,
        "healthy": state is not None and bool(found) and not waits_for(found),
        "since": state["started_at"] if state else None,
        "supervisor": state["pid"] if state else None,
        "parts": found,
        "served": served(project),
        "drift": drift(project),
        "last_runs": None,
        "next_runs": None,
    }
    if state is not None:
        try:
            with PrefectApi(state["server"]) as api:
                result |= {"last_runs": api.last_runs(), "next_runs": api.next_runs()}
        except httpx.HTTPError:
            pass
    return result


def served(project: Project) -> dict[str, Any] | None:
    """The served release, its model and metric, when it was promoted, and the data it was trained on; None before the
    first. A release that cannot be read has `error`."""
    try:
        pointer = read_pointer(project.releases)
        if pointer is None:
            return None
        manifest = read_manifest(release_folder(project.releases, pointer.release))
        record = read_record(project.releases, pointer.release)
    except BundleError as error:
        return {"error": str(error)}
    listed = next(entry for entry in list_releases(project.releases) if entry["release"] == pointer.release)
    return {
        "release": pointer.release,
        "model": manifest.get("model"),
        "metric": listed["metric"],
        "promoted_at": record.get("promoted_at"),
        "data": record.get("events_hash"),
        "data_watermark": manifest.get("data_watermark"),
        "fitted_until": manifest.get("fitted_until"),
        "previous": pointer.history[-1] if pointer.history else None,
    }


def drift(project: Project) -> dict[str, Any] | None:
    """The last drift verdict: `verdict`, `features`, `since`, `until`, `checked_at`, and whether it `is_current`, about
    what is served now; None before the first."""
    if project.store_url.startswith("sqlite:") and not Path(project.store_url.removeprefix("sqlite:///")).exists():
        return None
    with closing(open_store(project.store_url)) as store:
        report = store.report("drift")
    if not report:
        return None
    pointer = read_pointer(project.releases)
    found = {key: report.get(key) for key in ("verdict", "features", "since", "until", "checked_at")}
    return {**found, "is_current": pointer is not None and report.get("release") == pointer.release}
