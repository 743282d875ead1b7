"""Histories from a store that stands still, or is slow, keep no call from being answered."""

import asyncio
import threading
import time
from types import SimpleNamespace

import pytest

from recops.serving import reading
from recops.serving.live import Kinds
from recops.serving.reading import Reader
from recops.store import Known

RELEASE, KINDS = SimpleNamespace(id="r", uses_time=False), Kinds.of({})


class Remote:
    """A store on another machine: `is_up` says whether it answers, `wait_s` after how long."""

    is_remote = True

    def __init__(self) -> None:
        self.is_up, self.wait_s, self.asked = threading.Event(), 0.0, 0
        self.is_up.set()

    def known_of(self, release: str, user_ids: list[str], with_times: bool) -> list[Known]:
        self.asked += 1
        self.is_up.wait()
        time.sleep(self.wait_s)
        if "broken" in user_ids:
            raise OSError("the connection was lost")
        return [Known([user_id], None, [], []) for user_id in user_ids]


@pytest.fixture
def remote(monkeypatch):
    monkeypatch.setattr(reading, "WAIT_S", 0.05)
    monkeypatch.setattr(reading, "REST_S", 0.2)
    return Remote()


@pytest.fixture
def reader(remote):
    reader = Reader(remote)
    yield reader
    remote.is_up.set()
    reader.close()


async def items(reader: Reader, *user_ids: str) -> list:
    found = await asyncio.gather(*(reader.history_soon(RELEASE, KINDS, user_id) for user_id in user_ids))
    return [None if stored is None else stored.item_ids for stored in found]


def test_a_store_that_stands_still_is_done_without_and_tried_again_by_one_call(reader, remote):
    async def calls() -> None:
        assert await items(reader, "a", "b") == [["a"], ["b"]]
        remote.is_up.clear()
        ticks = 0

        async def others() -> None:
            nonlocal ticks
            while True:
                await asyncio.sleep(0.001)
                ticks += 1

        other = asyncio.create_task(others())
        assert await items(reader, "a", "b") == [None, None]
        assert ticks > 3  # other calls were answered meanwhile
        other.cancel()
        asked = remote.asked
        assert await items(reader, *"abcdef") == [None] * 6 and remote.asked == asked  # nobody waits any more
        await asyncio.sleep(0.25)
        assert await items(reader, *"abc") == [None] * 3 and remote.asked == asked + 1
        remote.is_up.set()
        await asyncio.sleep(0.25)
        assert await items(reader, "a", "b") == [["a"], None]  # b came while a was trying
        assert await items(reader, "a", "b") == [["a"], ["b"]]

    asyncio.run(calls())


def test_many_readings_that_go_on_are_waited_for(reader, remote, monkeypatch):
    monkeypatch.setattr(reading, "WAIT_S", 0.3)
    remote.wait_s = 0.05
    users = [f"u{n}" for n in range(40)]  # 0.5 s in all, longer than the wait
    assert asyncio.run(items(reader, *users)) == [[user] for user in users]


def test_a_reading_that_fails_makes_the_user_unknown(reader):
    assert asyncio.run(items(reader, "broken")) == [None]
    assert reader.history(RELEASE, KINDS, "broken") is None
