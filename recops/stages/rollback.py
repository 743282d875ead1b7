"""`recops rollback`: the release before the present one is served again. Light and without a network, so that it works
when much else does not."""

from recops.bundle import Pointer, read_pointer
from recops.release import releases
from recops.stages import audit, quarantine_list
from recops.stages.project import Project


def rollback(project: Project, by: str, why: str = "", force: bool = False) -> Pointer:
    """As `releases.rollback`, with an entry in the audit log where something changed. Raises RefusedError where the
    release before was made from data in quarantine, unless `force`."""
    before = read_pointer(project.releases)
    if before is not None and before.history and before.rolled_back is None and not force:
        quarantine_list.refuse_release(project, before.history[-1])
    pointer = releases.rollback(project.releases)
    if before is not None and pointer != before:
        facts = {"release": pointer.release, "from": before.release, "by": by, "why": why, "forced": force}
        audit.log(project, "rolled back", facts)
    return pointer
