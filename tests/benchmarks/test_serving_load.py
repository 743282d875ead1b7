"""The open-loop driver sends every request and counts those that were refused."""

import asyncio
import threading
from collections.abc import Iterator

import pytest

from benchmarks.serving.load import open_loop, saturate


@pytest.fixture
def port() -> Iterator[int]:
    """A server that answers 200 to a body `yes`, and 429 to others."""
    loop, started = asyncio.new_event_loop(), threading.Event()
    ports = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length:")[2].split()[0])
                status = b"200 OK" if await reader.readexactly(length) == b"yes" else b"429 Too Many Requests"
                writer.write(b"HTTP/1.1 " + status + b"\r\ncontent-length: 2\r\n\r\n{}")
        except asyncio.IncompleteReadError:
            writer.close()
            await writer.wait_closed()

    async def run() -> None:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        ports.append(server.sockets[0].getsockname()[1])
        started.set()
        await done.wait()
        server.close()

    done = asyncio.Event()
    thread = threading.Thread(target=lambda: loop.run_until_complete(run()))
    thread.start()
    started.wait()
    yield ports[0]
    loop.call_soon_threadsafe(done.set)
    thread.join()
    loop.close()


def test_every_request_is_sent_and_refusals_are_counted(port: int) -> None:
    found = open_loop(port, [b"yes", b"no"], rate=400, seconds=0.5)
    assert (found["requests"], found["refused"]) == (200, 100)
    assert 0 < found["p50_ms"] <= found["p95_ms"] <= found["p99_ms"]


def test_a_server_that_refuses_has_no_capacity(port: int) -> None:
    assert saturate(port, [b"yes"] * 4, 0.1) > 0
    with pytest.raises(AssertionError):
        saturate(port, [b"no"] * 4, 0.1)
