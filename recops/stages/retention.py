"""What is kept and for how long (`retention:` in params.yaml), so that a project that trains every night does not grow.

In: a project, the time that counts as now. Out: what was removed. Something goes where it is older than `days` *and*
not among the newest `releases`. Never: what is served, what a rollback would serve or has taken back, the bundle here,
challengers, releases made from data in quarantine, and what DVC needs to bring back any release that is kept. Events
are trained on for ever unless `feedback_days` says otherwise. Prefect's server removes its runs (Project.environment).
"""

import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import yaml

from recops.bundle import read_manifest, read_pointer, release_folder
from recops.data.feedback import Feedback
from recops.errors import BundleError
from recops.release import releases
from recops.release.bento import bento_folder
from recops.serving.traffic import control
from recops.stages import pipeline
from recops.stages.project import Project
from recops.stages.retrain import promoted_at
from recops.store import Store, open_store


def tidy(project: Project, now: datetime) -> dict[str, int]:
    """Removes what is no longer kept; called by whoever holds the lock of the run. Returns how many of each kind went
    (`releases`, `bentos`, `feedback_parts`, `cached_files`), which the audit log gets too where any did. A kill in
    between leaves only what the next call removes."""
    before = now - timedelta(days=project.params.retention.days)
    with closing(open_store(project.store_url)) as store:
        dropped = old_releases(project, store, before)
        releases.drop(project.releases, store, dropped)
        removed = {
            "releases": len(dropped),
            "bentos": _drop_bentos(project, before),
            "feedback_parts": _drop_feedback(project, now),
            "cached_files": _drop_cached(project, before),
        }
        if any(removed.values()):
            store.log_decision("tidied", {**removed, "names": dropped}, now)
    return removed


def old_releases(project: Project, store: Store, before: datetime) -> list[str]:
    """Releases that may go: promoted before, not among the newest `retention.releases`, and needed by nobody."""
    found = sorted(((promoted_at(project, release), release) for release in kept_releases(project)), reverse=True)
    needed = _needed(project, store)
    older = found[project.params.retention.releases :]
    return [release for made, release in older if made < before and release not in needed]


def kept_releases(project: Project) -> list[str]:
    return [entry["release"] for entry in releases.list_releases(project.releases)]


def _record(project: Project, release: str) -> dict[str, Any]:
    return releases.read_record(project.releases, release)


def _needed(project: Project, store: Store) -> set[str | None]:
    needed: set[str | None] = {arm.release for arm in control.read(store).arms}
    if (pointer := read_pointer(project.releases)) is not None:
        needed |= {pointer.release, *pointer.history[-1:], pointer.rolled_back}
    needed.add(_bundle_here(project))
    bad = _quarantined(project)
    return needed | {release for release in kept_releases(project) if bad & set(_hashes(project, release))}


def _bundle_here(project: Project) -> str | None:
    facts = project.reports / "package.json"
    return json.loads(facts.read_text(encoding="utf-8"))["release"] if facts.exists() else None


def _quarantined(project: Project) -> set[str]:
    """Hashes of data versions in quarantine."""
    path = project.state / "quarantine.json"
    listed = json.loads(path.read_text(encoding="utf-8"))["versions"] if path.exists() else []
    return {one for entry in listed for one in entry["hashes"]}


def _hashes(project: Project, release: str) -> Iterator[str]:
    """Of all data that a release was made from."""
    with suppress(BundleError):  # a broken one is known by its record
        yield from _texts(read_manifest(release_folder(project.releases, release))["inputs"])
    yield from _of_lock(_record(project, release).get("dvc_lock"))


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for one in value.values() if isinstance(value, dict) else value:
            yield from _texts(one)


def _of_lock(lock: str | None) -> Iterator[str]:
    """Hashes that a dvc.lock names."""
    for stage in (yaml.safe_load(lock or "") or {}).get("stages", {}).values():
        yield from (entry["md5"] for key in ("deps", "outs") for entry in stage.get(key, []) if "md5" in entry)


def _drop_bentos(project: Project, before: datetime) -> int:
    """Bentos of releases that are gone, and of candidates that were none, but for that of bundle/."""
    environment = project.environment()
    kept = [release for release in [*kept_releases(project), _bundle_here(project)] if release]
    folders = {bento_folder(release, environment) for release in kept}
    old = [f for f in bento_folder("any", environment).parent.glob("*/") if f not in folders and _changed(f) < before]
    for folder in old:
        shutil.rmtree(folder)
    return len(old)


def _drop_feedback(project: Project, now: datetime) -> int:
    """Parts whose events all arrived before `retention.feedback_days`: nothing is trained on them any more."""
    days = project.params.retention.feedback_days
    if days is None:
        return 0
    with (project.state / "feedback.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        feedback, before = Feedback.read(project.feedback), now - timedelta(days=days)
        old = [part for part in feedback.parts if _newest(project.feedback_parts / part["file"]) < before]
        if old:
            replace(feedback, parts=tuple(p for p in feedback.parts if p not in old)).write(project.feedback)
        named = {part["file"] for part in Feedback.read(project.feedback).parts}
        for path in project.feedback_parts.glob("*.parquet"):
            if path.name not in named and _changed(path) < before:
                path.unlink()
    return len(old)


def _newest(part: Path) -> datetime:
    newest = pl.scan_parquet(part).select(pl.col("received_at").max()).collect().item()
    return newest or datetime.min.replace(tzinfo=UTC)


def _drop_cached(project: Project, before: datetime) -> int:
    """Files of DVC's cache that neither the project as it is, nor a kept release, nor a .dvc file of the user names,
    and old entries of its run cache."""
    cache = project.root / ".dvc" / "cache"
    files, num = cache / "files" / "md5", 0
    needed = {one for lock in _locks(project) for md5 in _of_lock(lock) for one in _with_contents(files, md5)}
    needed |= {one for md5 in _added(project) for one in _with_contents(files, md5)}
    for path in files.glob("*/*"):
        if path.parent.name + path.name not in needed and _changed(path) < before:
            path.unlink()
            num += 1
    for path in (cache / "runs").glob("*/*/*"):
        if _changed(path) < before:
            path.unlink()
            num += 1
    for folder in [*(cache / "runs").glob("*/*"), *(cache / "runs").glob("*"), *files.glob("*")]:
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
    return num


def _locks(project: Project) -> list[str | None]:
    return [pipeline.lock_text(project), *(_record(project, r).get("dvc_lock") for r in kept_releases(project))]


def _with_contents(files: Path, md5: str) -> Iterator[str]:
    """A hash and, of a folder, those of the files in it."""
    yield md5
    path = files / md5[:2] / md5[2:]
    if md5.endswith(".dir") and path.exists():
        yield from (entry["md5"] for entry in json.loads(path.read_text(encoding="utf-8")))


def _added(project: Project) -> Iterator[str]:
    """Hashes in the .dvc files of a user's own `dvc add`."""
    for folder, folders, names in os.walk(project.root):
        folders[:] = [name for name in folders if name[0] != "." and name != "releases"]
        for name in names:
            if name.endswith(".dvc"):
                text = Path(folder, name).read_text(encoding="utf-8")
                yield from (out["md5"] for out in (yaml.safe_load(text) or {}).get("outs", []) if "md5" in out)


def _changed(path: Path) -> datetime:
    return datetime.fromtimestamp(path.stat().st_mtime, UTC)
