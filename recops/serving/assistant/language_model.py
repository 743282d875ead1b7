"""The one way to a language model: OpenAI's protocol of chat completions over HTTP, whoever serves it.

In: messages. Out: a text, or LanguageModelError. Bounded in time (also against a server that sends a byte now and
then), in length and in calls at once; who comes above that is not kept waiting. Knows nothing about questions or items.
"""

import http.client
import json
import socket
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

MAX_ANSWER_BYTES = 1 << 20

Message = dict[str, str]


class LanguageModelError(Exception):
    """No text: `outcome` is `busy` (too many calls at once) or `failed`."""

    def __init__(self, message: str, outcome: str = "failed") -> None:
        super().__init__(message)
        self.outcome = outcome


@dataclass
class LanguageModel:
    """`url` is the server's base, such as http://127.0.0.1:8000/v1. Safe for threads."""

    url: str
    model: str
    key: str | None = None
    timeout_s: float = 5.0
    max_tokens: int = 96
    max_concurrency: int = 2
    understands: bool = False  # it may also propose what a question asks for
    _free: threading.BoundedSemaphore = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._free = threading.BoundedSemaphore(self.max_concurrency)

    def chat(self, messages: Sequence[Message]) -> str:
        """What the model says next, without blanks around it. Raises LanguageModelError."""
        if not self._free.acquire(blocking=False):
            raise LanguageModelError(f"{self.max_concurrency} calls are under way", "busy")
        try:
            return self._text(self._called(messages))
        finally:
            self._free.release()

    def _called(self, messages: Sequence[Message]) -> bytes:
        address = urlsplit(self.url)
        kind = http.client.HTTPSConnection if address.scheme == "https" else http.client.HTTPConnection
        body = json.dumps(
            {
                "model": self.model,
                "messages": list(messages),
                "max_tokens": self.max_tokens,
                "temperature": 0,
                "stream": False,
            }
        )
        headers = {"Content-Type": "application/json"}
        if self.key:
            headers["Authorization"] = f"Bearer {self.key}"
        connection: Any = None
        try:
            connection = kind(address.hostname or "", address.port, timeout=self.timeout_s)
            connection.connect()
            # The socket's own timeout begins anew with every byte; this one does not.
            watch = threading.Timer(self.timeout_s, _cut, [connection.sock])
            watch.daemon = True
            watch.start()
            try:
                connection.request("POST", f"{address.path.rstrip('/')}/chat/completions", body.encode(), headers)
                answer = connection.getresponse()
                told = answer.read(MAX_ANSWER_BYTES + 1)
            finally:
                watch.cancel()
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise LanguageModelError(f"{self.url}: no answer within {self.timeout_s:g} s ({error!r})") from None
        finally:
            if connection is not None:
                connection.close()
        if answer.status != 200:
            found = told[:200].decode("utf-8", "replace")
            raise LanguageModelError(f"{self.url}: answered {answer.status} {found}")
        if len(told) > MAX_ANSWER_BYTES:
            raise LanguageModelError(f"{self.url}: answered more than {MAX_ANSWER_BYTES} bytes")
        return told

    def _text(self, told: bytes) -> str:
        try:
            text = json.loads(told)["choices"][0]["message"]["content"]
        except (ValueError, KeyError, IndexError, TypeError, RecursionError):
            text = None
        if not isinstance(text, str):
            raise LanguageModelError(f"{self.url}: did not answer a chat completion")
        return text.strip()


def _cut(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
