"""What is served is always whole: promotion, rollback, traces, and a kill at every step of a promotion."""

import json
import os
import shutil
from contextlib import closing
from pathlib import Path

import pytest

from recops.bundle import (
    POINTER,
    Pointer,
    bundle_id,
    load_bundle,
    read_pointer,
    release_folder,
    sign_manifest,
    verify,
)
from recops.errors import BundleError, CallError, RefusedError
from recops.release.releases import (
    Parts,
    find_release,
    list_releases,
    point_to,
    promote,
    read_record,
    rollback,
    trace,
)
from recops.signing import make_keys
from recops.store import open_store
from tests.killed import in_a_child

ROWS = [("u1", ["a", "b"], [1, 2]), ("u2", ["c"], None)]


@pytest.fixture
def store(tmp_path):
    with closing(open_store(f"sqlite:///{tmp_path}/store.sqlite")) as store:
        yield store


@pytest.fixture
def put(tmp_path, store):
    """Promotes a bundle into tmp_path/releases, by default over whatever is served there."""

    def put(bundle, now="2026-01-01T00:00:00Z", rows=ROWS, **more):
        pointer = read_pointer(tmp_path / "releases")
        judged = {"expected": more.pop("expected", pointer and pointer.release), "now": now}
        return promote(
            bundle, tmp_path / "releases", store, Parts(iter(rows), **{"record": {"commit": "abc"}, **more}), **judged
        )

    return put


def test_a_promoted_bundle_is_served_with_its_histories_and_record(tmp_path, popular, store, put):
    bundle = popular(3, 2, 1)
    release = put(bundle, record={"commit": "abc", "dvc_lock": "…", "params": "train: {}", "run": {"host": "h"}})
    releases = tmp_path / "releases"
    assert release == bundle_id(bundle)
    assert read_pointer(releases) == Pointer(release)
    shutil.rmtree(bundle)
    assert load_bundle(release_folder(releases, release)).id == release
    assert store.history(release, "u1") == ["a", "b"]
    assert json.loads((releases / "main" / f"{release}.json").read_text()) == {
        "commit": "abc",
        "dvc_lock": "…",
        "params": "train: {}",
        "run": {"host": "h"},
        "release": release,
        "promoted_at": "2026-01-01T00:00:00Z",
    }


def test_promoting_again_changes_nothing_but_the_time(tmp_path, popular, put):
    first, second = put(popular(3, 2, 1)), put(popular(1, 2, 3))
    folder = release_folder(tmp_path / "releases", second)
    inode = (folder / "manifest.json").stat().st_ino
    put(popular(1, 2, 3), now="2026-02-01T00:00:00Z")
    assert read_pointer(tmp_path / "releases") == Pointer(second, (first,))
    assert (folder / "manifest.json").stat().st_ino == inode
    assert read_record(tmp_path / "releases", second)["promoted_at"] == "2026-02-01T00:00:00Z"


def test_a_damaged_copy_is_replaced_when_promoted_again(tmp_path, popular, put, caplog):
    release = put(popular(3, 2, 1))
    folder = release_folder(tmp_path / "releases", release)
    (folder / "items.json").write_text("{}")
    put(popular(3, 2, 1))
    verify(folder)
    assert f"damaged and is copied anew: {folder / 'items.json'}: altered" in caplog.text
    assert [path.name for path in folder.parent.iterdir() if path.name.startswith(".copying")] == []


def test_promotion_is_compare_and_swap(tmp_path, popular, store, put):
    first = put(popular(3, 2, 1))
    for expected in (None, "another"):
        with pytest.raises(RefusedError, match=f"{first[:12]} is served"):
            put(popular(1, 2, 3), expected=expected)
    assert read_pointer(tmp_path / "releases") == Pointer(first)
    assert store.num_histories(bundle_id(popular(1, 2, 3))) is None
    with pytest.raises(RefusedError, match="is served"):
        point_to(tmp_path / "releases", first, expected=None)


def test_a_bundle_that_does_not_load_never_replaces_the_served_one(tmp_path, popular, put):
    first = put(popular(3, 2, 1))
    altered = popular(1, 2, 3)
    (altered / "items.json").write_text("{}")
    unloadable = popular(2, 2, 2)
    (unloadable / "profile.json").unlink()
    manifest = json.loads((unloadable / "manifest.json").read_text())
    del manifest["files"]["profile.json"]
    (unloadable / "manifest.json").write_text(json.dumps(manifest))
    for bundle in (altered, unloadable, tmp_path / "none"):
        for _ in range(2):
            with pytest.raises(BundleError):
                put(bundle)
    assert read_pointer(tmp_path / "releases") == Pointer(first)


def test_histories_that_cannot_be_stored_leave_the_served_release(tmp_path, popular, put):
    first = put(popular(3, 2, 1))
    with pytest.raises(CallError, match="twice"):
        put(popular(1, 2, 3), rows=[*ROWS, *ROWS])
    assert read_pointer(tmp_path / "releases") == Pointer(first)


def test_rollback_twice_is_the_same_state(tmp_path, popular, put):
    releases = tmp_path / "releases"
    with pytest.raises(CallError, match="nothing is served"):
        rollback(releases)
    first = put(popular(3, 2, 1))
    with pytest.raises(CallError, match="first release"):
        rollback(releases)
    second, third = put(popular(1, 2, 3)), put(popular(2, 3, 1))
    expected = Pointer(second, (first,), rolled_back=third)
    assert rollback(releases) == rollback(releases) == read_pointer(releases) == expected
    # What comes next is promoted over the release rolled back to.
    put(popular(2, 1, 3))
    assert read_pointer(releases).history == (first, second)
    assert rollback(releases).release == second


def test_rollback_to_a_broken_release_is_refused(tmp_path, popular, put):
    first, second = put(popular(3, 2, 1)), put(popular(1, 2, 3))
    (release_folder(tmp_path / "releases", first) / "items.json").write_text("{}")
    with pytest.raises(BundleError, match="altered"):
        rollback(tmp_path / "releases")
    assert read_pointer(tmp_path / "releases").release == second


def test_a_kept_release_is_served_again_by_the_start_of_its_id(tmp_path, popular, store, put):
    first, second = put(popular(3, 2, 1)), put(popular(1, 2, 3))
    pointer = point_to(tmp_path / "releases", first[:8], expected=second)
    assert pointer == read_pointer(tmp_path / "releases") == Pointer(first, (first, second))
    assert store.history(first, "u1") == ["a", "b"]
    assert rollback(tmp_path / "releases").release == second


def test_releases_are_listed_last_promoted_first(tmp_path, popular, put):
    releases = tmp_path / "releases"
    assert list_releases(releases) == []
    metrics = {"metrics": {"ndcg@10": {"value": 0.25}}}
    params = {"evaluate": {"metric": "ndcg@10"}}
    ids = [
        put(popular(score, 1, metrics=metrics, params=params), now=f"2026-01-0{score}T00:00:00Z") for score in (1, 2, 3)
    ]
    found = list_releases(releases)
    assert [(row["release"], row["state"]) for row in found] == [
        (ids[2], "served"),
        (ids[1], "previous"),
        (ids[0], "earlier"),
    ]
    assert found[0] == {
        "release": ids[2],
        "state": "served",
        "model": "most_popular",
        "metric": "ndcg@10 0.2500",
        "promoted_at": "2026-01-03T00:00:00Z",
        "data_watermark": None,
        "commit": "abc",
        "error": None,
    }
    rollback(releases)
    assert [row["state"] for row in list_releases(releases)] == ["rolled back", "served", "earlier"]
    (release_folder(releases, ids[0]) / "manifest.json").write_text("{")
    (broken,) = [row for row in list_releases(releases) if row["release"] == ids[0]]
    assert broken["state"] == "broken"
    assert "manifest.json" in broken["error"]


def test_a_release_is_found_by_a_unique_start(tmp_path):
    with pytest.raises(CallError, match="none yet"):
        find_release("abc", tmp_path)
    for release in ("a1" * 32, "a2" * 32, "b1" * 32):
        (tmp_path / "main" / release).mkdir(parents=True)
        (tmp_path / "main" / f"{release}.json").write_text("{}")
    (tmp_path / "main" / ".copying").mkdir()
    assert find_release("b", tmp_path) == find_release("b1" * 32, tmp_path) == "b1" * 32
    with pytest.raises(CallError, match="several releases: a1a1a1a1a1a1, a2a2a2a2a2a2;"):
        find_release("a", tmp_path)
    for unknown in ("xyz", "", "."):
        with pytest.raises(CallError, match=r"no release .*a1a1a1a1a1a1, a2a2a2a2a2a2, b1b1b1b1b1b1$"):
            find_release(unknown, tmp_path)


def test_an_answer_is_traced_to_what_made_it(tmp_path, popular, store, put):
    release = put(popular(3, 2, 1, inputs={"events.parquet": "md5"}))
    put(popular(1, 2, 3))
    logged = {"request_id": "q1", "time": 5, "user_id": "u1", "items": [{"item_id": "a", "rank": 1, "score": 3.0}]}
    store.log_answers([{**logged, "release": release, "variant": "main", "source": "model"}])
    found = trace("q1", tmp_path / "releases", store)
    assert found["release"] == release
    assert found["answer"]["items"] == logged["items"]
    assert found["manifest"]["inputs"] == {"events.parquet": "md5"}
    assert found["record"]["commit"] == "abc"
    assert trace(release[:10], tmp_path / "releases", store) == {**found, "answer": None}
    with pytest.raises(CallError, match=r"'q2' is no request in the answer log, and no release 'q2'"):
        trace("q2", tmp_path / "releases", store)


def promote_in_a_child(folder, bundle, kill_at: int) -> tuple[bool, int]:
    """Promotes in a process that is killed before its n-th step; whether it was, and steps taken."""

    def work(step):
        def rows():
            for row in ROWS:
                step()
                yield row

        store = open_store(f"sqlite:///{folder}/store.sqlite")
        pointer = read_pointer(folder / "releases")
        promote(bundle, folder / "releases", store, Parts(rows()), expected=pointer.release, now="later")

    return in_a_child(work, kill_at)


def test_killed_at_any_step_the_pointer_names_a_whole_release(tmp_path, popular):
    old, new = popular(3, 2, 1), popular(1, 2, 3)
    start = tmp_path / "start"
    start.mkdir()
    with closing(open_store(f"sqlite:///{start}/store.sqlite")) as store:
        promote(old, start / "releases", store, Parts(ROWS), expected=None, now="earlier")
    ids = {bundle_id(old), bundle_id(new)}

    whole = tmp_path / "whole"
    shutil.copytree(start, whole)
    killed, num_steps = promote_in_a_child(whole, new, kill_at=-1)
    assert not killed

    served = []
    # Every step was tried when this was written; the last ones are where the pointer moves.
    kills = sorted({*range(0, num_steps, 6), *range(num_steps - 3, num_steps)})
    assert len(kills) >= 12
    for kill_at in kills:
        folder = tmp_path / f"killed-{kill_at}"
        shutil.copytree(start, folder)
        killed, _ = promote_in_a_child(folder, new, kill_at)
        assert killed, kill_at
        releases = folder / "releases"
        pointer = read_pointer(releases)
        served.append(pointer.release)
        with closing(open_store(f"sqlite:///{folder}/store.sqlite")) as store:
            load_bundle(release_folder(releases, pointer.release))
            assert len(list(store.users_with_history(pointer.release))) == len(ROWS)
            for row in list_releases(releases):
                assert row["release"] in ids
                verify(release_folder(releases, row["release"]))
            # The same call again goes on to the end.
            if pointer.release != bundle_id(new):
                promote(new, releases, store, Parts(ROWS), expected=bundle_id(old), now="later")
            assert read_pointer(releases) == Pointer(bundle_id(new), (bundle_id(old),))
            assert store.num_histories(bundle_id(new)) == len(ROWS)
        shutil.rmtree(folder)
    assert set(served) == ids


def test_all_is_on_disk_before_it_gets_its_name(tmp_path, popular, put, monkeypatch):
    """As far as a process sees what a power cut leaves: fsync of all that is renamed, and of the folder after."""
    bundle, done = popular(3, 2, 1), []
    fsync = os.fsync

    def synced(handle):
        done.append(("on disk", Path(os.readlink(f"/proc/self/fd/{handle}"))))
        fsync(handle)

    def noted(rename):
        return lambda path, target: (done.append(("renamed", path, Path(target))), rename(path, target))[1]

    monkeypatch.setattr(os, "fsync", synced)
    for how in ("rename", "replace"):
        monkeypatch.setattr(Path, how, noted(getattr(Path, how)))
    release = put(bundle)
    folder = release_folder(tmp_path / "releases", release)
    renamed = [(place, *entry[1:]) for place, entry in enumerate(done) if entry[0] == "renamed"]
    assert [to for _, _, to in renamed] == [folder, folder.with_name(f"{release}.json"), folder.with_name(POINTER)]
    for place, path, to in renamed:
        files = [path / file.relative_to(folder) for file in (folder, *folder.rglob("*"))] if to == folder else [path]
        assert {("on disk", file) for file in files} <= set(done[:place])
        assert ("on disk", folder.parent) in done[place:]


def test_a_signature_goes_with_the_release_also_when_it_comes_later(tmp_path, popular, put):
    bundle, private = popular(3, 2, 1), tmp_path / "key.pem"
    public = make_keys(private)
    release = put(bundle)
    served = release_folder(tmp_path / "releases", release)
    with pytest.raises(BundleError, match="missing"):
        verify(served, public)
    sign_manifest(bundle, private)
    assert put(bundle) == release
    verify(served, public)
    other = popular(1, 2, 3)
    sign_manifest(other, private)
    verify(release_folder(tmp_path / "releases", put(other)), public)
