"""Stage validate: Great Expectations decides whether the tables are fit to train on; a stop ends the thread here."""

import json
from datetime import datetime

from recops.data.validation import validate as validate_tables
from recops.errors import RefusedError
from recops.schema import TABLES
from recops.stages.project import Project


def validate(project: Project) -> dict:
    """Writes reports/validation.json and reports/data_docs/. Raises RefusedError when a rule stops the thread."""
    params = project.params
    accepted = json.loads(project.accepted.read_text(encoding="utf-8")) if project.accepted.exists() else {}
    verdict = validate_tables(
        {name: project.tables / f"{name}.parquet" for name in TABLES},
        project.expectations,
        accepted.get("profile"),
        project.reports,
        now=datetime.fromisoformat(params.ingest.now) if params.ingest.now else None,
        live=params.source.live,
        kinds=sorted(params.kinds),
        order=params.source.order,
    )
    if not verdict.ok:
        raise RefusedError(
            f"{len(verdict.stopped)} rule(s) stopped the thread; see {project.reports / 'validation.json'} and "
            f"{project.reports / 'data_docs'}: nothing was trained, what is served stays"
        )
    return verdict.to_json()
