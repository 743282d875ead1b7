"""Bad calls: each gets a 4xx that names the field, all in one shape; nothing a caller sends is a 5xx."""

import asyncio
import gzip
import json
import threading

import httpx
import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from recops.serving.app import Endpoint
from recops.serving.endpoints.recommend import BATCHES
from recops.serving.guard import Guard, is_loopback
from recops.serving.operation import Operation
from recops.serving.settings import Settings
from recops.serving.state import State

JSON = {"content-type": "application/json"}


def check_problem(answer, status, field=None):
    assert answer.status_code == status, answer.text
    problem = answer.json()
    assert set(problem) == {"error", "field", "message", "request_id"}
    assert problem["request_id"] == answer.headers["x-request-id"]
    assert problem["message"]
    assert "Traceback" not in answer.text
    if field is not None:
        assert problem["field"] == field, problem


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ("{}", "user_id"),
        ('{"user_id": null}', "user_id"),
        ('{"user_id": 7}', "user_id"),
        ('{"user_id": ""}', "user_id"),
        ('{"user_id": "a\\u0000b"}', "user_id"),
        ('{"user_id": "\\ud800"}', "user_id"),
        ('{"user_id": "' + "x" * 513 + '"}', "user_id"),
        ('{"user_id": "u", "k": 0}', "k"),
        ('{"user_id": "u", "k": 1001}', "k"),
        ('{"user_id": "u", "k": 1.0}', "k"),
        ('{"user_id": "u", "k": "1"}', "k"),
        ('{"user_id": "u", "k": true}', "k"),
        ('{"user_id": "u", "k": null}', "k"),
        ('{"user_id": "u", "k": 1' + "0" * 400 + "}", "k"),
        ('{"user_id": "u", "diversity": 1.5}', "diversity"),
        ('{"user_id": "u", "diversity": -0.1}', "diversity"),
        ('{"user_id": "u", "diversity": true}', "diversity"),
        ('{"user_id": "u", "filters": {"attributes": {}}}', "filters.attributes"),
        ('{"user_id": "u", "filters": {"attributes": {"seller": null}}}', "filters.attributes.seller"),
        ('{"user_id": "u", "filters": {"attributes": {"seller": {"a": 1}}}}', "filters.attributes.seller"),
        ('{"user_id": "u", "filters": {"minimum_freshness": "30d"}}', "filters.minimum_freshness"),
        ('{"user_id": "u", "seen": true}', "seen"),
        ('{"user_id": "u", "diversity": 1e999}', "diversity"),
        ('{"user_id": "u", "explain": 1}', "explain"),
        ('{"user_id": "u", "unknown": 1}', "unknown"),
        ('{"user_id": "u", "history": "a"}', "history"),
        ('{"history": [1]}', "history[0]"),
        ('{"history": ["a", null]}', "history[1]"),
        ('{"history": [{"item_id": "a", "timestamp": "yesterday"}]}', "history[0].timestamp"),
        ('{"history": [{"item_id": "a", "timestamp": "2020-01-01"}]}', "history[0].timestamp"),
        ('{"history": [{"item_id": "a", "timestamp": true}]}', "history[0].timestamp"),
        ('{"history": [{"item_id": "a", "timestamp": 1e99}]}', "history[0].timestamp"),
        ('{"history": [{"item_id": "a", "timestamp": 1' + "0" * 400 + "}]}", "history[0].timestamp"),
        ('{"history": [{"item_id": "a", "timestamp": "0001-01-01T00:00:00+14:00"}]}', None),
        ('{"history": [{"timestamp": 1}]}', "history[0].item_id"),
        ('{"history": [{"item_id": "a", "id": 1}]}', "history[0].id"),
        ('{"user_id": "u", "exclude": ["a", 1]}', "exclude[1]"),
        ('{"user_id": "u", "filters": []}', "filters"),
        ('{"user_id": "u", "filters": {"colour": "red"}}', "filters.colour"),
        ('{"user_id": "u", "filters": {"categories": []}}', "filters.categories"),
        ('{"user_id": "u", "filters": {"price": {"min": 2, "max": 1}}}', "filters.price"),
        ('{"user_id": "u", "filters": {"price": {}}}', "filters.price"),
        ('{"user_id": "u", "filters": {"price": {"min": "1"}}}', "filters.price.min"),
        ('{"user_id": "u", "filters": {"price": {"min": 1' + "0" * 400 + "}}}", "filters.price.min"),
        ('{"user_id": "u", "filters": {"available": "yes"}}', "filters.available"),
        ('{"user_id": "u", "filters": {"published_after": "soon"}}', "filters.published_after"),
        ('{"user_id": "u", "user_id": "v"}', "user_id"),
        ('{"user_id": NaN}', None),
        ('{"user_id": "u", "k": Infinity}', None),
        ('{"user_id": "u", "k": 1' + "0" * 5000 + "}", None),
        ("[" * 100_000, None),
        ('{"a":' * 50_000, None),
        ("", None),
        ("null", None),
        ("[]", None),
        ('"text"', None),
        ("{", None),
        ('{"user_id": "u"} x', None),
        (b'{"user_id": "\xff"}', None),
        (b"\xef\xbb\xbf{}", None),
        (b"\x80\x04]", None),
    ],
)
def test_bad_bodies(served, body, field):
    content = body.encode() if isinstance(body, str) else body
    if b"0001-01-01" in content:  # a time before the first that datetime holds in UTC: refused or taken, never a 5xx
        assert served.client.post("/recommend", content=content, headers=JSON).status_code in (200, 400)
        return
    check_problem(served.client.post("/recommend", content=content, headers=JSON), 400, field)


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("/score", {"user_id": "u"}, "item_ids"),
        ("/score", {"user_id": "u", "item_ids": []}, "item_ids"),
        ("/score", {"item_ids": ["a"]}, "user_id"),
        ("/similar", {}, "item_id"),
        ("/similar", {"item_id": "a", "k": -1}, "k"),
        ("/recommend/batch", {"requests": []}, "requests"),
        ("/recommend/batch", {"requests": [{"user_id": "u"}] * 257}, "requests"),
        ("/recommend/batch", {"requests": [{"user_id": "u"}, {"user_id": "u", "k": 0}]}, "requests[1].k"),
        ("/recommend/batch", {"requests": [{"user_id": "u"}, {}]}, "requests[1].user_id"),
    ],
)
def test_bad_bodies_elsewhere(served, path, body, field):
    check_problem(served.client.post(path, json=body), 400, field)


def test_wrong_paths_methods_and_types(served):
    check_problem(served.client.get("/nothing"), 404)
    check_problem(served.client.post("/recommend/", json={"user_id": "u"}), 404)
    answer = served.client.get("/recommend")
    check_problem(answer, 405)
    assert "POST" in answer.headers["allow"]
    for kind in ("text/plain", "application/xml", "application/vnd.bentoml+pickle", "multipart/form-data"):
        check_problem(served.client.post("/recommend", content=b"{}", headers={"content-type": kind}), 415)
    packed = {**JSON, "content-encoding": "gzip"}
    check_problem(
        served.client.post("/recommend", content=gzip.compress(b'{"user_id": "u"}'), headers=packed),
        415,
        "Content-Encoding",
    )
    kind = {"content-type": "application/json; charset=utf-8", "content-encoding": "identity"}
    assert served.client.post("/recommend", content=b'{"user_id": "u"}', headers=kind).status_code == 200


def test_large_bodies_are_refused_with_and_without_a_length(serve):
    served = serve({"max_body_bytes": 100})
    check_problem(served.client.post("/recommend", content=b"x" * 101, headers=JSON), 413)

    async def chunks():
        for _ in range(3):
            yield b"x" * 50

    check_problem(served.client.post("/recommend", content=chunks(), headers=JSON), 413)
    assert served.client.post("/recommend", json={"user_id": "u"}).status_code == 200


def test_a_body_with_two_ends_is_refused(served):
    """What is before the service may have taken the other one, and the rest for the next call."""
    both = {**JSON, "content-length": "5", "transfer-encoding": "chunked"}
    answer = served.client.post("/recommend", content=b'{"user_id": "u"}', headers=both)
    check_problem(answer, 400)
    assert answer.headers["connection"] == "close"


def test_above_the_limit_callers_are_told_when_to_come_again(serve):
    served = serve({"max_concurrency": 2})
    call = ("POST", "/recommend", {"json": {"user_id": "u"}})
    answers = served.client.at_once([call] * 10 + [("GET", "/readyz", {})])
    assert sorted(a.status_code for a in answers) == [200] * 3 + [429] * 8
    assert answers[-1].status_code == 200  # probes are answered at any load
    for answer in answers:
        if answer.status_code == 429:
            check_problem(answer, 429)
            assert answer.headers["retry-after"] == "1"
    assert served.client.request(*call[:2], **call[2]).status_code == 200


def test_a_body_that_does_not_come_is_given_up(serve):
    import asyncio

    served = serve({"timeout_s": 0.05})

    async def slow():
        yield b"{"
        await asyncio.sleep(5)

    check_problem(served.client.post("/recommend", content=slow(), headers=JSON), 408)


def test_a_batch_ends_with_its_deadline(serve):
    served = serve({"timeout_s": 0.001})
    requests = [{"user_id": "u", "k": 1000}] * 256
    answers = [served.client.post("/recommend/batch", json={"requests": requests}) for _ in range(3)]
    assert {a.status_code for a in answers} <= {504, 408}
    check_problem(answers[0], answers[0].status_code)


def test_a_batch_that_would_wait_too_long_is_refused_unread(serve, monkeypatch):
    served = serve({"max_lag_s": 0.05})
    monkeypatch.setattr(BATCHES, "num_calls", 2)
    monkeypatch.setattr(BATCHES, "work_s", 1.0)
    answer = served.client.post("/recommend/batch", content=b"{broken", headers=JSON)
    check_problem(answer, 429)
    assert answer.headers["retry-after"] == "1"
    assert served.client.post("/recommend", json={"user_id": "u"}).status_code == 200  # singles do not wait for batches


def test_keys(serve):
    served = serve({"keys": ("first", "second")})
    for headers in (
        {},
        {"authorization": "Bearer third"},
        {"authorization": "first"},
        {"authorization": "Basic first"},
    ):
        answer = served.client.post("/recommend", json={"user_id": "u"}, headers=headers)
        check_problem(answer, 401)
        assert answer.headers["www-authenticate"] == "Bearer"
    for path in ("/release", "/docs", "/metrics", "/nothing"):
        check_problem(served.client.get(path), 401)
    for key in ("first", "second"):
        assert served.client.get("/release", headers={"authorization": f"Bearer {key}"}).status_code == 200
    assert served.client.get("/livez").status_code == served.client.get("/readyz").status_code == 200


def test_without_keys_only_this_machine_is_answered(served, connect):
    check_problem(connect(served.app, "10.1.2.3").post("/recommend", json={"user_id": "u"}), 403)
    assert connect(served.app, "::1").post("/recommend", json={"user_id": "u"}).status_code == 200
    assert [is_loopback(h) for h in ("127.9.9.9", "localhost", "0.0.0.0", "example.org")] == [True, True, False, False]


def test_our_own_mistake_is_a_500_without_details(connect):
    def broken(call):
        raise RuntimeError("a secret")

    state = State(Settings())
    app = Guard(Endpoint(Operation("GET", "/broken", "", broken), state), state, probes=())
    answer = connect(app).get("/broken")
    check_problem(answer, 500)
    assert "secret" not in answer.text


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["a", "b", "u1", "\x00", "2020-01-01T00:00:00Z", 10**400, -1, 1e308]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["item_id", "timestamp", "min", "max", "categories", "price", "available", "k"])
            | st.text(max_size=4),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)
names = ["user_id", "history", "k", "exclude", "filters", "diversity", "explain", "item_ids", "item_id", "requests"]
bodies = st.dictionaries(st.sampled_from(names), values, max_size=5).map(json.dumps).map(str.encode)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    path=st.sampled_from(["/recommend", "/recommend/batch", "/score", "/similar"]), body=bodies | st.binary(max_size=60)
)
def test_whatever_is_sent_the_answer_is_defined(served, path, body):
    answer = served.client.post(path, content=body, headers=JSON)
    if answer.status_code != 200:
        assert answer.status_code in (400, 404)
        check_problem(answer, answer.status_code)


def test_what_fails_after_the_answer_is_logged(serve, monkeypatch, caplog):
    """A store that is slow and then fails: the call has got its 504 by then."""
    served, over = serve({"timeout_s": 0.1}), threading.Event()

    def slow(items):
        over.wait(10)
        raise OSError("disk full")

    monkeypatch.setattr(served.state.store, "put_items", slow)

    async def told_and_over():
        async with httpx.AsyncClient(transport=served.client.transport, base_url="http://127.0.0.1") as client:
            answer = await client.post("/items", json={"items": [{"item_id": "new"}]})
            over.set()
            for _ in range(1000):
                if caplog.records:
                    break
                await asyncio.sleep(0.01)
            return answer

    answer = asyncio.run(told_and_over())
    assert answer.status_code == 504
    assert f"request {answer.json()['request_id']} has been answered; what it waited for failed later" in caplog.text
    assert "OSError: disk full" in caplog.text
