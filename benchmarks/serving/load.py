"""An open-loop driver: requests leave at the moments of a Poisson process, whatever the server does.

A closed loop waits for an answer before it asks again, so that it never sees the queue that it makes. Latency is from
the moment a request should have left. Knows HTTP/1.1 with a length, and nothing else.
"""

import asyncio
import random
import time
from collections.abc import Sequence
from contextlib import suppress
from itertools import cycle, islice

import numpy as np

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def _ask(connection: Connection, body: bytes) -> int:
    reader, writer = connection
    head = "POST /recommend HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    head += f"Content-Length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)
    lines = (await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")
    length = next(int(line.split(b":")[1]) for line in lines if line.lower().startswith(b"content-length"))
    await reader.readexactly(length)
    return int(lines[0].split()[1])


async def _close(connection: Connection) -> None:
    connection[1].close()
    with suppress(ConnectionError):
        await connection[1].wait_closed()


def saturate(port: int, bodies: Sequence[bytes], seconds: float, num_connections: int = 4) -> float:
    """Answers a second with `num_connections` callers that ask again as soon as they are answered."""

    async def caller(bodies: Sequence[bytes], until: float) -> int:
        connection = await asyncio.open_connection("127.0.0.1", port)
        try:
            for num, body in enumerate(cycle(bodies)):
                if time.monotonic() > until:
                    return num
                assert await _ask(connection, body) == 200
        finally:
            await _close(connection)
        raise AssertionError("no bodies")

    async def all_of_them() -> float:
        started = time.monotonic()
        parts = (bodies[n::num_connections] for n in range(num_connections))
        counts = await asyncio.gather(*(caller(part, started + seconds) for part in parts))
        return sum(counts) / (time.monotonic() - started)

    return asyncio.run(all_of_them())


def open_loop(port: int, bodies: Sequence[bytes], rate: float, seconds: float, seed: int = 0) -> dict[str, float]:
    """Milliseconds from when requests should have left, at `rate` a second: p50, p95, p99; `refused` counts answers
    other than 200, `p99_over_p50` is what the target speaks of."""

    async def run() -> tuple[list[float], int]:
        rng = random.Random(seed)
        free: list[Connection] = [await asyncio.open_connection("127.0.0.1", port) for _ in range(8)]
        latencies, refused = [], 0
        tasks: set[asyncio.Task[None]] = set()

        async def one(body: bytes, due: float) -> None:
            nonlocal refused
            while True:
                connection = free.pop() if free else await asyncio.open_connection("127.0.0.1", port)
                try:
                    status = await _ask(connection, body)
                    break
                except (asyncio.IncompleteReadError, ConnectionError):
                    await _close(connection)  # was idle for so long that the server had closed it
            latencies.append(time.monotonic() - due)
            refused += status != 200
            free.append(connection)

        due = time.monotonic() + 0.1
        for body in islice(cycle(bodies), int(rate * seconds)):
            due += rng.expovariate(rate)
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            task = asyncio.create_task(one(body, due))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        await asyncio.gather(*tasks)
        for connection in free:
            await _close(connection)
        return latencies, refused

    latencies, refused = asyncio.run(run())
    p50, p95, p99 = (1000 * np.percentile(latencies, [50, 95, 99])).round(3).tolist()
    return {
        "rate_per_s": round(rate, 1),
        "requests": len(latencies),
        "p50_ms": p50,
        "p95_ms": p95,
        "p99_ms": p99,
        "p99_over_p50": round(p99 / p50, 2),
        "refused": refused,
    }
