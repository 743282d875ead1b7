"""How far the logs are behind the disk, while it keeps them waiting and after."""

import asyncio
import threading
from collections.abc import Callable
from time import monotonic, sleep, time
from typing import Any

import pytest
from prometheus_client import Counter

from recops.serving import answers, counters
from recops.serving.answers import AnswerLog
from recops.serving.event_log import EventLog
from recops.serving.lag import Lag

NEVER = 1e6


class SlowStore:
    """Takes nothing before it is told to."""

    def __init__(self) -> None:
        self.may_write = threading.Event()

    def log_answers(self, answers: Any) -> None:
        list(answers)
        assert self.may_write.wait(20)

    def put_events(self, events: Any) -> list[bool]:
        assert self.may_write.wait(20)
        return [True] * len(events)


def until(holds: Callable[[], bool]) -> None:
    end = monotonic() + 20
    while not holds():
        assert monotonic() < end
        sleep(0.01)


def figures(log: str) -> tuple[float, float, float]:
    found = (counters.LOG_WAITING, counters.LOG_LAG, counters.LOG_WRITTEN)
    waiting, lag, written = (gauge.labels(log)._value.get() for gauge in found)
    return waiting, lag, written


def test_answers_that_wait_are_counted_and_the_oldest_says_how_long(tmp_path):
    store = SlowStore()
    log, idle = AnswerLog(store, wait_s=0.01, max_batch=2), AnswerLog(store)  # as of two tenants
    lag = Lag({"answers": [log, idle]}, every_s=NEVER)
    for at in (1_000, 1_001, 1_005):
        log.add({"time": at * 1_000_000, "items": []})
    until(lambda: log.oldest_at is not None)
    lag.look(now=1_010.0)
    # The thread took one or two before it had to wait; all three are counted, and the first has waited ten seconds.
    assert figures("answers")[:2] == (3, 10)
    store.may_write.set()
    log.close()
    idle.close()
    lag.look(now=1_020.0)
    waiting, behind, written = figures("answers")
    assert (waiting, behind) == (0, 0)
    assert written == pytest.approx(time(), abs=20)
    lag.close()


@pytest.mark.parametrize("most", [{"max_queue": 3}, {"max_items": 30}])
def test_what_does_not_fit_is_dropped_and_counted_by_answers_and_by_items(most, monkeypatch):
    monkeypatch.setattr(counters, "ANSWERS", Counter("made", "", ("outcome",), registry=None))
    store = SlowStore()
    log = AnswerLog(store, wait_s=0.01, max_batch=1, **most)

    def add() -> float:
        before = counters.ANSWERS.labels("dropped")._value.get()
        log.add({"time": 0, "items": [{"item_id": "a", "rank": 1, "score": 1.0}] * 10})
        return counters.ANSWERS.labels("dropped")._value.get() - before

    # One may be in hand of the thread, which then waits.
    assert sum(add() for _ in range(3)) == 0
    assert sum(add() for _ in range(3)) >= 2
    store.may_write.set()
    until(lambda: log.num_waiting == 0)
    assert add() == 0  # there is room again
    log.close()


def test_events_that_wait_are_counted_by_the_thread_of_their_own():
    async def tell() -> None:
        store = SlowStore()
        log = EventLog(store)
        lag = Lag({"events": [log]}, every_s=0.01)
        start = time()
        done = [log.add([{}, {}]), log.add([{}])]
        await asyncio.to_thread(until, lambda: figures("events")[0] == 3 and figures("events")[1] > 0.05)
        assert log.oldest_at is not None and start <= log.oldest_at <= time()
        store.may_write.set()
        assert await asyncio.gather(*done) == [[True, True], [True]]
        await asyncio.to_thread(until, lambda: figures("events")[:2] == (0, 0))
        lag.close()
        log.close()

    asyncio.run(tell())


def test_what_could_not_be_written_waits_no_more(caplog):
    log = AnswerLog(None, wait_s=0.01)  # type: ignore[arg-type]
    lost = counters.ANSWERS.labels("lost")._value.get()
    log.add({"time": 0, "items": []})
    until(lambda: counters.ANSWERS.labels("lost")._value.get() == lost + 1)
    log.close()
    assert (log.num_waiting, log.oldest_at) == (0, None)
    assert "1 answers could not be logged" in caplog.text


def test_answers_wait_for_a_store_that_is_away_for_a_while(monkeypatch):
    """A database that is started anew costs no answer; what is wrong in itself is not tried again."""
    monkeypatch.setattr(answers, "AGAIN_S", (0.01, 0.01))
    attempts: list[str] = []

    class Away:
        def log_answers(self, logged: Any) -> None:
            attempts.extend(answer["request_id"] for answer in logged)
            if len(attempts) < 3:
                raise OSError("the connection was lost")

    log = AnswerLog(Away(), wait_s=0.01)  # type: ignore[arg-type]
    written, lost = (counters.ANSWERS.labels(name)._value.get() for name in ("logged", "lost"))
    log.add({"request_id": "q1", "items": [], "time": 0})
    until(lambda: counters.ANSWERS.labels("logged")._value.get() == written + 1)
    log.add({"request_id": "q2", "items": [{"no": "id"}], "time": 0})
    log.close()
    assert attempts == ["q1", "q1", "q1"] and counters.ANSWERS.labels("lost")._value.get() == lost + 1
