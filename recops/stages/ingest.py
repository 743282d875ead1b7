"""Stage ingest: the source's log becomes the four tables of `schema.py`, every raw row in one of them."""

from recops.bundle import canonical_json, write_atomically
from recops.data.ingest import ingest as ingest_tables
from recops.stages.project import Project


def ingest(project: Project) -> dict:
    """Writes data/tables/*.parquet and counts.json there; returns the counts."""
    params = project.params
    project.tables.mkdir(parents=True, exist_ok=True)
    counts = ingest_tables(params.source, params.ingest, project.root, project.tables)
    write_atomically(project.tables / "counts.json", canonical_json(counts))
    return counts
