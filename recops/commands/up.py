"""Server, workers, deployments and service on one machine: start, look, end."""

from enum import StrEnum
from typing import Annotated, Any

import typer

from recops.commands.common import HERE, Folder, opened
from recops.terminal import console, print_table

app = typer.Typer()


class Files(StrEnum):
    SYSTEMD = "systemd"
    COMPOSE = "compose"


@app.command(epilog="Example: recops up --port 3000")
def up(
    folder: Folder = HERE,
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Of the service. Default: serve.port in params.yaml.")
    ] = None,
    foreground: Annotated[
        bool, typer.Option("--foreground", help="Run until told to end, as systemd and containers want it.")
    ] = False,
    files: Annotated[
        Files | None, typer.Option("--print", help="Start nothing: print a systemd unit or a compose file.")
    ] = None,
) -> None:
    """Start Prefect server, worker, deployments and the service; come back once they are healthy.

    A second call changes nothing. What dies is started again. Logs, process ids and databases lie in .recops/.
    """
    from recops.stages import up as stage
    from recops.stages.up_files import text

    project = opened(folder)
    if files is not None:
        print(text(project, files.value, port or project.params.serve.port), end="")
        return
    if foreground:
        stage.foreground(project, port)
        return
    if not stage.up(project, port, say=lambda text: print(text, flush=True)):
        print("It was up already.")
    if (missing := stage.nothing_served(project)) is not None:
        print(missing)
    print(f"Logs     {project.up}")


@app.command(epilog="Example: recops down")
def down(folder: Folder = HERE) -> None:
    """End all that `recops up` has started; runs of flows that are at work end too, and the next one goes on."""
    from recops.stages import up as stage

    print("Everything has ended." if stage.down(opened(folder)) else "Nothing was up.")


@app.command(epilog="Example: recops status --json")
def status(
    folder: Folder = HERE,
    as_json: Annotated[bool, typer.Option("--json", help="Print all of it as JSON.")] = False,
) -> None:
    """What runs, what is served, since when and from which data, how it drifts, and what runs next."""
    from recops.stages.status import status as look

    found = look(opened(folder))
    if as_json:
        console.print_json(data=found)
        return
    _print(found)


def _print(found: dict[str, Any]) -> None:
    if found["up"]:
        rows = [
            [p["name"], _word(p), p["what"], p["pid"] or "", p["since"] or "", p["restarts"]] for p in found["parts"]
        ]
        print_table("Up", ["part", "state", "", "pid", "since", "restarts"], rows)
    else:
        print("Down     recops up")
    served = found["served"]
    if served is None:
        print("Served   nothing yet: recops run")
    elif "error" in served:
        print(f"Served   broken: {served['error']}")
    else:
        print(f"Served   {served['release'][:12]}, {served['model']}, {served['metric']}")
        print(f"Trained  promoted {served['promoted_at']}, on data up to {served['fitted_until']}")
        print(f"Data     {served['data']}, events known up to {served['data_watermark']}")
    if (drift := found["drift"]) is None:
        print("Drift    not looked at yet")
    else:
        about = "" if drift["is_current"] else ", about an earlier release"
        features = f" ({', '.join(drift['features'])})" if drift["features"] else ""
        print(f"Drift    {drift['verdict']}{features}, looked at {drift['checked_at']}{about}")
    if found["last_runs"]:
        rows = [[r["deployment"] or r["name"], r["state"], r["at"], r["why"] or ""] for r in found["last_runs"]]
        print_table("Last runs", ["run", "state", "begun", "why"], rows)
    if found["next_runs"]:
        print_table("Next runs", ["deployment", "at", "state"], [list(r.values()) for r in found["next_runs"]])


def _word(part: dict[str, Any]) -> str:
    return "healthy" if part["healthy"] else part["state"]
