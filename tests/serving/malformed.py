"""Calls that nobody should send: from our own OpenAPI by schemathesis, and those bent by a seeded hand.

schemathesis knows what a schema allows and what it forbids, and takes a second for a dozen of the latter. Bending what
it made is a thousand times quicker and reaches what no schema speaks of: broken JSON, depth, types of content.
"""

import json
import random
from collections.abc import Iterator
from typing import Any, NamedTuple

import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.strategies import SearchStrategy
from schemathesis import GenerationMode


class Sent(NamedTuple):
    method: str
    path: str
    headers: dict[str, str]
    body: bytes | None


# fmt: off
NASTY: list[Any] = [
    None, True, False, 0, -1, 1, 1.5, -0.0, 10**400, -(10**400), 2**63, -(2**63) - 1, 1e308, 5e-324,
    float("nan"), float("inf"), float("-inf"), "", " ", "\x00", "a\x00b", "\ud800", "\U0010ffff", "\u202e", "x" * 600,
    "x" * 100_001, "NaN", "null", "0", "../../etc/passwd", "file:///etc/passwd", "http://127.0.0.1/", "'; DROP TABLE x",
    "{{7*7}}", "%00", "2020-01-01", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "2020-13-45T99:99:99Z",
    "a", "b", ["a"], "u1", [], {}, [[]], [None], [{}], {"": None}, {"__proto__": 1}, ["a"] * 1001, [[[[[[[]]]]]]],
    {"a": {"b": {"c": {}}}},
]
RAW = [
    b"", b" ", b"null", b"[]", b"{}", b'"', b"{", b"}", b"[" * 50_000, b'{"a":' * 20_000, b"\xff\xfe",
    b"\xef\xbb\xbf{}",
    b"\x00", b"\x80\x04\x95.", b"<a/>", b"a=1&b=2", b"NaN", b"-", b"1e", b"[1,]", b'{"a":1,"a":2}', b"'a'", b"{}{}",
    b'{"k": ' + b"9" * 5000 + b"}", b'{"user_id": "\\ud800"}', b'{"user_id": "\\u0000"}', b"\x1f\x8b\x08", b"\n" * 999,
]
KINDS = [
    "text/plain", "application/xml", "application/vnd.bentoml+pickle", "multipart/form-data; boundary=x", "", ";",
    "application/json; charset=utf-7", "APPLICATION/JSON", "application/x-www-form-urlencoded", "a/b/c", "x" * 3000,
]
PATHS = [
    "/", "//", "/.", "/..", "/../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "/recommend/", "/recommend%00", "/%ff",
    "/%", "/recommend?user_id=1", "/recommend;x", "/users/%00", "/items/../recommend", "/" + "a" * 4000, "/RECOMMEND",
    "/favicon.ico", "/admin", "/recommend/batch/x", "/*", "/{id}", "/metrics/..", "/livez/x", "/docs/../../x",
]
# fmt: on
METHODS = ["GET", "PUT", "PATCH", "DELETE", "OPTIONS", "HEAD", "TRACE", "PROPFIND", "X", "POST"]
JSON = {"content-type": "application/json"}


def from_the_description(description: dict[str, Any], number: int) -> Iterator[tuple[Any, bool]]:
    """(case, whether the schema allows it), `number` of each kind for each call that has a body; always the same."""
    schema = schemathesis.openapi.from_dict(description)
    for found in schema.get_all_operations():
        operation = found.ok()
        if not operation.body:
            continue
        # What the schema of items forbids takes schemathesis most of a second each.
        num_forbidden = min(number, 2) if operation.path == "/items" else number
        for mode, examples in ((GenerationMode.POSITIVE, number), (GenerationMode.NEGATIVE, num_forbidden)):
            made = drawn(operation.as_strategy(generation_mode=mode), examples)
            yield from ((case, mode == GenerationMode.POSITIVE) for case in made)


def drawn(strategy: SearchStrategy[Any], number: int) -> list[Any]:
    """The first `number` examples of a strategy."""
    made: list[Any] = []

    @settings(
        max_examples=number,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def collect(case: Any) -> None:
        made.append(case)

    collect()
    return made


def encoded(value: Any) -> bytes:
    return value if isinstance(value, bytes) else json.dumps(value).encode()


def calls(description: dict[str, Any], number: int, seed: int) -> Iterator[Sent]:
    """`number` calls; the same for the same seed."""
    allowed: dict[str, list[Any]] = {}
    for case, is_allowed in from_the_description(description, 15):
        number -= 1
        if is_allowed and not isinstance(case.body, bytes):
            allowed.setdefault(case.path, []).append(case.body)
        yield Sent(case.method, case.formatted_path, dict(JSON), encoded(case.body))
    chance = random.Random(seed)
    paths = [path for path in allowed if path != "/items"]
    for _ in range(number):
        # Few of items: each that is taken is written to disk and put into the release.
        path = chance.choice(paths) if chance.random() > 0.02 else "/items"
        yield _bent(chance, path, chance.choice(allowed[path]))


def _bent(chance: random.Random, path: str, body: Any) -> Sent:
    kind = chance.random()
    headers, method = dict(JSON), "POST"
    if kind < 0.15:
        # As it is, or nearly: what the schema allows goes past the reading of bodies. Most of diversity is refused.
        body = {name: value for name, value in body.items() if name != "diversity"}
        content = encoded(body if kind < 0.1 else _changed(chance, body))
    elif kind < 0.70:
        content = encoded(_changed(chance, body))
        if kind > 0.60:
            content = _damaged(chance, content)
    elif kind < 0.80:
        content = chance.choice(RAW)
    elif kind < 0.86:
        headers, content = {"content-type": chance.choice(KINDS)}, encoded(body)
    elif kind < 0.92:
        path, content = chance.choice(PATHS), encoded(body)
    else:
        method, content = chance.choice(METHODS), encoded(body)
    if chance.random() < 0.1:
        odd = [("accept", "x/y"), ("range", "bytes=0-0"), ("content-encoding", "gzip"), ("expect", "x"), ("te", "x")]
        odd += [
            ("authorization", "Basic YQ=="),
            ("cookie", "a" * 2000),
            ("x-forwarded-host", "evil"),
            ("upgrade", "h2c"),
        ]
        name, value = chance.choice(odd)
        headers.setdefault(name, value)
    return Sent(method, path, headers, content)


def _changed(chance: random.Random, value: Any) -> Any:
    """The value with one place in it replaced, left out or added."""
    here = chance.random()
    if isinstance(value, dict) and value and here < 0.85:
        name = chance.choice(sorted(value))
        if here < 0.05:
            return {key: inner for key, inner in value.items() if key != name}
        if here < 0.12:
            return {**value, chance.choice(["more", "", "item_id", "\x00", "K"]): chance.choice(NASTY)}
        return {**value, name: _changed(chance, value[name])}
    if isinstance(value, list) and value and here < 0.7:
        place = chance.randrange(len(value))
        return [*value[:place], _changed(chance, value[place]), *value[place + 1 :]]
    return chance.choice(NASTY)


def _damaged(chance: random.Random, content: bytes) -> bytes:
    place = chance.randrange(len(content) + 1)
    if chance.random() < 0.5:
        return content[:place]
    return content[:place] + bytes([chance.randrange(256)]) + content[place + 1 :]
