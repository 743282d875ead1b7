"""What the service costs above a bare app that does the same arithmetic: `python -m benchmarks.serving [--quick]`.

Control: Starlette and uvicorn, one worker; the same SASRec encoder (width 64, history 50) on ONNX Runtime, the same
scoring of 100,000 items, the same search for the best 10. Ours: the real service, one worker, with its store. Both get
the same bodies, in turns; the figure is CPU time of all processes of a server (utime and stime in /proc) for each
request. Target: at most .7 ms above the control. Beside it, without a target: users whose history lies in the store.
Prints a table and writes results/serving.json.
"""

import argparse
import http.client
import json
import os
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np

from benchmarks.report import write_results
from recops.store import open_store

NUM_ITEMS, HISTORY, WIDTH, K = 100_000, 50, 64, 10
TARGET_MS = 0.7
TICK_S = 1 / os.sysconf("SC_CLK_TCK")
ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}


def control_app():
    """The bare app, over the bundle in BENCHMARK_BUNDLE; started by uvicorn as a factory."""
    from starlette.applications import Starlette
    from starlette.responses import JSONResponse
    from starlette.routing import Route

    from recops.runtime import OnnxNetwork
    from recops.topk import top_k

    folder = Path(os.environ["BENCHMARK_BUNDLE"])
    encode = OnnxNetwork(folder / "model.onnx")
    vectors_DN = np.load(folder / "item_vectors.npy").T
    ids = ["", *json.loads((folder / "items.json").read_text(encoding="utf-8"))["item_id"]]
    row_of = {item_id: row for row, item_id in enumerate(ids)}

    async def recommend(request):
        body = await request.json()
        history_1L = np.array([[row_of[item_id] for item_id in body["history"]]], np.int64)
        rows_1K, best_1K = top_k(encode(history_1L) @ vectors_DN, body["k"])
        best = zip(rows_1K[0].tolist(), best_1K[0].tolist(), strict=True)
        return JSONResponse({"items": [{"item_id": ids[row], "score": score} for row, score in best]})

    return Starlette(routes=[Route("/recommend", recommend, methods=["POST"])])


def make_bundle(folder: Path) -> str:
    """A SASRec of random weights over items without content, exported as training does; returns its release id."""
    from recops.models.sasrec import Sasrec
    from recops.release.export import export_bundle

    config = Sasrec.Config(embedding_dim=WIDTH, max_history=HISTORY)
    parts = Sasrec(config, num_users=1, num_items=NUM_ITEMS, seed=1).parts()
    ids = [f"item-{row:06d}" for row in range(1, NUM_ITEMS + 1)]
    nulls = [None] * NUM_ITEMS
    items = {"title": [f"Title {i}" for i in ids], "categories": nulls, "price": nulls, "available": nulls}
    facts = {"params": {}, "metrics": {}, "validation": {}, "inputs": {}, "data_watermark": None, "remove_seen": True}
    return export_bundle(
        parts,
        folder,
        items={"item_id": ids, **items, "published_at": nulls},
        fallback=np.arange(NUM_ITEMS + 1, dtype=np.float32),
        profile={},
        facts={"model": "sasrec", **facts},
        opset=20,
        max_links=1,
    )


def processes(pid: int) -> list[int]:
    """A process and all its descendants."""
    found = [pid]
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            found += processes(int(child))
    return found


def cpu_seconds(pid: int) -> float:
    """CPU time so far of a server's processes, to the hundredth of a second."""
    total = 0
    for process in processes(pid):
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total * TICK_S


@contextmanager
def server(command: list[str], port: int, probe: str, environment: dict[str, str], log: Path):
    """A running server's process id, once it answers the probe with 200."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, *command], env={**os.environ, **environment}, stdout=output, stderr=output
        )
    try:
        for _ in range(600):
            try:
                if send(connection := connect(port), *probe.split()) < 500:
                    break
            except OSError:
                pass
            finally:
                connection.close()
            assert process.poll() is None, log.read_text()
            time.sleep(0.1)
        else:
            raise TimeoutError(log.read_text())
        yield process.pid
    except OSError:
        print(log.read_text(), file=sys.stderr)
        raise
    finally:
        process.terminate()
        process.wait(30)


def connect(port: int) -> http.client.HTTPConnection:
    return http.client.HTTPConnection("127.0.0.1", port, timeout=30)


def send(connection: http.client.HTTPConnection, method: str, path: str, body: bytes | None = None) -> int:
    connection.request(method, path, body, {"Content-Type": "application/json"})
    answer = connection.getresponse()
    answer.read()
    return answer.status


def round_ms(port: int, pid: int, bodies: list[bytes]) -> float:
    """Server CPU milliseconds a request, for these bodies one after another on one connection."""
    connection = connect(port)
    before = cpu_seconds(pid)
    for body in bodies:
        assert send(connection, "POST", "/recommend", body) == 200
    spent = cpu_seconds(pid) - before
    connection.close()
    return spent / len(bodies) * 1000


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def measure(num_requests: int, num_rounds: int) -> list[dict[str, float]]:
    """One row a round: CPU milliseconds a request of control, service, and service with stored histories."""
    rng = random.Random(1)
    names = [f"item-{row:06d}" for row in range(1, NUM_ITEMS + 1)]
    histories = [rng.sample(names, HISTORY) for _ in range(num_requests)]
    bodies = [json.dumps({"history": history, "k": K}).encode() for history in histories]
    stored = [json.dumps({"user_id": f"user-{i}", "k": K}).encode() for i in range(num_requests)]
    with tempfile.TemporaryDirectory() as temporary, ExitStack() as stack:
        root = Path(temporary)
        release = make_bundle(root / "bundle")
        store = open_store(f"sqlite:///{root / 'store.sqlite'}")
        store.put_histories(release, ((f"user-{i}", history, None) for i, history in enumerate(histories)))
        store.close()
        ports = {"control": free_port(), "service": free_port()}
        control = ["-m", "uvicorn", "--factory", "benchmarks.serving:control_app", "--port", str(ports["control"])]
        service = ["-m", "bentoml", "serve", "recops.serving.service:RecopsService", "--port", str(ports["service"])]
        settings = {
            "BENTOML_HOME": str(root / "bentoml"),
            "BENTOML_DO_NOT_TRACK": "True",
            "RECOPS_BUNDLE": str(root / "bundle"),
            "RECOPS_STORE": f"sqlite:///{root / 'store.sqlite'}",
        }
        pids = {
            "control": stack.enter_context(
                server(
                    [*control, "--no-access-log"],
                    ports["control"],
                    "GET /",
                    {**ONE_THREAD, "BENCHMARK_BUNDLE": str(root / "bundle")},
                    root / "control.log",
                )
            ),
            "service": stack.enter_context(
                server(service, ports["service"], "GET /readyz", {**ONE_THREAD, **settings}, root / "service.log")
            ),
        }
        for name in pids:
            round_ms(ports[name], pids[name], bodies[:100])
        turns = {"control": ("control", bodies), "service": ("service", bodies), "stored": ("service", stored)}
        return [
            {turn: round_ms(ports[name], pids[name], sent) for turn, (name, sent) in turns.items()}
            for _ in range(num_rounds)
        ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer requests, under a minute")
    quick = parser.parse_args().quick
    rows = measure(num_requests=300 if quick else 1000, num_rounds=3 if quick else 7)
    above = [row["service"] - row["control"] for row in rows]
    print(f"{'round':>5} {'control ms':>11} {'service ms':>11} {'above ms':>9} {'stored ms':>10}")
    for number, (row, difference) in enumerate(zip(rows, above, strict=True), start=1):
        print(f"{number:>5} {row['control']:>11.3f} {row['service']:>11.3f} {difference:>9.3f} {row['stored']:>10.3f}")
    numbers = {
        **{f"{turn}_ms": statistics.median(row[turn] for row in rows) for turn in rows[0]},
        "above_ms": statistics.median(above),
        "target_ms": TARGET_MS,
        "num_items": NUM_ITEMS,
        "history": HISTORY,
        "width": WIDTH,
    }
    print(f"median: {numbers['above_ms']:.3f} ms above the control (target {TARGET_MS})")
    print(f"results: {write_results('serving', numbers, quick)}")


if __name__ == "__main__":
    main()
