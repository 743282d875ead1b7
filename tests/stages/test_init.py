"""`recops init`: a project from files that look foreign, and what stands in it."""

import gzip
import json
import os
import shutil
import subprocess
from datetime import datetime
from pathlib import Path

import polars as pl
import pytest
import yaml

from recops.data.guess import Guess
from recops.errors import CallError
from recops.params import Params, read_params
from recops.stages import closure, git, init
from recops.stages.project import Project

from .conftest import Shop, made_up_log, new_shop

LOG = "user,item,time\na,x,2024-01-01T10:00:00Z\nb,y,2024-01-02T10:00:00Z\na,y,2024-01-03T10:00:00Z\n"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    (folder / "my log.csv").write_text(LOG)
    init.init(folder / "shop", folder / "my log.csv", None, None)
    return folder


@pytest.fixture
def project(made: Path, tmp_path: Path) -> Project:
    shutil.copytree(made, tmp_path / "made", symlinks=True)
    return Project(tmp_path / "made" / "shop")


def test_params_are_whole_commented_and_what_was_guessed(project: Project) -> None:
    text = project.params_file.read_text()
    values = yaml.safe_load(text)
    assert set(values) == {field.alias or name for name, field in Params.model_fields.items()}
    params = read_params(project.params_file)
    columns = {"user_id": "user", "item_id": "item", "timestamp": "time"}
    assert params.source.options["events"]["columns"] == columns
    for group, field in Params.model_fields.items():
        kind = type(getattr(params, group))
        assert set(values[field.alias or group]) == set(kind.model_fields), "every knob stands there"
        assert all(f"# {key.description}" in text for key in kind.model_fields.values() if key.description)


@pytest.mark.parametrize(("header", "encoders"), [("id,name", ["text"]), ("id,colour", [])])
def test_titles_are_encoded_where_the_items_have_any(tmp_path: Path, header: str, encoders: list[str]) -> None:
    (tmp_path / "log.csv").write_text(LOG)
    (tmp_path / "items.csv").write_text(f"{header}\nx,red\ny,blue\n")
    init.init(tmp_path / "shop", tmp_path / "log.csv", tmp_path / "items.csv", None)
    params = read_params(tmp_path / "shop" / "params.yaml")
    assert params.encode.encoders == encoders
    assert ("content_knn" in params.train.models.get("rerank", {}).get("members", [])) == bool(encoders)


def test_the_map_lists_the_log_and_a_hash_for_the_code(project: Project, made: Path) -> None:
    stages = yaml.safe_load((project.root / "dvc.yaml").read_text())["stages"]
    assert stages["ingest"]["deps"] == [".recops/feedback.json", str(made / "my log.csv")]
    assert list(stages) == list(yaml.safe_load((init.TEMPLATES / "dvc.yaml").read_text())["stages"])
    for name, stage in stages.items():
        assert not [dep for dep in stage["deps"] if closure.is_code(dep)]
        assert {".recops/code.yaml": [name]} in stage["params"]
    assert yaml.safe_load(project.code.read_text()) == {name: closure.code_hash(name) for name in stages}


def test_git_holds_the_settings_and_nothing_that_is_made(project: Project) -> None:
    listed = subprocess.run(["git", "-C", project.root, "ls-files"], capture_output=True, text=True, check=True).stdout
    assert {"params.yaml", "dvc.yaml", ".gitignore", "expectations/events.json", "prefect.yaml"} <= set(listed.split())
    assert {".recops/code.yaml", ".recops/accepted.json"} <= set(listed.split())
    for name in ("data", "model", "bundle", "reports", "releases"):
        (project.root / name).mkdir(exist_ok=True)
        (project.root / name / "x").write_text("x")
    (project.state / "store.sqlite").write_text("x")
    status = subprocess.run(["git", "-C", project.root, "status", "--short"], capture_output=True, text=True).stdout
    assert status == ""


def test_commit_takes_settings_only_and_once(project: Project) -> None:
    (project.root / "notes.txt").write_text("mine")
    (project.root / "dvc.lock").write_text("schema: '2.0'\n")
    subprocess.run(["git", "-C", project.root, "add", "notes.txt"], check=True)
    assert git.commit(project, "Release abc")
    assert not git.commit(project, "Release abc")
    shown = git.run_git(project, "show", "--stat", "--format=%s").stdout
    assert "Release abc" in shown
    assert "dvc.lock" in shown
    assert "notes.txt" not in shown


def test_a_commit_that_git_refuses_is_told_of(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    (project.root / "dvc.lock").write_text("schema: '2.0'\n")
    hook = project.root / ".git" / "hooks" / "pre-commit"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\necho not today >&2\nexit 1\n")
    hook.chmod(0o755)
    assert not git.commit(project, "Release abc")
    assert capsys.readouterr().err == "git commit: not today\n"


def test_commit_leaves_a_folder_alone_where_the_lock_is_ignored(project: Project) -> None:
    with (project.root / ".gitignore").open("a") as file:
        file.write("/dvc.lock\n")
    (project.root / "dvc.lock").write_text("schema: '2.0'\n")
    assert not git.commit(project, "Release abc")


def test_an_author_is_set_where_there_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CONFIG_SYSTEM", os.devnull)
    monkeypatch.setenv("USER", "ada")
    git.start(Project(tmp_path))
    assert git.run_git(Project(tmp_path), "config", "user.name").stdout == "ada\n"
    (tmp_path / "params.yaml").write_text("{}\n")
    assert git.commit(Project(tmp_path), "first")


def test_without_git_a_project_is_made_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = shutil.which
    monkeypatch.setattr(shutil, "which", lambda name, *a, **k: None if name == "git" else real(name, *a, **k))
    (tmp_path / "log.csv").write_text(LOG)
    init.init(tmp_path / "shop", tmp_path / "log.csv", None, None)
    assert not (tmp_path / "shop" / ".git").exists()
    assert (tmp_path / "shop" / ".dvc").is_dir()
    assert not git.commit(Project(tmp_path / "shop"), "x")


def test_a_log_without_times_is_split_at_random() -> None:
    guess = Guess({"events": {"path": "/x.csv", "columns": {}}}, {"click": {"signal": "positive"}}, "unordered", [])
    params = Params.model_validate(yaml.safe_load(init.params_text(guess)))
    assert (params.split.name, params.source.order) == ("random", "unordered")


def test_a_project_of_ratings_has_models_and_a_metric_of_ratings(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("user,item,rating,time\n" + "u,i,4,2024-01-01\n" * 3)
    init.init(tmp_path / "shop", tmp_path / "log.csv", None, None, "rating")
    params = Project(tmp_path / "shop").params
    assert (params.train.task, params.train.model, params.train.baselines) == (
        "rating",
        "bayesian_factorization",
        ["rating_means"],
    )
    assert params.evaluate.metric == "rmse"


def test_ratings_need_a_column_of_values_and_the_task_a_name_that_is_known(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("user,item,time\n" + "u,i,2024-01-01\n" * 3)
    with pytest.raises(CallError, match=r"log.csv: no column holds ratings"):
        init.init(tmp_path / "shop", tmp_path / "log.csv", None, None, "rating")
    with pytest.raises(CallError, match="--task: found 'ratings', expected ranking or rating"):
        init.init(tmp_path / "shop", tmp_path / "log.csv", None, None, "ratings")
    assert not (tmp_path / "shop").exists()


def test_nothing_is_overwritten(project: Project) -> None:
    with pytest.raises(CallError, match="exists already"):
        init.init(project.root, project.root.parent / "my log.csv", None, None)


def latin_1(folder: Path) -> list[Path]:
    rows = [f"{u};{i};Übersicht für {i};{datetime.fromisoformat(t):%d.%m.%Y %H:%M}" for u, i, t in made_up_log()]
    path = folder / "käufe.csv"
    path.write_bytes("\n".join(["Kundennr;Artikelnummer;Bezeichnung;Kaufdatum", *rows, ""]).encode("latin-1"))
    return [path]


def json_lines(folder: Path) -> list[Path]:
    lines = []
    for n, (user, item, time) in enumerate(made_up_log()):
        kind = "view" if n % 5 else "addtocart"
        ms = int(datetime.fromisoformat(time).timestamp() * 1000)
        lines.append(json.dumps({"visitorid": user, "itemid": item, "event": kind, "timestamp": ms}))
    path = folder / "events.jsonl.gz"
    path.write_bytes(gzip.compress("\n".join(lines).encode()))
    return [path]


def parquet(folder: Path) -> list[Path]:
    rows = [(int(u[1:]), int(i[1:]), int(datetime.fromisoformat(t).timestamp())) for u, i, t in made_up_log()]
    pl.DataFrame(rows, schema=["account_id", "article_id", "t"], orient="row").write_parquet(folder / "log.parquet")
    items = [(n, f"Article {n}", "news" if n % 2 else "sport") for n in range(120)]
    pl.DataFrame(items, schema=["article_id", "title", "section"], orient="row").write_parquet(folder / "items.parquet")
    return [folder / "log.parquet", folder / "items.parquet"]


@pytest.mark.process
@pytest.mark.parametrize(("make", "user"), [(latin_1, "u007"), (json_lines, "u007"), (parquet, "7")])
def test_a_foreign_looking_file_is_run_and_asked(tmp_path: Path, make, user: str) -> None:
    files = make(tmp_path)
    shop = new_shop(tmp_path / "shop", *files)
    shop.done("recops", "run")
    counts = json.loads((shop.folder / "data" / "tables" / "counts.json").read_text())
    assert counts["events"] == 3000, counts
    answer = shop.done("recops", "recommend", "--user", user, "-k", "5")
    assert "source model" in answer
    assert len(Shop(shop.folder).done("recops", "releases").splitlines()) > 4
