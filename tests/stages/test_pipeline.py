"""The thread as DVC runs it: in a project by `init`, each command in a process of its own."""

import hashlib
import json
import os
import shutil
import subprocess
import time
from pathlib import Path

import polars as pl
import pytest
import yaml

from recops.errors import CallError
from recops.stages import pipeline
from recops.stages.project import Project, open_project

from .conftest import BIN, Shop, new_shop

SAME = ("model", "bundle", "reports/metrics.json")


def hashes(shop: Shop, *names: str) -> dict[str, str]:
    """sha256 of every file under `names`."""
    files = [f for n in names for f in [shop.folder / n, *(shop.folder / n).rglob("*")] if f.is_file()]
    return {f.relative_to(shop.folder).as_posix(): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


def committed(shop: Shop) -> list[str]:
    log = ["git", "-C", str(shop.folder), "log", "--format=%s"]
    return subprocess.run(log, capture_output=True, text=True, check=True).stdout.splitlines()


def test_the_code_is_recorded_only_where_the_map_refers_to_it(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("{}\n")
    project = open_project(tmp_path)
    (tmp_path / "dvc.yaml").write_text("stages:\n  split: {cmd: x, deps: [recops/stages/split.py]}\n")
    pipeline.refresh_code(project)
    assert not project.code.exists()
    (tmp_path / "dvc.yaml").write_text("stages:\n  split: {cmd: x, params: [{.recops/code.yaml: [split]}]}\n")
    pipeline.refresh_code(project)
    assert list(yaml.safe_load(project.code.read_text())) == ["split"]


def test_a_mistake_in_a_stage_is_written_down_and_forgotten_by_the_next(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("source: {name: moon}\nencode: {encoders: []}\n")
    project = open_project(tmp_path)
    with pytest.raises(CallError):
        pipeline.run_stage(project, "ingest")
    reason = pipeline.refusal(project)
    assert reason is not None
    assert (reason["stage"], reason["exit_code"]) == ("ingest", 2)
    with pytest.raises(CallError, match=r"items\.parquet: no such file"):
        pipeline.run_stage(project, "encode")
    reason = pipeline.refusal(project)
    assert reason is not None and reason["stage"] == "encode"
    pl.DataFrame({"item_id": []}, schema={"item_id": pl.String}).write_parquet(project.tables / "items.parquet")
    pipeline.run_stage(project, "encode")
    assert pipeline.refusal(project) is None


@pytest.mark.process
def test_a_released_project_is_up_to_date_and_its_repro_needs_no_environment(released: Shop) -> None:
    bare = {"PATH": "/usr/bin:/bin"}
    assert "Data and pipelines are up to date" in released.done("dvc", "repro", **bare)
    before = os.times()
    released.done("dvc", "repro", **bare)
    after = os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    assert cpu < 2, f"a repro with nothing to do took {cpu:.1f} s of CPU"
    before_run = hashes(released, "releases", "dvc.lock")
    assert "Everything is up to date" in released.done("recops", "run")
    assert hashes(released, "releases", "dvc.lock") == before_run


@pytest.mark.process
def test_a_release_is_committed_and_names_its_commit(released: Shop) -> None:
    release = json.loads((released.folder / ".recops" / "decision.json").read_text())["candidate"]
    assert committed(released) == [f"Release {release[:12]}", "A recops project"]
    head = ["git", "-C", str(released.folder), "rev-parse", "HEAD"]
    commit = subprocess.run(head, capture_output=True, text=True, check=True).stdout.strip()
    assert commit in released.done("recops", "trace", release)
    status = ["git", "-C", str(released.folder), "status", "--short"]
    assert subprocess.run(status, capture_output=True, text=True, check=True).stdout == ""


@pytest.mark.process
def test_a_stage_runs_without_an_activated_environment(shop: Shop) -> None:
    before = hashes(shop, "data/encoded")
    shutil.rmtree(shop.folder / "data" / "encoded")
    shop.done("dvc", "repro", "--single-item", "--force", "encode", PATH="/usr/bin:/bin")
    assert hashes(shop, "data/encoded") == before


@pytest.mark.process
def test_metrics_and_plots_are_shown(shop: Shop) -> None:
    assert "ndcg@10" in shop.done("dvc", "metrics", "show", "--json")
    shop.done("dvc", "metrics", "diff")
    shop.done("dvc", "plots", "show")
    assert (shop.folder / "dvc_plots" / "index.html").exists()


@pytest.mark.process
def test_an_experiment_trains_another_model(shop: Shop) -> None:
    shop.done("dvc", "exp", "run", "-S", "train.model=recent_popular")
    metrics = json.loads((shop.folder / "reports" / "metrics.json").read_text())
    assert set(metrics["models"]) == {"recent_popular", "most_popular"}
    a_candidate_challenges_what_is_served(shop)


def a_candidate_challenges_what_is_served(shop: Shop) -> None:
    """The bundle that is left becomes a release beside the one that is served, which stays what it is."""
    before = shop.done("recops", "releases")
    wrong = shop.call("recops", "traffic", "canary", "candidate", "--share", "0.1", "--guardrail", "luck")
    assert wrong.returncode == 2 and "guardrails.0.metric" in wrong.stderr and "Traceback" not in wrong.stderr
    assert shop.done("recops", "releases") == before
    told = shop.done("recops", "traffic", "canary", "candidate", "--share", "0.1", "--guardrail", "hit_rate:0.02")
    release = told.split()[2].rstrip(",")
    assert told == f"Canary canary: {release}, 0.1 of the users\n" and release not in before
    assert "never served" in shop.done("recops", "releases") and release in shop.done("recops", "releases")
    full = shop.call("recops", "traffic", "ab", release, "--share", "0.95")
    assert full.returncode == 2 and "more than all" in full.stderr
    served = json.loads((shop.folder / "releases" / "main" / "current.json").read_text())["release"]
    itself = shop.call("recops", "traffic", "shadow", served)
    assert itself.returncode == 2 and "cannot challenge itself" in itself.stderr
    (found,) = json.loads(shop.done("recops", "traffic", "report", "--json"))
    assert (found["name"], found["release"][:12], found["halted"]) == ("canary", release, None)
    assert "too few users" in shop.done("recops", "traffic", "report")
    assert shop.done("recops", "traffic", "off", "canary") == "Off: canary\n"
    assert "No challenger" in shop.done("recops", "traffic", "report")
    assert shop.call("recops", "traffic", "off", "canary").returncode == 2
    assert f"Serving {release}" in shop.done("recops", "promote", release)


@pytest.mark.process
def test_a_remote_brings_everything_back(shop: Shop, tmp_path: Path) -> None:
    before = hashes(shop, *SAME[:2], "data")
    shop.done("dvc", "remote", "add", "--default", "here", str(tmp_path / "remote"))
    shop.done("dvc", "push")
    for name in ("data", "model", "bundle", ".dvc/cache"):
        shutil.rmtree(shop.folder / name)
    shop.done("dvc", "pull", "--allow-missing")
    assert hashes(shop, *SAME[:2], "data") == before
    assert "source model" in shop.done("recops", "recommend", "--user", "u007")


@pytest.mark.process
def test_a_fresh_clone_that_pulls_has_nothing_to_train(shop: Shop, tmp_path: Path) -> None:
    shop.done("dvc", "remote", "add", "--default", "here", str(tmp_path / "remote"))
    shop.done("dvc", "push")
    clone = Shop(tmp_path / "clone")
    subprocess.run(["git", "clone", "-q", shop.folder, clone.folder], check=True)
    shutil.copy(shop.folder / ".dvc" / "config", clone.folder / ".dvc" / "config")
    clone.done("dvc", "pull", "--allow-missing")
    path = f"{BIN}:/usr/bin:/bin"
    said = clone.done("dvc", "repro", "export", PATH=path)
    assert "Stage 'train' didn't change" in said or "Stage 'train' is cached" in said, said
    assert hashes(clone, "bundle") == hashes(shop, "bundle")


@pytest.mark.process
def test_the_same_inputs_give_the_same_bytes_in_any_folder(released: Shop, tmp_path: Path, log: Path) -> None:
    other = new_shop(tmp_path / "elsewhere" / "a shop", log)
    other.done("dvc", "repro", "export")
    assert hashes(other, *SAME) == hashes(released, *SAME)


@pytest.mark.process
def test_the_same_network_is_trained_in_any_folder(released: Shop, tmp_path: Path) -> None:
    found = []
    for name in ("one", "another one"):
        shutil.copytree(released.folder, tmp_path / name, symlinks=True)
        shop = Shop(tmp_path / name)
        shop.set(model="sasrec", baselines="[]", models="{sasrec: {epochs: 1, embedding_dim: 16, max_history: 20}}")
        shop.done("dvc", "repro", "export")
        found.append(hashes(shop, *SAME))
    assert found[0] == found[1]
    assert {"model/sasrec/state.safetensors", "bundle/model.onnx"} <= set(found[0])


@pytest.mark.process
def test_without_git_everything_works_and_the_commit_is_null(released: Shop, tmp_path: Path, log: Path) -> None:
    bare = tmp_path / "bin"
    bare.mkdir()
    for tool in ("sh", "bash", "env", "uname"):
        (bare / tool).symlink_to(shutil.which(tool))
    folder = tmp_path / "shop"
    environment = {**os.environ, "PATH": str(bare), "OMP_NUM_THREADS": "1"}
    init = [str(BIN / "recops"), "init", str(folder), "--events", str(log)]
    subprocess.run(init, env=environment, check=True, capture_output=True)
    assert not (folder / ".git").exists()
    shutil.copytree(released.folder / ".dvc" / "cache", folder / ".dvc" / "cache")
    shop = Shop(folder)
    shutil.copy(released.folder / "params.yaml", folder / "params.yaml")
    shop.done("recops", "run", PATH=str(bare))
    release = json.loads((folder / ".recops" / "decision.json").read_text())["candidate"]
    assert "none: no git" in shop.done("recops", "trace", release, PATH=str(bare))


@pytest.mark.process
def test_a_missing_log_is_told_in_one_line_and_not_tried_again(shop: Shop) -> None:
    path = shop.folder / "dvc.yaml"
    text = path.read_text()
    *_, old = yaml.safe_load(text)["stages"]["ingest"]["deps"]
    path.write_text(text.replace(old, str(shop.folder / "gone.csv")))
    start = time.monotonic()
    result = shop.call("recops", "run")
    assert result.returncode == 2, result.stderr
    assert "gone.csv" in result.stderr
    assert "Traceback" not in result.stderr
    assert "Retry" not in result.stdout + result.stderr
    assert time.monotonic() - start < 120


@pytest.mark.process
def test_refused_data_leaves_what_is_served_and_shows_the_rules(shop: Shop) -> None:
    served = hashes(shop, "releases")
    empty = shop.folder / "empty.csv"
    empty.write_text("user,item,time\n")
    params, project_map = shop.folder / "params.yaml", shop.folder / "dvc.yaml"
    *_, old = yaml.safe_load(project_map.read_text())["stages"]["ingest"]["deps"]
    project_map.write_text(project_map.read_text().replace(old, str(empty)))
    params.write_text(params.read_text().replace(old, str(empty)))
    result = shop.call("recops", "run")
    assert result.returncode == 1, result.stdout + result.stderr
    assert "Rules that failed" in result.stdout
    assert result.stderr.splitlines()[-1].startswith("error: ") or "error: " in result.stderr
    assert hashes(shop, "releases") == served
    assert Project(shop.folder).releases.exists()
