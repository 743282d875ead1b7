"""Which files of recops a stage's result depends on: as `deps` in dvc.yaml, and as a hash in a user's project.

Imports are followed as text, wherever in a file they stand; `plugins.load("models", …)` brings in the whole socket.
`python -m recops.stages.closure` says where dvc.yaml here differs from it, `--write` puts it right.
"""

import ast
import hashlib
import re
import sys
import textwrap
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import yaml

import recops
from recops.bundle import write_atomically
from recops.release.bento import bentofile

PACKAGE = Path(recops.__file__).resolve().parent
LOADERS = {"load", "load_module", "names"}  # functions of plugins.py that take the name of a socket
STAGE = re.compile(
    r"^  (?P<name>\w+):\n    cmd: .*\n    deps: \[(?P<deps>[^\]]*)\]\n(?:    params: \[(?P<params>[^\]]*)\]\n)?",
    re.MULTILINE,
)


def module_file(name: str) -> Path | None:
    """The file of a module of recops such as `recops.data.split`; None for names that are no module of it."""
    parts = name.split(".")
    if parts[0] != "recops":
        return None
    base = PACKAGE.joinpath(*parts[1:])
    if (file := base.with_suffix(".py")).is_file() and parts[1:]:
        return file
    return file if (file := base / "__init__.py").is_file() else None


def sources(folder: Path, pattern: str = "*.py") -> set[Path]:
    """Python files of `folder` that hold anything."""
    return {file for file in folder.glob(pattern) if file.stat().st_size}


@cache
def imported_files(file: Path) -> frozenset[Path]:
    """Files of recops that `file` names in imports, and all files of the sockets that it loads parts from."""
    found: set[Path | None] = set()
    for node in executed(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {module_file(alias.name) for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {module_file(node.module)}
            found |= {module_file(f"{node.module}.{alias.name}") for alias in node.names}
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            socket = node.args[0].value
            if called in LOADERS and isinstance(socket, str):
                found |= sources(PACKAGE.joinpath(*socket.split(".")))
    return frozenset(path for path in found if path is not None)


def executed(node: ast.AST) -> Iterator[ast.AST]:
    """A syntax tree, node by node, without what only type checkers read."""
    yield node
    children = ast.iter_child_nodes(node)
    if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING":
        children = iter(node.orelse)
    for child in children:
        yield from executed(child)


def carried_files() -> set[Path]:
    """Files of recops that the Bento carries, by `include` of bentofile.yaml."""
    patterns = yaml.safe_load(bentofile().read_text(encoding="utf-8"))["include"]
    own = [pattern.removeprefix("recops/") for pattern in patterns if pattern.startswith("recops/")]
    return {file for p in own for file in sources(PACKAGE, f"{p}**/*.py" if p.endswith("/") else p)}


def import_closure(stage: str) -> list[Path]:
    """Files of recops that the stage's module reaches, itself included, sorted; for `package` also what it packs.

    Left out are files that hold nothing, and `recops/__init__.py`, which holds the version alone.
    """
    todo, seen = [PACKAGE / "stages" / f"{stage}.py"], set()
    if stage == "package":
        todo.extend(carried_files())
    while todo:
        file = todo.pop()
        if file not in seen:
            seen.add(file)
            todo.extend(imported_files(file))
    return sorted(file for file in seen if file.stat().st_size and file != PACKAGE / "__init__.py")


def code_deps(stage: str) -> list[str]:
    """The closure as dvc.yaml lists it: a folder for all of its files where the stage reaches every one of them."""
    return sorted(listed(PACKAGE, set(import_closure(stage))))


def listed(folder: Path, files: set[Path]) -> list[str]:
    """`folder` alone where `files` has all its Python files and it has several; else what it holds, one by one."""
    inside = sources(folder, "**/*.py")
    if len(inside) > 1 and inside <= files:
        return [f"recops/{folder.relative_to(PACKAGE).as_posix()}"]
    names = [f"recops/{file.relative_to(PACKAGE).as_posix()}" for file in sources(folder) & files]
    for child in folder.iterdir():
        if child.is_dir():
            names += listed(child, files)
    return names


def with_code(text: str) -> str:
    """The text of a dvc.yaml, the code each stage depends on brought up to date; all else stays as it is."""

    def stage(match: re.Match[str]) -> str:
        code = textwrap.fill(
            ", ".join(code_deps(match["name"])), 112, initial_indent=" " * 6, subsequent_indent=" " * 6
        )
        data = "".join(f"{dep}, " for dep in data_deps(match)).rstrip()
        return match[0].replace(f"deps: [{match['deps']}]", f"deps: [{data}\n{code}]")

    return STAGE.sub(stage, text)


def data_deps(stage: re.Match[str]) -> list[str]:
    """What a stage depends on besides code, of a match of STAGE."""
    return [dep for dep in re.split(r",\s*", stage["deps"].strip()) if dep and not is_code(dep)]


def is_code(dependency: str) -> bool:
    """Whether an entry of `deps` is code of recops rather than data or settings."""
    return dependency.startswith("recops/")


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


def main() -> int:
    """Compares dvc.yaml beside the package with what it should be; 1 where they differ and nothing was written."""
    path = PACKAGE.parent / "dvc.yaml"
    found = path.read_text(encoding="utf-8")
    if (wanted := with_code(found)) == found:
        return 0
    if sys.argv[1:] == ["--write"]:
        write_atomically(path, wanted)
        return 0
    print(wanted)
    return 1


if __name__ == "__main__":
    sys.exit(main())
