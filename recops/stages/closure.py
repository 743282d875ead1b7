"""Which files of recops a stage's result depends on, and their hash, which stands for the code in a user's project.

Imports are followed as text, wherever in a file they stand; `plugins.load("models", …)` brings in the whole socket.
"""

import ast
import hashlib
from functools import cache
from pathlib import Path

import recops
from recops.bundle import write_atomically

PACKAGE = Path(recops.__file__).resolve().parent
LOADERS = {"load", "load_module", "names"}  # functions of plugins.py that take the name of a socket


def module_file(name: str) -> Path | None:
    """The file of a module of recops such as `recops.data.split`; None for names that are no module of it."""
    parts = name.split(".")
    if parts[0] != "recops":
        return None
    base = PACKAGE.joinpath(*parts[1:])
    if (file := base.with_suffix(".py")).is_file() and parts[1:]:
        return file
    return file if (file := base / "__init__.py").is_file() else None


@cache
def imported_files(file: Path) -> frozenset[Path]:
    """Files of recops that `file` names in imports, and all files of the sockets that it loads parts from."""
    found: set[Path | None] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {module_file(alias.name) for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {module_file(node.module)}
            found |= {module_file(f"{node.module}.{alias.name}") for alias in node.names}
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            socket = node.args[0].value
            if called in LOADERS and isinstance(socket, str):
                found |= set(PACKAGE.joinpath(*socket.split(".")).glob("*.py"))
    return frozenset(path for path in found if path is not None)


def import_closure(stage: str) -> list[Path]:
    """All files of recops that the stage's module reaches, itself included, sorted."""
    todo, seen = [PACKAGE / "stages" / f"{stage}.py"], set()
    while todo:
        file = todo.pop()
        if file not in seen:
            seen.add(file)
            todo.extend(imported_files(file))
    return sorted(seen)


def code_hash(stage: str) -> str:
    """sha256 over the names and bytes of the stage's closure."""
    digest = hashlib.sha256()
    for file in import_closure(stage):
        digest.update(file.relative_to(PACKAGE).as_posix().encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()


def refresh(path: Path, stages: list[str]) -> None:
    """Writes `stage: hash` lines to `path` where they have changed."""
    text = "# Stands for the code of each stage: DVC runs a stage again when recops itself has changed.\n"
    text += "".join(f"{stage}: {code_hash(stage)}\n" for stage in stages)
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        write_atomically(path, text)
