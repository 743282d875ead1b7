"""`recops rollback`: the release before the present one is served again. Light and without a network, so that it works
when much else does not."""

from recops.bundle import Pointer, read_pointer
from recops.release import releases
from recops.stages import audit
from recops.stages.project import Project


def rollback(project: Project, by: str, why: str = "") -> Pointer:
    """As `releases.rollback`, with an entry in the audit log where something changed."""
    before = read_pointer(project.releases)
    pointer = releases.rollback(project.releases)
    if before is not None and pointer != before:
        facts = {"release": pointer.release, "from": before.release, "by": by, "why": why}
        audit.log(project, "rolled back", facts)
    return pointer
