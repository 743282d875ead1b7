"""`recops erase --collect` takes whatever was trained before the last erasure, also out of the traffic."""

from contextlib import closing
from pathlib import Path

import pytest

from recops.bundle import Pointer, release_folder, write_pointer
from recops.data.feedback import Erased, Feedback
from recops.serving.traffic import control
from recops.serving.traffic.arms import Arm
from recops.stages import erase
from recops.stages.project import Project
from recops.store import open_store, refused_in

OLD, NEW, SERVED = "a" * 64, "b" * 64, "c" * 64


def test_a_challenger_trained_before_an_erasure_answers_nobody_any_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "params.yaml").write_text("")
    project = Project(tmp_path)
    project.state.mkdir()
    for release in (OLD, NEW, SERVED):
        folder = release_folder(project.releases, release)
        folder.mkdir(parents=True)
        (folder / "manifest.json").write_text("{}")
    write_pointer(project.releases, Pointer(SERVED), expected=None)
    Feedback(erased=(Erased("h", 1),)).write(project.feedback)
    monkeypatch.setattr(erase, "_honours", lambda folder: 0 if folder.name == OLD else 1)
    monkeypatch.setattr(erase.pipeline, "run_dvc", lambda *_: None)
    with closing(open_store(project.store_url)) as store:
        store.put_histories(refused_in(OLD), [("u1", ["a"], None)])
        for name, release in (("old", OLD), ("new", NEW)):
            control.put(store, Arm(name=name, release=release, mode="ab", share=0.1), "a test")
        removed = erase.collect(project)
        assert removed[:2] == [f"release {OLD[:12]}", "challenger old"]
        assert [arm.name for arm in control.read(store).arms] == ["new"]
        assert store.num_histories(refused_in(OLD)) is None
    assert not release_folder(project.releases, OLD).exists() and release_folder(project.releases, NEW).exists()


def test_a_store_that_lies_elsewhere_is_looked_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, elsewhere = tmp_path / "project", tmp_path / "elsewhere.sqlite"
    folder.mkdir()
    (folder / "params.yaml").write_text(f"serve:\n  store: sqlite:///{elsewhere}\n")
    project = Project(folder)
    with closing(open_store(project.store_url)) as store:
        told = {"item_id": "a", "timestamp": 1, "event": "click"}
        store.put_events([{**told, "event_id": "e1", "user_id": "someone@example.org"}])
    found = {place.name: place for place in erase.verify(project, "someone@example.org")}
    assert found["store"].found == 1 and found["store file"].files
    assert all(file.startswith(str(elsewhere)) for file in found["store file"].files)
