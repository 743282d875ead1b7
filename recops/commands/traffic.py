"""`recops traffic`: releases that answer beside the served one, and what came of it."""

from typing import Annotated

import typer

from recops.commands.common import HERE, Folder, opened
from recops.terminal import console, print_table

app = typer.Typer(
    no_args_is_help=True,
    help="Releases beside the served one: in shadow, as canary, in an A/B test. A running service takes it at once.",
)
Release = Annotated[
    str, typer.Argument(help="A release id (or its beginning), or `candidate`: the bundle/ here.", metavar="RELEASE")
]
Name = Annotated[str, typer.Option(help="A name to know it by, which answers carry as `variant`.")]


@app.command(epilog="Example: recops traffic shadow candidate --name next")
def shadow(
    release: Release,
    name: Name = "shadow",
    share: Annotated[float, typer.Option(min=0, max=1, help="Of all calls.")] = 1.0,
    folder: Folder = HERE,
) -> None:
    """Ask a release as well, and log what it says, without showing it to anybody."""
    _put(folder, release, name, "shadow", share, [])


@app.command(epilog="Example: recops traffic canary candidate --share 0.05 --guardrail hit_rate:0.02")
def canary(
    release: Release,
    share: Annotated[float, typer.Option(min=0, max=1, help="Of all users, always the same ones.")],
    name: Name = "canary",
    guardrail: Annotated[
        list[str] | None,
        typer.Option(help="METRIC or METRIC:SHARE that may be lost. Default: hit_rate, fallback_share, empty_share."),
    ] = None,
    folder: Folder = HERE,
) -> None:
    """Show a release to a share of the users, until its users are proven to do worse: then it is halted."""
    _put(folder, release, name, "canary", share, guardrail or ["hit_rate", "fallback_share", "empty_share"])


@app.command(epilog="Example: recops traffic ab 4f1c --share 0.5 --name ligr")
def ab(
    release: Release,
    share: Annotated[float, typer.Option(min=0, max=1, help="Of all users, always the same ones.")],
    name: Name = "b",
    folder: Folder = HERE,
) -> None:
    """Show a release to a share of the users until somebody ends it."""
    _put(folder, release, name, "ab", share, [])


@app.command(epilog="Example: recops traffic off canary")
def off(name: Annotated[str, typer.Argument(help="The name of a challenger.")], folder: Folder = HERE) -> None:
    """Take a challenger out: its users get the served release again."""
    from recops.stages.traffic import take_off

    take_off(opened(folder), name)
    print(f"Off: {name}")


@app.command(epilog="Example: recops traffic report --json")
def report(
    folder: Folder = HERE,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """What came of each challenger, beside the served release over the same time. May be looked at at any time."""
    from recops.stages.traffic import figures, table

    found = figures(opened(folder))
    if as_json:
        console.print_json(data=found)
    elif not found:
        print("No challenger: recops traffic shadow, canary or ab sets one")
    for arm in [] if as_json else found:
        print_table(*table(arm))


def _put(folder: Folder, release: str, name: str, mode: str, share: float, guardrails: list[str]) -> None:
    from recops.stages.traffic import put

    arm, notes = put(opened(folder), release, name, mode, share, guardrails)
    of = "calls" if mode == "shadow" else "users"
    print(f"{arm.mode.capitalize()} {arm.name}: {arm.release[:12]}, {arm.share:g} of the {of}")
    for note in notes:
        print(f"Note: {note}")
