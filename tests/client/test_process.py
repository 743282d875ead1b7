"""Every call of each client, in Python and in node, to one real service with a key."""

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from recops.client import AsyncClient, Client, errors
from recops.serving.app import operations
from tests.clients import node
from tests.serving.conftest import write_bundle
from tests.serving.test_process import Server

pytestmark = pytest.mark.process
KEY = "rk_of-these-tests"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("server"), write_bundle, RECOPS_API_KEYS=f"admin:{KEY}")
    yield server
    assert server.stop() == 0


@pytest.fixture
def url(server: Server) -> str:
    return str(server.client.base_url)


def calls(user_id: str) -> list[tuple[str, dict[str, Any]]]:
    """Each operation at least once, `user_id` being nobody the service knows."""
    event = {"user_id": user_id, "item_id": "b", "event": "click", "timestamp": datetime.now(UTC).isoformat()}
    mine = {**event, "event_id": f"of {user_id}"}
    return [
        ("livez", {}),
        ("readyz", {}),
        ("release", {}),
        ("metrics", {}),
        ("docs", {}),
        ("docs_json", {}),
        ("openapi_json", {}),
        ("recommend", {"user_id": "u1", "k": 2, "explain": True}),
        ("recommend", {"history": ["b", {"item_id": "a"}], "filters": {"price": {"min": 3}}, "exclude": ["f"]}),
        ("recommend_batch", {"requests": [{"history": ["b"]}, {"user_id": user_id}]}),
        ("score", {"history": ["a"], "item_ids": ["c", "unknown"]}),
        ("similar", {"item_id": "b", "k": 1}),
        ("similar", {"item_id": "unknown"}),
        ("ask", {"question": "something of x under 4 pounds"}),
        ("set_traffic", {"arms": []}),
        ("set_traffic", {"arms": [{"name": "b", "release": "none", "mode": "ab", "share": 0.5}]}),
        ("traffic", {}),
        ("items", {"items": [{"item_id": "a", "price": 1.0}]}),
        ("events", {"events": [event, mine, {**mine, "rank": 3}]}),
        ("events", {"events": [{**event, "event": "no kind"}]}),
        ("recommend", {"user_id": user_id, "k": 1}),
        ("user", {"user_id": user_id, "limit": 1}),
        ("erase_user", {"user_id": user_id}),
        ("user", {"user_id": user_id}),
    ]


def check(told: list[tuple[str, dict[str, Any]]], answers: list[Any], release: str) -> None:
    """What the service with six items is to answer, whoever asks (worked by hand in tests/serving)."""
    assert {name for name, _ in told} == {operation.name for operation in operations()}
    found: dict[str, list[Any]] = {}
    for (name, _), answer in zip(told, answers, strict=True):
        found.setdefault(name, []).append(answer)
    assert found["livez"] == [{"live": True}]
    assert found["readyz"] == [{"ready": True, "release": release}]
    assert (found["release"][0]["num_items"], found["release"][0]["release"]) == (6, release)
    assert "recops_requests_total" in found["metrics"][0] and "POST /recommend" in found["docs"][0]
    assert found["docs_json"] == found["openapi_json"] and "/recommend" in found["docs_json"][0]["paths"]
    known, near, new = found["recommend"]
    assert [(i["item_id"], i["reasons"][0]["type"]) for i in known["items"]] == [("b", "history"), ("c", "history")]
    assert ([i["item_id"] for i in near["items"]], near["source"]) == (["c", "e"], "cold-start")
    assert [r["source"] for r in found["recommend_batch"][0]["responses"]] == ["cold-start", "fallback"]
    assert [s["score"] for s in found["score"][0]["scores"]] == [0.25, None]
    assert [i["item_id"] for i in found["similar"][0]["items"]] == ["c"]
    refused = found["similar"][1]["failed"]
    assert (refused["status"], refused["error"], refused["field"]) == (404, "not_found", "item_id")
    assert len(refused["requestId"]) == 32
    assert [i["item_id"] for i in found["ask"][0]["items"]] == ["a", "b"]
    assert found["traffic"][0]["arms"] == found["set_traffic"][0]["arms"] == found["release"][0]["traffic"] == []
    refused = found["set_traffic"][1]["failed"]
    assert (refused["status"], refused["field"]) == (400, "arms[0].release")
    assert found["items"][0]["changed"] == 1
    assert (found["events"][0]["stored"], found["events"][0]["duplicates"]) == (2, 1)
    assert found["events"][1]["rejected"][0]["index"] == 0
    assert (new["items"][0]["item_id"], new["source"]) == ("c", "model")  # b was told a moment ago
    held, after = found["user"]
    assert held["held"]["events"] == 2 and len(held["events"]) == 1 and held["next"]
    assert found["erase_user"][0]["erased"]["events"] == 2
    assert (after["events"], after["held"]["events"]) == ([], 0)


def failed(error: errors.ServiceError) -> dict[str, Any]:
    named = {"status": error.status, "error": error.error, "field": error.field, "requestId": error.request_id}
    return {"failed": named}


def test_in_python(server: Server, url: str) -> None:
    told = calls("a/b ?#é..")
    with Client(url, api_key=KEY) as client:

        def answer(name: str, given: dict[str, Any]) -> Any:
            try:
                return getattr(client, name)(**given)
            except errors.ServiceError as error:
                return failed(error)

        check(told, [answer(*one) for one in told], server.ids[0])
    with Client(url, api_key="another") as client, pytest.raises(errors.UnauthorizedError):
        client.release()


def test_in_python_with_asyncio(server: Server, url: str) -> None:
    told = calls("..")

    async def answers() -> list[Any]:
        found = []
        async with AsyncClient(url, api_key=KEY) as client:
            for name, given in told:
                try:
                    found.append(await getattr(client, name)(**given))
                except errors.ServiceError as error:
                    found.append(failed(error))
        return found

    check(told, asyncio.run(answers()), server.ids[0])


@node.needs_node
def test_in_node(server: Server, url: str) -> None:
    told = calls("a/b ?#é...")
    script = """
    const client = new Client(given.url, { apiKey: given.key });
    const answers = [];
    for (const [name, request] of given.calls) {
      answers.push(await tried(() => (Object.keys(request).length ? client[name](request) : client[name]())));
    }
    console.log(JSON.stringify(answers));
    """
    check(told, node.run(script, url=url, key=KEY, calls=told), server.ids[0])
