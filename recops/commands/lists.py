"""What the promoted release answers, without a server: lists, reasons, questions; and items that it is told of."""

from pathlib import Path
from typing import Annotated

import typer

from recops.commands.common import HERE, Folder, opened
from recops.errors import CallError
from recops.terminal import console, print_table

app = typer.Typer()
REPEATED = "Repeat the exploration of this answer; without one there is none."


@app.command(epilog="Example: recops recommend --history 318,527 -k 5")
def recommend(
    folder: Folder = HERE,
    user: Annotated[str | None, typer.Option(help="User id.")] = None,
    history: Annotated[str | None, typer.Option(help="Item ids, oldest first, separated by commas.")] = None,
    k: Annotated[int, typer.Option("-k", min=1, max=1000, help="Length of the list.")] = 10,
    explain: Annotated[bool, typer.Option("--explain", help="Say of each item why it stands there.")] = False,
    request_id: Annotated[str | None, typer.Option(help=REPEATED, metavar="ID")] = None,
) -> None:
    """One look at the promoted release, without a server."""
    from recops.serving.local import recommend_once
    from recops.serving.ruleset import read_rules

    if user is None and history is None:
        raise CallError("--user or --history: give one of them")
    project = opened(folder)
    answer = recommend_once(
        project.releases,
        project.store_url,
        user,
        listed(history),
        k,
        explain,
        project.source_folder,
        read_rules(project.rules_file),
        request_id,
    )
    columns = ["rank", "item_id", "title", "score"]
    rows = [[i["rank"], i["item_id"], i["title"] or "", f"{i['score']:.4f}"] for i in answer["items"]]
    if explain:
        from recops.stages.tables import move, sentence

        columns.append("why")
        why = ["\n".join(map(sentence, [*i["reasons"], *map(move, i.get("moved", ()))])) for i in answer["items"]]
        rows = [[*row, reasons] for row, reasons in zip(rows, why, strict=True)]
    print_table(f"release {answer['release'][:12]}, source {answer['source']}", columns, rows)


@app.command("score-all", epilog="Example: recops score-all --out lists.parquet -k 50")
def score_all(
    out: Annotated[Path, typer.Option(help="The Parquet file to write: user_id, item_id [], score [], source.")],
    folder: Folder = HERE,
    k: Annotated[int, typer.Option("-k", min=1, max=1000, help="Length of each list.")] = 100,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes. Default: one a core.")] = None,
) -> None:
    """Write the list of every user the promoted release knows, as POST /recommend gives it.

    A call after a kill goes on with the users that are missing.
    """
    from recops.stages.score_all import score_all as score

    found = score(opened(folder), out, k, workers)
    print(f"Release  {found.release[:12]}")
    print(f"Wrote    {out}: {found.num_users:,} users ({found.kept:,} scored by an earlier call)")


def listed(text: str | None) -> list[str]:
    """Ids between commas."""
    return [part.strip() for part in (text or "").split(",") if part.strip()]


@app.command(epilog='Example: recops ask "something like Heat but funnier, from the nineties" --user 383')
def ask(
    question: Annotated[str, typer.Argument(help="The question, in words.")],
    folder: Folder = HERE,
    user: Annotated[str | None, typer.Option(help="User id.")] = None,
    history: Annotated[str | None, typer.Option(help="Item ids, oldest first, separated by commas.")] = None,
    k: Annotated[int, typer.Option("-k", min=1, max=1000, help="Length of the list.")] = 10,
    as_json: Annotated[bool, typer.Option("--json", help="Print the answer as JSON.")] = False,
) -> None:
    """Ask the promoted release in words, without a server."""
    from recops.stages.ask import answer as answered

    answer = answered(opened(folder), question, user, None if history is None else listed(history), k)
    if as_json:
        console.print_json(data=answer)
        return
    print(answer["answer"])
    if answer["items"]:
        columns = ["rank", "item_id", "title", "why"]
        rows = [[i["rank"], i["item_id"], i["title"] or "", i["reason"]] for i in answer["items"]]
        print_table(f"release {answer['release'][:12]}, source {answer['source']}", columns, rows)


@app.command(epilog="Example: recops explain --user 383 --item 318")
def explain(
    item: Annotated[str, typer.Option(help="Id of the item to account for.")],
    folder: Folder = HERE,
    user: Annotated[str | None, typer.Option(help="User id.")] = None,
    history: Annotated[str | None, typer.Option(help="Item ids, oldest first, separated by commas.")] = None,
    exclude: Annotated[str | None, typer.Option(help="Ids of items that must not be shown.")] = None,
    filters: Annotated[str | None, typer.Option(help="As in POST /recommend.", metavar="JSON")] = None,
    k: Annotated[int, typer.Option("-k", min=1, max=1000, help="Length of the list that rules are at work in.")] = 10,
    request_id: Annotated[str | None, typer.Option(help=REPEATED, metavar="ID")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the account as JSON.")] = False,
) -> None:
    """The whole account of one item for one user: rank, score and its parts, history, reasons, rules."""
    from recops.serving.local import explain_once
    from recops.serving.ruleset import read_rules

    if user is None and history is None:
        raise CallError("--user or --history: give one of them")
    project = opened(folder)
    known = None if history is None else listed(history)
    account = explain_once(
        project.releases,
        project.store_url,
        user,
        known,
        item,
        listed(exclude),
        filters,
        project.source_folder,
        read_rules(project.rules_file),
        k,
        request_id,
    )
    if as_json:
        console.print_json(data=account)
        return
    from recops.stages.tables import account_tables

    for table in account_tables(account):
        print_table(*table)


@app.command("add-items", epilog="Example: recops add-items new-films.csv")
def add_items(
    file: Annotated[Path, typer.Argument(help="CSV, TSV, JSON lines or Parquet with an id and any columns of items.")],
    folder: Folder = HERE,
) -> None:
    """Add items to the served release, or change them, without training and without a restart.

    Services of this project take them up within a second. A column that the file lacks stays as it is.
    """
    from recops.stages.add_items import add_items as add

    found = add(opened(folder), file)
    print(f"Release  {found.release[:12]}: {found.added} items added, {found.changed} changed")
    for line, reason in found.rejected:
        print(f"Rejected {file}, line {line}: {reason}")
    for column, number in found.unreadable.items():
        print(f"Emptied  {column} of {number} items, whose values cannot be read")
    for item_id, reason in found.not_recommendable.items():
        print(f"Kept     {item_id}, not recommended: {reason}")
    if found.rejected:
        raise typer.Exit(1)
