"""What the service promises while it is treated badly: one running service of two workers, with keys, signed releases.

Malformed calls, bodies without end, calls that take too long, more calls than it can take, keys, pickles, signatures,
and its own end. What it does under load for longer is measured by `python -m benchmarks.overload`.
"""

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any

import httpx
import pytest

from recops import signing
from recops.bundle import release_folder, sign_manifest
from recops.serving.keys import add_key, revoke_key
from tests.serving.certificates import write_certificate
from tests.serving.malformed import Sent, calls
from tests.serving.test_process import Server

pytestmark = pytest.mark.process
TIMEOUT_S, GRACE_S = 2.0, 2.0
JSON = {"content-type": "application/json"}
# Python looks for this module when it starts: every process of the service writes down what it unpickles.
WATCH = """
import os, sys
def watch(event, arguments):
    if event == "pickle.find_class":
        with open(os.environ["WATCHED"], "a") as file:
            file.write(f"{os.getpid()} {arguments[0]}.{arguments[1]}\\n")
sys.addaudithook(watch)
open(os.environ["WATCHED"], "a").write(f"{os.getpid()} watched\\n")
"""


class Guarded(Server):
    """With keys for each role, signed releases alone, and an eye on pickles."""

    def __init__(self, root: Path, make_bundle) -> None:
        self.watched, self.keys_file = root / "watched", root / "keys.json"
        self.sign_key = root / "sign.pem"
        public = signing.make_keys(self.sign_key)
        self.keys = {role: add_key(self.keys_file, role, role) for role in ("read", "write", "admin")}
        self.keys["limited"] = add_key(self.keys_file, "limited", "read", rate=4)
        (root / "watch").mkdir()
        (root / "watch" / "sitecustomize.py").write_text(WATCH)
        path = os.pathsep.join(filter(None, [str(root / "watch"), os.environ.get("PYTHONPATH")]))
        super().__init__(
            root,
            make_bundle,
            workers=2,
            PYTHONPATH=path,
            WATCHED=str(self.watched),
            RECOPS_KEYS_FILE=str(self.keys_file),
            RECOPS_VERIFY_KEY=str(public),
            RECOPS_TIMEOUT_S=str(TIMEOUT_S),
            RECOPS_GRACE_S=str(GRACE_S),
            RECOPS_MAX_CONCURRENCY="8",
        )

    def add(self, make_bundle, signed_by: Path | None = None, **facts) -> str:
        release = super().add(make_bundle, **facts)
        sign_manifest(release_folder(self.releases, release), signed_by or self.sign_key)
        return release

    def bearer(self, name: str = "admin") -> dict[str, str]:
        return {"authorization": f"Bearer {self.keys[name]}"}

    def rss(self) -> int:
        return sum(process.memory_info().rss for process in self.workers_now())

    def once(self, method: str, path: str, **options: Any) -> httpx.Response:
        """A call on a connection of its own, so that any worker may answer."""
        return httpx.request(method, f"{self.client.base_url}{path}", timeout=20, trust_env=False, **options)


@pytest.fixture(scope="module")
def guarded(tmp_path_factory, make_bundle):
    server = Guarded(tmp_path_factory.mktemp("guarded"), make_bundle)
    yield server
    if server.process.poll() is None:
        server.stop()


def check_problem(status: int, content: bytes, root: Path) -> None:
    problem = json.loads(content)
    assert set(problem) == {"error", "field", "message", "request_id"}, problem
    assert isinstance(problem["error"], str) and isinstance(problem["message"], str), problem
    assert problem["field"] is None or isinstance(problem["field"], str), problem
    assert re.fullmatch(r"[0-9a-f]{32}", problem["request_id"]), problem
    text = content.decode()
    assert not re.search(r"Traceback|File \\?\"|site-packages|\.py\b|sqlite3|pydantic", text), text
    assert str(root) not in text, text


def test_ten_thousand_malformed_calls(guarded) -> None:
    """0 answers of 5xx, each error of the one shape, and nothing of our insides in it."""
    description = guarded.client.get("/openapi.json", headers=guarded.bearer()).json()
    statuses: Counter[int] = Counter()
    # The few above the limit of bodies may be answered while they are still sent; they have a test of their own.
    small = (sent for sent in calls(description, 10_100, seed=20_260) if len(sent.body or b"") <= 1_000_000)
    # Made before the first is sent: a connection that waits for seconds meanwhile is closed by the server.
    lock, every = threading.Lock(), iter(list(islice(small, 10_000)))

    def one_after_the_other() -> None:
        with closing(http.client.HTTPConnection("127.0.0.1", guarded.port, timeout=20)) as connection:
            while True:
                with lock:
                    sent = next(every, None)
                if sent is None:
                    return
                status, content = send(connection, sent)
                statuses[status] += 1
                assert status < 500, (sent, content)
                if status != 200 and sent.method != "HEAD":
                    check_problem(status, content, guarded.root)

    def send(connection: http.client.HTTPConnection, sent: Sent) -> tuple[int, bytes]:
        connection.putrequest(sent.method, sent.path, skip_accept_encoding=True)
        for name, value in {**guarded.bearer(), **sent.headers}.items():
            connection.putheader(name, value)
        connection.putheader("content-length", str(len(sent.body or b"")))
        connection.endheaders(sent.body)
        answer = connection.getresponse()
        return answer.status, answer.read()

    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(one_after_the_other) for _ in range(2)]:
            done.result()
    assert sum(statuses.values()) == 10_000
    # Bent enough to be refused for every reason, and little enough to get past the reading of bodies.
    assert set(statuses) >= {200, 400, 401, 404, 405, 415} and statuses[200] > 500, statuses
    assert "Traceback" not in guarded.log.read_text()


def test_keys_and_roles(guarded) -> None:
    item = {"items": [{"item_id": "a", "price": 1.0}]}
    for name, status in (("read", 403), ("write", 200), ("admin", 200)):
        assert guarded.once("POST", "/items", json=item, headers=guarded.bearer(name)).status_code == status
    for path in ("/release", "/metrics", "/docs", "/nothing"):
        answer = guarded.once("GET", path)
        assert answer.status_code == 401
        check_problem(401, answer.content, guarded.root)
    assert guarded.once("GET", "/livez").status_code == guarded.once("GET", "/readyz").status_code == 200


def test_a_revoked_key_stops_in_every_worker(guarded) -> None:
    guarded.keys["gone"] = add_key(guarded.keys_file, "gone", "read")
    time.sleep(1)
    assert {guarded.once("GET", "/release", headers=guarded.bearer("gone")).status_code for _ in range(10)} == {200}
    revoke_key(guarded.keys_file, "gone")
    time.sleep(1)
    assert {guarded.once("GET", "/release", headers=guarded.bearer("gone")).status_code for _ in range(10)} == {401}


def test_a_key_has_its_rate_over_all_workers(guarded) -> None:
    start = time.monotonic()
    answers = [guarded.once("GET", "/release", headers=guarded.bearer("limited")) for _ in range(30)]
    passed = sum(answer.status_code == 200 for answer in answers)
    assert 1 <= passed <= 4 + 4 * (time.monotonic() - start)
    for answer in answers:
        if answer.status_code != 200:
            assert answer.status_code == 429 and int(answer.headers["retry-after"]) >= 1


def test_a_body_without_end_costs_no_memory(guarded) -> None:
    def chunks():
        for _ in range(60):
            yield b"x" * 1_000_000

    before, took = guarded.rss(), []
    for content in (b"x" * 60_000_000, chunks()):
        start = time.monotonic()
        try:
            answer = guarded.once("POST", "/recommend", content=content, headers={**JSON, **guarded.bearer()})
            assert answer.status_code == 413
            check_problem(413, answer.content, guarded.root)
        except httpx.WriteError:
            pass  # answered and closed while we were still sending
        took.append(time.monotonic() - start)
    # Said before the body is sent: by its length alone, and after the first byte too many.
    for head in (b"Content-Length: 2000000\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n100001\r\n" + b"x" * 0x100001):
        start = time.monotonic()
        with socket.create_connection(("127.0.0.1", guarded.port), timeout=20) as caller:
            key = f"Authorization: {guarded.bearer()['authorization']}\r\n".encode()
            caller.sendall(b"POST /recommend HTTP/1.1\r\nHost: localhost\r\n" + key + head)
            assert caller.recv(100).startswith(b"HTTP/1.1 413")
        took.append(time.monotonic() - start)
    assert guarded.rss() - before <= 10_000_000
    assert min(took[2:]) <= 0.1 and max(took) <= 5


def test_a_call_that_takes_too_long_ends_and_holds_nobody_up(guarded) -> None:
    """Twenty bodies that never come whole: each is given up in time, and the next good call is answered at once."""
    took, statuses = [], []

    def stuck() -> None:
        start = time.monotonic()
        with socket.create_connection(("127.0.0.1", guarded.port), timeout=20) as caller:
            key = f"Authorization: {guarded.bearer()['authorization']}\r\n"
            caller.sendall(f"POST /recommend HTTP/1.1\r\nHost: a\r\n{key}Content-Length: 9\r\n\r\n{{".encode())
            statuses.append(caller.recv(12).decode())
        took.append(time.monotonic() - start)

    callers = [threading.Thread(target=stuck) for _ in range(20)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    # Above the limit of calls at once they are turned away, and the others run out of time.
    assert set(statuses) == {"HTTP/1.1 408", "HTTP/1.1 429"}
    slow = [seconds for seconds, status in zip(took, statuses, strict=True) if status.endswith("408")]
    assert min(slow) <= TIMEOUT_S + 0.1 and max(slow) <= TIMEOUT_S + 1
    after = []
    for _ in range(5):
        start = time.monotonic()
        answer = guarded.once("POST", "/recommend", json={"user_id": "u1"}, headers=guarded.bearer())
        after.append(time.monotonic() - start)
        assert answer.status_code == 200
    assert min(after) <= 0.1


def test_above_the_limit_calls_are_turned_away_and_probes_are_not(guarded) -> None:
    body = {"requests": [{"user_id": "u1", "k": 1000}] * 256}
    answers, probes = [], []

    def call() -> None:
        for _ in range(3):
            answer = guarded.once("POST", "/recommend/batch", json=body, headers=guarded.bearer())
            answers.append((answer.status_code, answer.headers.get("retry-after")))

    callers = [threading.Thread(target=call) for _ in range(24)]
    for caller in callers:
        caller.start()
    while any(caller.is_alive() for caller in callers):
        probes.append(guarded.once("GET", "/readyz").status_code)
    assert set(answers) == {(200, None), (429, "1")}
    assert set(probes) == {200}
    assert guarded.once("POST", "/recommend", json={"user_id": "u1"}, headers=guarded.bearer()).status_code == 200


def test_only_signed_releases_are_served(guarded, make_bundle) -> None:
    def failed() -> float:
        text = guarded.client.get("/metrics", headers=guarded.bearer()).text
        found = re.search(r'^recops_release_loads_total\{outcome="failed"\} (\S+)$', text, re.MULTILINE)
        return float(found[1]) if found else 0.0

    other = guarded.root / "other.pem"
    signing.make_keys(other)
    unsigned = Server.add(guarded, make_bundle, metrics={"unsigned": 1})
    foreign = guarded.add(make_bundle, signed_by=other, metrics={"foreign": 1})
    before, now = failed(), guarded.ids[0]
    for number, bad in enumerate((unsigned, foreign), start=1):
        guarded.point(bad, now)
        now, until = bad, time.monotonic() + 10
        while failed() < before + 2 * number:  # by both workers
            assert time.monotonic() < until
            time.sleep(0.05)
        assert {guarded.fresh("/readyz")["release"] for _ in range(5)} == {guarded.ids[0]}
    guarded.point(guarded.ids[1], now)
    until = time.monotonic() + 10
    while {guarded.fresh("/readyz")["release"] for _ in range(5)} != {guarded.ids[1]}:
        assert time.monotonic() < until
    assert "manifest.sig" in guarded.log.read_text()


def test_nothing_is_unpickled_and_no_key_is_in_the_log(guarded) -> None:
    """After more than ten thousand calls, a pickle among them."""
    pickled = b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x02id\x85R."
    kind = {"content-type": "application/vnd.bentoml+pickle", **guarded.bearer()}
    answer = guarded.once("POST", "/recommend", content=pickled, headers=kind)
    assert answer.status_code == 415
    lines = [line.split(maxsplit=1) for line in guarded.watched.read_text().splitlines()]
    watched = {pid for pid, what in lines if what == "watched"}
    workers = {str(process.pid) for process in guarded.workers_now()}
    assert len(workers) == 2 and workers <= watched
    assert [what for _, what in lines if what != "watched"] == []
    # And it would be seen.
    script = "import pickle, collections; pickle.loads(pickle.dumps(collections.OrderedDict))"
    subprocess.run([sys.executable, "-c", script], env=guarded.environment, check=True)
    assert guarded.watched.read_text().endswith(" collections.OrderedDict\n")
    log = guarded.log.read_text()
    assert not any(key in log or key[3:] in log for key in guarded.keys.values())


def test_told_to_end_it_answers_for_a_while_yet(guarded) -> None:
    """Last, since it ends the service."""

    def half_sent() -> socket.socket:
        caller = socket.create_connection(("127.0.0.1", guarded.port), timeout=20)
        key = f"Authorization: {guarded.bearer()['authorization']}\r\n"
        head = f"POST /recommend HTTP/1.1\r\nHost: a\r\n{key}Content-Length: 17\r\n\r\n"
        caller.sendall(head.encode() + b'{"user_id"')
        return caller

    def finish(caller: socket.socket) -> bytes:
        with caller:
            caller.sendall(b': "u1"}')
            return caller.recv(12)

    first = half_sent()
    time.sleep(0.2)
    start = time.monotonic()
    os.kill(guarded.process.pid, signal.SIGTERM)
    while guarded.once("GET", "/readyz").status_code != 503:
        assert time.monotonic() < start + 1
    statuses = []
    while time.monotonic() < start + GRACE_S * 0.6:
        assert guarded.once("GET", "/readyz").status_code == 503
        statuses.append(
            guarded.once("POST", "/recommend", json={"user_id": "u1"}, headers=guarded.bearer()).status_code
        )
    assert set(statuses) == {200}
    assert finish(first) == b"HTTP/1.1 200"
    last = half_sent()
    time.sleep(start + GRACE_S + 0.4 - time.monotonic())
    assert finish(last) == b"HTTP/1.1 200"  # taken in the grace time, and answered after
    guarded.client.close()
    assert guarded.process.wait(30) == 0


def test_https(tmp_path, make_bundle) -> None:
    """With a certificate of our own, which the client is told to trust; without TLS there is no answer."""

    class Secure(Server):
        tls = (tmp_path / "cert.pem", tmp_path / "tls.pem")

    write_certificate(*Secure.tls)
    server = Secure(tmp_path, make_bundle)
    answer = server.client.post("/recommend", json={"user_id": "u1"})
    assert (answer.status_code, answer.url.scheme) == (200, "https")
    assert answer.headers["strict-transport-security"] == "max-age=31536000"
    with pytest.raises(httpx.TransportError):
        httpx.get(f"http://127.0.0.1:{server.port}/livez", trust_env=False)
    assert server.stop() == 0
