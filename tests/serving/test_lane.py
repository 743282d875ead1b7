"""One thread for work that takes long: in turn, and not for more than can be waited for."""

import asyncio
import threading
import time

import pytest

from recops.serving.lane import Lane
from recops.serving.problems import Problem


def test_work_is_done_in_turn_on_one_thread() -> None:
    lane, at_once, most, threads = Lane("test"), 0, 0, set()

    def work() -> None:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        threads.add(threading.get_ident())
        time.sleep(0.002)
        at_once -= 1

    async def call() -> None:
        async with lane.call() as turn:
            for _ in range(3):
                await turn.run(work)

    async def calls() -> None:
        await asyncio.gather(*(call() for _ in range(5)))

    asyncio.run(calls())
    assert most == 1 and len(threads) == 1 and threading.get_ident() not in threads
    assert lane.num_calls == 0


def test_who_would_wait_too_long_is_turned_away() -> None:
    """One other is always waited for; more as far as what calls took lately allows."""
    lane = Lane("test")

    async def calls(num: int, seconds: float) -> None:
        async def one() -> None:
            lane.check(0.05)
            async with lane.call() as turn:
                await turn.run(lambda: time.sleep(seconds))

        answers = await asyncio.gather(*(one() for _ in range(num)), return_exceptions=True)
        refused = [answer for answer in answers if answer is not None]
        assert all(isinstance(one, Problem) and one.status == 429 for one in refused), refused
        assert all(one.headers == {"Retry-After": "1"} for one in refused)
        nonlocal num_taken
        num_taken = num - len(refused)

    num_taken = 0
    asyncio.run(calls(5, 0.1))
    assert num_taken == 5  # nothing was known of them yet
    asyncio.run(calls(5, 0.1))
    assert num_taken == 2
    lane.work_s = 0.02
    asyncio.run(calls(5, 0.0))
    assert num_taken == 3


def test_what_fails_makes_way_for_the_next() -> None:
    lane = Lane("test")

    async def fails() -> None:
        async with lane.call() as turn:
            await turn.run(lambda: 1 // 0)

    with pytest.raises(ZeroDivisionError):
        asyncio.run(fails())
    assert lane.num_calls == 0
