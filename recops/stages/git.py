"""The git repository of a project made by `init`. Without git everything here does nothing."""

import os
import shutil
import subprocess
import sys

from recops.stages.project import Project

# What a release commits: settings, map, rules, and the hashes that bring back its data and model.
COMMITTED = (
    *("params.yaml", "dvc.yaml", "dvc.lock", "bentofile.yaml", "prefect.yaml", "automations.yaml", "expectations"),
    *(".gitignore", ".dvcignore", ".dvc", ".recops/code.yaml", ".recops/accepted.json", ".recops/feedback.json"),
)


def run_git(project: Project, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A git command in the project's folder."""
    return subprocess.run(["git", "-C", str(project.root), *arguments], capture_output=True, text=True)


def _did(project: Project, *arguments: str) -> bool:
    """Whether a git command succeeded; one that did not is told of, and stops nothing."""
    done = run_git(project, *arguments)
    if done.returncode != 0:
        print(f"git {arguments[0]}: {(done.stderr or done.stdout).strip()}", file=sys.stderr)
    return done.returncode == 0


def start(project: Project) -> None:
    """Makes the folder a repository of its own with an author."""
    if shutil.which("git") is None:
        return
    if not (project.root / ".git").exists():
        _did(project, "init", "--quiet", "--initial-branch", "main")
    for key, value in (("user.name", os.environ.get("USER") or "recops"), ("user.email", "recops@localhost")):
        if run_git(project, "config", key).returncode != 0:
            _did(project, "config", key, value)


def commit(project: Project, message: str) -> bool:
    """Commits what stands in COMMITTED, and nothing else that may be staged.

    False without git, in a folder that is no repository of its own, where dvc.lock is ignored (recops' own checkout),
    when nothing has changed, and when git refuses, which is told of.
    """
    if shutil.which("git") is None or not (project.root / ".git").exists():
        return False
    if run_git(project, "check-ignore", "--quiet", "dvc.lock").returncode == 0:
        return False
    paths = [name for name in COMMITTED if (project.root / name).exists()]
    _did(project, "add", "--", *paths)
    if run_git(project, "diff", "--cached", "--quiet", "--", *paths).returncode == 0:
        return False
    return _did(project, "commit", "--quiet", "--message", message, "--", *paths)
