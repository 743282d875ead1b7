"""The service as it runs: real BentoML processes, real HTTP, real kills."""

import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import httpx
import psutil
import pytest

from recops.bundle import Pointer, release_folder, write_pointer
from recops.ports import free_port
from recops.store import open_store

pytestmark = pytest.mark.process

START = (
    "import os, sys; from pathlib import Path; from recops.serving.launch import serve; "
    "releases, store, port, workers, *tls = sys.argv[1:]; tls = tuple(map(Path, tls)) or None; "
    "serve(Path(releases), None, store, '127.0.0.1', int(port), int(workers), dict(os.environ), tls)"
)
NOT_IN_THE_SERVICE = {"torch", "prefect", "dvc", "great_expectations", "pandas", "polars", "pyarrow", "duckdb", "typer"}


class Server:
    """`recops serve` over a folder of two releases, the first promoted, with a store that knows user `u1`."""

    tls: tuple[Path, ...] = ()  # files of a certificate and its key

    def __init__(
        self, root: Path, make_bundle, workers: int = 1, store_url: str | None = None, **environment: str
    ) -> None:
        self.root, self.workers = root, workers
        self.releases = root / "releases"
        self.ids = [self.add(make_bundle, remove_seen=True), self.add(make_bundle, remove_seen=False)]
        write_pointer(self.releases, Pointer(self.ids[0]), expected=None)
        self.store_url = store_url or f"sqlite:///{root / 'store.sqlite'}"
        store = open_store(self.store_url)
        for release in self.ids:
            store.put_histories(release, [("u1", ["a"], None)])
        store.close()
        self.port = free_port()
        self.environment = {**os.environ, "BENTOML_HOME": str(root / "bentoml"), "RECOPS_GRACE_S": "0", **environment}
        self.log = root / "log"
        self.start()

    def add(self, make_bundle, **facts) -> str:
        release = make_bundle(self.root / "new", **facts)
        release_folder(self.releases, release).parent.mkdir(parents=True, exist_ok=True)
        (self.root / "new").rename(release_folder(self.releases, release))
        return release

    def point(self, release: str, expected: str) -> None:
        write_pointer(self.releases, Pointer(release), expected=expected)

    def start(self) -> None:
        arguments = [str(self.releases), self.store_url, str(self.port), str(self.workers), *map(str, self.tls)]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", START, *arguments], env=self.environment, stdout=log, stderr=log
            )
        trusted = ssl.create_default_context(cafile=str(self.tls[0])) if self.tls else False
        url = f"http{'s' * bool(self.tls)}://127.0.0.1:{self.port}"
        self.client = httpx.Client(base_url=url, timeout=20, trust_env=False, verify=trusted)
        for _ in range(600):
            try:
                if self.client.get("/readyz").status_code == 200:
                    return
            except httpx.TransportError:
                pass
            assert self.process.poll() is None, self.log.read_text()
            time.sleep(0.1)
        raise TimeoutError(self.log.read_text())

    def fresh(self, path: str) -> dict:
        """A GET on a connection of its own, so that any worker may answer."""
        return httpx.get(f"http://127.0.0.1:{self.port}{path}", timeout=20, trust_env=False).json()

    def figure(self, name: str) -> float:
        """A figure of all workers, by its name and labels as /metrics writes them."""
        text = self.client.get("/metrics").text
        return float(re.search(rf"^{re.escape(name)} (.+)$", text, re.MULTILINE)[1])

    def workers_now(self) -> list[psutil.Process]:
        found = psutil.Process(self.process.pid).children(recursive=True)
        return [p for p in found if "--worker-id" in " ".join(p.cmdline())]

    def stop(self) -> int:
        self.client.close()
        self.process.terminate()
        return self.process.wait(30)


@pytest.fixture(scope="module")
def server(tmp_path_factory, make_bundle):
    root = tmp_path_factory.mktemp("server")
    logs = {"RECOPS_LOG_FORMAT": "json", "RECOPS_ACCESS_LOG": "1"}
    server = Server(root, make_bundle, workers=2, PYTHONPROFILEIMPORTTIME="1", **logs)
    yield server
    assert server.stop() == 0


def test_every_endpoint_answers(server):
    client = server.client
    answer = client.post("/recommend", json={"user_id": "u1", "k": 2}).json()
    assert ([i["item_id"] for i in answer["items"]], answer["source"]) == (["b", "c"], "model")
    batch = client.post("/recommend/batch", json={"requests": [{"history": ["b"]}]}).json()
    assert batch["responses"][0]["source"] == "cold-start"
    assert client.post("/score", json={"history": ["b"], "item_ids": ["c"]}).json()["scores"][0]["score"] == 1.0
    assert client.post("/similar", json={"item_id": "b"}).json()["items"][0]["item_id"] == "c"
    assert client.get("/release").json()["release"] == answer["release"]
    assert client.get("/livez").status_code == client.get("/readyz").status_code == 200
    assert "recops_requests_total" in client.get("/metrics").text
    assert "POST /recommend" in client.get("/docs").text
    assert "/recommend" in client.get("/docs.json").json()["paths"]
    store = open_store(server.store_url)
    until = time.monotonic() + 1
    while store.answer(answer["request_id"]) is None and time.monotonic() < until:
        time.sleep(0.05)
    assert store.answer(answer["request_id"])["user_id"] == "u1"
    store.close()


def test_questions_hold_their_constraints_whichever_worker_answers(server):
    def ask(question: str, *conversation: tuple[str, list[str]], **more) -> list[str]:
        turns = [{"question": text, "items": items} for text, items in conversation]
        body = {"question": question, "conversation": turns, **more}
        # A connection of its own, so that no worker has heard the question before.
        answer = httpx.post(f"{server.client.base_url}/ask", json=body, timeout=20, trust_env=False)
        assert answer.status_code == 200, answer.text
        return [item["item_id"] for item in answer.json()["items"]]

    first = "something of x under 4 pounds"
    for _ in range(4):
        shown = ask(first)
        assert shown == ["a", "b"]
        assert ask("only those of y", (first, shown)) == ["b"]
        assert ask("cheaper", (first, ["b"])) == ["a"]
        assert ask("why the second?", (first, shown)) == ["b"]
        assert ask(first, user_id="u1") == ["b"]  # has seen a
    wrong = server.client.post("/ask", json={"question": "\u0000"})
    assert (wrong.status_code, wrong.json()["field"]) == (400, "question")


def test_a_question_whose_asker_has_gone_keeps_nobody_waiting(server):
    body = b'{"question": "something of x"}'
    lines = ("POST /ask HTTP/1.1", "Host: localhost", "Content-Type: application/json", f"Content-Length: {len(body)}")
    head = "\r\n".join((*lines, "", ""))
    for _ in range(20):
        with socket.create_connection(("127.0.0.1", server.port), timeout=20) as gone:
            gone.sendall(head.encode() + body)
    for _ in range(4):
        answer = httpx.post(f"{server.client.base_url}/ask", json={"question": "something of x"}, trust_env=False)
        assert answer.json()["items"][0]["item_id"] == "a"


def test_figures_are_of_all_workers(server):
    figure = server.figure
    lists, written = "recops_list_items_count", 'recops_answers_total{outcome="logged"}'
    before = figure(lists), figure(written)
    releases = set()
    for _ in range(20):  # each on a connection of its own, so that any worker may answer
        answer = httpx.post(f"{server.client.base_url}/recommend", json={"user_id": "u1"}, trust_env=False)
        releases.add(answer.json()["release"])
    assert figure(lists) == before[0] + 20
    until = time.monotonic() + 5
    while figure(written) != before[1] + 20:
        assert time.monotonic() < until
        time.sleep(0.05)
    assert (figure("recops_workers"), figure("recops_workers_ready")) == (2, 2)
    assert figure('recops_log_written_timestamp_seconds{log="answers"}') == pytest.approx(time.time(), abs=10)
    info = re.search('recops_release_info{.*release="([0-9a-f]+)",tenant="main"} 1', server.client.get("/metrics").text)
    assert {info[1]} == releases


def test_every_line_of_the_log_is_json_and_calls_have_one_each(server):
    answer = server.client.post("/recommend", json={"user_id": "nobody-knows"}).json()
    until, mine = time.monotonic() + 5, []
    while not mine:  # the line is written once the answer is out
        assert time.monotonic() < until
        lines = [line for line in server.log.read_text().split("\n")[:-1] if not line.startswith("import time:")]
        entries = [json.loads(line) for line in lines]
        mine = [entry for entry in entries if entry.get("request_id") == answer["request_id"]]
    assert {"bentoml.serve", "recops.access"} <= {entry["logger"] for entry in entries}
    (mine,) = mine
    assert (mine["method"], mine["path"], mine["status"]) == ("POST", "/recommend", 200)
    assert mine["release"] == answer["release"]
    assert not any("nobody-knows" in line for line in lines)


def test_bad_calls_are_refused_in_one_shape(server):
    large = b"x" * 2_000_000
    kind = {"content-type": "application/json"}
    answers = {
        400: server.client.post("/recommend", content=b'{"user_id": NaN}', headers=kind),
        404: server.client.get("/nothing"),
        405: server.client.get("/recommend"),
        413: server.client.post("/recommend", content=large, headers=kind),
        415: server.client.post("/recommend", content=b"x", headers={"content-type": "application/vnd.bentoml+pickle"}),
    }
    chunks = server.client.post("/recommend", content=iter([large]), headers=kind)
    for status, answer in [*answers.items(), (413, chunks)]:
        assert answer.status_code == status
        assert set(answer.json()) == {"error", "field", "message", "request_id"}


def test_a_promotion_reaches_every_worker_and_no_call_fails(server):
    statuses, halt = [], threading.Event()

    def call() -> None:
        with httpx.Client(base_url=server.client.base_url, trust_env=False) as client:
            while not halt.is_set():
                answer = client.post("/recommend", json={"user_id": "u1"})
                # The first release hides what was seen, the second shows it: each answer fits the release it names.
                shown = "a" in [i["item_id"] for i in answer.json()["items"]]
                statuses.append((answer.status_code, shown == (answer.json()["release"] == server.ids[1])))

    callers = [threading.Thread(target=call) for _ in range(3)]
    for caller in callers:
        caller.start()
    for old, new in (server.ids, server.ids[::-1]):
        server.point(new, old)
        until = time.monotonic() + 5
        while {server.fresh("/readyz")["release"] for _ in range(8)} != {new}:
            assert time.monotonic() < until
    halt.set()
    for caller in callers:
        caller.join()
    assert set(statuses) == {(200, True)}
    assert len(statuses) > 20


def test_a_broken_release_does_not_replace_the_one_that_serves(server, make_bundle):
    broken = server.add(make_bundle, metrics={"broken": 1})
    file = release_folder(server.releases, broken) / "links_weights.npy"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    server.point(broken, server.ids[0])
    until = time.monotonic() + 10
    while 'recops_release_loads_total{outcome="failed"} 2.0' not in server.client.get("/metrics").text:
        assert time.monotonic() < until
        time.sleep(0.1)
    assert server.fresh("/readyz")["release"] == server.ids[0]
    server.point(server.ids[0], broken)


def test_after_kill_9_the_port_is_free_and_a_stop_is_clean(tmp_path, make_bundle):
    server = Server(tmp_path, make_bundle, workers=2)
    os.kill(server.process.pid, signal.SIGKILL)
    server.process.wait()
    server.client.close()
    time.sleep(0.2)
    server.start()  # refuses a taken port
    assert server.client.post("/recommend", json={"user_id": "u1"}).status_code == 200
    assert server.stop() == 0


def test_a_new_item_is_recommended_by_every_worker_and_survives_a_kill(tmp_path, make_bundle):
    server = Server(tmp_path, partial(make_bundle, content=True), workers=2)
    told = server.client.post("/items", json={"items": [{"item_id": "new", "categories": ["x"]}]})
    start = time.monotonic()
    assert told.json()["added"] == 1, told.text
    while any(server.fresh("/release")["online_items"] != 1 for _ in range(20)):
        assert time.monotonic() - start < 5
    for _ in range(10):
        answer = httpx.post(f"{server.client.base_url}/recommend", json={"history": ["a"]}, trust_env=False)
        assert [i["item_id"] for i in answer.json()["items"][:2]] == ["f", "new"]
    server.client.close()
    server.process.kill()
    server.process.wait()
    server.start()
    assert "new" in [i["item_id"] for i in server.client.post("/recommend", json={"history": ["a"]}).json()["items"]]
    # What is told while the service is down is there as well.
    server.stop()
    store = open_store(server.store_url)
    store.put_items([{"item_id": "second", "categories": ["x"]}])
    store.close()
    server.start()
    assert server.fresh("/release")["online_items"] == 2
    assert server.stop() == 0


def test_rules_hold_in_every_worker_and_wrong_ones_start_nothing(tmp_path, make_bundle):
    rules = tmp_path / "rules.yaml"
    rules.write_text("available: true\nexploration: {epsilon: 0.5}\n")
    server = Server(tmp_path, make_bundle, workers=2, RECOPS_RULES=str(rules))
    for _ in range(10):
        body = {"user_id": "nobody", "k": 10}
        answer = httpx.post(f"{server.client.base_url}/recommend", json=body, timeout=20, trust_env=False).json()
        assert sorted(item["item_id"] for item in answer["items"]) == ["a", "c", "e", "f"]
    near = server.client.post("/similar", json={"item_id": "a"}).json()["items"]
    assert [item["item_id"] for item in near] == ["c"]
    assert server.stop() == 0
    rules.write_text("available: 7\n")
    words = [sys.executable, "-m", "bentoml", "serve", "recops.serving.service:RecopsService"]
    done = subprocess.run(words, env=server.environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert f"recops: {rules}: available: Input should be a valid boolean (found 7)" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_canary_is_set_seen_and_taken_back_while_the_service_runs(server):
    """Two workers: each user is answered by the same release by both, within a second of the call that sets it."""
    url, users = server.client.base_url, [f"v{n}" for n in range(40)]

    def answered() -> dict[str, set[tuple[str, str]]]:
        found: dict[str, set[tuple[str, str]]] = {}
        for _ in range(3):  # each on a connection of its own, so that any worker may answer
            for user in users:
                body = {"user_id": user, "k": 1}
                answer = httpx.post(f"{url}/recommend", json=body, timeout=20, trust_env=False).json()
                found.setdefault(user, set()).add((answer["variant"], answer["release"]))
        return found

    served = server.client.get("/release").json()["release"]
    other = next(release for release in server.ids if release != served)
    arm = {"name": "canary", "release": other, "mode": "canary", "share": 0.5, "guardrails": [{"metric": "hit_rate"}]}
    assert server.client.post("/admin/traffic", json={"arms": [arm]}).status_code == 200
    time.sleep(1)
    found = answered()
    assert all(len(of_user) == 1 for of_user in found.values())
    assert set.union(*found.values()) == {("default", served), ("canary", other)}
    assert server.fresh("/release")["traffic"][0]["loaded"]
    assert server.client.post("/admin/traffic", json={"arms": []}).status_code == 200
    time.sleep(1)
    assert set.union(*answered().values()) == {("default", served)}


def test_the_processes_load_nothing_of_training(server, make_bundle):
    encoder = server.add(make_bundle, encoder=True)
    server.point(encoder, server.ids[0])
    until = time.monotonic() + 10
    while server.fresh("/readyz")["release"] != encoder:
        assert time.monotonic() < until
    server.point(server.ids[0], encoder)
    answer = server.client.post("/ask", json={"question": "something like A, but not F", "k": 3})
    assert (answer.status_code, answer.json()["phrased_by"]) == (200, "template")
    # Every process of the service writes the name of each module it imports.
    imported = {m.split(".")[0] for m in re.findall(r"^import time:.*\| +(\S+)$", server.log.read_text(), re.MULTILINE)}
    assert {"bentoml", "recops", "numpy", "onnxruntime"} <= imported
    assert not imported & NOT_IN_THE_SERVICE
