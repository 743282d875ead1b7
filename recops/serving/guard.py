"""What stands before every endpoint: who may call, how often, how many at once, how large and how slow a body may be.

An ASGI layer. It gives each request its id, says who calls, reads the whole body and hands all on in the scope; what it
refuses is answered as a Problem. Every answer gets the headers that keep a browser from guessing, framing and storing.
Knows nothing about the endpoints but which paths are probes.
"""

import asyncio
import math
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterable, MutableMapping
from ipaddress import ip_address
from time import monotonic
from typing import Any
from urllib.parse import urlsplit

from recops.serving import counters
from recops.serving.keys import Caller, KeyRing
from recops.serving.logs import log_access
from recops.serving.operation import json_bytes
from recops.serving.problems import Problem
from recops.serving.request_ids import current_request, new_request_id
from recops.serving.state import State

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

REQUEST_ID, BODY, DEADLINE, PATH = "recops.request_id", "recops.body", "recops.deadline", "recops.path"
CALLER, CALL = "recops.caller", "recops.call"
ANYBODY = "anybody"  # whoever is on this machine, where there are no keys
FEW = 4  # so many calls at once are taken however long they keep each other waiting
NEWEST, FORGET_S = 0.2, 2.0  # what the last call counts in what was seen lately; when half of that is forgotten

# For answers that do not say otherwise themselves.
HEADERS = {
    b"x-content-type-options": b"nosniff",
    b"x-frame-options": b"DENY",
    b"content-security-policy": b"default-src 'none'; frame-ancestors 'none'",
    b"cross-origin-resource-policy": b"same-origin",
    b"referrer-policy": b"no-referrer",
    b"cache-control": b"no-store",
}
TLS_HEADERS = {**HEADERS, b"strict-transport-security": b"max-age=31536000"}


def is_loopback(host: str) -> bool:
    """Whether an address can be reached from this machine only; False for a name other than localhost."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def is_foreign(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Whether a browser sends this for a page of another machine, which it does without asking anybody."""
    origin = next((value.decode("latin-1") for name, value in headers if name == b"origin"), None)
    try:
        return origin is not None and not is_loopback(urlsplit(origin).hostname or "")
    except ValueError:
        return True


def names_this_machine(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Whether the Host that was asked for is this machine. Browsers always send it, and another name there means a page
    of another host whose name was made to lead here (DNS rebinding)."""
    try:
        hosts = [urlsplit("//" + value.decode("latin-1")).hostname or "" for name, value in headers if name == b"host"]
    except ValueError:
        return False
    return all(map(is_loopback, hosts))


def answered_by(scope: Scope) -> str | None:
    """The release that a request was answered from; None where none was asked."""
    return scope[CALL].answered_by if CALL in scope else None


class Guard:
    """Wraps an ASGI app. `probes`: paths answered without a key and above the limit."""

    def __init__(self, app: Any, state: State, probes: Collection[str]) -> None:
        self.app, self.state = app, state
        self.settings = settings = state.settings
        self.probes = frozenset(probes)
        self.anybody = Caller(ANYBODY, "admin", settings.tenant)
        self.probe = Caller("probe", "read", settings.tenant)
        self.ring = KeyRing(settings.keys_file, settings.keys, settings.workers)
        self.limit = max(1, -(-settings.max_concurrency // settings.workers))
        self.num_in_flight = 0
        self.in_flight: Counter[str] = Counter()  # by tenant
        # Seconds that each call in flight keeps a new one waiting, as seen lately. A limit of calls alone does not hold
        # the time of an answer: 64 short lists are done in a moment, 64 batches in a minute.
        self.turn_s, self.turn_at = 0.0, monotonic()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        start = monotonic()
        scope[REQUEST_ID] = request_id = new_request_id()
        current_request.set(request_id)
        scope[DEADLINE] = start + self.settings.timeout_s
        status = 500
        added = TLS_HEADERS if scope.get("scheme") == "https" else HEADERS

        async def sending(message: MutableMapping[str, Any]) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                given = message["headers"] = list(message["headers"])
                names = {name for name, _ in given}
                given += [line for line in added.items() if line[0] not in names]
                if self.state.is_draining and b"connection" not in names:
                    given.append((b"connection", b"close"))  # the next call goes to whoever is ready
            await send(message)

        is_probe, tenant = scope["path"] in self.probes, None
        scope[CALLER] = self.probe
        if not is_probe:
            self.num_in_flight += 1
            counters.IN_FLIGHT.set(self.num_in_flight)
        try:
            if not is_probe:
                scope[CALLER] = caller = self._caller(scope)
                tenant = caller.tenant
                self.in_flight[tenant] += 1
                self._check_load(tenant)
                scope[BODY] = await self._read_body(scope, receive)
                before = monotonic()
                await asyncio.sleep(0)  # whatever else has arrived is counted before this request is worked on
                self._see_load(monotonic() - before)
            await self.app(scope, receive, sending)
        except Problem as problem:
            await send_problem(problem, request_id, sending)
        except ConnectionError:
            status = 499  # the caller has gone; there is nobody to answer
        finally:
            if tenant is not None:
                self.in_flight[tenant] -= 1
            if not is_probe:
                self.num_in_flight -= 1
                counters.IN_FLIGHT.set(self.num_in_flight)
            path = scope.get(PATH, "other")
            counters.REQUESTS.labels(path, str(status)).inc()
            seconds = monotonic() - start
            counters.SECONDS.labels(path).observe(seconds)
            if self.settings.access_log and not is_probe:
                log_access(answered_by(scope), scope["method"], path, status, seconds, request_id)

    def _caller(self, scope: Scope) -> Caller:
        """Who calls. Raises Problem 401 without a known key, 403 for one of another tenant, 429 above its rate."""
        if self.ring.is_open:
            client = scope.get("client")
            if client and not is_loopback(client[0]):
                raise Problem(403, "this service has no keys, so it answers on loopback only (`recops keys add`)")
            if not names_this_machine(scope["headers"]):
                raise Problem(403, "this service has no keys, so it answers only to the names of this machine", "Host")
            return self.anybody
        given = next((v for name, v in scope["headers"] if name == b"authorization"), b"")
        key = self.ring.caller(given)
        if key is None:
            raise Problem(401, "a key is needed: Authorization: Bearer KEY", headers={"WWW-Authenticate": "Bearer"})
        if key.tenant not in self.state.tenants:
            raise Problem(403, "this key is of another tenant")
        if (wait_s := self.ring.wait_s(key)) > 0:
            later = {"Retry-After": str(math.ceil(wait_s))}
            raise Problem(429, f"more than {key.rate:g} calls a second with this key", headers=later)
        return Caller(key.name, key.role, key.tenant)

    def _check_load(self, tenant: str) -> None:
        """Raises Problem 429 where too many calls are being answered, of all or of this tenant, or those make a new one
        wait too long."""
        later = {"Retry-After": "1"}
        if self.num_in_flight > self.limit:
            raise Problem(429, f"more than {self.limit} requests at once in this worker", headers=later)
        if self.in_flight[tenant] > (limit := -(-self.limit // len(self.state.tenants))):
            raise Problem(429, f"more than {limit} requests of this tenant at once in this worker", headers=later)
        if self.num_in_flight > FEW and self.num_in_flight * self._turn_now_s() > self.settings.max_lag_s:
            raise Problem(429, "this worker is busy with the calls that it has", headers=later)

    def _see_load(self, waited_s: float) -> None:
        self.turn_s = self._turn_now_s() * (1 - NEWEST) + waited_s / self.num_in_flight * NEWEST
        self.turn_at = monotonic()

    def _turn_now_s(self) -> float:
        # What was seen is half forgotten after a while: calls that only wait, for a language model or a disk, would
        # else keep out all others for as long.
        return self.turn_s * 0.5 ** ((monotonic() - self.turn_at) / FORGET_S)

    async def _read_body(self, scope: Scope, receive: Receive) -> bytes:
        limit = self.settings.max_body_bytes
        too_large = Problem(413, f"the body is larger than {limit} bytes", headers={"Connection": "close"})
        given = dict(scope["headers"])
        length = given.get(b"content-length", b"")
        if length and b"transfer-encoding" in given:  # where a request ends would be read one way here, another before
            raise Problem(400, "both Content-Length and Transfer-Encoding", headers={"Connection": "close"})
        if length.isdigit() and int(length[:20]) > limit:
            raise too_large
        parts, size = [], 0
        try:
            async with asyncio.timeout(self.settings.timeout_s):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise ConnectionError
                    parts.append(message.get("body", b""))
                    size += len(parts[-1])
                    if size > limit:
                        raise too_large
                    if not message.get("more_body", False):
                        return parts[0] if len(parts) == 1 else b"".join(parts)
        except TimeoutError:
            raise Problem(
                408, f"the body did not arrive within {self.settings.timeout_s:g} s", headers={"Connection": "close"}
            ) from None


async def send_problem(problem: Problem, request_id: str, send: Send) -> None:
    await send_answer(problem.status, json_bytes(problem.body(request_id)), request_id, send, problem.headers)


async def send_answer(
    status: int, body: bytes, request_id: str, send: Send, headers: MutableMapping[str, str] | None = None
) -> None:
    """A JSON answer in two messages."""
    lines = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"x-request-id", request_id.encode()),
    ]
    if headers:
        lines += [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": lines})
    await send({"type": "http.response.body", "body": body})
