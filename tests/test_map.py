"""dvc.yaml is the map: its stages are the commands, its groups those of params.yaml, its code the import closure."""

from pathlib import Path

import pytest
import yaml
from typer.main import get_command

from recops import cli
from recops.params import Params
from recops.stages import closure

ROOT = Path(__file__).resolve().parent.parent
STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]


def test_the_thread_is_whole_and_in_order() -> None:
    assert list(STAGES) == ["ingest", "validate", "split", "encode", "train", "evaluate", "export", "package"]


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_is_the_command_of_its_name(name: str) -> None:
    assert STAGES[name]["cmd"] == f"${{recops}} {name}"
    assert name in get_command(cli.app).commands  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_depends_on_the_code_it_reaches(name: str) -> None:
    listed = [dep for dep in STAGES[name]["deps"] if closure.is_code(dep)]
    assert listed == closure.code_deps(name), "run: python -m recops.stages.closure --write"


def test_the_file_is_as_the_refresher_writes_it() -> None:
    text = (ROOT / "dvc.yaml").read_text(encoding="utf-8")
    assert closure.with_code(text) == text, "run: python -m recops.stages.closure --write"


@pytest.mark.parametrize("path", ["params.yaml"])
def test_every_group_named_exists(path: str) -> None:
    groups = set(yaml.safe_load((ROOT / path).read_text(encoding="utf-8")))
    assert {group for stage in STAGES.values() for group in stage.get("params", [])} <= groups
    assert groups == {field.alias or name for name, field in Params.model_fields.items()}


@pytest.mark.parametrize(
    ("stage", "group"),
    [("ingest", "source"), ("split", "split"), ("train", "train"), ("evaluate", "evaluate"), ("export", "export")],
)
def test_a_stage_reads_its_own_group(stage: str, group: str) -> None:
    assert group in STAGES[stage]["params"]


def test_no_output_is_served_or_state() -> None:
    """DVC deletes outputs before a stage runs."""
    outs = [next(iter(out)) if isinstance(out, dict) else out for s in STAGES.values() for out in s["outs"]]
    assert not [out for out in outs if out.startswith(("releases", ".recops"))]
