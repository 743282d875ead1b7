"""What every answer carries, whose Host is answered, and what becomes of calls while the process is told to end."""

import asyncio
import logging
import time

import pytest

from recops.serving.app import Endpoint
from recops.serving.guard import FEW, HEADERS, Guard, names_this_machine
from recops.serving.operation import Operation
from recops.serving.settings import Settings
from recops.serving.state import State


def test_every_answer_has_the_headers(served) -> None:
    body = {"user_id": "u1"}
    answers = [served.client.get(path) for path in ("/livez", "/docs", "/docs.json", "/metrics", "/nothing")]
    answers += [served.client.post("/recommend", json=body), served.client.post("/recommend", content=b"{")]
    answers += [served.client.post("/recommend", json=body, headers={"host": "evil.example"})]
    assert [a.status_code for a in answers] == [200, 200, 200, 200, 404, 200, 400, 403]
    for answer in answers:
        for name in HEADERS:
            assert len(answer.headers.get_list(name.decode())) == 1, (answer.url, name)
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["content-security-policy"].startswith("default-src 'none'")
        assert "server" not in answer.headers and "strict-transport-security" not in answer.headers
        assert "connection" not in answer.headers
    assert "style-src" in answers[1].headers["content-security-policy"]  # the page has its own style


@pytest.mark.parametrize(
    ("hosts", "ours"),
    [
        (["localhost"], True),
        (["localhost:3000"], True),
        (["127.0.0.1:3000"], True),
        (["127.8.8.8"], True),
        (["[::1]:3000"], True),
        ([], True),  # no browser leaves it out
        (["LOCALHOST"], True),
        (["evil.example"], False),
        (["evil.example:3000"], False),
        (["127.0.0.1.evil.example"], False),
        (["localhost.evil.example"], False),
        (["localhost", "evil.example"], False),
        (["[::1"], False),
        ([""], False),
        (["10.0.0.1"], False),
    ],
)
def test_whose_host_is_this_machine(hosts: list[str], ours: bool) -> None:
    assert names_this_machine([(b"host", host.encode()) for host in hosts]) is ours


def test_another_name_for_this_machine_is_refused_without_keys(serve) -> None:
    """A page of evil.example whose name was made to lead to 127.0.0.1 may send anything, and read what comes back."""
    served = serve()
    headers = {"host": "evil.example:3000", "origin": "http://evil.example:3000"}
    for method, path in (("GET", "/release"), ("POST", "/recommend"), ("POST", "/items"), ("GET", "/nothing")):
        answer = served.client.request(method, path, json={"user_id": "u1"}, headers=headers)
        assert (answer.status_code, answer.json()["field"]) == (403, "Host")
    assert served.client.get("/readyz", headers=headers).status_code == 200
    # With keys it needs no protection: the page has none. A proxy of this machine passes its own name on.
    keyed = serve({"keys": ("secret",)})
    headers = {"host": "shop.example", "authorization": "Bearer secret"}
    assert keyed.client.get("/release", headers=headers).status_code == 200


def test_over_tls_browsers_are_told_to_stay_there(served) -> None:
    answer = served.client.get("https://127.0.0.1/livez")
    assert answer.headers["strict-transport-security"] == "max-age=31536000"


def test_while_ending_calls_are_answered_and_the_probe_says_so(serve) -> None:
    served = serve()
    served.state.is_draining = True
    ready = served.client.get("/readyz")
    assert (ready.status_code, ready.json()["error"]) == (503, "not_ready")
    assert served.client.get("/livez").status_code == 200
    answer = served.client.post("/recommend", json={"user_id": "u1"})
    assert (answer.status_code, answer.headers["connection"]) == (200, "close")


def test_a_handler_that_waits_too_long_is_given_up(connect) -> None:
    async def stuck(call):
        await asyncio.sleep(60)

    state = State(Settings(timeout_s=0.05))
    client = connect(Guard(Endpoint(Operation("GET", "/stuck", "", stuck), state), state, probes=()))
    for _ in range(3):
        answer = client.get("/stuck")
        assert (answer.status_code, answer.json()["error"]) == (504, "timeout")


def test_a_key_gets_into_no_log(serve, caplog, monkeypatch) -> None:
    """Also where the call fails in our hands, with the traceback that is logged then."""
    served = serve({"keys": ("rk_secret",)})
    with caplog.at_level(logging.DEBUG):
        for headers in ({"authorization": "Bearer rk_secret"}, {"authorization": "Bearer rk_secret_wrong"}, {}):
            for path in ("/recommend", "/nothing", "/items"):
                answer = served.client.post(path, content=b'{"a": ', headers=headers)
                assert "rk_secret" not in answer.text

        def broken_store(told):
            raise RuntimeError("broken")

        monkeypatch.setattr(served.state.store, "put_items", broken_store)
        broken = {"items": [{"item_id": "x"}]}
        answer = served.client.post("/items", json=broken, headers={"authorization": "Bearer rk_secret"})
    assert answer.status_code == 503 and "could not be stored" in caplog.text
    assert "rk_secret" not in caplog.text


def test_a_worker_that_is_behind_takes_no_more(connect) -> None:
    """Each call keeps the worker for 20 ms: of twenty at once all but a few would wait longer than 50 ms."""

    def slow(call):
        time.sleep(0.02)
        return {}

    state = State(Settings(max_lag_s=0.05))
    guard = Guard(Endpoint(Operation("GET", "/slow", "", slow), state), state, probes={"/probe"})
    client = connect(guard)
    first, then = (client.at_once([("GET", "/slow", {})] * 20) for _ in range(2))
    assert {answer.status_code for answer in first} == {200}  # nothing was known of them yet
    statuses = [answer.status_code for answer in then]
    assert set(statuses) == {200, 429} and statuses.count(200) < 15
    assert all(answer.headers["retry-after"] == "1" for answer in then if answer.status_code == 429)
    assert guard.turn_s > 0.05 / FEW  # far behind, and yet
    assert {answer.status_code for answer in client.at_once([("GET", "/slow", {})] * FEW)} == {200}


def test_nobody_s_body_is_read_for_a_probe() -> None:
    """Else anybody, without a key, could have the service hold as much as it lets a caller send."""

    async def body() -> dict:
        raise AssertionError("the body was asked for")

    sent = []

    async def send(message: dict) -> None:
        sent.append(message)

    state = State(Settings(keys=("secret",)))
    probe = Guard(Endpoint(Operation("GET", "/livez", "", lambda call: {}, is_probe=True), state), state, {"/livez"})
    for headers in ([], [(b"content-length", b"1000000")], [(b"transfer-encoding", b"chunked")]):
        scope = {"type": "http", "path": "/livez", "method": "POST", "headers": headers, "query_string": b""}
        asyncio.run(probe(scope, body, send))
    assert [message["status"] for message in sent[::2]] == [200] * 3
