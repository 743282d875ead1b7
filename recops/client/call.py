"""One call as bytes: what is sent, and what an answer means. Knows no connection and no operation."""

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Generic, Literal, TypeVar, cast
from urllib.parse import quote, urlencode

from recops.client.errors import AnswerError, ServiceError, error_of

T = TypeVar("T")


@dataclass(frozen=True)
class Call(Generic[T]):
    """`again`: when the same may be sent once more by itself: always; only where it was refused; never. `T`: what it
    answers, text where it `is_text`, else JSON."""

    verb: Literal["GET", "POST", "DELETE"]
    path: str
    again: Literal["always", "refused", "never"]
    is_text: bool = False

    def __str__(self) -> str:
        return f"{self.verb} {self.path}"


class Caller(ABC):
    @abstractmethod
    def _call(self, call: Call[T], given: Mapping[str, Any], timeout_s: float | None) -> T:
        """The answer to `call` with what is `given` of it: None is left out."""


class AsyncCaller(ABC):
    @abstractmethod
    async def _call(self, call: Call[T], given: Mapping[str, Any], timeout_s: float | None) -> T:
        """As `Caller._call`."""


def request_of(call: Call[Any], given: Mapping[str, Any]) -> tuple[str, bytes | None]:
    """Path with query string, and the body. Events without an id stay so: the service makes one of their content, the
    same each time they are sent.

    Raises ValueError for what is no JSON: NaN, half of a surrogate pair, a time without a zone.
    """
    rest = {name: value for name, value in given.items() if value is not None}
    path = call.path
    for name in [name for name in rest if f"{{{name}}}" in path]:
        # Points too: a path of "." or ".." would be another one.
        path = path.replace(f"{{{name}}}", quote(str(rest.pop(name)), safe="").replace(".", "%2E"))
    if call.verb != "POST":
        return (f"{path}?{urlencode(rest)}" if rest else path), None
    text = json.dumps(rest, ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_json)
    return path, text.encode()


def _json(value: object) -> Any:
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise ValueError(f"a time needs a zone, such as tzinfo=UTC: {value!r}")
        return value.isoformat()
    raise TypeError(f"not JSON: {type(value).__name__}")


def answer_of(call: Call[T], status: int, headers: Mapping[str, str], body: bytes) -> T:
    """What a call answers. Raises ServiceError for any status but 200, AnswerError where a 200 is no answer of it."""
    request_id = headers.get("x-request-id")
    try:
        text = body.decode()
        value = text if call.is_text and status == 200 else json.loads(text)
    except ValueError:
        value = None
    if status != 200:
        raise _failure(status, headers, value)
    if not call.is_text and not isinstance(value, dict):
        raise AnswerError(status, "no_answer", None, "the answer is no JSON object: not from the service?", request_id)
    return cast(T, value)


def _failure(status: int, headers: Mapping[str, str], value: Any) -> ServiceError:
    problem = value if isinstance(value, dict) else {}

    def text(name: str) -> str | None:
        found = problem.get(name)
        return found if isinstance(found, str) else None

    return error_of(status)(
        status,
        text("error") or "error",
        text("field"),
        text("message") or "an answer without a reason: not from the service itself?",
        text("request_id") or headers.get("x-request-id"),
        _seconds(headers.get("retry-after")),
    )


def _seconds(retry_after: str | None) -> float | None:
    """From seconds or a date; None for neither."""
    if retry_after is None:
        return None
    if retry_after.strip().isdecimal():
        return float(retry_after)
    try:
        return max((parsedate_to_datetime(retry_after) - datetime.now(UTC)).total_seconds(), 0.0)
    except (ValueError, TypeError):
        return None
