"""Walks dvc.yaml: which stages there are, which must run, and running one as `dvc repro` does.

DVC is called as a command of its own, so that its lock, its cache and its messages are those a user gets by hand.
"""

import importlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import yaml

from recops.bundle import canonical_json, write_atomically
from recops.errors import CallError, RecopsError, RefusedError
from recops.stages import closure, locks
from recops.stages.project import Project

# DVC's words for: another command holds a path, or the whole repository.
BUSY = ("is busy, it is being blocked by", "Unable to acquire lock")
# Advice of DVC that does not hold here: recops commits dvc.lock itself, and data is pushed on purpose or not at all.
ADVICE = ("To track the changes with git", "\tgit add", "To enable auto staging", "\tdvc config core", "Use `dvc push`")


class StageError(RecopsError):
    """A stage that failed for a reason other than refused data: a fault, worth another try."""

    exit_code = 1


def stage_names(project: Project) -> list[str]:
    """Names of the stages in dvc.yaml, in the order of the file, which is the order of the data."""
    return list(yaml.safe_load((project.root / "dvc.yaml").read_text(encoding="utf-8"))["stages"])


def dvc(*arguments: str) -> list[str]:
    """The command line of DVC in the Python that runs recops."""
    return [sys.executable, "-m", "dvc", *arguments]


def prepare(project: Project) -> None:
    """Makes the folder a DVC project where it is none yet (with git where git is, without it elsewhere).

    DVC's own cache moves into the project: by default it lies where every user of the machine may write.
    """
    folder, cache = project.root / ".dvc", str(project.state / "dvc" / "site")
    if not folder.is_dir():
        git = (project.root / ".git").exists()
        run_dvc(project, "init", "--quiet", *([] if git else ["--no-scm"]))
        no_scm = "" if git else "    no_scm = true\n"
        (folder / "config").write_text(f"[core]\n    analytics = false\n{no_scm}", encoding="utf-8")
    local = folder / "config.local"
    if not local.exists():
        local.write_text(f"[core]\n    site_cache_dir = {cache}\n", encoding="utf-8")
    elif cache not in local.read_text(encoding="utf-8"):
        run_dvc(project, "config", "--local", "core.site_cache_dir", cache)
    refresh_code(project)


def run_dvc(project: Project, *arguments: str) -> None:
    """Runs DVC. Raises CallError with its words when it fails."""
    done = subprocess.run(dvc(*arguments), cwd=project.root, env=project.environment(), capture_output=True, text=True)
    if done.returncode != 0:
        raise CallError(f"{project.root}: dvc {' '.join(arguments)}: {(done.stderr or done.stdout).strip()}")


def remotes(project: Project) -> list[str]:
    """DVC's remotes, each with its address; empty where there are none, or DVC is not set up yet."""
    done = subprocess.run(
        dvc("remote", "list"), cwd=project.root, env=project.environment(), capture_output=True, text=True
    )
    return [" ".join(line.split()) for line in done.stdout.splitlines()] if done.returncode == 0 else []


def refresh_code(project: Project) -> None:
    """Renews `.recops/code.yaml`, which stands for the code of each stage where dvc.yaml lists that and no files."""
    path = project.root / "dvc.yaml"
    if path.exists() and project.code.relative_to(project.root).as_posix() in path.read_text(encoding="utf-8"):
        closure.refresh(project.code, stage_names(project))


def changed(project: Project) -> list[str]:
    """Stages that `dvc repro` would run, by name; empty when everything is up to date."""
    done = subprocess.run(
        dvc("status", "--json"), cwd=project.root, env=project.environment(), capture_output=True, text=True
    )
    if done.returncode != 0:
        return stage_names(project)
    return list(json.loads(done.stdout or "{}"))


def run_stage(project: Project, name: str) -> Any:
    """Runs one stage here and now. A user's mistake or a refusal is also written down, so that whoever walks dvc.yaml
    can tell it from a fault. Under DVC a stage ends when DVC does: no orphan writes into what the next run makes.
    """
    if "DVC_STAGE" in os.environ:
        locks.follow_dvc()
    project.refused.unlink(missing_ok=True)
    try:
        return getattr(importlib.import_module(f"recops.stages.{name}"), name)(project)
    except RecopsError as error:
        facts = {"stage": name, "message": str(error), "exit_code": error.exit_code}
        write_atomically(project.refused, canonical_json(facts))
        raise


def refusal(project: Project) -> dict[str, Any] | None:
    """`stage`, `message` and `exit_code` when the stage that ran last refused its input, else None."""
    return json.loads(project.refused.read_text(encoding="utf-8")) if project.refused.exists() else None


def repro(project: Project, stage: str, say: Callable[[str], None] = print, wait_s: float = 3600.0) -> None:
    """Brings one stage up to date (its predecessors are left as they are).

    Waits up to `wait_s` while another command holds DVC's locks. Raises RefusedError when the stage refused the data,
    CallError when its settings or files are wrong (both with the stage's own message) and StageError when it failed
    otherwise or was killed.
    """
    until = time.monotonic() + wait_s
    project.refused.unlink(missing_ok=True)
    lines: list[str] = []
    while (code := repro_once(project, stage, say, lines)) != 0:
        errors = [line for line in lines if line.startswith("ERROR")]
        if any(words in line for line in errors for words in BUSY) and time.monotonic() < until:
            say(f"{stage}: another command is at work here; waiting for it")
            time.sleep(2)
            lines.clear()
            continue
        if (reason := refusal(project)) and reason["stage"] == stage:
            if reason["exit_code"] != RefusedError.exit_code:
                raise CallError(f"{stage}: {reason['message']}")
            from recops.stages import alerts

            alerts.refused(project, stage, reason["message"])
            raise RefusedError(f"{stage}: {reason['message']}")
        started = any(line.startswith("Running stage") for line in lines)
        told = lines[lines.index(errors[0]) :] if errors else lines[-1:] if started else lines
        said = " ".join(map(str.strip, told))
        if code > 0 and not started:
            # DVC did not come as far as the stage: a file, a setting or dvc.yaml is wrong, and stays so.
            raise CallError(f"{stage}: {said}")
        raise StageError(f"stage {stage} failed (dvc exit {code}): {said}")


def repro_once(project: Project, stage: str, say: Callable[[str], None], lines: list[str]) -> int:
    """Runs `dvc repro` on one stage and returns its exit code; what it says goes to `say` and is added to `lines`."""
    with subprocess.Popen(
        dvc("repro", "--single-item", stage),
        cwd=project.root,
        env=project.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        bufsize=1,
    ) as process:
        assert process.stdout is not None
        for line in map(str.rstrip, process.stdout):
            if line and not line.startswith(ADVICE):
                lines.append(line)
                if not any(words in line for words in BUSY):
                    say(line)
    return process.returncode


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
