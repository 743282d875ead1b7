"""`recops erase`: a user's data goes from store and feedback now, from all else by the next training; and the proof.

What names a user afterwards is what was made before: old data versions in DVC's cache, old releases and Bentos.
`collect` removes those. Remotes and the user's own files are never changed, only named.
"""

import shutil
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from recops.bundle import read_manifest, read_pointer, release_folder
from recops.data.feedback import Feedback
from recops.data.naming import Name, named_in
from recops.errors import BundleError, CallError
from recops.release import releases
from recops.serving.traffic import control
from recops.stages import audit, feedback, pipeline
from recops.stages.project import Project
from recops.store import open_store


def erase(project: Project, user_id: str, now: datetime) -> dict[str, int]:
    """Erases a user from the store and the sealed feedback, and puts the keyed hash on the list that ingest honours.

    Returns how many rows went, by table. Of a user nothing is known of, nothing goes, and the list is longer by one.
    """
    Name(user_id)
    with closing(open_store(project.store_url)) as store:
        erased = store.erase_user(user_id, now, audit.person())
        feedback.seal_from(project, store)
    return erased


@dataclass(frozen=True)
class Place:
    """Where was looked: `found` times the user is named there, in the files `files` (relative to the project)."""

    name: str
    found: int
    files: tuple[str, ...] = ()
    note: str = ""


def verify(project: Project, user_id: str) -> list[Place]:
    """Looks for a user in everything that recops keeps of the current data version and before; changes nothing."""
    user = Name(user_id)
    with closing(open_store(project.store_url)) as store:
        held = store.held_of(user_id)
    rows = held["events"] + held["answers"] + len(held["histories"])
    found = [Place("store", rows, note=project.store_url.partition("@")[2] or "")]
    looked: set[Path] = set()
    for name, roots in _places(project).items():
        files = {}
        for path in _files(roots, looked):
            looked.add(path)
            if count := named_in(path, user):
                is_inside = path.is_relative_to(project.root)
                files[(path.relative_to(project.root) if is_inside else path).as_posix()] = count
        found.append(Place(name, sum(files.values()), tuple(sorted(files))))
    return found


def not_reached(project: Project) -> list[str]:
    """What may name a user and is not looked at: DVC's remotes, git's history and the user's own log."""
    names = [f"DVC remote {line}" for line in pipeline.remotes(project)]
    log = f"the log itself ({project.params.source.name}, {project.source_folder}), which is never changed"
    return [*names, "what git has committed", log]


def collect(project: Project) -> list[str]:
    """Removes what was made before the last erasure and is not served: DVC's old data versions and run cache, releases
    and Bentos that do not honour the list. Returns what was removed. Raises CallError while what is served was trained
    before: then `recops run` comes first."""
    honoured = len(Feedback.read(project.feedback).erased)
    pointer = read_pointer(project.releases)
    if pointer is not None and _honours(release_folder(project.releases, pointer.release)) < honoured:
        raise CallError(
            "what is served was trained before the last erasure: `recops run` trains anew, and `recops promote "
            "candidate` serves that where the gate left the old one; then collect"
        )
    removed = []
    old = []
    for folder in sorted(project.releases.glob("*/*/manifest.json")):
        if _honours(folder.parent) < honoured:
            old.append(folder.parent.name)
    with closing(open_store(project.store_url)) as store:
        releases.drop(project.releases, store, old)
        removed += [f"release {release[:12]}" for release in old]
        for arm in control.read(store).arms:
            if arm.release in old:
                control.remove(store, arm.name, f"{audit.person()}, recops erase --collect")
                removed.append(f"challenger {arm.name}")
    for manifest in project.state.glob("bentoml/bentos/*/*/src/bundle/manifest.json"):
        if _honours(manifest.parent) < honoured:
            shutil.rmtree(manifest.parents[2])
            removed.append(f"Bento {manifest.parents[2].name}")
    if (project.root / ".dvc").is_dir():
        pipeline.run_dvc(project, "gc", "--workspace", "--force", "--quiet")
    if (runs := project.root / ".dvc" / "cache" / "runs").exists():
        shutil.rmtree(runs)
    audit.log(project, "collected", {"releases": old, "by": audit.person(), "why": "trained before the last erasure"})
    return [*removed, "DVC's cache of former data versions, and its run cache"]


def _honours(folder: Path) -> int:
    try:
        return (read_manifest(folder).get("erasures") or {}).get("honoured", 0)
    except BundleError:
        return 0


def _places(project: Project) -> dict[str, list[Path]]:
    """Name and folders of each place, the inner ones first: a file counts for the first that holds it."""
    state = project.state
    return {
        "feedback parts": [project.feedback_parts],
        "tables": [project.tables],
        "other data": [project.data],
        "model": [project.model],
        "bundle": [project.bundle],
        "reports": [project.reports],
        "releases": [project.releases],
        "Bentos": [state / "bentoml"],
        "tuning and checkpoints": [state / "tune", state / "checkpoints", state / "refit"],
        "store file": _store_files(project.store_url),
        "other state": [state],
        "DVC cache": [project.root / ".dvc"],
        "settings": [project.root / file for file in ("dvc.lock", "params.yaml")],
    }


def _store_files(url: str) -> list[Path]:
    kind, _, path = url.partition(":///")
    return [Path(f"{path}{end}").absolute() for end in ("", "-wal")] if kind == "sqlite" else []


def _files(roots: list[Path], looked: set[Path]) -> Iterator[Path]:
    for root in roots:
        inside = [root] if root.is_file() else sorted(root.rglob("*")) if root.is_dir() else []
        yield from (path for path in inside if path.is_file() and not path.is_symlink() and path not in looked)
