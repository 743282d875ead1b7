"""Figures that are kept up to date: the same as those of a log that is read anew."""

from contextlib import closing

import numpy as np
import pytest

from recops.serving.live import Kinds
from recops.serving.traffic.arms import Traffic
from recops.serving.traffic.outcomes import METRICS
from recops.serving.traffic.running import Running
from recops.store import open_store

KINDS = Kinds.of({})
WINDOW = 1_000
CANARY = {"name": "c", "release": "r2", "mode": "canary", "share": 0.4, "since": 100, "until": 900, "halted": "why"}
TRAFFIC = Traffic.read(
    {
        "arms": [
            CANARY,
            {"name": "b", "release": "r3", "mode": "ab", "share": 0.2, "since": 50},
            {"name": "s", "release": "r4", "mode": "shadow", "since": 0},
        ]
    }
)
USERS = [f"u{n}" for n in range(40)]


@pytest.fixture(params=["sqlite", "postgres"])
def store(request, tmp_path):
    is_postgres = request.param == "postgres"
    url = request.getfixturevalue("new_database")() if is_postgres else f"sqlite:///{tmp_path}/store.sqlite"
    with closing(open_store(url)) as store:
        yield store


def answer(request_id: str, time: int, user_id: str | None, variant: str = "default", num_items: int = 3, **more):
    items = [{"item_id": item, "rank": rank, "score": 1.0} for rank, item in enumerate("abc"[:num_items], start=1)]
    facts = {"items": items, "release": "r", "source": "model"}
    return {**facts, "request_id": request_id, "time": time, "user_id": user_id, "variant": variant, **more}


def event(event_id: str, request_id: str, item_id: str, at: int, kind: str = "click", user_id: str = "u0") -> dict:
    facts = {"event_id": event_id, "user_id": user_id, "item_id": item_id, "timestamp": at, "received_at": at}
    return {**facts, "event": kind, "request_id": request_id}


def told(running: Running) -> dict:
    with running.of(TRAFFIC, KINDS) as found:
        return {
            (name, place): (
                *(outcome.users, outcome.answers, outcome.anonymous, outcome.instead, outcome.events),
                *(pytest.approx(outcome.moments(metric).mean) for metric in METRICS),
                pytest.approx(outcome.moments("ndcg").variance, abs=1e-12),
                outcome.overlap and pytest.approx(outcome.overlap),
            )
            for name, sides in found.items()
            for place, outcome in enumerate(sides)
        }


def test_whatever_comes_in_whatever_order_counts_once(store):
    """Answers, late events, repeated events, shadows and erased users, with a look after each step: at the end what one
    look at all of it sees."""
    running, rng, asked = Running(store, WINDOW), np.random.default_rng(0), {}
    for step in range(12):
        answers, events = [], []
        for n in range(30):
            user, request_id = (None if n % 10 == 0 else str(rng.choice(USERS))), f"q{step}-{n}"
            asked[request_id] = user or "somebody"
            owner, time = TRAFFIC.owner(user), int(rng.integers(0, 1200))
            shown = owner is not None and rng.random() < 0.7
            variant = owner.name if shown else "default"
            source = "fallback" if rng.random() < 0.2 else "model"
            answers.append(answer(request_id, time, user, variant, int(rng.integers(0, 4)), source=source))
            if rng.random() < 0.5:
                answers.append(answer(f"{request_id}~s", time, user, "shadow:s", int(rng.integers(0, 4))))
            for _ in range(rng.integers(0, 3)):
                named = str(rng.choice(list(asked)))
                kind, item = str(rng.choice(["click", "purchase", "impression"])), str(rng.choice(list("abcd")))
                at, event_id = int(rng.integers(0, 2400)), f"e{rng.integers(0, 500)}"
                events.append(event(event_id, named, item, at, kind, asked[named]))
        store.log_answers(answers)
        store.put_events(events)
        if step in (4, 8):
            store.erase_user(USERS[step], 3000)
        told(running)
    assert told(running) == told(Running(store, WINDOW))
    assert told(running)["c", 1][0] > 5 and told(running)["s", 1][-1] is not None


def test_a_variant_is_judged_by_its_users_while_it_stood(store):
    """Before it stood and after it was halted its users are nobody's; nor is the served release's what it gave them."""
    mine = [user for user in USERS if (owner := TRAFFIC.owner(user)) and owner.name == "c"][:3]
    nobodys = [user for user in USERS if TRAFFIC.owner(user) is None][:3]
    rows = [answer(f"before-{user}", 99, user) for user in (*mine, *nobodys)]
    rows += [answer(f"in-{user}", 100, user, "c") for user in mine]
    rows += [answer(f"in-{user}", 899, user) for user in nobodys]
    rows += [answer("not-loaded", 100, mine[0]), answer("nobody", 500, None)]
    rows += [answer(f"after-{user}", 900, user) for user in (*mine, *nobodys)]
    store.log_answers(rows)
    found = told(Running(store, WINDOW))
    assert found["c", 0][:4] == (3, 4, 1, 0) and found["c", 1][:4] == (3, 3, 0, 1)


def test_a_look_reads_what_is_new_and_nothing_else(store, monkeypatch):
    running, read = Running(store, WINDOW), []
    followed = store.followed
    monkeypatch.setattr(
        store, "followed", lambda *rest: (read.append(one.request_id) or one for one in followed(*rest))
    )
    store.log_answers([answer(f"q{n}", 200, "u1") for n in range(50)])
    told(running)
    assert len(read) == 50
    store.log_answers([answer("new", 300, "u2"), answer("new~s", 300, "u2", "shadow:s")])
    store.put_events([event("e1", "q7", "a", 250), event("e2", "new", "a", 350)])
    told(running)
    told(running)
    assert sorted(read[50:]) == ["new", "new~s", "q7"]
    store.put_events([event("e3", "new", "b", 360), event("e3", "new", "b", 360), event("e4", "new", "b", 2000)])
    told(running)
    assert sorted(read[53:]) == ["new", "new~s"]
    changed = TRAFFIC.without("b")
    with running.of(changed, KINDS) as found:
        assert set(found) == {"c", "s"} and len(read) == 55 + 52


def test_a_look_that_breaks_off_counts_nothing_twice(store, monkeypatch):
    running = Running(store, WINDOW)
    store.log_answers([answer(f"q{n}", 200, "u1") for n in range(5)])
    followed = store.followed

    def broken(*rest):
        yield next(followed(*rest))
        raise OSError("gone")

    monkeypatch.setattr(store, "followed", broken)
    with pytest.raises(OSError, match="gone"):
        told(running)
    monkeypatch.setattr(store, "followed", followed)
    assert told(running) == told(Running(store, WINDOW))
