"""Sets who answers whom, halts what does worse, and says what came of it: the one place where the traffic in the store
is changed, for the command, the HTTP call and the service itself.

In: the store. Out: the new `Traffic`, with a line in the audit log. Knows no HTTP.
"""

import time
from collections.abc import Callable
from typing import Any

from recops.serving.live import Kinds
from recops.serving.traffic.arms import DEFAULT, REPORT, Arm, Traffic
from recops.serving.traffic.outcomes import LOWER_IS_BETTER, METRICS, Outcome, compared
from recops.serving.traffic.running import Running
from recops.store import Store


def read(store: Store) -> Traffic:
    return Traffic.read(store.report(REPORT))


def put(store: Store, arm: Arm, by: str) -> Traffic:
    """Adds a challenger, or changes the one of its name. What it is judged by begins anew with another release, mode or
    share, and where it was halted. Raises CallError where there is no room for its share."""
    return _change(store, lambda found: found.with_arm(_since(found, arm)), "traffic", {**arm.model_dump(), "by": by})


def put_all(store: Store, arms: list[Arm], by: str) -> Traffic:
    """These challengers and no others. Raises CallError where they do not go together."""

    def change(found: Traffic) -> Traffic:
        kept = {"salt": found.salt, "arms": [_since(found, arm).model_dump() for arm in arms]}
        return Traffic.read(kept)

    return _change(store, change, "traffic", {"arms": [arm.model_dump() for arm in arms], "by": by})


def remove(store: Store, name: str, by: str) -> Traffic:
    """Takes a challenger away: its users get the served release. Raises CallError for a name there is not."""
    return _change(store, lambda found: found.without(name), "traffic", {"off": name, "by": by})


def halt(store: Store, judged: Arm, why: str) -> Traffic:
    """A challenger that is there and not halted is no longer shown; others stay as they are, and so does one that was
    set anew, under the same name, since it was `judged`."""
    stopped = {"halted": why, "until": _now_us()}

    def change(found: Traffic) -> Traffic:
        arms = [
            {**arm.model_dump(), **(stopped if arm.halted is None and _is_same(arm, judged) else {})}
            for arm in found.arms
        ]
        return Traffic.read({**found.model_dump(), "arms": arms})

    facts = {"name": judged.name, "release": judged.release, "by": "guardrail", "why": why}
    return _change(store, change, "halted", facts)


def _is_same(arm: Arm, other: Arm) -> bool:
    return (arm.name, arm.release, arm.since) == (other.name, other.release, other.since)


def _change(store: Store, change: Callable[[Traffic], Traffic], what: str, facts: dict[str, Any]) -> Traffic:
    def changed(body: Any) -> Any:
        before = Traffic.read(body)
        after = change(before)
        if after.arms and not before.arms:  # who was in the last experiment says nothing about who is in this one
            after = after.model_copy(update={"salt": f"{_now_us():x}"})
        return body if after == before else after.model_dump()

    return Traffic.read(store.change_report(REPORT, changed, what, facts))


def _since(found: Traffic, arm: Arm) -> Arm:
    now = _now_us()
    for before in found.arms:
        if (before.name, before.release, before.mode) == (arm.name, arm.release, arm.mode):
            if arm.halted is not None:  # by hand, or as it was
                until = now if before.halted is None else before.until
                return arm.model_copy(update={"since": before.since, "until": until})
            # One period has one share: days of other shares, when users chose more or less, would else count unlike.
            if before.halted is None and before.share == arm.share:
                return arm.model_copy(update={"since": before.since, "until": None})
    return arm.model_copy(update={"since": now, "until": None if arm.halted is None else now})


def failing(running: Running, traffic: Traffic, kinds: Kinds) -> dict[str, str]:
    """Challengers that their guardrails halt, and why. May be asked as often as one likes (sequential.py); several
    guardrails share the probability of a false alarm."""
    found = {}
    with running.of(traffic, kinds) as figures:
        for arm in traffic.arms:
            if arm.is_shown and arm.guardrails and (why := _worse(arm, *figures[arm.name])) is not None:
                found[arm.name] = why
    return found


def _worse(arm: Arm, control: Outcome, challenger: Outcome) -> str | None:
    found = compared(control, challenger, len(arm.guardrails))
    for rail in arm.guardrails:
        before, after = control.moments(rail.metric).mean, challenger.moments(rail.metric).mean
        difference, allowed = found[rail.metric], rail.margin * before
        is_lower_better = rail.metric in LOWER_IS_BETTER
        if difference.low > allowed if is_lower_better else difference.high < -allowed:
            return (
                f"{rail.metric} {after:.4f} against {before:.4f} of the served release: "
                f"{difference.value:+.4f} [{difference.low:+.4f}, {difference.high:+.4f}]"
            )
    return None


def report(running: Running, traffic: Traffic, kinds: Kinds) -> list[dict[str, Any]]:
    """One entry a challenger: `name`, `release`, `mode`, `share`, `since`, `until` (where it was halted), `halted`, and
    `variants`, two entries (the served release over the same time, and the challenger): `variant`, `releases`, `users`,
    `answers`, `anonymous` (answers to calls that name nobody, which are in no figure), `instead` (answers that the
    served release gave to the challenger's users, in no figure either), `events`, a mean of each metric, `overlap` of a
    shadow with what was shown. `differences` (challenger - served) by metric: `value`, `low`, `high`; these None where
    nothing can be said yet. Of a shadow what follows was chosen from another list, and its figures lean towards it."""
    with running.of(traffic, kinds) as figures:
        return [_entry(arm, *figures[arm.name]) for arm in traffic.arms]


def _entry(arm: Arm, control: Outcome, challenger: Outcome) -> dict[str, Any]:
    return {
        **arm.model_dump(exclude={"at", "guardrails"}),
        "variants": [_figures(DEFAULT, control), _figures(arm.variant, challenger)],
        "differences": {
            metric: {
                "value": d.value,
                **({"low": d.low, "high": d.high} if d.is_bounded else {"low": None, "high": None}),
            }
            for metric, d in compared(control, challenger).items()
        },
    }


def _figures(variant: str, outcome: Outcome) -> dict[str, Any]:
    return {
        "variant": variant,
        "releases": sorted(outcome.releases),
        "users": outcome.users,
        "answers": outcome.answers,
        "anonymous": outcome.anonymous,
        "instead": outcome.instead,
        "events": outcome.events,
        **{metric: outcome.moments(metric).mean for metric in METRICS},
        "overlap": outcome.overlap,
    }


def arm_of(values: dict[str, Any]) -> Arm:
    """Raises CallError naming the key that is wrong."""
    (arm,) = Traffic.read({"arms": [values]}).arms
    return arm.model_copy(update={"at": None})


def _now_us() -> int:
    return time.time_ns() // 1000
