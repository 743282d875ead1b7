"""Sixty nights leave a disk that does not grow, and never take what is still needed."""

import json
import os
import subprocess
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from hashlib import md5, sha256
from pathlib import Path

import polars as pl
import pytest
import yaml

from recops.bundle import (
    FORMAT_VERSION,
    Pointer,
    canonical_json,
    read_pointer,
    release_folder,
    write_atomically,
    write_pointer,
)
from recops.data.feedback import COLUMNS, Feedback
from recops.release import releases
from recops.release.bento import bento_folder
from recops.serving.traffic import control
from recops.serving.traffic.arms import Arm
from recops.stages import pipeline, retention
from recops.stages.project import Project, open_project
from recops.store import open_store

START = datetime(2024, 5, 1, 3, tzinfo=UTC)
SIZE = 20_000  # bytes of what a night makes


@pytest.fixture
def project(tmp_path: Path) -> Project:
    (tmp_path / "params.yaml").write_text("retention: {releases: 5, days: 7, feedback_days: 14}\n")
    return open_project(tmp_path)


def night(number: int) -> datetime:
    return START + timedelta(days=number)


def name(number: int) -> str:
    return sha256(str(number).encode()).hexdigest()


def write(path: Path, text: str, at: datetime) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    for one in (path, path.parent):
        os.utime(one, (at.timestamp(), at.timestamp()))
    return path


def cached(project: Project, text: str, at: datetime, end: str = "") -> str:
    """A file of DVC's cache; returns its hash."""
    made = md5(text.encode()).hexdigest() + end
    write(project.root / ".dvc" / "cache" / "files" / "md5" / made[:2] / made[2:], text, at)
    return made


def train(project: Project, number: int, is_released: bool = True) -> None:
    """What a night leaves: a version of the data in DVC's cache, a Bento, a feedback part and mostly a release."""
    at, release = night(number), name(number)
    inside = cached(project, f"{number:{SIZE}}", at)
    data = cached(project, json.dumps([{"md5": inside, "relpath": "events.parquet"}]), at, ".dir")
    lock = yaml.safe_dump({"stages": {"ingest": {"outs": [{"path": "data/tables", "md5": data}]}}})
    (project.root / "dvc.lock").write_text(lock)
    write(project.root / ".dvc" / "cache" / "runs" / release[:2] / release / "x", "x", at)
    bento = bento_folder(release, project.environment())
    write(bento / "bento.yaml", "x" * SIZE, at)
    write(project.reports / "package.json", json.dumps({"release": release}), at)
    feedback = Feedback.read(project.feedback)
    event = {**dict.fromkeys(COLUMNS), "place": number + 1, "received_at": at, "timestamp": at, "is_made": False}
    frame = pl.from_dicts([event], schema=COLUMNS)
    feedback = feedback.with_part(project.feedback_parts, [], number + 1)
    path = project.feedback_parts / f"{number + 1:012}-{number + 1:012}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    frame.write_parquet(path)
    os.utime(path, (at.timestamp(), at.timestamp()))
    part = {"file": path.name, "sha256": sha256(path.read_bytes()).hexdigest(), "rows": 1}
    Feedback(parts=(*feedback.parts, part), events_until=number + 1).write(project.feedback)
    if not is_released:
        return
    manifest = {"format_version": FORMAT_VERSION, "inputs": {"events.parquet": f"data-{number}"}, "files": {}}
    write(release_folder(project.releases, release) / "manifest.json", canonical_json(manifest), at)
    write(release_folder(project.releases, release) / "model.onnx", "x" * SIZE, at)
    record = {"promoted_at": at.isoformat(), "dvc_lock": lock, "release": release}
    write(project.releases / "main" / f"{release}.json", canonical_json(record), at)
    with closing(open_store(project.store_url)) as store:
        store.put_histories(release, [("u1", ["a"], None)])
    before = read_pointer(project.releases)
    served = before.release if before else None
    write_pointer(project.releases, Pointer(release, (*before.history, served) if before else ()), expected=served)


def replay(project: Project, nights: range, after: Callable[[int], None] = lambda number: None) -> list[int]:
    """Bytes on disk after each night; every fourth ends without a release."""
    sizes = []
    for number in nights:
        train(project, number, is_released=number % 4 != 3)
        after(number)
        retention.tidy(project, night(number))
        files = [path for path in project.root.rglob("*") if path.is_file() and path.suffix not in (".sqlite", "")]
        cache = [path for path in (project.root / ".dvc").rglob("*") if path.is_file()]
        sizes.append(sum(path.stat().st_size for path in {*files, *cache}))
    return sizes


def test_sixty_nights_stay_flat(project: Project) -> None:
    sizes = replay(project, range(60))
    assert sizes[-1] < 1.1 * max(sizes[13:21]) and sizes[-1] > sizes[0]
    kept = retention.kept_releases(project)
    assert kept == [name(number) for number in range(58, 51, -1) if number % 4 != 3]
    pointer = read_pointer(project.releases)
    assert pointer is not None and {pointer.release, *pointer.history} == set(kept)
    assert len(Feedback.read(project.feedback).parts) == len(list(project.feedback_parts.glob("*.parquet"))) == 15
    with closing(open_store(project.store_url)) as store:
        assert store.num_histories(name(10)) is None and store.num_histories(name(58)) == 1
        tidied = [line["facts"] for line in store.decisions() if line["what"] == "tidied"]
    assert sum(facts["releases"] for facts in tidied) == 45 - len(kept)


def test_what_is_needed_is_never_dropped(project: Project) -> None:
    def after(number: int) -> None:
        with closing(open_store(project.store_url)) as store:
            if number == 2:
                control.put(store, Arm(name="next", release=name(1), mode="ab", share=0.1), "a test")
        if number == 4:
            listed = {"versions": [{"hashes": ["data-4"], "parts": []}]}
            write_atomically(project.state / "quarantine.json", canonical_json(listed))

    replay(project, range(30), after)
    assert {name(1), name(4)} < set(retention.kept_releases(project))
    (stage,) = yaml.safe_load(releases.read_record(project.releases, name(1))["dvc_lock"])["stages"].values()
    cache, data = project.root / ".dvc" / "cache" / "files" / "md5", stage["outs"][0]["md5"]
    (inside,) = json.loads((cache / data[:2] / data[2:]).read_text())
    assert (cache / inside["md5"][:2] / inside["md5"][2:]).exists()


def test_the_served_and_the_previous_stay_however_old(project: Project) -> None:
    replay(project, range(3))
    for number in range(4, 12):
        train(project, number)
    write_pointer(project.releases, Pointer(name(0), (name(1),), rolled_back=name(2)), expected=name(11))
    retention.tidy(project, night(400))
    kept = set(retention.kept_releases(project))
    assert {name(0), name(1), name(2)} <= kept and len(kept) == 3 + 5


def test_what_a_user_added_to_dvc_stays(project: Project) -> None:
    mine = cached(project, "mine", START)
    other = cached(project, "nobody's", START)
    (project.root / "labels.csv.dvc").write_text(yaml.safe_dump({"outs": [{"md5": mine, "path": "labels.csv"}]}))
    assert retention.tidy(project, night(30))["cached_files"] == 1
    folder = project.root / ".dvc" / "cache" / "files" / "md5"
    assert (folder / mine[:2] / mine[2:]).exists() and not (folder / other[:2]).exists()


def test_feedback_is_kept_for_ever_by_default(project: Project) -> None:
    project.params_file.write_text("retention: {releases: 5, days: 7}\n")
    replay(project, range(30))
    assert len(Feedback.read(project.feedback).parts) == 30


def test_a_drop_that_was_killed_is_made_again(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    replay(project, range(6))
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):

        def killed(path: Path) -> None:
            raise KeyboardInterrupt

        patched.setattr(releases.shutil, "rmtree", killed)
        retention.tidy(project, night(40))
    assert retention.tidy(project, night(40))["releases"] == 0
    assert sorted(path.name for path in (project.releases / "main").iterdir() if path.name.startswith(".gone")) == []


@pytest.mark.process
def test_dvc_finds_everything_that_is_needed(project: Project) -> None:
    """Real DVC: after tidying nothing has to run again, and outputs that were lost come back from the cache."""
    pipeline.prepare(project)
    stages = {"ingest": {"cmd": "cp in out", "deps": ["in"], "outs": ["out"]}}
    (project.root / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}))
    for text in ("one", "two", "three"):
        (project.root / "in").write_text(text)
        pipeline.repro(project, "ingest", say=lambda line: None)
    for path in (project.root / ".dvc" / "cache").rglob("*"):
        os.utime(path, (START.timestamp(), START.timestamp()))
    assert retention.tidy(project, night(400))["cached_files"] == 2 + 3
    assert pipeline.changed(project) == []
    (project.root / "out").unlink()
    subprocess.run(pipeline.dvc("checkout"), cwd=project.root, env=project.environment(), check=True)
    assert (project.root / "out").read_text() == "three"
