"""What the service does with ten times the calls it can take: `python -m benchmarks.overload [--quick]`.

The service of benchmarks/serving (100,000 items, one worker) is asked for batches of 8 lists: one at a time, which
gives its capacity, then at ten times that whether or not answers come (open loop, a connection each), then again one
at a time. Targets: only 200 and 429, each 429 with Retry-After, every probe 200 within 100 ms, memory at most a tenth
more, what is accepted answered within twice the time without load (the 99th of a hundred of both), and that time back
within five seconds. Probes are sent by a process of their own, as they would be; the callers share the server's cores,
so it is told how much of one they take and how late their calls leave. Prints a table and writes results/overload.json.
"""

import argparse
import asyncio
import json
import multiprocessing
import random
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Event
from pathlib import Path

import numpy as np
import psutil

from benchmarks.report import write_results
from benchmarks.serving.control import NUM_ITEMS, K, item_ids, make_bundle
from benchmarks.serving.servers import ONE_THREAD, SERVICE, processes, server
from recops.ports import free_port

WIDTH, HISTORY = 64, 50
LISTS, FACTOR, TIMEOUT_S = 8, 10, 2.0


@dataclass
class Seen:
    """Answers to one kind of call: how many of each status, and seconds to those accepted."""

    statuses: Counter[int] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)
    without_retry_after: int = 0
    late_s: list[float] = field(default_factory=list)  # by which calls left after they should have

    def percentile_ms(self, share: float) -> float:
        return float(np.quantile(self.seconds, share)) * 1000


async def send(port: int, method: str, path: str, body: bytes, seen: Seen) -> None:
    """One call on a connection of its own."""
    start = time.monotonic()
    head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\n"
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(head.encode() + f"Content-Length: {len(body)}\r\n\r\n".encode() + body)
        answer = await reader.read()
        writer.close()
        status = int(answer[9:12])
    except (OSError, ValueError):
        seen.statuses[0] += 1  # no answer
        return
    seen.statuses[status] += 1
    if status == 200:
        seen.seconds.append(time.monotonic() - start)
    elif b"\r\nretry-after: " not in answer:
        seen.without_retry_after += 1


async def one_at_a_time(port: int, bodies: list[bytes], duration_s: float) -> Seen:
    seen, until = Seen(), time.monotonic() + duration_s
    while time.monotonic() < until:
        await send(port, "POST", "/recommend/batch", random.choice(bodies), seen)
    return seen


def probe(port: int, halt: Event, found: "Queue[Seen]") -> None:
    async def probes() -> Seen:
        seen = Seen()
        while not halt.is_set():
            await send(port, "GET", "/readyz", b"", seen)
            await asyncio.sleep(0.1)
        return seen

    found.put(asyncio.run(probes()))


async def open_loop(port: int, bodies: list[bytes], rate: float, duration_s: float) -> Seen:
    """Calls at `rate` a second, whatever comes back."""
    seen, start, calls = Seen(), time.monotonic(), set()
    for number in range(int(rate * duration_s)):
        await asyncio.sleep(max(0.0, start + number / rate - time.monotonic()))
        seen.late_s.append(time.monotonic() - start - number / rate)
        call = asyncio.create_task(send(port, "POST", "/recommend/batch", random.choice(bodies), seen))
        calls.add(call)
        call.add_done_callback(calls.discard)
    await asyncio.gather(*calls)
    return seen


def rss(pid: int) -> int:
    return sum(psutil.Process(process).memory_info().rss for process in processes(pid))


async def measure(port: int, pid: int, bodies: list[bytes], duration_s: float) -> dict:
    await one_at_a_time(port, bodies, 2)
    alone = await one_at_a_time(port, bodies, 5)
    capacity = len(alone.seconds) / 5
    memory, spawn = rss(pid), multiprocessing.get_context("spawn")
    halt, found = spawn.Event(), spawn.Queue()
    probing = spawn.Process(target=probe, args=(port, halt, found))
    probing.start()
    began, spent = time.monotonic(), time.process_time()
    loaded = await open_loop(port, bodies, FACTOR * capacity, duration_s)
    share = (time.process_time() - spent) / (time.monotonic() - began)
    halt.set()
    probes = await asyncio.to_thread(found.get)
    probing.join()
    grown = rss(pid) / memory - 1
    after = await one_at_a_time(port, bodies, 5)
    return {
        "capacity_per_s": capacity,
        "offered_per_s": FACTOR * capacity,
        "statuses": {str(status): number for status, number in sorted(loaded.statuses.items())},
        "429_without_retry_after": loaded.without_retry_after,
        "accepted_per_s": loaded.statuses[200] / duration_s,
        "alone_p50_ms": alone.percentile_ms(0.5),
        "alone_p99_ms": alone.percentile_ms(0.99),
        "accepted_p50_ms": loaded.percentile_ms(0.5),
        "accepted_p99_ms": loaded.percentile_ms(0.99),
        "accepted_over_alone_p99": loaded.percentile_ms(0.99) / alone.percentile_ms(0.99),
        "callers_share_of_a_core": share,
        "callers_late_p99_ms": float(np.quantile(loaded.late_s, 0.99)) * 1000,
        "after_p50_ms": after.percentile_ms(0.5),
        "after_p99_ms": after.percentile_ms(0.99),
        "probe_statuses": {str(status): number for status, number in sorted(probes.statuses.items())},
        "probe_p99_ms": probes.percentile_ms(0.99),
        "probe_longest_ms": probes.percentile_ms(1.0),
        "memory_growth": grown,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="ten seconds of load instead of thirty")
    quick = parser.parse_args().quick
    rng = random.Random(1)
    names = item_ids()
    lists = [[{"history": rng.sample(names, HISTORY), "k": K} for _ in range(LISTS)] for _ in range(100)]
    bodies = [json.dumps({"requests": some}).encode() for some in lists]
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        make_bundle(root / "bundle", WIDTH, HISTORY)
        port = free_port()
        command = [*SERVICE, str(port)]
        settings = {
            "BENTOML_HOME": str(root / "bentoml"),
            "BENTOML_DO_NOT_TRACK": "True",
            "RECOPS_BUNDLE": str(root / "bundle"),
            "RECOPS_TIMEOUT_S": str(TIMEOUT_S),
            "RECOPS_GRACE_S": "0",
        }
        with server(command, port, "GET /readyz", {**ONE_THREAD, **settings}, root / "log") as pid:
            numbers = asyncio.run(measure(port, pid, bodies, 10 if quick else 30))
    for name, value in numbers.items():
        print(f"{name:<26} {value:.3f}" if isinstance(value, float) else f"{name:<26} {value}")
    numbers |= {"num_items": NUM_ITEMS, "lists_per_call": LISTS, "timeout_s": TIMEOUT_S}
    print(f"results: {write_results('overload', numbers, quick)}")


if __name__ == "__main__":
    main()
