"""Stage ingest: the source's log becomes the four tables of `schema.py`, every raw row in one of them."""

from recops.bundle import canonical_json, write_atomically
from recops.data.feedback import Feedback, Told, read_key, relation
from recops.data.ingest import ingest as ingest_tables
from recops.stages.project import Project


def ingest(project: Project) -> dict:
    """Writes data/tables/*.parquet and counts.json there; returns the counts."""
    params = project.params
    project.tables.mkdir(parents=True, exist_ok=True)
    feedback = Feedback.read(project.feedback)
    is_source = params.source.name == "feedback_log"  # then the log is what was told, and nothing comes beside it
    told = Told(
        None if is_source else relation(project.feedback_parts, feedback.parts, params.source.order != "time"),
        params.kinds,
        feedback.erased,
        read_key(project.erasure_key),
    )
    source = params.source.model_copy(update={"path": "."}) if is_source else params.source
    counts = ingest_tables(source, params.ingest, project.root, project.tables, told)
    counts |= {"store": feedback.store, "events_until": feedback.events_until, "erasures": len(feedback.erased)}
    write_atomically(project.tables / "counts.json", canonical_json(counts))
    return counts
