"""Whether the service stays as it is over time: `python -m benchmarks.soak [--minutes 30] [--quick]`.

The real service (20,000 items, two workers, an SQLite store) gets every kind of call, some malformed, each on a
connection of its own, while the pointer moves between two releases every few seconds. What items are and what users do
changes all the time; the items are always the same, for a catalogue that grows takes memory rightly. Targets: no
answer of 5xx and no broken connection, no call with another status than it should have, no worker that ends, no release
that fails to load, and memory at the end at most a tenth above that after the warm-up. Memory is the proportional set
size (PSS) of all processes together, which counts shared pages once, as the median over a window: a release that is
being swapped in stands beside the old one for a moment. Prints a table and writes results/soak.json; `--quick` is the
form of two minutes that the tests run.
"""

import argparse
import asyncio
import itertools
import json
import random
import re
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from benchmarks.overload import Seen, send
from benchmarks.report import write_results
from benchmarks.serving.control import item_ids, make_bundle
from benchmarks.serving.servers import ONE_THREAD, SERVICE, connect, processes, server
from recops.bundle import ITEMS, Pointer, read_manifest, release_folder, write_manifest, write_pointer
from recops.ports import free_port
from recops.store import open_store

MINUTES, QUICK_MINUTES = 30.0, 2.0
NUM_ITEMS, WIDTH, HISTORY = 20_000, 32, 50
NUM_USERS, NUM_CHANGING = 500, 200
WORKERS, CALLERS, CALLS_PER_S = 2, 4, 20.0
SWAP_S, SAMPLE_S = 4.0, 1.0
MOST_GROWTH = 1.1
SHORTEST_S = 20.0  # windows of less hold too few samples

Call = tuple[str, str, bytes]
MALFORMED: list[Call] = [
    ("POST", "/recommend", b'{"user_id": '),
    ("POST", "/recommend", b'{"user_id": "u", "k": 0}'),
    ("POST", "/recommend", b'{"history": ["a"], "k": NaN}'),
    ("POST", "/recommend/batch", b'{"requests": []}'),
    ("POST", "/score", b'{"history": ["a"]}'),
    ("POST", "/similar", b"[" * 5000),
    ("POST", "/events", b'{"events": [{"user_id": "u"}]}'),
    ("POST", "/items", b"\xff\xfe"),
    ("POST", "/ask", b'{"question": ""}'),
    ("GET", "/nothing", b""),
    ("PUT", "/recommend", b"{}"),
]


class Traffic:
    """Calls by kind, drawn by their shares; the same sequence for the same seed."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.names = item_ids(NUM_ITEMS)
        # Of a hundred calls.
        self.shares: dict[str, tuple[int, Callable[[], Call]]] = {
            "recommend": (40, self._recommend),
            "batch": (5, self._batch),
            "similar": (10, self._similar),
            "score": (10, self._score),
            "ask": (5, self._ask),
            "events": (15, self._events),
            "items": (2, self._items),
            "users": (5, self._users),
            "release": (1, lambda: ("GET", "/release", b"")),
            "metrics": (1, lambda: ("GET", "/metrics", b"")),
            "malformed": (6, lambda: self.chance.choice(MALFORMED)),
        }

    def draw(self) -> tuple[str, Call]:
        """The kind of a call and the call."""
        kinds = list(self.shares)
        kind = self.chance.choices(kinds, [self.shares[kind][0] for kind in kinds])[0]
        return kind, self.shares[kind][1]()

    def _user(self) -> str:
        return f"user-{self.chance.randrange(NUM_USERS)}"

    def _some(self, number: int) -> list[str]:
        return self.chance.sample(self.names, number)

    def _recommendation(self) -> dict[str, Any]:
        forms: list[dict[str, Any]] = [
            {"user_id": self._user()},
            {"user_id": "nobody"},
            {"history": self._some(HISTORY)},
            {"user_id": self._user(), "explain": True},
            {"user_id": self._user(), "exclude": self._some(20), "filters": {"price": {"max": 40}, "available": True}},
            {"history": self._some(3), "filters": {"categories": ["category 3"]}, "k": 100},
        ]
        return self.chance.choice(forms)

    def _recommend(self) -> Call:
        return post("/recommend", **self._recommendation())

    def _batch(self) -> Call:
        return post("/recommend/batch", requests=[self._recommendation() for _ in range(8)])

    def _similar(self) -> Call:
        return post("/similar", item_id=self.chance.choice(self.names))

    def _score(self) -> Call:
        return post("/score", user_id=self._user(), item_ids=self._some(100))

    def _ask(self) -> Call:
        price, category = self.chance.randrange(1, 100), self.chance.randrange(20)
        return post("/ask", question=f"something of category {category} under {price} pounds", user_id=self._user())

    def _events(self) -> Call:
        now = time.time_ns() // 1_000_000
        kinds = ("view", "click", "purchase")
        told = [
            {"user_id": self._user(), "item_id": item_id, "event": self.chance.choice(kinds), "timestamp": now}
            for item_id in self._some(3)
        ]
        return post("/events", events=told)

    def _items(self) -> Call:
        names = self.chance.sample(self.names[:NUM_CHANGING], 5)
        return post("/items", items=[{"item_id": n, "price": float(self.chance.randrange(100))} for n in names])

    def _users(self) -> Call:
        return "GET", f"/users/{self._user()}", b""


def post(path: str, **body: Any) -> Call:
    return "POST", path, json.dumps(body).encode()


def pss_mb(pid: int) -> float:
    """Proportional set size of a process and all its descendants; one that has just ended counts nothing."""
    kilobytes = 0
    for process in processes(pid):
        with suppress(FileNotFoundError, ProcessLookupError):
            rollup = Path(f"/proc/{process}/smaps_rollup").read_text()
            kilobytes += int(re.findall(r"^Pss: +(\d+) kB", rollup, re.MULTILINE)[0])
    return kilobytes / 1000


def open_files(pid: int) -> int:
    return sum(len(list(Path(f"/proc/{process}/fd").iterdir())) for process in processes(pid))


async def call(port: int, traffic: Traffic, pause_s: float, seen: dict[str, Seen], until: float) -> None:
    """One caller: a call, a pause of `pause_s` on average, the next call."""
    while time.monotonic() < until:
        kind, (method, path, body) = traffic.draw()
        await send(port, method, path, body, seen[kind])
        await asyncio.sleep(traffic.chance.expovariate(1 / pause_s))


async def swap(releases: Path, ids: list[str], until: float) -> int:
    """Moves the pointer to and fro; how often."""
    turns = itertools.cycle([(ids[0], ids[1]), (ids[1], ids[0])])
    for number, (old, new) in enumerate(turns):
        await asyncio.sleep(SWAP_S)
        if time.monotonic() > until:
            return number
        await asyncio.to_thread(write_pointer, releases, Pointer(new), expected=old)
    raise AssertionError


async def sample(pid: int, until: float) -> list[tuple[float, float, int]]:
    """Seconds before the end, megabytes and open files, once in SAMPLE_S."""
    found = []
    while (now := time.monotonic()) < until:
        found.append((until - now, await asyncio.to_thread(pss_mb, pid), await asyncio.to_thread(open_files, pid)))
        await asyncio.sleep(SAMPLE_S)
    return found


async def measure(port: int, pid: int, releases: Path, ids: list[str], seconds: float, calls_per_s: float) -> dict:
    """Runs it for `seconds`; see `soak`."""
    traffic, until = Traffic(1), time.monotonic() + seconds
    seen = {kind: Seen() for kind in traffic.shares}
    before = processes(pid)
    callers = [call(port, traffic, CALLERS / calls_per_s, seen, until) for _ in range(CALLERS)]
    swaps, samples, *_ = await asyncio.gather(swap(releases, ids, until), sample(pid, until), *callers)
    # The first third, two minutes at most, warms up; what follows is compared with the end.
    warm_s, window_s = min(120.0, seconds / 3), min(60.0, seconds / 8)
    warm = [row for row in samples if 0 <= seconds - row[0] - warm_s < window_s]
    end = [row for row in samples if row[0] < window_s]
    memory = [statistics.median(row[1] for row in rows) for rows in (warm, end)]
    return {
        "seconds": seconds,
        "swaps": swaps,
        "calls": sum(sum(s.statuses.values()) for s in seen.values()),
        "memory_warm_mb": round(memory[0], 1),
        "memory_end_mb": round(memory[1], 1),
        "memory_highest_mb": round(max(row[1] for row in samples), 1),
        "memory_end_over_warm": round(memory[1] / memory[0], 4),
        "open_files_warm": int(statistics.median(row[2] for row in warm)),
        "open_files_end": int(statistics.median(row[2] for row in end)),
        "workers_that_ended": len(set(before) - set(processes(pid))),
        "kinds": {kind: figures(found) for kind, found in seen.items()},
        # Each minute, so that slow growth shows.
        "memory_mb_by_minute": [
            round(statistics.median(row[1] for row in rows), 1)
            for _, rows in itertools.groupby(samples, lambda row: int((seconds - row[0]) // 60))
            for rows in [list(rows)]
        ],
    }


def figures(seen: Seen) -> dict[str, Any]:
    statuses = {str(status): number for status, number in sorted(seen.statuses.items())}
    if not seen.seconds:
        return {"statuses": statuses}
    times = {f"p{share}_ms": round(seen.percentile_ms(share / 100), 1) for share in (50, 99)}
    return {"statuses": statuses, **times}


def errors(numbers: dict) -> list[str]:
    """What should not have been, in words; empty where all targets are met but that of memory."""
    found = []
    for kind, row in numbers["kinds"].items():
        for status, number in row["statuses"].items():
            is_right = 400 <= int(status) < 500 if kind == "malformed" else status == "200"
            if not is_right:
                found.append(f"{kind}: {number} times {'no answer' if status == '0' else status}")
    for name in ("workers_that_ended", "failed_loads", "tracebacks"):
        if numbers[name]:
            found.append(f"{name.replace('_', ' ')}: {numbers[name]}")
    return found


def figure(port: int, name: str) -> int:
    """A figure of all workers together from /metrics; 0 where none has counted it."""
    connection = connect(port)
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    connection.close()
    found = re.search(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE)
    return int(float(found[1])) if found else 0


def make_releases(releases: Path) -> list[str]:
    """Two releases, which differ in what items cost, and the pointer at the first; their ids."""
    first = make_bundle(releases / "new", WIDTH, HISTORY, NUM_ITEMS)
    release_folder(releases, first).parent.mkdir(parents=True)
    (releases / "new").rename(release_folder(releases, first))
    shutil.copytree(release_folder(releases, first), releases / "new")
    items = json.loads((releases / "new" / ITEMS).read_text(encoding="utf-8"))
    items["price"].reverse()
    (releases / "new" / ITEMS).write_text(json.dumps(items), encoding="utf-8")
    facts = {k: v for k, v in read_manifest(releases / "new").items() if k not in ("format_version", "files")}
    second = write_manifest(releases / "new", facts)
    (releases / "new").rename(release_folder(releases, second))
    write_pointer(releases, Pointer(first), expected=None)
    return [first, second]


def soak(root: Path, seconds: float, calls_per_s: float = CALLS_PER_S) -> dict:
    """Numbers of `seconds` of traffic at about so many calls a second; `root` is an empty folder to work in."""
    releases = root / "releases"
    releases.mkdir()
    ids = make_releases(releases)
    url, chance, names = f"sqlite:///{root / 'store.sqlite'}", random.Random(1), item_ids(NUM_ITEMS)
    store = open_store(url)
    for release in ids:
        store.put_histories(
            release, ((f"user-{n}", chance.sample(names, chance.randrange(HISTORY)), None) for n in range(NUM_USERS))
        )
    store.close()
    settings = {
        "BENTOML_HOME": str(root / "bentoml"),
        "BENTOML_DO_NOT_TRACK": "True",
        "RECOPS_RELEASES": str(releases),
        "RECOPS_STORE": url,
        "RECOPS_WORKERS": str(WORKERS),
        "RECOPS_GRACE_S": "0",
        # A machine that is busy with other things must not look like a service that fails.
        "RECOPS_TIMEOUT_S": "30",
        "RECOPS_MAX_LAG_S": "30",
    }
    port, log = free_port(), root / "log"
    with server([*SERVICE, str(port)], port, "GET /readyz", {**ONE_THREAD, **settings}, log) as pid:
        while figure(port, "recops_workers_ready") < WORKERS:
            time.sleep(0.1)
        numbers = asyncio.run(measure(port, pid, releases, ids, seconds, calls_per_s))
        loads = [figure(port, f'recops_release_loads_total{{outcome="{outcome}"}}') for outcome in ("loaded", "failed")]
    numbers |= {
        "loads": loads[0],
        "failed_loads": loads[1],
        "tracebacks": log.read_text(encoding="utf-8").count("Traceback"),
    }
    return {**numbers, "errors": errors(numbers), "num_items": NUM_ITEMS, "workers": WORKERS, "swap_s": SWAP_S}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=MINUTES, help=f"how long; default {MINUTES:g}")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_MINUTES:g} minutes")
    chosen = parser.parse_args()
    if 60 * chosen.minutes < SHORTEST_S:
        parser.error(f"--minutes: {SHORTEST_S:g} s at least")
    with tempfile.TemporaryDirectory() as temporary:
        numbers = soak(Path(temporary), 60 * (QUICK_MINUTES if chosen.quick else chosen.minutes))
    for name, value in numbers.items():
        if name == "kinds":
            for kind, row in value.items():
                print(f"  {kind:<24} {row}")
        else:
            print(f"{name:<26} {value}")
    print(f"results: {write_results('soak', numbers, chosen.quick)}")
    return int(bool(numbers["errors"]) or numbers["memory_end_over_warm"] > MOST_GROWTH)


if __name__ == "__main__":
    sys.exit(main())
