"""Who decided what, and where answers, releases and data came from and went to."""

import os
from pathlib import Path
from typing import Annotated

import typer

from recops.commands.common import HERE, Folder, opened
from recops.terminal import console, print_table

app = typer.Typer()
AsJson = Annotated[bool, typer.Option("--json", help="As JSON.")]


@app.command(epilog="Example: recops audit --last 20")
def audit(
    last: Annotated[int | None, typer.Option(min=1, help="Only the last so many. Default: all.")] = None,
    as_json: AsJson = False,
    folder: Folder = HERE,
) -> None:
    """Who decided what, when and why: gate, promotions, rollbacks, challengers, erasures, quarantines."""
    from recops.stages.audit import entries, summary

    found = entries(opened(folder))
    found = found if last is None else found[-last:]
    if as_json:
        console.print_json(data=found)
        return
    columns = ["place", "time", "what", "by", "about"]
    rows = [[e["place"], e["time"][:19], e["what"], e["facts"].get("by", ""), summary(e["facts"])] for e in found]
    print_table("Audit log", columns, rows)


@app.command(epilog="Example: recops trace 5e0c… (a request_id, a release or a user)")
def trace(
    what: Annotated[str, typer.Argument(help="A request_id from an answer, a release or a user's id.", metavar="ID")],
    kind: Annotated[
        str | None, typer.Option(help="request, release or user, where an id could be of two.", metavar="KIND")
    ] = None,
    as_json: AsJson = False,
    folder: Folder = HERE,
) -> None:
    """Where an answer came from: release, bundle, training run, commit, data version, verdict, source files."""
    from recops.stages.lineage import trace as trace_back
    from recops.stages.lineage import trace_rows

    found = trace_back(opened(folder), what, kind)
    if as_json:
        console.print_json(data=found)
        return
    for name, said in trace_rows(found):  # no table: it would break hashes in two
        print(f"{name:<14} {said}")


@app.command(epilog="Example: recops impact 9f31c0de")
def impact(
    version: Annotated[
        str, typer.Argument(help="A hash that `recops trace` shows, or its beginning.", metavar="DATA_VERSION")
    ],
    as_json: AsJson = False,
    folder: Folder = HERE,
) -> None:
    """Which releases a data version reached, and how many answers they gave.

    A data version is the hash of all tables, of one table, of a source file or of a part of the feedback.
    """
    from recops.stages.lineage import impact as reached

    found = reached(opened(folder), version)
    if as_json:
        console.print_json(data=found)
        return
    columns = ["release", "state", "promoted_at", "model", "answers", "users", "challenger"]
    rows = [
        [
            r["release"][:12],
            *(r[column] or 0 if column in ("answers", "users") else r[column] or "" for column in columns[1:]),
        ]
        for r in found["releases"]
    ]
    print_table(f"{found['name']} {found['version']} reached", columns, rows)


@app.command(epilog='Example: recops quarantine 9f31c0de --why "clicks of a crawler"')
def quarantine(
    version: Annotated[
        str | None, typer.Argument(help="As for `impact`. Without one, what is in quarantine.", metavar="DATA_VERSION")
    ] = None,
    why: Annotated[str, typer.Option(help="A reason, for the audit log.", metavar="TEXT")] = "",
    lift: Annotated[bool, typer.Option("--lift", help="Take it out of quarantine again.")] = False,
    no_train: Annotated[
        bool, typer.Option("--no-train", help="Leave the training without it to `recops run`.")
    ] = False,
    folder: Folder = HERE,
) -> None:
    """Take bad data out: train without it and promote under the gate; what was made from it is served only by force.

    Of all tables, the source files and parts of the feedback go that came with them. A source file is yours: it is not
    changed, and refused where it is read again as it was.
    """
    from datetime import UTC, datetime

    from recops.stages import pipeline, quarantine_list
    from recops.stages import quarantine as stage
    from recops.stages.audit import person

    project = opened(folder)
    if version is None:
        rows = [[e.version[:12], e.name, e.at[:19], e.by, e.why] for e in quarantine_list.read(project)]
        print_table("In quarantine", ["version", "what", "since", "by", "why"], rows)
        return
    if lift:
        entry = stage.lift(project, version, person(), why)
        print(f"Lifted   {entry.name} {entry.version}; `recops run` trains with it again")
        return
    entry = stage.put(project, version, datetime.now(UTC).isoformat(timespec="seconds"), person(), why)
    print(f"Quarantined {entry.name} {entry.version}")
    for part in entry.parts:
        print(f"Left out    feedback part {part}")
    for release in quarantine_list.reached(project):
        print(f"Reached     {release['release'][:12]} ({release['state']}): served again only by force")
    if no_train:
        return
    pipeline.prepare(project)
    os.environ.update(project.environment())
    from flows.train_and_release import run_flow

    result = run_flow(project)
    print(f"Gate        {result['gate']}")
    print(f"Served      {result['release']}")
    if quarantine_list.of_release(project, result["release"]) is not None:
        print("            made from it, too: `recops promote candidate` serves the new one, `recops rollback` the old")


@app.command(epilog="Example: recops backup backups/2026-11-28.sqlite")
def backup(
    file: Annotated[Path, typer.Argument(help="The new file; its checksum goes to FILE.sha256 beside it.")],
    folder: Folder = HERE,
) -> None:
    """Write the store to one file, while the service runs: events, answers, histories, erasures, audit log.

    It holds what users did, and the key of the list of erased users: keep it as safe as the store.
    """
    from recops.stages.backup import backup as write

    counts = write(opened(folder), file.absolute())
    print(f"Wrote    {file}: {_rows(counts)}")


@app.command(epilog="Example: recops restore backups/2026-11-28.sqlite")
def restore(
    file: Annotated[Path, typer.Argument(help="A file that `recops backup` wrote, FILE.sha256 beside it.")],
    force: Annotated[bool, typer.Option("--force", help="In place of what the store holds.")] = False,
    folder: Folder = HERE,
) -> None:
    """Put a backup into the store, on either database. Users who were erased since are erased from it."""
    from recops.stages.backup import restore as put

    counts = put(opened(folder), file.absolute(), force)
    erased = counts.pop("erased")
    print(f"Restored {file}: {_rows(counts)}")
    if erased:
        print(f"Erased   {erased} users again, who were erased after the backup")


def _rows(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items() if count)


@app.command(epilog="Example: recops reproduce 3f2a90c1")
def reproduce(
    release: Annotated[str, typer.Argument(help="A release id or its beginning.", metavar="RELEASE")],
    folder: Folder = HERE,
) -> None:
    """Build a past release again from git and DVC, and compare hashes and metrics; exit 1 where they differ.

    Takes as long as the training did. What is served, and all else in the project, stays as it is.
    """
    from recops.errors import RefusedError
    from recops.stages.reproduce import reproduce as build

    found = build(opened(folder), release)
    rows = [[name, was, now, "same" if was == now else "differs"] for name, was, now in found.metrics]
    print_table(f"Release {found.release[:12]}, built again as {found.built[:12]}", ["metric", "was", "is", ""], rows)
    for note in found.notes:
        print(f"Note     {note}")
    print(f"Files    {len(found.files) - len(found.different())} of {len(found.files)} the same bytes")
    if not found.is_same:
        raise RefusedError(f"not the same bytes: {', '.join(found.different()) or 'the manifest alone differs'}")
