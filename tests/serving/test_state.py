"""Which release a worker serves: the pointer decides, a broken release never replaces the one that serves."""

import json
import time

import pytest

from recops.bundle import Pointer, release_folder, write_pointer
from recops.errors import RefusedError
from recops.serving import counters, state
from recops.serving.app import build_app
from recops.serving.assistant.catalogue import catalogue_of, was_asked
from recops.serving.local import recommend_once
from recops.serving.settings import Settings
from recops.serving.state import State
from recops.store import open_store


def loads(outcome: str) -> float:
    return counters.REGISTRY.get_sample_value("recops_release_loads_total", {"outcome": outcome}) or 0.0


def test_a_promotion_is_taken_up_and_undone(releases):
    worker = State(Settings(releases=releases.folder))
    worker.poll()
    assert worker.release.id == releases.first
    before = worker.release
    worker.poll()
    assert worker.release is before
    releases.point(releases.second, releases.first)
    worker.poll()
    assert worker.release.id == releases.second
    assert before.id == releases.first  # a request that began with it ends with it
    releases.point(releases.first, releases.second)
    worker.poll()
    assert worker.release.id == releases.first


def test_who_asks_finds_the_catalogue_of_a_new_release_made(releases):
    worker = State(Settings(releases=releases.folder))
    worker.poll()
    assert not was_asked(worker.release)
    releases.point(releases.second, releases.first)
    worker.poll()
    assert not was_asked(worker.release)  # it takes memory that only questions need
    catalogue_of(worker.release)
    releases.point(releases.first, releases.second)
    worker.poll()
    assert worker.release.id == releases.first
    assert was_asked(worker.release)


@pytest.mark.parametrize("damage", ["cut short", "missing", "other release", "pointer", "record"])
def test_a_broken_release_does_not_replace_the_one_that_serves(releases, monkeypatch, damage):
    worker = State(Settings(releases=releases.folder))
    worker.poll()
    folder = release_folder(releases.folder, releases.second)
    if damage == "cut short":
        (folder / "items.json").write_bytes((folder / "items.json").read_bytes()[:-1])
    elif damage == "missing":
        (folder / "manifest.json").unlink()
    elif damage == "other release":
        (folder / "manifest.json").write_text((folder / "manifest.json").read_text() + " ", encoding="utf-8")
    elif damage == "record":
        folder.with_name(f"{folder.name}.json").write_text("{", encoding="utf-8")
    failed = loads("failed")
    if damage == "pointer":
        (releases.folder / "main" / "current.json").write_text("{", encoding="utf-8")
    else:
        releases.point(releases.second, releases.first)
    for _ in range(3):
        worker.poll()
    assert worker.release.id == releases.first
    assert loads("failed") == failed + 1  # not tried again at every poll
    monkeypatch.setattr(state, "RETRY_S", 0.0)
    worker._refused = {}
    worker.poll()
    worker.poll()
    assert loads("failed") == failed + 3  # and refused each time it is
    assert worker.release.id == releases.first


def test_a_worker_that_starts_beside_a_broken_release_serves_the_last_good_one(releases, monkeypatch):
    monkeypatch.setattr(state, "RETRY_S", 0.0)
    write_pointer(releases.folder, Pointer(releases.second, (releases.first,)), expected=releases.first)
    file = release_folder(releases.folder, releases.second) / "items.json"
    whole = file.read_bytes()
    file.write_bytes(whole[:-1])
    worker = State(Settings(releases=releases.folder))
    for _ in range(2):
        worker.poll()
        assert worker.release.id == releases.first and worker.not_ready is None
    file.write_bytes(whole)
    worker.poll()
    assert worker.release.id == releases.second


def test_workers_are_ready_together(releases, monkeypatch):
    worker, loaded = State(Settings(releases=releases.folder, workers=3)), 1
    monkeypatch.setattr(counters, "num_ready", lambda: loaded)
    assert worker.not_ready == "the release is being loaded"
    worker.poll()
    assert worker.not_ready == "1 of 3 workers have loaded a release"
    loaded = 3
    assert worker.not_ready is None
    loaded = 2  # one of them died: who is left is asked all the same
    assert worker.not_ready is None


def test_a_repaired_release_is_taken_up(releases, monkeypatch):
    monkeypatch.setattr(state, "RETRY_S", 0.0)
    worker = State(Settings(releases=releases.folder))
    file = release_folder(releases.folder, releases.first) / "items.json"
    whole = file.read_bytes()
    file.write_bytes(b"")
    worker.poll()
    assert worker.release is None
    file.write_bytes(whole)
    worker.poll()
    assert worker.release.id == releases.first


def test_the_bento_starts_with_its_own_bundle_and_the_pointer_decides(releases, tmp_path, make_bundle):
    own = make_bundle(tmp_path / "own", metrics={})
    worker = State(Settings(releases=tmp_path / "empty"))
    worker.start(own_bundle=tmp_path / "own")
    worker.close()
    assert worker.release.id == own
    worker = State(Settings(releases=releases.folder))
    worker.start(own_bundle=tmp_path / "own")
    worker.close()
    assert worker.release.id == releases.first


def test_a_look_that_fails_is_not_the_last(releases, caplog):
    """The thread that looks at the pointer lives on whatever happens: without it a worker would serve one release for
    ever."""
    looks = []

    def look():
        looks.append(1)
        if len(looks) < 3:
            raise OSError("no such process")

    before = counters.REGISTRY.get_sample_value("recops_store_errors_total")
    worker = State(Settings(releases=releases.folder, poll_s=0.01))
    worker.start(each_poll=look)
    until = time.monotonic() + 10
    while worker.release is None:
        assert time.monotonic() < until
        time.sleep(0.01)
    worker.close()
    assert counters.REGISTRY.get_sample_value("recops_store_errors_total") == before + 2
    assert caplog.text.count("a look at what is to be served failed") == 2


def test_a_store_that_cannot_be_read_makes_users_unknown(serve, monkeypatch):
    served = serve()

    def fail(release, user_ids, with_times):
        raise OSError("disk gone")

    monkeypatch.setattr(served.state.store, "known_of", fail)
    assert served.post("/recommend", user_id="u1")["source"] == "fallback"


def test_answers_that_cannot_be_written_are_counted(serve, monkeypatch):
    served = serve()

    def fail(answers):
        raise OSError("disk full")

    monkeypatch.setattr(served.state.store, "log_answers", fail)
    name, labels = "recops_answers_total", {"outcome": "lost"}
    before = counters.REGISTRY.get_sample_value(name, labels) or 0.0
    served.post("/recommend", user_id="u1")
    served.state.answers.close()
    assert counters.REGISTRY.get_sample_value(name, labels) == before + 1


def test_the_record_of_the_promotion_is_shown(releases, connect):
    folder = release_folder(releases.folder, releases.first)
    folder.with_name(f"{folder.name}.json").write_text(json.dumps({"promoted_at": "now"}), encoding="utf-8")
    worker = State(Settings(releases=releases.folder))
    worker.poll()
    assert connect(build_app(worker)).get("/release").json()["promoted_at"] == "now"


def test_one_look_without_a_server(releases, tmp_path):
    url = f"sqlite:///{tmp_path / 'store.sqlite'}"
    store = open_store(url)
    store.put_histories(releases.first, [("u1", ["a"], None)])
    store.close()
    answer = recommend_once(releases.folder, url, "u1", [], 2)
    assert ([i["item_id"] for i in answer["items"]], answer["source"]) == (["b", "c"], "model")
    assert answer["release"] == releases.first
    assert recommend_once(releases.folder, url, None, ["b"], 1)["items"][0]["item_id"] == "c"
    with pytest.raises(RefusedError, match="no release"):
        recommend_once(tmp_path / "empty", url, "u1", [], 2)
