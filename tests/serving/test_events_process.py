"""Events told to real workers over a real database: what was acknowledged is there, once, whatever is killed."""

import signal
import threading
import time
from collections import Counter
from contextlib import closing
from datetime import UTC, datetime

import httpx
import pytest

from recops.store import open_store
from tests.serving.test_process import Server

pytestmark = pytest.mark.process


@pytest.fixture(params=["sqlite", "postgres"])
def server(request, tmp_path, make_bundle):
    url = None if request.param == "sqlite" else request.getfixturevalue("new_database")()
    server = Server(tmp_path, make_bundle, workers=2, store_url=url)
    yield server
    assert server.stop() == 0


def event(user_id: str, item_id: str, event_id: str) -> dict:
    at = datetime.now(UTC).isoformat()
    return {"user_id": user_id, "item_id": item_id, "event": "click", "timestamp": at, "event_id": event_id}


class Teller(threading.Thread):
    """Tells events one after the other, each again until it is acknowledged; every fifth twice."""

    def __init__(self, server: Server, number: int) -> None:
        super().__init__()
        self.url, self.number = f"http://127.0.0.1:{server.port}/events", number
        self.acknowledged: Counter[str] = Counter()
        self.stopping = threading.Event()
        self.start()

    def run(self) -> None:
        i = 0
        while not self.stopping.is_set():
            event_id = f"{self.number}-{i // 5 * 5 + min(i % 5, 3)}"
            if self.tell(event_id):
                i += 1

    def tell(self, event_id: str) -> bool:
        try:
            body = {"events": [event(f"u-{self.number}", "b", event_id)]}
            answer = httpx.post(self.url, json=body, timeout=5, trust_env=False)
        except httpx.TransportError:
            time.sleep(0.05)
            return False
        assert answer.status_code == 200, answer.text
        told = answer.json()
        assert told["stored"] + told["duplicates"] == 1, told
        self.acknowledged[event_id] += 1
        return True


def test_kill_9_under_load_loses_and_doubles_nothing(server):
    tellers = [Teller(server, number) for number in range(4)]
    time.sleep(1.5)
    server.process.send_signal(signal.SIGKILL)
    server.process.wait()
    server.client.close()
    before = [len(teller.acknowledged) for teller in tellers]
    server.start()
    time.sleep(1)
    for teller in tellers:
        teller.stopping.set()
    for teller in tellers:
        teller.join()
    assert all(0 < n < len(teller.acknowledged) for n, teller in zip(before, tellers, strict=True))
    with closing(open_store(server.store_url)) as store:
        found = Counter(e["event_id"] for e in store.events())
    assert found == Counter({event_id: 1 for teller in tellers for event_id in teller.acknowledged})

    # Any worker knows at once what another was told, and at the latest after a second whom another has erased.
    lists = [server_call(server, "POST", "/recommend", {"user_id": "u-0"}) for _ in range(8)]
    assert {found["source"] for found in lists} == {"model"}
    assert {found["items"][0]["item_id"] for found in lists} == {"c"}
    erased = server_call(server, "DELETE", "/users/u-0")["erased"]
    assert erased["events"] == sum(event_id.startswith("0-") for event_id in found_ids(tellers))
    lists = [server_call(server, "POST", "/recommend", {"user_id": "u-0"}) for _ in range(8)]
    assert {found["source"] for found in lists} == {"fallback"}


def found_ids(tellers: list[Teller]) -> set[str]:
    return {event_id for teller in tellers for event_id in teller.acknowledged}


def server_call(server: Server, method: str, path: str, body: dict | None = None) -> dict:
    """On a connection of its own, so that any worker may answer."""
    answer = httpx.request(method, f"http://127.0.0.1:{server.port}{path}", json=body, timeout=20, trust_env=False)
    assert answer.status_code == 200, answer.text
    return answer.json()
