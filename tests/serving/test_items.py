"""POST /items: what is told of items is on disk, in every list at once, and in no trained vector."""

import asyncio
import json
import socket
import sqlite3
import threading
import time

import httpx
import numpy as np
import pytest

from recops.encoders.attributes import Attributes
from recops.encoders.content.files import FileOptions, ItemFiles
from recops.errors import CallError
from recops.serving.online_items import OnlineItems
from recops.serving.state import State
from recops.store import open_store

NEW = {"item_id": "new", "title": "New", "categories": ["x"], "price": 4.0, "available": True}


def test_a_new_item_is_recommended_at_once(serve) -> None:
    """By hand: whoever had a (category x) is offered what has x alone with 1, as f, which was there before."""
    served = serve(content=True)
    assert served.post("/recommend", history=["a"])["items"][0]["item_id"] == "f"
    answer = served.post("/items", items=[NEW, {"item_id": "half", "categories": ["x", "y"]}])
    assert (answer["added"], answer["changed"], answer["pending"], answer["not_recommendable"]) == (2, 0, 0, [])
    found = served.post("/recommend", history=["a"])["items"]
    assert [(i["item_id"], i["title"]) for i in found[:4]] == [("f", "F"), ("new", "New"), ("b", "B"), ("half", None)]
    assert [i["score"] for i in found[:4]] == pytest.approx([1, 1, 0.5**0.5, 0.5**0.5], abs=1e-3)
    # In a history, for /score, /similar, filters and reasons it is an item like any other.
    assert served.ids(history=["new"])[0] == "half"  # new items vote for what came with them
    assert served.post("/score", history=["a"], item_ids=["new"])["scores"][0]["score"] == pytest.approx(1, abs=1e-3)
    assert served.post("/similar", item_id="new")["items"]
    priced = {"price": {"min": 4, "max": 4}, "categories": ["x"], "available": True}
    assert served.ids(history=["a"], filters=priced) == ["new"]
    assert served.ids(history=["a"], exclude=["new"])[1] == "b"
    first = served.post("/recommend", history=["a"], explain=True, exclude=["f"])["items"][0]
    assert first["item_id"] == "new" and first["reasons"][0]["item_id"] == "a"
    release = served.client.get("/release").json()
    assert (release["num_items"], release["online_items"]) == (8, 2)
    assert served.post("/recommend", user_id="nobody", k=20)["items"][-1]["item_id"] == "new"  # least popular


def test_a_changed_item_keeps_its_score_and_what_is_not_given(serve) -> None:
    served = serve(content=True)
    before = served.post("/recommend", history=["a"])["items"]
    answer = served.post("/items", items=[{"item_id": "f", "title": "Fresh", "price": 0.5}])
    assert (answer["added"], answer["changed"]) == (0, 1)
    after = served.post("/recommend", history=["a"])["items"]
    assert after[0] == {**before[0], "title": "Fresh"} and after[1:] == before[1:]
    assert served.ids(history=["a"], filters={"price": {"max": 0.5}}) == ["f"]
    assert served.ids(history=["a"], filters={"categories": ["x"]}) == ["f", "b"]  # as it was
    served.post("/items", items=[{"item_id": "f", "price": None, "categories": ["z"]}])
    assert served.ids(history=["a"], filters={"price": {"max": 0.5}}) == []
    assert served.ids(history=["a"], filters={"categories": ["z"]}) == ["f"]
    assert served.post("/recommend", history=["a"])["items"][0]["title"] == "Fresh"


def test_a_new_item_changes_with_what_is_told_later(serve) -> None:
    served = serve(content=True)
    served.post("/items", items=[NEW])
    answer = served.post("/items", items=[{"item_id": "new", "categories": ["y"]}])
    assert (answer["added"], answer["changed"]) == (0, 1)
    scores = {i["item_id"]: i["score"] for i in served.post("/recommend", history=["c"], k=20)["items"]}
    assert scores["new"] == pytest.approx(1, abs=1e-3)
    assert served.ids(history=["a"], filters={"price": {"min": 4, "max": 4}}) == ["new"]  # price and title stayed


def test_an_item_that_nothing_knows_is_kept_and_says_why(serve) -> None:
    served = serve(content=True)
    answer = served.post("/items", items=[{"item_id": "mute", "title": "No category"}, NEW])
    assert [entry["item_id"] for entry in answer["not_recommendable"]] == ["mute"]
    assert "(attributes) could read anything" in answer["not_recommendable"][0]["reason"]
    assert served.post("/score", history=["a"], item_ids=["mute"])["scores"][0]["score"] is None
    assert served.post("/items", items=[{"item_id": "mute", "categories": ["x"]}])["not_recommendable"] == []
    assert "mute" in served.ids(history=["a"])


def test_a_release_without_content_says_that_it_cannot(serve) -> None:
    served = serve()
    answer = served.post("/items", items=[NEW, {"item_id": "a", "title": "Changed"}])
    assert (answer["added"], answer["changed"]) == (1, 1)
    assert "no model of the release knows the content" in answer["not_recommendable"][0]["reason"]
    assert served.post("/recommend", user_id="u2")["items"][0]["title"] == "Changed"


@pytest.mark.parametrize(
    ("item", "field"),
    [
        ({}, "items[0].item_id"),
        ({"item_id": ""}, "items[0].item_id"),
        ({"item_id": "n\x00"}, "items[0].item_id"),
        ({"item_id": "n", "colour": "red"}, "items[0].colour"),
        ({"item_id": "n", "price": -1}, "items[0].price"),
        ({"item_id": "n", "price": "4"}, "items[0].price"),
        ({"item_id": "n", "categories": "x"}, "items[0].categories"),
        ({"item_id": "n", "published_at": "yesterday"}, "items[0].published_at"),
        ({"item_id": "n", "published_at": "9999-12-31T23:59:59-12:00"}, "items[0].published_at"),
        ({"item_id": "n", "published_at": "0001-01-01T00:00:00+12:00"}, "items[0].published_at"),
        ({"item_id": " n"}, "items[0].item_id"),
        ({"item_id": "n", "attributes": {"half": "\ud800"}}, "items[0].attributes.half"),
        ({"item_id": "n", "attributes": {"half": ["a", "\udfff"]}}, "items[0].attributes.half"),
        ({"item_id": "n", "attributes": {"deep": {"er": 1}}}, "items[0].attributes.deep"),
        ({"item_id": "n", "attributes": {"huge": 2**70}}, "items[0].attributes.huge"),
    ],
)
def test_wrong_items_are_refused_whole(serve, item: dict, field: str) -> None:
    served = serve(content=True)
    body = json.dumps({"items": [item, NEW]})  # escapes what UTF-8 cannot write
    answer = served.client.post("/items", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 400 and answer.json()["field"].startswith(field), answer.text
    assert served.state.store.last_change() == 0
    assert "new" not in served.ids(history=["a"])


def test_an_item_twice_or_none_is_refused(serve) -> None:
    served = serve(content=True)
    answer = served.client.post("/items", json={"items": [NEW, NEW]})
    assert answer.status_code == 400 and "'new' stands twice" in answer.json()["message"]
    assert served.client.post("/items", json={"items": []}).status_code == 400


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        (None, 200),
        ("http://localhost:3000", 200),
        ("http://[::1]:3000", 200),
        ("null", 403),
        ("https://evil.example", 403),
        ("http://localhost.evil.example", 403),
        ("http://[::1", 403),
        ("", 403),
    ],
)
def test_a_page_of_another_host_adds_nothing_to_a_service_without_keys(serve, origin: str | None, status: int) -> None:
    """A browser sends a body without a type anywhere, and says where the page is from."""
    served = serve(content=True)
    headers = {} if origin is None else {"origin": origin}
    body = json.dumps({"items": [NEW]})
    assert served.client.post("/items", content=body, headers=headers).status_code == status
    assert served.client.post("/recommend", content='{"history": []}', headers=headers).status_code == 200
    assert served.state.store.last_change() == (status == 200)


def test_with_a_key_a_page_may_add_items(serve) -> None:
    served = serve({"keys": ("secret",)}, content=True)
    headers = {"origin": "https://shop.example", "authorization": "Bearer secret"}
    assert served.client.post("/items", json={"items": [NEW]}, headers=headers).status_code == 200


def test_without_a_store_nothing_can_be_added(serve) -> None:
    served = serve(content=True)
    served.state.store, kept = None, served.state.store
    answer = served.client.post("/items", json={"items": [NEW]})
    served.state.store = kept
    assert answer.status_code == 503 and "RECOPS_STORE" in answer.json()["message"]


def test_times_and_attributes_reach_the_encoder(serve, tmp_path, monkeypatch) -> None:
    seen = []
    encode = Attributes.content
    monkeypatch.setattr(Attributes, "content", lambda self, item: seen.append(dict(item)) or encode(self, item))
    served = serve(content=True)
    served.post("/items", items=[{**NEW, "published_at": 1_000, "attributes": {"size": 3, "tags": ["a", None]}}])
    assert seen[0]["published_at"].isoformat() == "1970-01-01T00:00:01+00:00"
    assert seen[0]["attributes"] == '{"size": 3, "tags": ["a", null]}'
    assert served.ids(history=["a"], filters={"published_after": "1970-01-01T00:00:00Z", "price": {"min": 4}}) == [
        "new"
    ]


def test_the_last_moment_there_is_can_be_told(serve) -> None:
    """As a float of seconds it would be rounded up to the year 10000."""
    served = serve(content=True)
    served.post("/items", items=[{**NEW, "published_at": "9999-12-31T23:59:59.999999Z"}])
    before = "9999-12-31T23:59:59.999998Z"
    assert served.ids(history=["a"], filters={"published_after": before}) == ["new"]


def test_of_an_encoder_that_learns_from_items_nothing_is_kept(serve, tmp_path) -> None:
    """Each release has another, whose vectors would stay in the store for ever."""
    serve(content=True).post("/items", items=[NEW])
    with sqlite3.connect(tmp_path / "store.sqlite") as con:
        assert con.execute("SELECT count(*) FROM item_vectors").fetchone() == (0,)


def test_a_vector_is_made_once_for_all_workers(serve, tmp_path, monkeypatch) -> None:
    monkeypatch.delattr(Attributes, "fit")  # as one that was trained before, such as that of texts
    served = serve(content=True)
    served.post("/items", items=[NEW])
    store = open_store(served.state.settings.store)
    with sqlite3.connect(tmp_path / "store.sqlite") as con:
        assert con.execute("SELECT count(*) FROM item_vectors WHERE encoder = 'made'").fetchone() == (1,)
    other, release = OnlineItems(store), served.state._served.base
    assert other.refresh() and not other.refresh()
    store.put_item_vectors = None  # nothing is made again
    assert other.applied(release).ids[-1] == "new"
    store.close()


def test_another_worker_takes_up_what_was_told(serve) -> None:
    first, second = serve({"poll_s": 0.05}, content=True), serve({"poll_s": 0.05}, content=True)
    first.post("/items", items=[NEW])
    until = time.monotonic() + 10
    while "new" not in second.ids(history=["a"]):
        assert time.monotonic() < until
        time.sleep(0.02)


def test_an_encoder_that_fails_leaves_items_pending(serve, monkeypatch) -> None:
    """As one behind an address that does not answer: what was told is on disk, what serves goes on."""
    served = serve(content=True)
    served.post("/items", items=[{**NEW, "item_id": "early"}])

    def fails(*_):
        raise CallError("encode.text.url: cannot be reached")

    with monkeypatch.context() as patch:
        patch.setattr(Attributes, "encode_contents", fails)
        answer = served.post("/items", items=[NEW])
        assert answer["pending"] == 1 and "new" not in served.ids(history=["a"])
        served.state.poll()
        assert "new" not in served.ids(history=["a"])
        # What an item costs waits for no encoder, and what was encoded before stays.
        assert served.post("/items", items=[{"item_id": "f", "price": 77.0}])["pending"] == 1
        assert served.ids(history=["a"], filters={"price": {"min": 70}}) == ["f"]
        assert "early" in served.ids(history=["a"])
    assert served.state.apply_items()
    assert "new" in served.ids(history=["a"])


def test_a_release_that_is_loaded_while_an_encoder_fails_has_what_needs_none(serve, monkeypatch) -> None:
    first = serve(content=True)
    first.post("/items", items=[NEW, {"item_id": "f", "price": 77.0}])

    def fails(*_):
        raise CallError("encode.text.url: cannot be reached")

    monkeypatch.setattr(Attributes, "encode_contents", fails)
    second = State(first.state.settings)
    second.start()
    until = time.monotonic() + 10
    while second.release is None:
        assert time.monotonic() < until
        time.sleep(0.02)
    assert second.release.bundle.items["price"] == [1.0, 2.0, 3.0, None, 5.0, 77.0]
    second.close()


def test_items_that_take_long_are_pending_and_come(serve, monkeypatch) -> None:
    served = serve({"timeout_s": 0.2}, content=True)
    encode, goes_on = Attributes.encode_contents, threading.Event()

    def slow(self, contents):
        goes_on.wait(10)
        return encode(self, contents)

    monkeypatch.setattr(Attributes, "encode_contents", slow)
    assert served.post("/items", items=[NEW])["pending"] == 1
    goes_on.set()
    until = time.monotonic() + 10
    while "new" not in served.ids(history=["a"]):
        assert time.monotonic() < until
        time.sleep(0.02)


def test_calls_that_wait_for_an_encoder_keep_no_other_from_the_store(serve, monkeypatch) -> None:
    """More than there are threads: what is told meanwhile is on disk in time, and pending."""
    served = serve({"timeout_s": 2.0}, content=True)
    encode, goes_on = Attributes.encode_contents, threading.Event()

    def slow(self, contents):
        goes_on.wait(10)
        return encode(self, contents)

    monkeypatch.setattr(Attributes, "encode_contents", slow)
    applied, apply = [], served.state.apply_items
    monkeypatch.setattr(served.state, "apply_items", lambda: applied.append(apply()))

    async def waves() -> list[httpx.Response]:
        async with httpx.AsyncClient(transport=served.client.transport, base_url="http://127.0.0.1") as client:
            each = [{"json": {"items": [{**NEW, "item_id": f"n{n}"}]}} for n in range(41)]
            first = await asyncio.gather(*(client.post("/items", **told) for told in each[:40]))
            return first + await asyncio.gather(*(client.post("/items", **told) for told in each[40:]))

    answers = asyncio.run(waves())
    assert {(answer.status_code, answer.json().get("pending")) for answer in answers} == {(200, 1)}
    goes_on.set()
    assert apply()
    assert len(served.state.release.ids) == 6 + 41
    served.state.close()  # waits for the thread
    assert len(applied) <= 2  # one for the first, one for all the others


def test_what_a_call_would_have_to_work_out_is_there_before_it_is_served(serve) -> None:
    served = serve(content=True)
    served.post("/items", items=[NEW])
    assert "row_of" in vars(served.state.release.bundle) and "all_links" in vars(served.state.release.bundle.scorer)


def test_rows_do_not_depend_on_the_order_of_what_was_told(serve) -> None:
    """A worker that was there all the time, and one that reads the store later."""
    served = serve(content=True)
    for item_id in ("p", "o", "p"):
        served.post("/items", items=[{**NEW, "item_id": item_id}])
    later = serve(content=True)
    later.state.poll()
    assert served.state.release.ids[6:] == later.state.release.ids[6:] == ["o", "p"]


def test_what_was_told_is_in_the_next_release_too(serve) -> None:
    served = serve(content=True)
    served.post("/items", items=[NEW])
    again = serve(content=True, remove_seen=False)  # another release over the same store
    assert again.state.release.id != served.state.release.id
    again.state.poll()
    assert "new" in again.ids(history=["a"])


def test_what_a_call_names_is_read_in_the_folder_alone(serve, monkeypatch, tmp_path) -> None:
    """Items told over HTTP name files and addresses: nothing is opened but what lies below the source's folder."""
    (tmp_path / "secret").write_bytes(b"secret")
    source = tmp_path / "source"
    source.mkdir()
    (source / "a.png").write_bytes(b"picture")
    (source / "link").symlink_to(tmp_path / "secret")
    read: list[bytes] = []
    files = ItemFiles(FileOptions(hosts=["localhost"]), source)

    def encode(self, contents):
        read.extend(contents)
        return np.ones((len(contents), 2), np.float32), [None] * len(contents)

    monkeypatch.setattr(Attributes, "content", lambda self, item: files.read(item["image"]))
    monkeypatch.setattr(Attributes, "encode_contents", encode)
    served = serve(content=True)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(0.2)
        port = listening.getsockname()[1]
        hostile = [
            "../secret",
            str(tmp_path / "secret"),
            "link",
            "..",
            "/etc/passwd",
            "a.png/../../secret",
            "~/.ssh/id",
        ]
        hostile += [f"file://{tmp_path}/secret", "file:///etc/passwd", "gopher://localhost/", "data:text/plain,secret"]
        hostile += [
            f"http://{host}:{port}/a" for host in ("127.0.0.1", "localhost", "[::1]", "2130706433", "0x7f000001")
        ]
        told = [{"item_id": f"n{n}", "image": image} for n, image in enumerate(hostile)]
        answer = served.post("/items", items=[*told, {"item_id": "fine", "image": "a.png"}])
        with pytest.raises(TimeoutError):
            listening.accept()
    assert read == [b"picture"]
    assert {item["item_id"] for item in answer["not_recommendable"]} == {item["item_id"] for item in told}
