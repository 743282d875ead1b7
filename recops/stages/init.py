"""`recops init`: a project of its own from the user's files: settings, map, rules, schedules, git and DVC.

The map is this package's dvc.yaml with one change: where it lists source files of recops, a project lists the hash of
each stage's code (`.recops/code.yaml`), since the code lies elsewhere there.
"""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import yaml

from recops.data.guess import Guess, guess
from recops.errors import CallError
from recops.stages import closure, pipeline
from recops.stages.project import Project, open_project

# In a wheel the templates lie in the package, in a checkout beside it.
PACKAGED = closure.PACKAGE / "templates"
TEMPLATES = PACKAGED if PACKAGED.is_dir() else closure.PACKAGE.parent
COPIED = ("bentofile.yaml", "prefect.yaml", ".dvcignore")
IGNORED = ("/.recops/", "/releases/", "/data/", "/model/", "/bundle/", "/reports/")


def init(folder: Path, events: Path, items: Path | None, users: Path | None) -> Guess:
    """Makes the project and returns what was guessed about the files.

    Raises CallError for a file that is missing or that cannot be understood, and where `folder` already holds a
    project: nothing is overwritten.
    """
    if (folder / "params.yaml").exists():
        raise CallError(f"{folder / 'params.yaml'}: exists already; remove it or choose another folder")
    found = guess(events, items, users)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "params.yaml").write_text(params_text(found), encoding="utf-8")
    files = [path.resolve() for path in (events, items, users) if path is not None]
    (folder / "dvc.yaml").write_text(map_text(files), encoding="utf-8")
    (folder / ".gitignore").write_text("".join(f"{line}\n" for line in IGNORED), encoding="utf-8")
    for name in COPIED:
        shutil.copyfile(TEMPLATES / name, folder / name)
    shutil.copytree(TEMPLATES / "expectations", folder / "expectations", dirs_exist_ok=True)
    start_git(folder)
    project = open_project(folder)
    pipeline.prepare(project)
    return found


def params_text(found: Guess) -> str:
    """params.yaml: the template's settings with the guessed source and kinds of event."""
    settings = yaml.safe_load((TEMPLATES / "params.yaml").read_text(encoding="utf-8"))
    settings["source"] = {"name": "files", "order": found.order, "options": found.options}
    settings["ingest"] = {"events": found.events}
    settings["split"] = {"name": "random" if found.order == "unordered" else settings["split"]["name"]}
    notes = "".join(f"#   {what}: {value} ({why})\n" for what, value, why in found.rows)
    body = yaml.safe_dump(settings, sort_keys=False, allow_unicode=True, default_flow_style=None, width=110)
    return f"# Every knob, grouped by stage. Correct what was guessed wrong:\n{notes}{body}"


def map_text(files: list[Path]) -> str:
    """dvc.yaml for a project whose code is an installed recops and whose events lie in `files`."""
    text = (TEMPLATES / "dvc.yaml").read_text(encoding="utf-8")
    mapping: dict[str, Any] = yaml.safe_load(text)
    for name, stage in mapping["stages"].items():
        stage["deps"] = [dep for dep in stage.get("deps", []) if not is_code(dep)]
        stage.setdefault("params", []).append({".recops/code.yaml": [name]})
    mapping["stages"]["ingest"]["deps"] += [str(file) for file in files]
    comment = "".join(line for line in text.splitlines(keepends=True) if line.startswith("#"))
    return comment + yaml.safe_dump(mapping, sort_keys=False, default_flow_style=None, width=110)


def is_code(dependency: str) -> bool:
    """Whether an entry of `deps` in the template is code of recops rather than data or settings."""
    return dependency.startswith("recops/")


def start_git(folder: Path) -> None:
    """Makes `folder` a git repository with an author, unless it lies in one; without git it does nothing."""
    if shutil.which("git") is None:
        return

    def git(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True)

    if git("rev-parse", "--show-toplevel").stdout.strip() != str(folder.resolve()):
        git("init", "--quiet", "--initial-branch", "main")
    for key, value in (("user.name", os.environ.get("USER") or "recops"), ("user.email", "recops@localhost")):
        if git("config", key).returncode != 0:
            git("config", key, value)


def commit(project: Project, message: str) -> bool:
    """Commits settings, map, rules and dvc.lock of a project; False where there is nothing to commit or no git."""
    if not (project.root / ".git").exists() or shutil.which("git") is None:
        return False

    def git(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["git", "-C", str(project.root), *arguments], capture_output=True, text=True)

    wanted = ["params.yaml", "dvc.yaml", "dvc.lock", ".gitignore", ".dvcignore", ".dvc", "expectations", *COPIED]
    tracked = [name for name in wanted if (project.root / name).exists() and git("check-ignore", "-q", name).returncode]
    git("add", "--", *tracked)
    if git("diff", "--cached", "--quiet").returncode == 0:
        return False
    return git("commit", "--quiet", "-m", message).returncode == 0
