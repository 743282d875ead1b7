"""Server CPU a request: the service beside the control, and what each part of the service adds.

Ours and the control get the same bodies in turns, and so do the forms of ours that differ in one part each, so that a
busy machine favours none. The figure is CPU time of all processes of a server (utime and stime in /proc).
"""

import json
import random
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.serving.control import K, item_ids, make_bundle
from benchmarks.serving.load import open_loop, saturate
from benchmarks.serving.servers import CONTROL, ONE_THREAD, SERVICE, round_ms, server
from recops.ports import free_port
from recops.runtime import OnnxNetwork
from recops.store import open_store

SHAPES = ((64, 50), (128, 50), (128, 200))  # width, history
BATCH, CANDIDATES = 128, 1000
TARGETS = {"above_ms": 0.5, "score_ms": 3.0, "batch_times_cheaper": 5.0, "p99_over_p50": 3.0}
FILTERS = {"categories": [f"category {n}" for n in range(10)], "price": {"min": 10, "max": 90}, "available": True}


class Servers:
    """Running servers by name, each with its port and process: `control`, `service`, `bare`, which is the service
    without a store, and of `names` others `two`, which is the service with two workers."""

    def __init__(self, root: Path, stack: ExitStack, width: int, history: int, names: Sequence[str]) -> None:
        rng = random.Random(1)
        self.names, self.rng, self.history = item_ids(), rng, history
        release = make_bundle(root / "bundle", width, history)
        url = f"sqlite:///{root / 'store.sqlite'}"
        self.histories = [rng.sample(self.names, history) for _ in range(1000)]
        store = open_store(url)
        store.put_histories(release, ((f"user-{i}", items, None) for i, items in enumerate(self.histories)))
        store.close()
        own = {**ONE_THREAD, "BENTOML_HOME": str(root / "bentoml"), "BENTOML_DO_NOT_TRACK": "True"}
        own |= {"RECOPS_BUNDLE": str(root / "bundle"), "RECOPS_TIMEOUT_S": "30"}
        started = {
            "control": (CONTROL, "GET /", {**ONE_THREAD, "BENCHMARK_BUNDLE": str(root / "bundle")}),
            "bare": (SERVICE, "GET /readyz", own),
            "service": (SERVICE, "GET /readyz", {**own, "RECOPS_STORE": url}),
            "two": (SERVICE, "GET /readyz", {**own, "RECOPS_STORE": url, "RECOPS_WORKERS": "2"}),
        }
        self.encode = OnnxNetwork(root / "bundle" / "model.onnx")
        self.port, self.pid = {}, {}
        for name in names:
            command, probe, environment = started[name]
            port = self.port[name] = free_port()
            running = server([*command, str(port)], port, probe, environment, root / f"{name}.log")
            self.pid[name] = stack.enter_context(running)

    def cost(self, name: str, bodies: list[bytes], path: str = "/recommend") -> float:
        return round_ms(self.port[name], self.pid[name], bodies, path)

    def encoder_ms(self) -> float:
        """CPU milliseconds of the encoder alone, a history at a time, on one thread as in the service."""
        row_of = {name: row for row, name in enumerate(self.names, start=1)}
        rows = [np.array([[row_of[item] for item in items]], np.int64) for items in self.histories[:100]]
        started = time.process_time()
        for history_1L in rows:
            self.encode(history_1L)
        return (time.process_time() - started) / len(rows) * 1000


@contextmanager
def servers(width: int, history: int, names: Sequence[str]) -> Iterator[Servers]:
    with tempfile.TemporaryDirectory() as temporary, ExitStack() as stack:
        yield Servers(Path(temporary), stack, width, history, names)


def body(**values: Any) -> bytes:
    return json.dumps(values).encode()


def turns(running: Servers, num: int, num_rounds: int) -> dict[str, float]:
    """Median CPU milliseconds a request of each turn, and of the differences between turns of one round."""
    histories = (running.histories * (num // len(running.histories) + 1))[:num]
    given = [body(history=items, k=K) for items in histories]
    filtered = [body(history=items, k=K, filters=FILTERS) for items in histories]
    excluding = [body(history=items, k=K, exclude=running.names[:50]) for items in histories]
    stored = [body(user_id=f"user-{n % len(running.histories)}", k=K) for n in range(num)]
    few = max(1, num // 4)
    scored = [body(history=h, item_ids=running.rng.sample(running.names, CANDIDATES)) for h in histories[:few]]
    batches = [
        body(requests=[{"history": items, "k": K} for items in running.rng.sample(histories, BATCH)])
        for _ in range(max(1, num // BATCH))
    ]
    plan = {
        "control": ("control", given, "/recommend"),
        "bare": ("bare", given, "/recommend"),
        "service": ("service", given, "/recommend"),
        "filters": ("service", filtered, "/recommend"),
        "exclude": ("service", excluding, "/recommend"),
        "stored": ("service", stored, "/recommend"),
        "score": ("service", scored, "/score"),
        "batch": ("service", batches, "/recommend/batch"),
    }
    for name, bodies, path in plan.values():
        running.cost(name, bodies[:20], path)  # warms up
    rounds = [
        {"encoder": running.encoder_ms(), **{turn: running.cost(*sent) for turn, sent in plan.items()}}
        for _ in range(num_rounds)
    ]

    def median(of: Any) -> float:
        return round(statistics.median(of(row) for row in rounds), 4)

    return {
        **{f"{turn}_ms": median(lambda row, turn=turn: row[turn]) for turn in ("encoder", *plan)},
        "above_ms": median(lambda row: row["service"] - row["control"]),
        "over_control": median(lambda row: row["service"] / row["control"]),
        "answer_log_ms": median(lambda row: row["service"] - row["bare"]),
        "history_from_store_ms": median(lambda row: row["stored"] - row["service"]),
        "rules_ms": median(lambda row: row["filters"] - row["service"]),
        "exclude_50_ms": median(lambda row: row["exclude"] - row["service"]),
        "batch_ms_per_user": median(lambda row: row["batch"] / BATCH),
        "batch_times_cheaper": median(lambda row: row["service"] / (row["batch"] / BATCH)),
        "batch_times_cheaper_than_stored": median(lambda row: row["stored"] / (row["batch"] / BATCH)),
    }


def measure(quick: bool) -> dict[str, Any]:
    """For each of SHAPES the medians over rounds; target `above_ms`."""
    found: dict[str, Any] = {"targets": TARGETS, "batch": BATCH, "candidates": CANDIDATES}
    for width, history in SHAPES[: 1 if quick else None]:
        with servers(width, history, ("control", "bare", "service")) as running:
            numbers = turns(running, 128 if quick else 512, 2 if quick else 5)
        found[f"width {width}, history {history}"] = numbers
        print(f"width {width}, history {history}:")
        for name, value in numbers.items():
            print(f"  {name:32}{value:9.3f}")
    return found


def latency(quick: bool) -> dict[str, Any]:
    """Latencies under an open loop, with one worker and with two: requests come at random moments at half of capacity,
    whether or not the last is answered, and are timed from the moment they should have been sent."""
    width, history = SHAPES[0]
    seconds = 5.0 if quick else 20.0
    found: dict[str, Any] = {"target p99_over_p50": TARGETS["p99_over_p50"]}
    with servers(width, history, names := ("control", "service", "two")) as running:
        bodies = [body(history=items, k=K) for items in running.histories]
        for name in names:
            port = running.port[name]
            capacity = saturate(port, bodies, seconds / 4)
            rows = {}
            for share in (0.25, 0.5, 0.75):
                rows[str(share)] = open_loop(port, bodies, capacity * share, seconds)
                row = rows[str(share)]
                print(f"{name:8} {share:4.2f} of {capacity:5.0f}/s: {row}")
            found[name] = {"capacity_per_s": round(capacity, 1), "share_of_capacity": rows}
    return found
