"""What the commands share: the project's folder, and the project in it."""

from pathlib import Path
from typing import Annotated

import typer

from recops.stages.pipeline import refresh_code
from recops.stages.project import Project, open_project

Folder = Annotated[Path, typer.Option("-C", help="The project's folder.", metavar="DIR")]
HERE = Path(".")


def opened(folder: Path) -> Project:
    """The project in `folder`, its record of recops' own code up to date."""
    project = open_project(folder)
    refresh_code(project)
    return project
