"""Data versions that are bad: taken out of training, and no release that was made from them is served again unforced.

In: a data version (see lineage.py). Out: `.recops/quarantine.json`, and parts of the feedback marked so that ingest
leaves them out (they stay in `data/feedback/`, where an erasure reaches them). A source file is the user's own: it is
never changed, and a training that reads it again is refused.
"""

from collections.abc import Collection
from contextlib import closing
from dataclasses import replace
from typing import Any

from recops.bundle import canonical_json, read_manifest, write_atomically
from recops.data.feedback import Feedback
from recops.errors import CallError, RefusedError
from recops.release import releases
from recops.serving.traffic import control
from recops.stages import audit, lineage
from recops.stages.feedback import one_seal
from recops.stages.lineage import Version
from recops.stages.project import Project
from recops.stages.quarantine_list import Entry, of, of_release, read
from recops.store import open_store


def refuse_data(project: Project) -> None:
    """Raises RefusedError where what ingest wrote last is in quarantine, or was read from a file that is."""
    _refuse(project, lineage.present(project))


def refuse_bundle(project: Project) -> None:
    """Raises RefusedError where bundle/ was made from data in quarantine."""
    _refuse(project, [*lineage.versions(read_manifest(project.bundle), {}), *lineage.present(project)])


def _refuse(project: Project, versions: list[Version]) -> None:
    if (entry := of(read(project), versions)) is not None:
        raise RefusedError(
            f"{entry.said()}, and the data here was made from it; put a good file in its place and `recops run`, or "
            f"`recops quarantine {entry.version[:12]} --lift`"
        )


def put(project: Project, prefix: str, now: str, by: str, why: str) -> Entry:
    """Puts a data version into quarantine, and takes off challengers made from it. Of tables, what came with them goes
    too: see `came_with`. Raises CallError for an unknown version, and one that is there already."""
    version, reached = lineage.resolve(project, prefix)
    if any(entry.version == version.hash for entry in read(project)):
        raise CallError(f"{version.name} {version.hash[:12]} is in quarantine already")
    new = [version]
    if version.kind in ("tables", "table"):
        new += came_with(project, reached)
    parts = tuple(found.name.rpartition("/")[2] for found in new if found.kind == "feedback")
    hashes = tuple(found.hash for found in new)
    entry = Entry(version.hash, version.kind, version.name, why, by, now, hashes, parts)
    _mark(project, parts, True)
    _write(project, [*read(project), entry])
    audit.log(project, "quarantined", {**_facts(entry), "releases": reached})
    with closing(open_store(project.store_url)) as store:
        for arm in control.read(store).arms:
            if of_release(project, arm.release):
                control.remove(store, arm.name, f"{by}, recops quarantine")
    return entry


def lift(project: Project, prefix: str, by: str, why: str) -> Entry:
    """Takes a data version out of quarantine again. Raises CallError for one that is not in it."""
    entries = read(project)
    found = [entry for entry in entries if prefix and entry.version.startswith(prefix)]
    if len(found) != 1:
        there = ", ".join(entry.version[:12] for entry in entries) or "none"
        raise CallError(f"data version {prefix!r}: fits {len(found)} of those in quarantine ({there})")
    kept = [entry for entry in entries if entry is not found[0]]
    still = {part for entry in kept for part in entry.parts}
    _mark(project, [part for part in found[0].parts if part not in still], False)
    _write(project, kept)
    audit.log(project, "lifted", {**_facts(found[0]), "by": by, "why": why})
    return found[0]


def came_with(project: Project, reached: Collection[str]) -> list[Version]:
    """The events, source files and parts of the feedback that the first of these releases had, and the last good one
    before it had not; the events alone where there is none before."""
    order = [entry["release"] for entry in reversed(releases.list_releases(project.releases)) if entry["promoted_at"]]
    first = next((place for place, release in enumerate(order) if release in reached), 0)
    before = next((release for release in reversed(order[:first]) if of_release(project, release) is None), None)
    own = lineage.made_from(project, order[first]) if order else lineage.present(project)
    if before is None:
        return [found for found in own if found.name.endswith("/events.parquet")]
    had = {version.hash for version in lineage.made_from(project, before)}
    is_new = [found for found in own if found.hash not in had]
    return [f for f in is_new if f.kind in ("source", "feedback") or f.name.endswith("/events.parquet")]


def _facts(entry: Entry) -> dict[str, Any]:
    return {"version": entry.version, "name": entry.name, "by": entry.by, "why": entry.why, "parts": list(entry.parts)}


def _write(project: Project, entries: list[Entry]) -> None:
    write_atomically(project.quarantine, canonical_json({"versions": [vars(entry) for entry in entries]}))


def _mark(project: Project, files: Collection[str], is_out: bool) -> None:
    """Has parts of the feedback left out by ingest, or no longer."""
    if not files:
        return
    with one_seal(project):
        feedback = Feedback.read(project.feedback)
        parts = []
        for part in feedback.parts:
            plain = {key: value for key, value in part.items() if key != "quarantined"}
            changed = {**plain, "quarantined": True} if is_out else plain
            parts.append(changed if part["file"] in files else part)
        replace(feedback, parts=tuple(parts)).write(project.feedback)
