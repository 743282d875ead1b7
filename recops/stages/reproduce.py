"""`recops reproduce RELEASE`: a past release built again, from git and DVC, and compared with what was kept.

In: a project, a release. Out: which files of the bundle and which metrics are the same. Works in `.recops/reproduce`: a
checkout of the release's commit, its settings and tables; the project itself is read only.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from recops.bundle import bundle_id, read_manifest, release_folder
from recops.data.feedback import Feedback
from recops.errors import CallError, RefusedError
from recops.release import releases
from recops.stages import audit, closure, git, pipeline
from recops.stages.locks import alone
from recops.stages.project import Project
from recops.store import open_store

# From what DVC keeps: the tables, and what validation said of them.
FROM_DVC = ("data/tables", "reports/validation.json")
BUILT = ("split", "encode", "train", "evaluate", "export")


@dataclass
class Reproduced:
    """`files` and `metrics`: (name, as released, as built now), None where there is none; `notes`: what was not as it
    was then."""

    release: str
    built: str
    files: list[tuple[str, str | None, str | None]] = field(default_factory=list)
    metrics: list[tuple[str, float | None, float | None]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def is_same(self) -> bool:
        return self.release == self.built

    def different(self) -> list[str]:
        return [name for name, was, now in self.files if was != now]


def reproduce(project: Project, prefix: str, say: Callable[[str], None] = print) -> Reproduced:
    """Builds a release again. Raises RefusedError where that cannot be: users were erased since, or its data is gone;
    StageError where a stage fails."""
    try:
        release = releases.find_release(prefix, project.releases)
    except CallError as error:
        raise _erased(project, prefix) or error from None
    manifest = read_manifest(release_folder(project.releases, release))
    record = releases.read_record(project.releases, release)
    _refuse_erased(project, release, manifest)
    if not record.get("dvc_lock") or not record.get("params"):
        raise RefusedError(f"release {release[:12]}: its record holds no dvc.lock and params.yaml to build it by")
    folder = project.state / "reproduce"
    with alone(project, say, name="reproduce"):
        shutil.rmtree(folder, ignore_errors=True)
        try:
            copy = Project(folder)
            notes = check_out(project, copy, record)
            bring_data(project, copy, release, record)
            for stage in BUILT:
                say(stage)
                _run(copy, stage)
            return compared(release, manifest, copy, notes)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _erased(project: Project, prefix: str) -> RefusedError | None:
    """Why a release that is not kept can never be built again."""
    for entry in audit.entries(project):
        found = [release for release in entry["facts"].get("releases", ()) if release.startswith(prefix)]
        if found and entry["what"] == "collected":
            why = f"it was trained before users were erased, and was removed with its data on {entry['time'][:19]}"
            return RefusedError(f"release {found[0][:12]} cannot be reproduced: {why}")
    return None


def _refuse_erased(project: Project, release: str, manifest: dict[str, Any]) -> None:
    honoured = (manifest.get("erasures") or {}).get("honoured", 0)
    with closing(open_store(project.store_url)) as store:
        listed = max(len(store.erasures()), len(Feedback.read(project.feedback).erased))
    if listed > honoured:
        raise RefusedError(
            f"release {release[:12]} cannot be reproduced: {listed - honoured} users whom it may have been made from "
            "were erased since, and what they did is not used again"
        )


def check_out(project: Project, copy: Project, record: dict[str, Any]) -> list[str]:
    """The commit of a release in the folder of `copy`, with the release's own settings; returns what is not as then."""
    notes = []
    commit = record.get("commit")
    if commit and git.run_git(project, "cat-file", "-e", commit).returncode == 0:
        for words in (
            ("clone", "--quiet", "--no-checkout", str(project.root), str(copy.root)),
            ("-C", str(copy.root), "checkout", "--quiet", commit),
        ):
            done = subprocess.run(["git", *words], capture_output=True, text=True)
            if done.returncode != 0:
                raise CallError(f"git {words[0]}: {done.stderr.strip()}")
    else:
        notes.append("no commit of it is here: map and rules are those of now")
        copy.root.mkdir(parents=True)
        for name in git.COMMITTED:
            if (path := project.root / name).is_dir() and name != ".dvc":
                shutil.copytree(path, copy.root / name)
            elif path.is_file():
                (copy.root / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, copy.root / name)
    settings = yaml.safe_load(record["params"]) or {}
    key = (settings.get("export") or {}).pop("sign_key", None)  # a signature is no part of what is compared
    copy.params_file.write_text(yaml.safe_dump(settings) if key else record["params"], encoding="utf-8")
    (copy.root / "dvc.lock").write_text(record["dvc_lock"], encoding="utf-8")
    # Pictures and sounds are read where the log lies.
    if (path := Path(settings.get("source", {}).get("path") or ".")).parts and not path.is_absolute():
        first = path.parts[0]
        if (project.root / first).exists() and not (copy.root / first).exists():
            (copy.root / first).symlink_to(project.root / first)
    if copy.code.exists() and (changed := _changed_code(copy)):
        notes.append(f"recops itself has changed since, in what these stages run: {', '.join(changed)}")
    return notes


def _changed_code(copy: Project) -> list[str]:
    then = yaml.safe_load(copy.code.read_text(encoding="utf-8")) or {}
    closure.refresh(copy.code, pipeline.stage_names(copy))
    now = yaml.safe_load(copy.code.read_text(encoding="utf-8")) or {}
    return [stage for stage in BUILT if then.get(stage) != now.get(stage)]


def bring_data(project: Project, copy: Project, release: str, record: dict[str, Any]) -> None:
    """The tables of a release from DVC's cache, or a remote. Raises RefusedError where neither has them."""
    pipeline.prepare(copy)
    pipeline.run_dvc(copy, "config", "--local", "cache.dir", str(project.root / ".dvc" / "cache"))
    try:
        pipeline.run_dvc(copy, "pull" if pipeline.remotes(copy) else "checkout", *FROM_DVC)
    except CallError as error:
        raise RefusedError(
            f"release {release[:12]} cannot be reproduced: its data version {record.get('events_hash')} is neither in "
            f"DVC's cache nor in a remote ({error})"
        ) from None


def _run(copy: Project, stage: str) -> None:
    """One stage as a command. In a checkout of recops itself the code of that commit runs, not the one that is here."""
    environment = {name: value for name, value in copy.environment().items() if name != "RECOPS_SIGN_KEY"}
    if (copy.root / "recops").is_dir():
        environment["PYTHONPATH"] = os.pathsep.join([str(copy.root), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-c", "from recops.cli import main; main()", stage]
    done = subprocess.run(command, cwd=copy.root, env=environment, capture_output=True, text=True)
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip().splitlines()[-3:]
        raise pipeline.StageError(f"stage {stage} failed (exit {done.returncode}): {' '.join(said)}")


def compared(release: str, manifest: dict[str, Any], copy: Project, notes: list[str]) -> Reproduced:
    """What was kept beside what was built."""
    found = read_manifest(copy.bundle)
    files = [
        (n, manifest["files"].get(n), found["files"].get(n)) for n in sorted({*manifest["files"], *found["files"]})
    ]
    values = [{n: e["value"] for n, e in m["metrics"]["metrics"].items()} for m in (manifest, found)]
    metrics = [(name, values[0].get(name), values[1].get(name)) for name in sorted({*values[0], *values[1]})]
    about = [key for key in sorted({*manifest, *found}) if key != "files" and manifest.get(key) != found.get(key)]
    more = [f"the manifests differ in {', '.join(about)}"] if about else []
    return Reproduced(release, bundle_id(copy.bundle), files, metrics, [*notes, *more])
