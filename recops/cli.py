"""The command line. Reads arguments, opens the project, calls one stage, flow or release function, prints its result.

Every import of a heavy part stands inside the command that needs it, so that `--help` is quick. Exit codes: 0 done,
1 the data or the model was refused, 2 the call was wrong; a user's mistake is told in one line without a traceback.
"""

import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from recops import __version__
from recops.commands import keys, lineage, lists, releases, replay, traffic, up
from recops.commands.common import HERE, Folder, opened
from recops.errors import CallError, RecopsError, RefusedError
from recops.stages.project import Project
from recops.terminal import console, print_error, print_table

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="From an interaction log to a recommender that runs in production and stays good.",
)
app.add_typer(lists.app)
app.add_typer(releases.app)
app.add_typer(lineage.app)
app.add_typer(up.app)
app.add_typer(replay.app)
app.add_typer(keys.app, name="keys")
app.add_typer(traffic.app, name="traffic")


def main() -> None:
    """Runs a command and turns a user's mistake into one line on stderr and its exit code."""
    try:
        app()
    except RecopsError as error:
        print_error(str(error))
        sys.exit(error.exit_code)
    except Exception as error:
        if "database is locked" in str(error):
            print_error("the store is busy with what another process writes, and was for 30 s; try again")
            sys.exit(1)
        # Every library has its own error for a full disk; what was half-written is never taken for whole.
        if not any(words in str(error) for words in ("No space left", "disk is full", "StorageFull")):
            raise
        print_error(f"the disk is full: {error}")
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


def show_failed_rules(project: Project) -> None:
    """A table of the rules that failed, when rules are why the data was refused."""
    from recops.stages.tables import failed_rules

    if rows := failed_rules(project):
        columns = ["action", "table", "rule", "found", "expected", "examples"]
        print_table("Rules that failed", columns, rows)


def print_version(wanted: bool) -> None:
    """Ends the call with the version where it was asked for."""
    if wanted:
        print(__version__)
        raise typer.Exit


Version = Annotated[bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=print_version)]


@app.callback()
def root(version: Version = False) -> None:
    """Options before any command."""


@app.command(epilog="Example: recops init shop --events orders.csv --items products.csv")
def init(
    folder: Annotated[Path, typer.Argument(help="The new project's folder.", metavar="DIR")],
    events: Annotated[
        Path, typer.Option(help="Interaction log: CSV, TSV, JSON lines or Parquet, also .gz. With --example, a folder.")
    ],
    items: Annotated[Path | None, typer.Option(help="Items: one row an item.")] = None,
    users: Annotated[Path | None, typer.Option(help="Users: one row a user.")] = None,
    task: Annotated[str, typer.Option(help="ranking: what comes next; rating: which value an event will have.")] = (
        "ranking"
    ),
    example: Annotated[str | None, typer.Option(help="Settings of an example: ecommerce, social, news, …")] = None,
) -> None:
    """Make a project from your own files: look at them, guess the columns, write params.yaml with the guess."""
    from recops.stages.init import init as init_project
    from recops.stages.init import init_example

    if example is not None:
        if items is not None or users is not None:
            raise CallError("--items, --users: an example reads them from the folder of --events")
        if task != "ranking":
            raise CallError("--task: an example has its own")
        init_example(folder, example, events)
        print(f"Wrote {folder / 'params.yaml'}; then: recops run -C {folder}")
        return
    guess = init_project(folder, events, items, users, task)
    print_table("What was found", ["what", "guess", "why"], guess.rows)
    print(f"Wrote {folder / 'params.yaml'}: correct it where the guess is wrong, then: recops run -C {folder}")


@app.command(epilog="Example: recops run -C shop")
def run(folder: Folder = HERE) -> None:
    """The whole thread: ingest to released recommender, as a Prefect flow; what is up to date is not run again."""
    from recops.serving.ruleset import read_rules
    from recops.stages import pipeline
    from recops.stages.promote import outcome
    from recops.stages.quarantine import refuse_data
    from recops.stages.up import client_environment

    project = opened(folder)
    read_rules(project.rules_file)  # a mistake there, or in params.yaml, is told before anything is started
    pipeline.prepare(project)
    if pipeline.changed(project) or (result := outcome(project)) is None:
        os.environ.update({**project.environment(), **client_environment(project)})
        from flows.train_and_release import run_flow

        try:
            result = run_flow(project)
        except RefusedError:
            show_failed_rules(project)
            raise
    else:
        refuse_data(project)
        print("Everything is up to date.")
    show_results(project, result)


def show_results(project: Project, outcome: dict[str, Any]) -> None:
    """The table of results, where everything lies and how to serve it."""
    from recops.stages.tables import results_table

    print_table(*results_table(outcome["metrics"]))
    print(f"* best on validation. Gate: {outcome['gate']}")
    print(f"Served   {outcome['release'] or 'none'}")
    print(f"Report   {project.reports / 'index.html'}")
    print(f"Bundle   {project.bundle}")
    print(f"Bento    {outcome['bento']}")
    where = "" if project.root == Path.cwd() else f" -C {project.root}"
    print(f"Look     recops recommend{where} --user {outcome['example_user']} -k 5")
    print(f"Serve    recops serve{where}")


def stage(name: str, text: str) -> None:
    """Adds the command of one stage."""

    def command(folder: Folder = HERE) -> None:
        from recops.stages.pipeline import run_stage

        project = opened(folder)
        try:
            run_stage(project, name)
        except RefusedError:
            show_failed_rules(project)
            raise

    command.__doc__ = text
    app.command(name, epilog=f"Example: recops {name} -C shop", rich_help_panel="Stages")(command)


stage("ingest", "Read the source into data/tables: events, items, users, rejected.")
stage("validate", "Judge the tables by expectations/; exit 1 where a rule stops the thread.")
stage("split", "Divide the events into train, valid and test.")
stage("encode", "Encode item content: text, pictures, sounds, attributes, as encode.encoders says.")
stage("train", "Fit the model and its baselines.")
stage("evaluate", "Rank the whole catalogue for the test users; write reports/.")
stage("export", "Write the bundle: ONNX, vectors, catalogue, manifest; check parity.")
stage("package", "Build the Bento from the bundle.")


@app.command(epilog="Example: recops tune --budget 30m --write")
def tune(
    folder: Folder = HERE,
    budget: Annotated[str | None, typer.Option(help="How long, such as 30m, 2h or 90s.", metavar="TIME")] = None,
    trials: Annotated[
        int | None, typer.Option(min=1, help="Until the study has so many. Default: tune.trials in params.yaml.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="Default: tune.model, else train.model in params.yaml.")] = None,
    write: Annotated[bool, typer.Option("--write", help="Put the best settings into params.yaml.")] = False,
) -> None:
    """Search for better hyper-parameters on the validation part.

    The ranges stand in params.yaml (tune.space); without them each decimal of the model is tried from a third to three
    times its value.

    Trial 0 is what is set now; hopeless trials are stopped early. A second call goes on with the study, also after a
    kill, unless the data, the model, the ranges or the code have changed. --write alone writes the best so far.
    """
    from recops.stages.tune import described, seconds
    from recops.stages.tune import tune as search

    project = opened(folder)
    found = search(
        project,
        model=model,
        trials=trials,
        budget_s=None if budget is None else seconds(budget),
        write=write,
        say=lambda text: print(text, flush=True),
    )
    print(f"Ended    {found.ended_by}")
    print(f"Trials   {found.table}")
    if found.best is None or found.gain is None:
        print("Best     none: no trial is complete")
        return
    print(f"Best     trial {found.best.trial}: {found.metric} {found.best.value:.5f}")
    if found.best.trial == 0:
        print("Nothing tried is better than what is set; params.yaml stays as it is.")
        return
    gain, low, high = found.gain
    print(f"Gain     {gain:+.5f} over what is set ({low:+.5f} to {high:+.5f}, 95 %, {found.num_users} users)")
    print("         on the users it was chosen by: expect less of it on others")
    where = "" if project.root == Path.cwd() else f" -C {project.root}"
    wrote = f"Wrote    train.models.{found.model} of {project.params_file}: "
    print(f"{wrote if found.written else 'Settings '}{described(found.best.settings)}")
    named = "" if model is None else f" --model {model}"
    print(f"Next     recops run{where}" if found.written else f"Next     recops tune{where}{named} --write")


@app.command(epilog="Example: recops serve --port 3000")
def serve(
    folder: Folder = HERE,
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="Default: serve.port in params.yaml.")] = None,
    host: Annotated[str | None, typer.Option(help="Default: serve.host in params.yaml (loopback).")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Default: serve.workers in params.yaml.")] = None,
) -> None:
    """Serve the promoted release over HTTP until interrupted."""
    from recops.stages.serve import serve as serve_release

    raise typer.Exit(serve_release(opened(folder), host, port, workers))


@app.command(
    epilog="Example: recops erase --user 383, then recops run, recops erase --collect, and --user 383 --verify"
)
def erase(
    user: Annotated[str | None, typer.Option(help="Id of the user.")] = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Change nothing: look for the user in all that recops keeps.")
    ] = False,
    collect: Annotated[
        bool, typer.Option("--collect", help="Remove data versions, releases and Bentos made before the last erasure.")
    ] = False,
    folder: Folder = HERE,
) -> None:
    """Erase a user: from store and feedback now, from everything that is trained by the next run.

    The list of erased users and the audit log hold a keyed hash, never the id. --verify exits with 1 where anything
    still names the user.
    """
    from recops.stages import erase as stage

    project = opened(folder)
    if collect == (user is not None) or (verify and collect):
        raise CallError("give --user ID to erase, --user ID --verify to look, or --collect")
    if user is None:
        for line in stage.collect(project):
            print(f"Removed  {line}")
        return
    if not verify:
        erased = stage.erase(project, user, datetime.now(UTC))
        gone = ", ".join(f"{count} {table}" for table, count in erased.items())
        print(f"Erased   {gone}; listed for the next training: recops run")
        return
    places = stage.verify(project, user)
    rows = [[place.name, place.found, "; ".join(place.files[:3]) + "; …" * (len(place.files) > 3)] for place in places]
    print_table("Where the user is named", ["place", "times", "files"], rows)
    for line in stage.not_reached(project):
        print(f"Not looked at: {line}")
    if any(place.found for place in places):
        raise RefusedError(
            "the user is still named; `recops run` trains anew, `recops erase --collect` removes the old"
        )
    print("Nothing that recops keeps names the user.")


@app.command(epilog="Example: recops drift --since 2016-09-01")
def drift(
    since: Annotated[str, typer.Option(help="ISO time; start of the window, inclusive.")],
    until: Annotated[
        str | None, typer.Option(help="ISO time; end of the window, exclusive. Default: the log's end.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
    folder: Folder = HERE,
) -> None:
    """What is watched of the served release: data, inputs, answers and what followed; exit 0 whatever the verdict.

    A window of events is compared with the release's reference profile, its answers with those before the window.
    """
    from recops.stages.drift import drift as compare_window
    from recops.stages.tables import drift_tables

    project = opened(folder)
    verdict = compare_window(project, since, until)
    if as_json:
        console.print_json(data=verdict)
        return
    for table in drift_tables(verdict):
        print_table(*table)
    print(f"Report   {project.reports / 'drift' / 'index.html'}")


@app.command("off-policy", epilog="Example: recops off-policy --candidate 3f2a90c1 --days 14")
def off_policy(
    candidate: Annotated[
        str, typer.Option(help="A release id (or its beginning), or `candidate`: the bundle/ here.", metavar="RELEASE")
    ] = "candidate",
    days: Annotated[float, typer.Option(min=0.01, help="Answers of the last so many days.")] = 30.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
    folder: Folder = HERE,
) -> None:
    """What a release would have earned in the lists that were shown with exploration, before anybody sees its own.

    Judged without chance in its lists: name the served release to see the same of it.
    """
    from recops.stages.off_policy import off_policy as judge
    from recops.stages.tables import off_policy_tables

    found = judge(opened(folder), candidate, days, now=int(datetime.now(UTC).timestamp() * 1_000_000))
    if as_json:
        console.print_json(data=found)
        return
    for table in off_policy_tables(found):
        print_table(*table)


@app.command(epilog="Example: recops doctor")
def doctor(folder: Folder = HERE) -> None:
    """Versions, disk, memory and what works here."""
    from recops.stages.doctor import doctor as examine

    print_table("Doctor", ["what", "found", "works"], examine(folder))


if __name__ == "__main__":
    main()
