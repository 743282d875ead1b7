"""`recops backup` and `restore`: the store of a project as one file, and back, with erasures the project knows of."""

from pathlib import Path

from recops.data.feedback import Feedback, read_key
from recops.stages import audit
from recops.stages.project import Project
from recops.store import backup as files


def backup(project: Project, file: Path) -> dict[str, int]:
    """As `store.backup.backup`, with an entry in the audit log."""
    counts = files.backup(project.store_url, file)
    audit.log(project, "backed up", {"file": file.name, "sha256": files.check(file), "by": audit.person()})
    return counts


def restore(project: Project, file: Path, force: bool = False) -> dict[str, int]:
    """As `store.backup.restore`; users of whom the sealed feedback knows that they were erased stay so."""
    feedback = Feedback.read(project.feedback)
    known = files.ErasedHere("main", read_key(project.erasure_key), feedback.erased, feedback.events_until)
    return files.restore(project.store_url, file, force=force, by=audit.person(), known=known)
