"""Embeddings from a server that speaks OpenAI's protocol: a real one on this machine."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recops.encoders import text
from recops.encoders.text import Text, served_embeddings
from recops.errors import CallError
from tests.encoders.embeddings_server import KEY, Server, running
from tests.encoders.small_encoders import made


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("EMBEDDINGS_KEY", KEY)
    with running() as server:
        yield server


def options(server: Server, **more: Any) -> Text.Options:
    return Text.Options(**{"url": server.url, "model": "m-1", "key_env": "EMBEDDINGS_KEY", **more})


def test_vectors_come_in_the_order_of_the_texts_some_a_call(server: Server) -> None:
    texts = ["x" * n for n in range(1, 131)]
    vectors = served_embeddings(options(server), texts)
    assert vectors.tolist() == [[n, 1, 0] for n in range(1, 131)]
    assert [len(call["input"]) for call in server.calls] == [64, 64, 2]
    assert {call["model"] for call in server.calls} == {"m-1"}


def test_items_and_questions_by_the_server(server: Server, tmp_path: Path) -> None:
    settings = {"prompts": {"document": "", "query": ""}}
    encoder = made("text", tmp_path, 3, None, settings, **options(server, query_prefix="Q: ").model_dump())
    vectors = encoder.encode([{"title": "abc"}, {"title": None}])
    np.testing.assert_allclose(vectors, [np.array([3, 1, 0]) / np.sqrt(10), [0, 0, 0]], atol=1e-6)
    np.testing.assert_allclose(encoder.query(["abc"])[0], np.array([6, 1, 0]) / np.sqrt(37), atol=1e-6)
    assert [call["input"] for call in server.calls] == [["abc"], ["Q: abc"]]


def test_a_text_that_the_server_refuses_costs_no_other_its_vector(server: Server, tmp_path: Path) -> None:
    settings = {"prompts": {"document": "", "query": ""}}
    encoder = made("text", tmp_path, 3, None, settings, **options(server).model_dump())
    server.longest = 20
    texts = [b"x" * length for length in (3, 21, 5, 7, 500)]
    vectors, reasons = encoder.encode_contents(texts)
    assert reasons == [None, "refused by the server", None, None, "refused by the server"]
    assert vectors.any(1).tolist() == [True, False, True, True, False]
    # A server that refuses everything is not asked about each text.
    server.longest, server.calls = 0, []
    with pytest.raises(CallError, match=r"answered 400 .*maximum context length"):
        encoder.encode_contents([b"x"] * 64)
    assert len(server.calls) == 8


def test_a_server_that_changed_its_width_is_told(server: Server, tmp_path: Path) -> None:
    settings = {"prompts": {"document": "", "query": ""}}
    encoder = made("text", tmp_path, 4, None, settings, **options(server).model_dump())
    with pytest.raises(CallError, match=r"answers vectors of 3 numbers where it answered 4 before"):
        encoder.encode([{"title": "abc"}])


def test_a_busy_server_is_asked_again(server: Server) -> None:
    server.planned = [(429, {"Retry-After": "0"}, {}), (503, {"Retry-After": "0"}, {})]
    assert served_embeddings(options(server), ["abcd"]).tolist() == [[4, 1, 0]]
    assert len(server.calls) == 3


def test_a_server_that_stays_busy_is_given_up(server: Server) -> None:
    server.planned = [(429, {"Retry-After": "0"}, {"error": "slow down"})] * 9
    with pytest.raises(CallError, match=r"encode\.text\.url: http://127.* answered 429 .*slow down"):
        served_embeddings(options(server), ["a"])
    assert len(server.calls) == text.TRIES


def test_a_wrong_key_is_told_and_not_shown(
    server: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv("EMBEDDINGS_KEY", "wrong-key-9")
    with pytest.raises(CallError, match=r"answered 401 .*Incorrect API key") as told:
        served_embeddings(options(server), ["a"])
    assert "wrong-key-9" not in f"{told.value}{capsys.readouterr()}"
    assert len(server.calls) == 1
    monkeypatch.delenv("EMBEDDINGS_KEY")
    with pytest.raises(CallError, match=r"encode\.text\.key_env: the environment variable EMBEDDINGS_KEY is not set"):
        served_embeddings(options(server), ["a"])


@pytest.mark.parametrize(
    "body",
    [
        {},
        [],
        {"data": [{"index": 0, "embedding": [1, 2]}]},
        {"data": [{"index": 0, "embedding": [1, 2]}, {"index": 1, "embedding": [1]}]},
        {"data": [{"index": 0, "embedding": [1, 2]}, {"index": 1, "embedding": [1, None]}]},
        {"data": [{"index": 0, "embedding": "AAAA"}, {"index": 1, "embedding": "AAAA"}]},
        {"data": [{"index": i, "embedding": [1, 2]} for i in range(3)]},
    ],
)
def test_an_answer_that_is_none_is_refused(server: Server, body: Any) -> None:
    server.planned = [(200, {}, body)]
    with pytest.raises(CallError, match="did not answer one vector for each of 2 texts"):
        served_embeddings(options(server), ["a", "b"])


def test_a_key_is_not_carried_to_another_server(server: Server) -> None:
    server.planned = [(307, {"Location": "http://127.0.0.1:9/v1/embeddings"}, {})]
    with pytest.raises(CallError, match="answered 307"):
        served_embeddings(options(server), ["a"])


def test_a_server_that_is_not_there(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr(text.time, "sleep", waits.append)
    server.shutdown()
    server.server_close()
    with pytest.raises(CallError, match="cannot be reached"):
        served_embeddings(options(server), ["a"])
    assert waits == [1, 2, 4]
