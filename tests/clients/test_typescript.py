"""The TypeScript client in node against a service that fails as services do, and its types under `tsc --strict`."""

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from recops.ports import free_port
from tests.client.flaky import Flaky, running
from tests.clients import node

pytestmark = pytest.mark.process
KEY = "rk_hidden-from-all"
# A clock that only waiting moves, and a chance that always says a half.
CLOCKED = """
const waits = [];
let at = 0;
const clocked = (options = {}) => {
  at = 0;
  waits.length = 0;
  const sleep = async (ms) => { waits.push(ms); at += ms; };
  return new Client(given.url, { now: () => at, random: () => 0.5, sleep, ...options });
};
const told = {};
"""


@pytest.fixture(scope="module")
def service() -> Iterator[Flaky]:
    with running() as server:
        yield server


def ask(service: Flaky, script: str, **given: Any) -> Any:
    return node.run(CLOCKED + script + "console.log(JSON.stringify(told));", url=service.url, **given)


@node.needs_node
def test_what_passes_is_outwaited_and_what_does_not_is_told(service: Flaky) -> None:
    free = free_port()
    soon = (429, {"Retry-After": "2"})
    service.plan(
        *(soon, 503, "close", "cut", b'{"items": []}'),
        *("cut", b"{}"),
        *(soon, soon, soon),
        404,
        503,
        (302, {"Location": service.url}),
        *("hang", b'{"release": "x"}'),
        b"<html>",
        *[503] * 2,
    )
    told = ask(
        service,
        """
        told.outwaited = [await clocked().recommend({ user_id: "u1", k: undefined, filters: null }), [...waits]];
        const event = { user_id: "u1", item_id: "a", event: "click", timestamp: new Date(0) };
        await clocked().events({ events: [event, event] });
        told.late = [await tried(() => clocked({ timeoutMs: 5000 }).release()), [...waits]];
        told.wrong = await tried(() => clocked().recommend({ user_id: "u1" }));
        told.probe = await tried(() => clocked().readyz());
        told.elsewhere = await tried(() => clocked().release());
        told.slow = await clocked({ attemptTimeoutMs: 100 }).release();
        told.foreign = await tried(() => clocked().release());
        told.away = await tried(() => clocked({ retries: { maxRetries: 1 } }).release());
        given.url = given.nowhere;
        told.nobody = [await tried(() => clocked().release()), [...waits]];
        """,
        nowhere=f"http://127.0.0.1:{free}",
    )
    assert told["outwaited"] == [{"items": []}, [2050, 100, 200, 400]]
    bodies = [seen.body for seen in service.seen]
    assert bodies[:5] == [{"user_id": "u1"}] * 5
    told_of = {"user_id": "u1", "item_id": "a", "event": "click", "timestamp": "1970-01-01T00:00:00.000Z"}
    assert bodies[5] == bodies[6] == {"events": [told_of, told_of]}
    assert (told["late"][0]["failed"]["status"], told["late"][1]) == (429, [2050, 2100])
    assert told["wrong"]["failed"] == {
        "status": 404,
        "error": "some",
        "field": "k",
        "requestId": "r1",
        "retryAfterMs": None,
        "message": "404 some: k: said so",
    }
    assert told["probe"]["failed"]["status"] == 503 and told["elsewhere"]["failed"]["status"] == 302
    assert told["slow"] == {"release": "x"}
    assert (told["foreign"]["failed"]["status"], told["foreign"]["failed"]["requestId"]) == (200, "r2")
    assert told["away"]["failed"]["status"] == 503
    assert told["nobody"][0]["failed"]["error"] == "unreachable" and told["nobody"][1] == [50, 100, 200, 400]
    assert service.planned == [] and len(service.seen) == 5 + 2 + 3 + 1 + 1 + 1 + 2 + 1 + 2


@node.needs_node
def test_a_caller_may_have_all_the_time_there_is(service: Flaky) -> None:
    """A timer of node goes off at once where it is to wait longer than 24 days."""
    service.plan(b'{"release": "x"}')
    told = ask(
        service,
        "told.release = await tried(() => clocked({ timeoutMs: Infinity, attemptTimeoutMs: Infinity }).release());",
    )
    assert told["release"] == {"release": "x"}


@node.needs_node
def test_the_key_is_shown_nowhere_and_a_caller_may_give_up(service: Flaky) -> None:
    service.plan(b"{}", 401, "hang")
    told = ask(
        service,
        """
        const { inspect } = await import("node:util");
        const client = clocked({ apiKey: given.key });
        await client.release();
        told.shown = inspect(client, { depth: 9, showHidden: true }) + JSON.stringify(client);
        told.error = await client.release().catch((error) => inspect(error));
        const started = performance.now();
        told.given_up = await client.release({ signal: AbortSignal.timeout(50) }).catch((error) => error.name);
        told.took = performance.now() - started;
        told.dots = await client.user({ user_id: ".." }).catch((error) => error.message);
        for (const wrong of ["rk_hidden\\n", "rk hidden"]) {
          try {
            new Client(given.url, { apiKey: wrong });
          } catch (error) {
            told.bad = (told.bad ?? "") + error.message;
          }
        }
        """,
        key=KEY,
    )
    assert {seen.headers["authorization"] for seen in service.seen} == {f"Bearer {KEY}"} and len(service.seen) == 3
    assert service.url in told["shown"] and "401 some" in told["error"]
    assert told["given_up"] == "TimeoutError" and told["took"] < 5000
    assert told["dots"] == "user_id: .. cannot stand in an address"
    assert told["bad"].count("apiKey: a key has only visible ASCII characters") == 2
    assert "hidden" not in f"{told}"


@node.needs_tsc
def test_types_are_strict_and_refuse_what_the_service_would() -> None:
    assert node.TSC is not None
    options = ["--strict", "--noEmit", "--target", "es2022", "--module", "nodenext", "--lib", "es2022,dom"]
    file = Path(__file__).with_name("typed.ts")
    done = subprocess.run([node.TSC, *options, str(file)], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, "")
