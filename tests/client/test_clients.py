"""Both clients against a service that fails as services do: what is sent again, within which time, and what is told."""

import asyncio
import logging
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

import httpx
import pytest

from recops.client import AsyncClient, Client, Retries, clients, errors
from tests.client.flaky import Flaky, running

KEY = "rk_hidden-from-all"
SOON = (429, {"Retry-After": "2"})


@pytest.fixture(scope="module")
def service() -> Iterator[Flaky]:
    with running() as server:
        yield server


class Clock:
    """A time that only waiting moves."""

    def __init__(self) -> None:
        self.at, self.waits, self.random = 0.0, [], Random(7).random

    def now(self) -> float:
        return self.at

    def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.at += seconds

    async def sleep_async(self, seconds: float) -> None:
        self.sleep(seconds)


Ask = Callable[..., Any]


@pytest.fixture(params=[Client, AsyncClient])
def ask(request: pytest.FixtureRequest, service: Flaky) -> Ask:
    """Calls the flaky service by one method of a client: `clock` None is the real one, `url` another service."""

    def ask(method: str, *given: Any, clock: Clock | None = None, url: str = "", call: Any = None, **made: Any) -> Any:
        kind = request.param
        if clock is not None:
            sleep = clock.sleep if kind is Client else clock.sleep_async
            faked = {"_now": clock.now, "_sleep": sleep, "_random": clock.random}
            kind = type("Timed", (kind,), {name: staticmethod(one) for name, one in faked.items()})
        if issubclass(kind, Client):
            # Reading the certificates of the world takes most of the time of a call.
            with httpx.Client(verify=False) as http:
                return getattr(kind(url or service.url, http=http, **made), method)(*given, **(call or {}))

        async def asked() -> Any:
            async with httpx.AsyncClient(verify=False) as http:
                return await getattr(kind(url or service.url, http=http, **made), method)(*given, **(call or {}))

        return asyncio.run(asked())

    return ask


def test_what_passes_is_outwaited(ask: Ask, service: Flaky) -> None:
    service.plan(SOON, 503, "close", "cut", b'{"items": []}')
    clock = Clock()
    assert ask("recommend", clock=clock, call={"user_id": "u1"}) == {"items": []}
    drawn = Random(7)
    # Retry-After, and on top of it by chance up to .1, .2, .4, .8 s.
    assert clock.waits == [asked + drawn.random() * most for asked, most in ((2, 0.1), (0, 0.2), (0, 0.4), (0, 0.8))]
    assert [(seen.line, seen.body) for seen in service.seen] == [("POST /recommend", {"user_id": "u1"})] * 5


def test_events_sent_again_are_the_same_events(ask: Ask, service: Flaky) -> None:
    service.plan("cut", 503)
    event = {"user_id": "u1", "item_id": "a", "event": "click", "timestamp": 0}
    ask("events", [event], clock=Clock())
    assert [seen.body for seen in service.seen] == [{"events": [event]}] * 3


def test_a_service_that_stays_away_is_told(ask: Ask, service: Flaky) -> None:
    service.plan(*[503] * 9)
    clock = Clock()
    with pytest.raises(errors.NotReadyError, match="503 some: k: said so"):
        ask("release", clock=clock, retries=Retries(max_retries=2))
    assert len(service.seen) == 3 and len(clock.waits) == 2


def test_an_answer_without_end_is_not_kept(ask: Ask, service: Flaky, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clients, "MAX_ANSWER_BYTES", 100_000)
    service.plan(b'{"items": "' + b"x" * 99_000 + b'"}')
    assert len(ask("release")["items"]) == 99_000
    service.plan(b'{"items": "' + b"x" * 5_000_000 + b'"}')
    with pytest.raises(errors.AnswerError, match="larger than 100,000 bytes"):
        ask("release")
    assert len(service.seen) == 1


def test_the_deadline_holds_for_all_attempts_together(ask: Ask, service: Flaky) -> None:
    service.plan(SOON, SOON, SOON, SOON)
    clock = Clock()
    with pytest.raises(errors.OverloadedError) as caught:
        ask("release", clock=clock, timeout_s=5.0)
    assert (caught.value.retry_after_s, len(service.seen)) == (2.0, 3)
    assert 4 <= clock.at < 5
    service.plan(SOON)
    with pytest.raises(errors.OverloadedError):
        ask("release", clock=Clock(), call={"timeout_s": 1.5})
    assert len(service.seen) == 1


@pytest.mark.parametrize("status", [302, 400, 401, 403, 404, 413, 500])
def test_what_would_be_refused_again_is_not_sent_again(ask: Ask, service: Flaky, status: int) -> None:
    service.plan((status, {"Location": service.url}))
    with pytest.raises(errors.ServiceError) as caught:
        ask("recommend", clock=Clock(), call={"user_id": "u1"})
    error = caught.value
    assert (error.status, error.field, error.message, error.request_id) == (status, "k", "said so", "r1")
    assert len(service.seen) == 1


def test_probes_tell_how_it_is_now(ask: Ask, service: Flaky) -> None:
    for method, plan, kind in (("readyz", 503, errors.NotReadyError), ("livez", "close", errors.LostError)):
        service.plan(plan)
        with pytest.raises(kind):
            ask(method, clock=Clock())
        assert len(service.seen) == 1


@pytest.mark.parametrize("plan", ["hang", "drip"])
def test_an_attempt_that_takes_too_long_is_given_up(ask: Ask, service: Flaky, plan: str) -> None:
    service.plan(plan, b'{"release": "x"}')
    assert ask("release", attempt_timeout_s=0.1) == {"release": "x"}
    service.plan(*[plan] * 9)
    start = time.monotonic()
    with pytest.raises(errors.LateError) as caught:
        ask("release", timeout_s=0.3, attempt_timeout_s=0.2)
    assert isinstance(caught.value, TimeoutError) and caught.value.status is None
    assert 0.2 <= time.monotonic() - start < 2


def test_nobody_there(ask: Ask, service: Flaky) -> None:
    clock = Clock()
    with pytest.raises(errors.UnreachableError) as caught:
        ask("release", clock=clock, url="http://127.0.0.1:1")
    assert isinstance(caught.value, ConnectionError) and len(clock.waits) == 4


def test_text_is_answered_as_it_is(ask: Ask, service: Flaky) -> None:
    service.plan(b"recops_requests_total 1\n", b"<html>")
    assert ask("metrics") == "recops_requests_total 1\n"
    with pytest.raises(errors.AnswerError) as caught:
        ask("release")
    assert (caught.value.status, caught.value.request_id) == (200, "r2")


def test_the_key_is_sent_and_shown_nowhere(
    ask: Ask, service: Flaky, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    service.plan(503, "close", b"{}", b"{}", b"{}", 401)
    ask("release", clock=Clock(), api_key=KEY)
    monkeypatch.setenv("RECOPS_API_KEY", KEY)
    ask("release")
    monkeypatch.setenv("RECOPS_API_KEY", "another")
    ask("release", api_key=KEY)
    with pytest.raises(errors.UnauthorizedError) as caught:
        ask("release", api_key=KEY)
    assert {seen.headers["authorization"] for seen in service.seen} == {f"Bearer {KEY}"} and len(service.seen) == 6
    monkeypatch.setenv("RECOPS_API_KEY", "")
    ask("release")
    assert "authorization" not in service.seen[-1].headers
    with pytest.raises(errors.UnreachableError) as unreachable:
        ask("release", clock=Clock(), url="http://127.0.0.1:1", api_key=KEY)
    for error in (caught.value, unreachable.value):
        assert "hidden" not in "".join(traceback.format_exception(error)) + repr(error)
    with Client(service.url, api_key=KEY) as client:
        assert repr(client) == f"Client('{service.url}')"
        assert "hidden" not in repr(vars(client))
    assert "GET /release: 503 some" in caplog.text and "hidden" not in caplog.text


@pytest.mark.parametrize("key", ["rk_hidden\n", "rk hidden", "rk_hiddén"])
def test_a_key_that_cannot_be_sent_is_told_without_it(key: str) -> None:
    with pytest.raises(ValueError, match="api_key: a key has only visible ASCII characters") as caught:
        Client(api_key=key)
    assert "hidd" not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["", "localhost:3000", "ftp://a", "http://", "http://a:x", "http://a:b@c", "http://a?b=c"]
)
def test_an_address_that_is_none_is_told(url: str) -> None:
    with pytest.raises(ValueError, match="base_url: ") as caught:
        Client(url)
    assert "a:b" not in str(caught.value)


def test_connections_are_closed_with_the_client(service: Flaky) -> None:
    service.plan()
    with Client(service.url) as client:
        client.release()
    with pytest.raises(RuntimeError, match="has been closed"):
        client.release()

    async def closed() -> None:
        async with AsyncClient(service.url) as client:
            await client.release()
        with pytest.raises(RuntimeError, match="has been closed"):
            await client.release()

    asyncio.run(closed())


def test_the_caller_s_own_connections_stay_open(service: Flaky) -> None:
    with httpx.Client(headers={"x-mine": "1"}) as http:
        service.plan()
        for _ in range(2):
            with Client(service.url + "/", http=http) as client:
                client.release()
        assert [(seen.line, seen.headers["x-mine"]) for seen in service.seen] == [("GET /release", "1")] * 2


def test_importing_it_loads_httpx_and_nothing_else_of_recops() -> None:
    code = (
        "import sys, time, httpx; before, start = set(sys.modules), time.perf_counter(); import recops.client; "
        "print(time.perf_counter() - start); print(*sorted(set(sys.modules) - before))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    seconds, modules = done.stdout.splitlines()
    ours = {name for name in modules.split() if name.startswith("recops")}
    assert all(name in ("recops", "recops.client") or name.startswith("recops.client.") for name in ours)
    foreign = {name.split(".")[0] for name in modules.split()} - {"recops"}
    assert foreign <= sys.stdlib_module_names
    assert float(seconds) < 1
