"""`recops replay`: what retraining is worth, on real days."""

from pathlib import Path
from typing import Annotated

import typer

from recops.commands.common import HERE, Folder
from recops.terminal import console, print_table

app = typer.Typer()


@app.command(
    epilog="Example: recops replay --source globo --data globo-news --days 4-10 --policy never --policy nightly"
)
def replay(
    days: Annotated[str, typer.Option(help="FIRST-LAST, counted from the log's first day; what is before trains.")],
    source: Annotated[
        str | None,
        typer.Option(
            help="globo, kuairand, online_retail, movielens or movielens_small. Default: the project's own log."
        ),
    ] = None,
    data: Annotated[Path | None, typer.Option(help="Folder of the data set.", metavar="FOLDER")] = None,
    policy: Annotated[
        list[str] | None,
        typer.Option(help="never, nightly, weekly or drift; the first is compared with. Default: all."),
    ] = None,
    fault: Annotated[
        list[str] | None,
        typer.Option(help="bots, renamed, doubled or items_gone, and on which day.", metavar="KIND:DAY"),
    ] = None,
    model: Annotated[str | None, typer.Option(help="Instead of the one that is fitted at once.")] = None,
    users: Annotated[int, typer.Option(min=1, help="Users who are asked for a day, drawn by the seed.")] = 5000,
    seed: Annotated[int, typer.Option(min=0, help="Of users, intervals and faults.")] = 42,
    out: Annotated[Path, typer.Option(help="Folder of what is played, in -C.")] = Path("replay"),
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
    folder: Folder = HERE,
) -> None:
    """Play real days through the loop under several policies of retraining, and say what each was worth.

    Each morning lists from what is known by then, judged by what users chose that day; each night the day goes in.
    A call after a kill goes on.
    """
    from recops.stages import replay as stage
    from recops.stages import replay_report as report
    from recops.stages.replay_faults import Fault
    from recops.stages.replay_policy import POLICIES

    first, last = stage.read_days(days)
    faults = tuple(Fault.read(text) for text in fault or ())
    plan = stage.Plan(stage.settings_for(source, data, folder, model), first, last, users, seed, faults)
    where = folder / out
    found = stage.replay(plan, policy or list(POLICIES), where, say=lambda line: None if as_json else print(line))
    if as_json:
        console.print_json(data=found)
        return
    print_table(f"Days {first} to {last}", report.COLUMNS, report.rows(found))
    if faults:
        columns = ["fault", "day", "policy", "the loop said", "outcome", "next day against the last good release"]
        print_table("Faults", columns, report.fault_rows(found))
    print(f"Results  {where / 'replay.json'}, {where / 'replay.svg'}")
