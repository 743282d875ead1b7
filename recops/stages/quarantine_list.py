"""Which data versions are in quarantine, and whether a release was made from one. Reads only, and little, so that a
rollback stays quick; what changes the list is quarantine.py.

In: `.recops/quarantine.json` and the records of the releases. Out: entries, and refusals with their reason.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from recops.bundle import read_pointer
from recops.errors import CallError, RefusedError
from recops.release import releases
from recops.stages import lineage
from recops.stages.lineage import Version
from recops.stages.project import Project


@dataclass(frozen=True)
class Entry:
    """A data version in quarantine. `hashes` are the data versions that tell whether something was made from it;
    `parts` the files of the feedback that were taken out."""

    version: str
    kind: str
    name: str
    why: str
    by: str
    at: str
    hashes: tuple[str, ...]
    parts: tuple[str, ...] = ()

    def said(self) -> str:
        reason = f": {self.why}" if self.why else ""
        return f"{self.name} {self.version[:12]} is in quarantine since {self.at[:19]} by {self.by}{reason}"


def read(project: Project) -> list[Entry]:
    """The list, oldest first. Raises CallError for a file that cannot be read: nothing is served by mistake."""
    try:
        found = json.loads(project.quarantine.read_text(encoding="utf-8"))["versions"]
        return [Entry(**{**e, "hashes": tuple(e["hashes"]), "parts": tuple(e["parts"])}) for e in found]
    except FileNotFoundError:
        return []
    except (ValueError, KeyError, TypeError) as error:
        raise CallError(f"{project.quarantine}: not a readable list of quarantined data ({error!r})") from None


def of(entries: Iterable[Entry], versions: Iterable[Version]) -> Entry | None:
    """The first entry that something made from those data versions falls under."""
    hashes = {version.hash for version in versions}
    return next((entry for entry in entries if hashes & set(entry.hashes)), None)


def of_release(project: Project, release: str) -> Entry | None:
    """Why a kept release is in quarantine; None where it is not."""
    return of(entries, lineage.made_from(project, release)) if (entries := read(project)) else None


def refuse_release(project: Project, release: str) -> None:
    """Raises RefusedError for a release in quarantine, naming the last one that could be served instead."""
    if (entry := of_release(project, release)) is None:
        return
    good = next((other for other in served_before(project) if of_release(project, other) is None), None)
    instead = f"`recops promote {good[:12]}` serves the last that is not" if good else "no other was served before"
    raise RefusedError(f"release {release[:12]} was made from bad data: {entry.said()}; {instead}, --force serves it")


def reached(project: Project) -> list[dict[str, Any]]:
    """Kept releases in quarantine, as `releases.list_releases` has them."""
    listed = releases.list_releases(project.releases)
    return [entry for entry in listed if of_release(project, entry["release"]) is not None]


def served_before(project: Project) -> list[str]:
    """Releases that were served before the present one, the last first."""
    pointer = read_pointer(project.releases)
    return list(reversed(pointer.history)) if pointer else []
