"""Servers in processes of their own: starting them, calling them, and what they cost by /proc.

In: a command. Out: CPU time and memory of all processes of a server. Knows nothing about what is served.
"""

import http.client
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import contextmanager
from pathlib import Path

TICK_S = 1 / os.sysconf("SC_CLK_TCK")
ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
SERVICE = ["-m", "bentoml", "serve", "recops.serving.service:RecopsService", "--port"]
CONTROL = ["-m", "uvicorn", "--factory", "benchmarks.serving.control:control_app", "--no-access-log", "--port"]


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


def round_ms(port: int, pid: int, bodies: Sequence[bytes], path: str = "/recommend") -> float:
    """Server CPU milliseconds a request, for these bodies one after another on one connection."""
    connection = connect(port)
    before = cpu_seconds(pid)
    for body in bodies:
        assert send(connection, "POST", path, body) == 200
    spent = cpu_seconds(pid) - before
    connection.close()
    return spent / len(bodies) * 1000


def memory_mb(pid: int) -> float:
    """Resident memory of a server's processes; what they share counts once for each."""
    pages = sum(int(Path(f"/proc/{process}/statm").read_text().split()[1]) for process in processes(pid))
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6
