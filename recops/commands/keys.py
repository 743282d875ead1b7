"""`recops keys`: who may call the service, and whose bundles it may serve."""

from pathlib import Path
from typing import Annotated

import typer

from recops.commands.common import HERE, Folder
from recops.errors import CallError
from recops.stages.project import open_project
from recops.terminal import print_table

app = typer.Typer(no_args_is_help=True, help="Keys of those who may call the service, and of what it may serve.")
KeysFile = Annotated[
    Path | None, typer.Option("--file", help="The file of keys. Default: the project's, which recops serve reads.")
]


def keys_file(folder: Path, file: Path | None) -> Path:
    """The file of keys that a command is about."""
    return file or open_project(folder).keys_file


@app.command("add", epilog="Example: recops keys add shop-front --role read --rate 50")
def add_key(
    name: Annotated[str, typer.Argument(help="A name to know the key by.")],
    role: Annotated[str, typer.Option(help="read; write: also adds and changes; admin: also what is served to whom.")],
    tenant: Annotated[str, typer.Option(help="Whose service the key opens.")] = "main",
    rate: Annotated[float, typer.Option(min=0, help="Calls a second of all workers together; 0: any number.")] = 50.0,
    folder: Folder = HERE,
    file: KeysFile = None,
) -> None:
    """Make a key and show it once: only its digest is kept. A service that runs with the file takes it at once."""
    from recops.serving import keys as known

    if role not in known.ROLES:
        raise CallError(f"--role: expected {', '.join(known.ROLES)}, found {role}")
    print(known.add_key(keys_file(folder, file), name, role, tenant, rate))


@app.command("list", epilog="Example: recops keys list")
def list_keys(folder: Folder = HERE, file: KeysFile = None) -> None:
    """Which keys there are; the keys themselves are not known."""
    from recops.serving.keys import read_keys

    columns = ["name", "role", "tenant", "rate", "created_at"]
    rows = [[getattr(key, column) for column in columns] for key in read_keys(keys_file(folder, file))]
    print_table("Keys", columns, rows)


@app.command("revoke", epilog="Example: recops keys revoke shop-front")
def revoke_key(
    name: Annotated[str, typer.Argument(help="The name of the key.")], folder: Folder = HERE, file: KeysFile = None
) -> None:
    """Take a key out; every worker of a running service refuses it within a second."""
    from recops.serving.keys import revoke_key as revoke

    revoke(keys_file(folder, file), name)
    print(f"Revoked {name}")


@app.command("sign-key", epilog="Example: recops keys sign-key ~/keys/recops.pem")
def sign_key(path: Annotated[Path, typer.Argument(help="The new file of the private key.", metavar="FILE")]) -> None:
    """Make a pair of keys: the private one signs bundles at export, the public one lets a service take no others."""
    from recops.signing import make_keys

    public = make_keys(path)
    print(f"Private  {path}: export.sign_key in params.yaml, or RECOPS_SIGN_KEY")
    print(f"Public   {public}: serve.verify_key in params.yaml, or RECOPS_VERIFY_KEY")
