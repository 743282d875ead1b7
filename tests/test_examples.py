"""examples/: their settings can be used, they become projects, and friends of friends are found without a leak."""

import json
from importlib import import_module
from pathlib import Path

import polars as pl
import pytest
import yaml

from recops import plugins
from recops.errors import CallError
from recops.params import checked, read_params
from recops.stages import init
from recops.stages.project import open_project
from recops.stages.train import model_config
from tests.conftest import ROOT

NAMES = {"ecommerce", "news", "news/nemig", "social", "social/artists", "social/people", "social/tags"}


def test_every_example_is_known_by_name_and_has_its_page() -> None:
    found = init.examples()
    assert set(found) == NAMES
    for name, file in found.items():
        page = file.parent.joinpath("README.md").read_text(encoding="utf-8")
        assert f"--example {name} " in page


@pytest.mark.parametrize("name", sorted(NAMES))
def test_settings_name_models_and_options_that_exist(name: str) -> None:
    params = read_params(init.examples()[name])
    kind = plugins.load("data.sources", params.source.name)
    checked(kind.Options, params.source.options, "source.options")
    known = {*params.train.models, *model_config("rerank", params.train)[1].members, *params.train.baselines}
    for model in known:
        model_config(model, params.train, params.recommend.remove_seen)


def test_an_example_becomes_a_project_on_a_folder_of_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(init, "_make", lambda folder, text, files: folder.write_text(text))
    (tmp_path / "my data").mkdir()
    init.init_example(tmp_path / "params", "social/people", tmp_path / "my data")
    values = yaml.safe_load((tmp_path / "params").read_text(encoding="utf-8"))
    assert values["source"]["path"] == str(tmp_path / "my data") and values["split"]["pairs"] == "undirected"
    # DVC refuses a file without the group that a stage reads.
    assert {"validate", "encode", "export", "recommend"} <= set(values)
    with pytest.raises(CallError, match="there are ecommerce, news"):
        init.init_example(tmp_path / "b", "shop", tmp_path)
    with pytest.raises(CallError, match=r"no folder; download hetrec2011-lastfm-2k\.zip"):
        init.init_example(tmp_path / "b", "social/people", tmp_path / "none")


@pytest.mark.real_data
def test_people_end_to_end(tmp_path: Path, data_dir: Path) -> None:
    values = yaml.safe_load(init.examples()["social/people"].read_text(encoding="utf-8"))
    values["source"]["path"] = str(data_dir / "lastfm-hetrec2011")
    values["train"] |= {"model": "ease", "models": {}}
    values["evaluate"] = {"k": [10], "bootstrap_samples": 100}
    values["export"] = {"parity_users": 100}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    (tmp_path / "expectations").symlink_to(ROOT / "expectations")
    project = open_project(tmp_path)
    for stage in ("ingest", "validate", "split", "encode", "train", "evaluate", "export"):
        getattr(import_module(f"recops.stages.{stage}"), stage)(project)
    pairs = {
        part: set(pl.read_parquet(project.split / f"{part}.parquet").select("user_id", "item_id").iter_rows())
        for part in ("train", "valid", "test")
    }
    assert len(pairs["test"]) > 1000
    mirrored = {part: {(b, a) for a, b in found} for part, found in pairs.items()}
    assert not pairs["test"] & (mirrored["train"] | mirrored["valid"]) and not pairs["valid"] & mirrored["train"]
    metrics = json.loads((project.reports / "metrics.json").read_text(encoding="utf-8"))["models"]
    found = {name: figures["metrics"]["ndcg@10"]["value"] for name, figures in metrics.items()}
    assert found["ease"] > 2 * found["most_popular"]
