"""Walks dvc.yaml: which stages there are, which must run, and running one as `dvc repro` does.

DVC is called as a command of its own, so that its lock, its cache and its messages are those a user gets by hand.
"""

import importlib
import json
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import yaml

from recops.bundle import canonical_json, write_atomically
from recops.errors import RecopsError, RefusedError
from recops.stages.project import Project

BUSY = "is busy"  # DVC's word for: another repro holds the lock
# Advice of DVC that does not hold here: recops commits dvc.lock itself, and data is pushed on purpose or not at all.
ADVICE = ("To track the changes with git", "\tgit add", "To enable auto staging", "\tdvc config core", "Use `dvc push`")


class StageError(RecopsError):
    """A stage that failed for a reason other than refused data: a fault, worth another try."""

    exit_code = 1


def stage_names(project: Project) -> list[str]:
    """Names of the stages in dvc.yaml, in the order of the file, which is the order of the data."""
    return list(yaml.safe_load((project.root / "dvc.yaml").read_text(encoding="utf-8"))["stages"])


def dvc(project: Project, *arguments: str) -> list[str]:
    """The command line of DVC in the Python that runs recops."""
    return [sys.executable, "-m", "dvc", *arguments]


def prepare(project: Project) -> None:
    """Makes the folder a DVC project where it is none yet (with git where git is, without it elsewhere)."""
    if not (project.root / ".dvc").is_dir():
        git = (project.root / ".git").exists()
        subprocess.run(
            dvc(project, "init", "--quiet", *([] if git else ["--no-scm"])),
            cwd=project.root,
            env=project.environment(),
            check=True,
        )


def changed(project: Project) -> list[str]:
    """Stages that `dvc repro` would run, by name; empty when everything is up to date."""
    done = subprocess.run(
        dvc(project, "status", "--json"), cwd=project.root, env=project.environment(), capture_output=True, text=True
    )
    if done.returncode != 0:
        return stage_names(project)
    return list(json.loads(done.stdout or "{}"))


def run_stage(project: Project, name: str) -> Any:
    """Runs one stage here and now. A refusal is also written down, so that whoever walks dvc.yaml can tell it from
    a fault."""
    refused = project.state / "refused.json"
    refused.unlink(missing_ok=True)
    try:
        return getattr(importlib.import_module(f"recops.stages.{name}"), name)(project)
    except RefusedError as error:
        write_atomically(refused, canonical_json({"stage": name, "message": str(error)}))
        raise


def repro(project: Project, stage: str, say: Callable[[str], None] = print, wait_s: float = 3600.0) -> None:
    """Brings one stage up to date (its predecessors are left as they are).

    Waits up to `wait_s` while another run holds DVC's lock. Raises RefusedError when the stage refused the data
    (exit 1 of the stage with its own message) and StageError when it failed otherwise or was killed.
    """
    command = dvc(project, "repro", "--single-item", stage)
    until = time.monotonic() + wait_s
    while True:
        lines: list[str] = []
        with subprocess.Popen(
            command,
            cwd=project.root,
            env=project.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            bufsize=1,
        ) as process:
            assert process.stdout is not None
            for line in process.stdout:
                lines.append(line.rstrip())
                if line.strip() and BUSY not in line and not line.startswith(ADVICE):
                    say(line.rstrip())
        if process.returncode == 0:
            return
        if any(BUSY in line for line in lines) and time.monotonic() < until:
            say(f"{stage}: another run is at work here; waiting for it")
            time.sleep(2)
            continue
        refused = project.state / "refused.json"
        if refused.exists() and (reason := json.loads(refused.read_text(encoding="utf-8")))["stage"] == stage:
            raise RefusedError(f"{reason['stage']}: {reason['message']}")
        said = [line for line in lines if line.strip() and not line.startswith("ERROR: failed to reproduce")]
        raise StageError(f"stage {stage} failed (dvc exit {process.returncode}): {said[-1] if said else lines[-1:]}")


def lock_text(project: Project) -> str | None:
    """dvc.lock as it stands, None before the first repro."""
    path = project.root / "dvc.lock"
    return path.read_text(encoding="utf-8") if path.exists() else None


def events_hash(project: Project) -> str | None:
    """DVC's hash of the tables that ingest wrote last, None before."""
    text = lock_text(project)
    if text is None:
        return None
    stage = yaml.safe_load(text)["stages"].get("ingest")
    return stage["outs"][0]["md5"] if stage else None
