"""What is said of a planted fault, from made-up days."""

from typing import Any

from recops.stages.replay_faults import Fault
from recops.stages.replay_report import answer

TOLD = {"events": 10, "stored": 10, "refused": 0, "repeated": 0, "reason": "", "fault": None}


def day(number: int, features: tuple[str, ...] = (), difference: float | None = None, **night: Any) -> dict[str, Any]:
    """A day whose drift check names `features`; on the morning it was `difference` above the last good release."""
    drift = {"verdict": "drift" if features else "none", "features": list(features), "reason": ""}
    morning: dict[str, Any] = {}
    if difference is not None:
        ends = [difference, difference - 0.01, difference + 0.01]
        morning["last_good"] = {"release": "good", "difference": {"ndcg@10": ends}}
    facts = {"told": TOLD, "due": {"drift": drift, "cpu_s": 0.0}, **night}
    return {"day": number, "morning": morning, "night": facts}


PROMOTED = {"judged": {"verdict": "promote", "stage": "gate", "reasons": [], "stopped": {}, "warned": {}}}


def test_a_fall_of_which_nothing_was_said_is_silent() -> None:
    found = answer(Fault("bots", 3), "nightly", [day(2), day(3, **PROMOTED), day(4, difference=-0.1)])
    assert (found["fell"], found["said"], found["silent"], found["outcome"]) == ([4], [], True, "promoted")


def test_no_fall_is_never_silent() -> None:
    found = answer(Fault("bots", 3), "nightly", [day(3, **PROMOTED), day(4, difference=-0.005), day(5, difference=0.1)])
    assert (found["fell"], found["silent"]) == ([], False)
    assert found["against_last_good"]["5"] == [0.1, 0.1 - 0.01, 0.1 + 0.01]


def test_what_drifts_every_night_says_nothing_of_a_fault() -> None:
    usual = [day(2, ("volume",)), day(3, ("volume",), **PROMOTED), day(4, difference=-0.1)]
    assert answer(Fault("bots", 3), "nightly", usual)["silent"]
    more = [day(2, ("volume",)), day(3, ("users", "volume"), **PROMOTED), day(4, difference=-0.1)]
    found = answer(Fault("bots", 3), "nightly", more)
    assert found["said"] == ["drift check: drift (users)"] and found["fell"] == [4] and not found["silent"]


def test_each_part_of_the_loop_is_quoted() -> None:
    told = {**TOLD, "refused": 4, "repeated": 3, "reason": "events[0].item_id: Field required"}
    stopped = {"verdict": "refused", "stage": "validate", "reasons": ["1 rule"]}
    stopped |= {"stopped": {"events: volume": "3"}, "warned": {"events: repeats": ".4", "items: titles": ".1"}}
    before = day(2, judged={**PROMOTED["judged"], "warned": {"items: titles": ".1"}})
    found = answer(Fault("renamed", 3), "nightly", [before, day(3, told=told, judged=stopped)])
    assert found["said"] == [
        "POST /events refused 4 of 10 events (events[0].item_id: Field required)",
        "POST /events counted 3 of 10 events as repeated",
        "validation warned (events: repeats .4)",
        "validate: refused (events: volume 3)",
    ]
    assert found["outcome"] == "kept" and found["against_last_good"] == {}
