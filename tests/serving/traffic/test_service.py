"""Challengers in the service: who is answered by whom, what is logged, what is halted; in this process."""

import time
from contextlib import closing

import pytest

from recops.serving import counters
from recops.serving.app import build_app
from recops.serving.endpoints import recommend as endpoint
from recops.serving.settings import Settings
from recops.serving.state import State
from recops.serving.traffic import control, watch
from recops.serving.traffic.arms import Arm
from recops.store import open_store

USERS = [f"u{n}" for n in range(60)]


@pytest.fixture
def worker(releases, tmp_path, connect):
    """The service over two releases: what `u…` have seen (a) is left out by the first, and shown by the second."""
    url = f"sqlite:///{tmp_path / 'store.sqlite'}"
    with closing(open_store(url)) as store:
        for release in (releases.first, releases.second):
            store.put_histories(release, [(user, ["a"], None) for user in USERS])
    state = State(Settings(releases=releases.folder, store=url, poll_s=60, guardrails_s=60))
    state.start()
    deadline = time.monotonic() + 20
    while state.release is None:
        assert time.monotonic() < deadline, state.reason
        time.sleep(0.01)
    state.client = connect(build_app(state))
    yield state
    state.close()


def test_challengers_that_cannot_be_judged_are_counted(worker, monkeypatch, caplog):
    def broken():
        raise OSError("disk")

    name = "recops_store_errors_total"
    before = counters.REGISTRY.get_sample_value(name)
    monkeypatch.setattr(worker.watch, "_look", broken)
    worker.watch._wake.set()
    deadline = time.monotonic() + 10
    while counters.REGISTRY.get_sample_value(name) == before:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert "challengers could not be judged" in caplog.text


def set_to(worker, *arms, status=200):
    answer = worker.client.post("/admin/traffic", json={"arms": list(arms)})
    assert answer.status_code == status, answer.text
    worker.poll()
    return answer.json()


def variants(worker) -> dict[str, tuple[str, str]]:
    found = {}
    for user in USERS:
        answer = worker.client.post("/recommend", json={"user_id": user}).json()
        found[user] = (answer["variant"], answer["release"])
    return found


def logged(worker) -> list[dict]:
    """All answers in the log, once what is queued has been written."""
    deadline = time.monotonic() + 10
    while not worker.shadows._queue.empty() or not worker.answers._queue.empty():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    time.sleep(0.3)
    return [answer for answer, _ in worker.store.answers_with_events(0, 2**62, 10**12, shadows=True)]


def test_a_canary_answers_its_share_of_users_and_always_the_same(worker, releases):
    set_to(worker, {"name": "c", "release": releases.second, "mode": "canary", "share": 0.5})
    found = variants(worker)
    assert variants(worker) == found
    assert set(found.values()) == {("default", releases.first), ("c", releases.second)}
    batch = worker.client.post("/recommend/batch", json={"requests": [{"user_id": user} for user in USERS]}).json()
    assert [(a["variant"], a["release"]) for a in batch["responses"]] == list(found.values())
    assert [item["item_id"] for item in batch["responses"][0]["items"]]
    nobody = worker.client.post("/recommend", json={"history": ["a"]}).json()
    assert (nobody["variant"], nobody["release"]) == ("default", releases.first)
    for path, more in (("/score", {"item_ids": ["a"]}), ("/ask", {"question": "something of x"})):
        for user in USERS[:8]:
            answer = worker.client.post(path, json={"user_id": user, **more}).json()
            assert answer["release"] == found[user][1]
    told = worker.client.request("GET", "/release").json()
    assert told["release"] == releases.first
    assert told["traffic"] == [
        {"name": "c", "release": releases.second, "mode": "canary", "share": 0.5, "halted": None, "loaded": True}
    ]
    control.remove(worker.store, "c", "a test")
    worker.poll()
    assert set(variants(worker).values()) == {("default", releases.first)}
    assert [d["what"] for d in worker.store.decisions()] == ["traffic", "traffic"]
    assert releases.second not in worker._slots  # nor is it kept in memory


def test_a_canary_that_is_promoted_is_in_memory_already(worker, releases):
    set_to(worker, {"name": "c", "release": releases.second, "mode": "ab", "share": 0.5})
    challenger = worker.challenger(worker.traffic.arms[0])
    releases.point(releases.second, releases.first)
    worker.poll()
    assert worker.release is challenger


def test_a_shadow_is_logged_and_shown_to_nobody(worker, releases):
    set_to(worker, {"name": "s", "release": releases.second, "mode": "shadow"})
    shown = worker.client.post("/recommend", json={"user_id": "u1", "k": 3, "explain": True}).json()
    assert (shown["variant"], shown["release"]) == ("default", releases.first)
    by_id = {answer["request_id"]: answer for answer in logged(worker)}
    assert by_id.keys() == {shown["request_id"], shown["request_id"] + "~s"}
    shadow = by_id[shown["request_id"] + "~s"]
    assert (shadow["variant"], shadow["release"]) == ("shadow:s", releases.second)
    assert shadow["time"] == by_id[shown["request_id"]]["time"]
    assert {item["item_id"] for item in shadow["items"]} != {item["item_id"] for item in shown["items"]}
    report = worker.client.request("GET", "/admin/traffic").json()["arms"][0]
    assert [side["variant"] for side in report["variants"]] == ["default", "shadow:s"]
    assert report["variants"][1]["answers"] == 1 and 0 < report["variants"][1]["overlap"] < 1
    assert report["differences"]["hit_rate"] == {"value": 0.0, "low": None, "high": None}


def test_a_shadow_is_asked_of_its_share_of_calls(worker, releases):
    set_to(worker, {"name": "s", "release": releases.second, "mode": "shadow", "share": 0.5})
    variants(worker)
    found = [answer["variant"] for answer in logged(worker)]
    assert found.count("default") == 60 and 12 < found.count("shadow:s") < 48  # 4.6 standard deviations


def test_what_a_full_queue_of_shadows_leaves_out_is_counted(worker, releases, monkeypatch):
    set_to(worker, {"name": "s", "release": releases.second, "mode": "shadow"})
    name, labels = "recops_shadows_total", {"outcome": "left out"}
    before = counters.REGISTRY.get_sample_value(name, labels) or 0.0
    monkeypatch.setattr(worker.shadows, "_answer", lambda asked: time.sleep(0.05))
    batch = worker.client.post("/recommend/batch", json={"requests": [{"user_id": "u1"}] * 256})
    batch = worker.client.post("/recommend/batch", json={"requests": [{"user_id": "u1"}] * 256})
    assert batch.status_code == 200
    assert counters.REGISTRY.get_sample_value(name, labels) > before


def test_a_challenger_that_fails_is_halted_and_its_users_get_the_served_release(worker, releases, monkeypatch):
    set_to(worker, {"name": "c", "release": releases.second, "mode": "canary", "share": 1.0})
    real, real_many = endpoint.recommend, endpoint.recommend_many

    def broken(release, *rest):
        if release.id == releases.second:
            raise ValueError("no")
        return real(release, *rest)

    def breaks_later(release, *rest):
        for place, one in enumerate(real_many(release, *rest)):
            if release.id == releases.second and place == 20:
                raise ValueError("no")
            yield one

    monkeypatch.setattr(endpoint, "recommend", broken)
    monkeypatch.setattr(endpoint, "recommend_many", breaks_later)
    batch = worker.client.post("/recommend/batch", json={"requests": [{"user_id": user} for user in USERS]}).json()
    assert [a["variant"] for a in batch["responses"]] == ["c"] * 16 + ["default"] * 44
    for user in USERS[: watch.MOST_FAILURES]:
        answer = worker.client.post("/recommend", json={"user_id": user}).json()
        assert (answer["variant"], answer["release"]) == ("default", releases.first)
    deadline = time.monotonic() + 10
    while worker.traffic.arms[0].halted is None:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert "answers failed" in worker.traffic.arms[0].halted
    assert worker.store.decisions()[-1]["what"] == "halted"


def fill(worker, rate_of_canary: float) -> None:
    """Answers to 800 users with clicks: one in five of the served release's, and of the canary's as said."""
    items = [{"item_id": "a", "rank": 1, "score": 1.0, "propensity": 1.0}]
    now = time.time_ns() // 1000
    answers, events = [], []
    for n in range(800):
        variant, rate = ("c", rate_of_canary) if n % 2 else ("default", 0.2)
        facts = {"request_id": f"q{n}", "user_id": f"v{n}", "release": "r", "source": "model", "items": items}
        answers.append({**facts, "variant": variant, "time": now + n})
        if (n // 2) % 100 < rate * 100:
            told = {"event_id": f"e{n}", "user_id": f"v{n}", "item_id": "a", "timestamp": now + n, "event": "click"}
            rest = dict.fromkeys(("value", "rank", "session_id", "context"))
            events.append({**told, **rest, "request_id": f"q{n}"})
    worker.store.log_answers(answers)
    worker.store.put_events(events)


@pytest.mark.parametrize(("rate", "is_halted"), [(0.2, False), (0.05, True), (0.4, False)])
def test_a_canary_is_halted_when_its_guardrail_falls(worker, releases, rate, is_halted):
    rails = [{"metric": "hit_rate", "margin": 0.1}, {"metric": "fallback_share", "margin": 0.0}]
    set_to(worker, {"name": "c", "release": releases.second, "mode": "canary", "share": 0.5, "guardrails": rails})
    fill(worker, rate)
    worker.watch._look()
    figures = control.report(worker.store, control.read(worker.store), worker.kinds, 10**12)[0]
    assert figures["variants"][0]["hit_rate"] == pytest.approx(0.2)
    assert figures["differences"]["hit_rate"]["value"] == pytest.approx(rate - 0.2)
    worker.poll()
    halted = worker.traffic.arms[0].halted
    assert (halted is not None) == is_halted
    if halted:
        assert halted.startswith("hit_rate 0.0500 against 0.2000 of the served release: -0.1500 [-0.")
        assert set(variants(worker).values()) == {("default", releases.first)}
        control.halt(worker.store, "c", "again")  # changes nothing
        assert control.read(worker.store).arms[0].halted == halted
    looked = worker.store.report(watch.CHECKED)
    worker.watch._look()  # another worker has just looked: the log is not read again
    assert worker.store.report(watch.CHECKED) == looked


def test_what_is_not_there_and_what_does_not_fit_is_refused(worker, releases):
    arm = {"name": "c", "release": releases.second, "mode": "ab", "share": 0.5}
    assert set_to(worker, {**arm, "release": "nope"}, status=400)["field"] == "arms[0].release"
    assert set_to(worker, {**arm, "mode": "other"}, status=400)["field"] == "arms[0].mode"
    assert "more than all" in set_to(worker, arm, {**arm, "name": "d", "share": 0.6}, status=400)["message"]
    assert "stands twice" in set_to(worker, arm, arm, status=400)["message"]
    assert worker.traffic.arms == []


def test_a_challenger_that_does_not_load_leaves_its_users_to_the_served_release(worker, releases):
    folder = releases.folder / "main" / releases.second
    (folder / "items.json").write_text("{")
    set_to(worker, {"name": "c", "release": releases.second, "mode": "ab", "share": 1.0})
    assert set(variants(worker).values()) == {("default", releases.first)}
    assert worker.client.request("GET", "/release").json()["traffic"][0]["loaded"] is False


def test_shares_keep_their_users_when_others_come_and_go(worker, releases):
    a = {"name": "a", "release": releases.second, "mode": "ab", "share": 0.3}
    put = [control.put(worker.store, Arm(**a, since=0), "t")]
    put.append(control.put(worker.store, Arm(**{**a, "name": "b"}), "t"))
    was = {user: arm.name if (arm := put[-1].arm_of(user)) else None for user in USERS}
    put.append(control.remove(worker.store, "a", "t"))
    assert {user for user in USERS if put[-1].arm_of(user)} == {user for user, name in was.items() if name == "b"}
    put.append(control.put(worker.store, Arm(**{**a, "name": "c", "share": 0.2}), "t"))  # where a was
    now = {user: arm.name if (arm := put[-1].arm_of(user)) else None for user in USERS}
    assert all(was[user] == "a" for user, name in now.items() if name == "c")
    assert {found.salt for found in put} == {put[0].salt} != {""}
    for name in ("b", "c"):
        control.remove(worker.store, name, "t")
    assert control.put(worker.store, Arm(**a), "t").salt != put[0].salt
    assert control.read(worker.store).arms[0].since > 0
