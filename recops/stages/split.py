"""Stage split: divides the positives into train, valid and test, and proves that nothing of the future leaks."""

from recops.data.split import split_events
from recops.data.validation import validate_split
from recops.errors import RefusedError
from recops.stages.project import Project


def split(project: Project) -> dict:
    """Writes data/split/{train,valid,test}.parquet and split.json. Raises RefusedError on a leak."""
    params = project.params
    facts = split_events(
        project.tables / "events.parquet",
        project.split,
        params.split,
        params.kinds,
        params.recommend.remove_seen,
    )
    verdict = validate_split(project.split, project.expectations, project.reports / "split", split=params.split.name)
    if not verdict.ok:
        raise RefusedError(f"{project.split}: the split leaks or is empty: {verdict.stopped}")
    return facts
