"""What is served, was, and where it came from; and the files that take it to a cluster."""

from pathlib import Path
from typing import Annotated

import typer

from recops.commands.common import HERE, Folder, opened
from recops.terminal import print_table

app = typer.Typer()
Why = Annotated[str, typer.Option(help="A reason, for the audit log.", metavar="TEXT")]
Force = Annotated[bool, typer.Option("--force", help="Also what was made from data in quarantine.")]


@app.command(epilog="Example: recops releases")
def releases(folder: Folder = HERE) -> None:
    """What is and was served."""
    from recops.release.releases import list_releases

    rows = list_releases(opened(folder).releases)
    columns = ["release", "state", "model", "metric", "promoted_at"]
    print_table("Releases", columns, [[row[c] if c != "release" else row[c][:12] for c in columns] for row in rows])


@app.command(epilog="Example: recops promote 3f2a90c1")
def promote(
    release: Annotated[str, typer.Argument(help="A release id (or its beginning), or `candidate`: the bundle/ here.")],
    why: Why = "",
    force: Force = False,
    folder: Folder = HERE,
) -> None:
    """Serve this release from now on, whatever the gate said."""
    from datetime import UTC, datetime

    from recops.stages.audit import person
    from recops.stages.promote import promote_by_hand

    now = datetime.now(UTC).isoformat(timespec="seconds")
    print(f"Serving {promote_by_hand(opened(folder), release, now, person(), why, force)}")


@app.command(epilog="Example: recops rollback")
def rollback(
    why: Why = "",
    force: Force = False,
    folder: Folder = HERE,
) -> None:
    """Serve the release before the present one; a second call changes nothing."""
    from recops.stages.audit import person
    from recops.stages.rollback import rollback as roll_back

    print(f"Serving {roll_back(opened(folder), person(), why, force).release}")


@app.command("deploy-files", epilog="Example: recops deploy-files deploy --image registry.shop.example/recops")
def deploy_files(
    out: Annotated[Path, typer.Argument(help="Folder of the files; made where it is missing.", metavar="OUT_DIR")],
    folder: Folder = HERE,
    image: Annotated[str, typer.Option(help="Name of the image; without a tag it gets the release's.")] = "recops",
    replicas: Annotated[
        int | None, typer.Option(min=1, help="Pods at least. Default: 2 with PostgreSQL; with SQLite there is one.")
    ] = None,
) -> None:
    """Write a Dockerfile and Kubernetes objects that serve the promoted release, and say what to call with them."""
    from recops.stages.deploy_files import deploy_files as write

    for what, said in write(opened(folder), out, image, replicas):
        print(f"{what:<8} {said}")
