"""Connections that only keep a worker waiting are ended, and others are not: uvicorn over real sockets."""

import asyncio
from contextlib import suppress

import pytest
from uvicorn import Config
from uvicorn.protocols.http import auto
from uvicorn.server import ServerState

from recops.serving.connections import watch, watched

CALL = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
LARGE = 20_000_000  # more than sockets hold


async def app(scope, receive, send) -> None:
    body = b"x" * LARGE if scope["path"] == "/large" else b"short"
    length = str(len(body)).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", length)]})
    await send({"type": "http.response.body", "body": body})


class Caller:
    """One connection; `ended` once the server has ended it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def ended(self) -> bool:
        try:
            while await self.reader.read(65536):
                pass
        except ConnectionResetError:
            pass
        return True


def serving(calls, **limits: float) -> None:
    """Runs `calls(connect, server)` against uvicorn with `limits`."""

    async def run() -> None:
        config = Config(app, timeout_keep_alive=60, log_config=None)
        config.load()
        state = ServerState()
        kind = watched(auto.AutoHTTPProtocol, look_s=0.02, **limits)
        loop = asyncio.get_running_loop()
        server = await loop.create_server(
            lambda: kind(config=config, server_state=state, app_state={}, _loop=loop), "127.0.0.1", 0
        )
        port = server.sockets[0].getsockname()[1]

        writers = []

        async def connect() -> Caller:
            caller = Caller(*await asyncio.open_connection("127.0.0.1", port))
            writers.append(caller.writer)
            return caller

        try:
            async with asyncio.timeout(20):
                await calls(connect, state)
        finally:
            server.close()
            for writer in writers:
                writer.close()
                with suppress(ConnectionError):
                    await writer.wait_closed()
            for connection in list(state.connections):
                connection.transport.abort()
            await asyncio.sleep(0.01)

    asyncio.run(run())


@pytest.mark.parametrize(
    ("calls_before", "sent"), [(0, b""), (0, b"GET / HTTP/1.1\r\nHost: a\r\n"), (1, b"GET / HT"), (2, b"G")]
)
def test_a_head_that_does_not_come_is_not_waited_for(calls_before: int, sent: bytes) -> None:
    async def calls(connect, state) -> None:
        caller = await connect()
        for _ in range(calls_before):
            caller.writer.write(CALL)
            await caller.reader.readuntil(b"short")
        caller.writer.write(sent)
        assert await caller.ended()
        assert not state.connections

    serving(calls, head_s=0.1)


def test_drop_by_drop_is_not_in_time() -> None:
    async def calls(connect, state) -> None:
        caller = await connect()

        async def drip() -> None:
            caller.writer.write(b"GET / HTTP/1.1\r\n")
            while True:
                caller.writer.write(b"X: y\r\n")
                await asyncio.sleep(0.01)

        dripping = asyncio.create_task(drip())
        assert await caller.ended()
        dripping.cancel()

    serving(calls, head_s=0.2)


def test_an_answer_that_nobody_takes_is_not_kept() -> None:
    async def calls(connect, state) -> None:
        caller = await connect()
        caller.writer.write(CALL.replace(b"/ ", b"/large ", 1))
        while not state.connections or not next(iter(state.connections)).transport.get_write_buffer_size():
            await asyncio.sleep(0.01)
        while state.connections:
            await asyncio.sleep(0.01)

    serving(calls, answer_s=0.2)


def test_who_calls_in_time_is_left_alone() -> None:
    """Also between two calls, where uvicorn has its own patience."""

    async def calls(connect, state) -> None:
        caller = await connect()
        for _ in range(3):
            caller.writer.write(CALL)
            assert (await caller.reader.readuntil(b"short")).startswith(b"HTTP/1.1 200")
            await asyncio.sleep(0.3)
        assert len(state.connections) == 1

    serving(calls, head_s=0.1, answer_s=0.1)


def test_the_server_takes_what_was_put_in_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    own = auto.AutoHTTPProtocol
    monkeypatch.setattr(auto, "AutoHTTPProtocol", own)  # put back at the end
    watch()
    config = Config(app, log_config=None)
    config.load()
    assert config.http_protocol_class is not own and issubclass(config.http_protocol_class, own)
    assert hasattr(config.http_protocol_class, "_look")
