"""A real service over a database that stands still: it answers all the same, and goes on once the database does."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

import httpx
import psutil
import psycopg
import pytest

from recops.store import open_store
from tests.serving.test_process import Server

pytestmark = pytest.mark.process


@contextmanager
def standing_still(url: str) -> Iterator[None]:
    with psycopg.connect(url) as con:
        (data,) = con.execute("SHOW data_directory").fetchone() or ("",)
    postmaster = psutil.Process(int((Path(data) / "postmaster.pid").read_text().split()[0]))
    stopped = [postmaster, *postmaster.children(recursive=True)]
    for process in stopped:
        with suppress(ProcessLookupError):  # a backend may just have ended
            os.kill(process.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for process in stopped:
            with suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGCONT)


def test_calls_do_not_wait_for_a_database_that_stands_still(
    tmp_path: Path, make_bundle: Callable[..., str], new_database: Callable[[], str]
) -> None:
    server = Server(tmp_path, make_bundle, store_url=new_database())

    def call(method: str, path: str, body: object = None) -> httpx.Response:
        # Each of them would wait for ever: on one event loop with a history that does not come.
        return httpx.request(method, f"{server.client.base_url}{path}", json=body, timeout=15, trust_env=False)

    event = {"user_id": "new", "item_id": "b", "event": "click", "event_id": "e1"}
    events = {"events": [{**event, "timestamp": datetime.now(UTC).isoformat()}]}
    assert call("POST", "/recommend", {"user_id": "u1"}).json()["source"] == "model"
    with standing_still(server.store_url):
        for _ in range(3):
            assert call("POST", "/recommend", {"user_id": "u1"}).json()["source"] == "fallback"
            assert call("GET", "/livez").status_code == 200
        assert call("POST", "/events", events).status_code == 504
    assert call("POST", "/events", events).json()["duplicates"] == 1  # the first was written once it could be
    batch = call("POST", "/recommend/batch", {"requests": [{"user_id": "u1"}] * 256}).json()["responses"]
    assert len(batch) == 256
    assert server.stop() == 0
    store = open_store(server.store_url)
    assert len(list(store.answers())) == 260 and [e["event_id"] for e in store.events()] == ["e1"]
    store.close()
