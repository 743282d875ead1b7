"""A past release is built again to the same bytes; one whose data was erased or is gone says so."""

import json
import shutil
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from recops.errors import CallError, RefusedError
from recops.stages import audit
from recops.stages.project import Project, open_project
from recops.stages.reproduce import Reproduced, reproduce
from recops.store import open_store
from tests.stages.conftest import Shop
from tests.stages.kept_releases import kept


@pytest.fixture
def project(tmp_path: Path) -> Project:
    (tmp_path / "params.yaml").touch()
    return open_project(tmp_path)


def test_erased_data_is_not_used_again(project: Project) -> None:
    release = kept(project, 1, "tab1e001.dir")
    with closing(open_store(project.store_url)) as store:
        store.erase_user("u1", datetime.now(UTC))
    with pytest.raises(RefusedError, match="cannot be reproduced: 1 users whom it may have been made from were erased"):
        reproduce(project, release)
    audit.log(project, "collected", {"releases": ["c0113c7ed" * 7]})
    with pytest.raises(
        RefusedError, match="c0113c7edc01 cannot be reproduced: it was trained before users were erased"
    ):
        reproduce(project, "c0113c")
    with pytest.raises(CallError, match="no release 'abcdef'"):
        reproduce(project, "abcdef")


def test_a_release_without_a_record_of_its_settings_is_told(project: Project) -> None:
    release = kept(project, 1, "tab1e001.dir")
    with pytest.raises(RefusedError, match=r"its record holds no dvc.lock and params.yaml"):
        reproduce(project, release)


def test_what_differs_is_named() -> None:
    found = Reproduced("a", "b", files=[("x", "1", "1"), ("y", "1", "2"), ("z", None, "3")])
    assert not found.is_same and found.different() == ["y", "z"]
    assert Reproduced("a", "a").is_same


@pytest.mark.process
def test_a_release_is_built_again_to_the_same_bytes(shop: Shop) -> None:
    release = json.loads((shop.folder / "releases" / "main" / "current.json").read_text())["release"]
    shop.set(model="ease")  # what is set now is not what it was made by
    for name in ("bundle", "model", "data"):
        shutil.rmtree(shop.folder / name)
    told = shop.done("recops", "reproduce", release[:10])
    assert f"Release {release[:12]}, built again as {release[:12]}" in told and "differs" not in told
    assert not (shop.folder / "bundle").exists() and not (shop.folder / ".recops" / "reproduce").exists()
    shutil.rmtree(shop.folder / ".dvc" / "cache")
    gone = shop.call("recops", "reproduce", release[:10])
    assert gone.returncode == 1 and "neither in DVC's cache nor in a remote" in " ".join(gone.stderr.split())
