"""When to retrain: every branch, and both edges."""

from datetime import UTC, datetime, timedelta

import pytest

from recops.monitoring.decisions import Signals, decide, should_retrain
from recops.monitoring.drift import DriftVerdict
from recops.params import RetrainParams

NOW = datetime(2024, 6, 1, tzinfo=UTC)
PARAMS = RetrainParams(max_age_days=30, cooldown_minutes=60)
DRIFT = DriftVerdict("drift", 900, None, None, 24.0, 24.0, features=("category", "value"))
NONE = DriftVerdict("none", 900, None, None, 24.0, 24.0)
TOO_FEW = DriftVerdict("too_few_events", 3, None, None, 24.0, 24.0, reason="3 events in the window")


def ago(**age: float) -> datetime:
    return NOW - timedelta(**age)


def test_drift_retrains_and_names_the_features():
    assert should_retrain(DRIFT, ago(days=1), NOW, PARAMS) == (True, "drift in category, value")


def test_never_within_the_cooldown_whatever_drifted():
    assert should_retrain(DRIFT, ago(minutes=59), NOW, PARAMS)[0] is False
    assert should_retrain(DRIFT, ago(minutes=60), NOW, PARAMS)[0] is True


def test_age_retrains_also_without_a_judgement():
    for verdict in (NONE, TOO_FEW, None):
        assert should_retrain(verdict, ago(days=30), NOW, PARAMS)[0] is True
        assert should_retrain(verdict, ago(days=29), NOW, PARAMS)[0] is False
    assert "3 events" in should_retrain(TOO_FEW, ago(days=1), NOW, PARAMS)[1]


def test_the_first_training_needs_no_reason():
    assert should_retrain(None, None, NOW, PARAMS)[0] is True


ASKS = {
    "cut off": {"cut_off": "it was cut off"},
    "person": {"asked": "asked by anna: new shelves"},
    "drift": {"drift": DRIFT},
    "online metric": {"online_fall": "hit_rate .1 against .2"},
    "volume": {"num_trained": 1000, "num_new": 200},
    "age": {"last_trained_at": ago(days=30)},
}


def signals(*triggers: str, **known: object) -> Signals:
    """What asks, of a release trained two hours ago where nothing else is said."""
    values: dict = {"last_trained_at": ago(hours=2)}
    for trigger in triggers:
        values |= ASKS[trigger]
    return Signals(**{**values, **known})


@pytest.mark.parametrize("trigger", ASKS)
def test_each_trigger_alone_asks(trigger: str):
    assert not decide(signals(), NOW, PARAMS).is_wanted
    decision = decide(signals(trigger), NOW, PARAMS)
    assert (decision.is_wanted, decision.trigger) == (True, trigger)


def test_the_first_that_asks_is_the_trigger():
    left = list(ASKS)
    while left:
        assert decide(signals(*left), NOW, PARAMS).trigger == left.pop(0)


def test_volume_has_an_edge():
    assert decide(signals("volume", num_new=199), NOW, PARAMS).trigger is None
    assert decide(signals("volume", num_trained=0), NOW, PARAMS).trigger is None


@pytest.mark.parametrize("trigger", ["drift", "online metric", "volume"])
def test_cooldown_and_budget_hold_back_and_say_so(trigger: str):
    decision = decide(signals(trigger, last_trained_at=ago(minutes=59)), NOW, PARAMS)
    assert decision.is_held and "retrain.cooldown_minutes is 60" in decision.reason
    started = tuple(ago(hours=hours) for hours in (2, 5, 8, 23.9))
    decision = decide(signals(trigger, started=started), NOW, PARAMS)
    assert decision.is_held and "retrain.max_per_day is 4" in decision.reason
    assert decide(signals(trigger, started=(*started[:3], ago(hours=24))), NOW, PARAMS).is_wanted


@pytest.mark.parametrize("trigger", ["cut off", "person"])
def test_a_person_and_what_was_cut_off_are_not_held_back(trigger: str):
    started = (NOW,) * 9
    assert decide(signals(trigger, last_trained_at=NOW, started=started), NOW, PARAMS).is_wanted


def test_a_reason_does_not_change_by_itself():
    for known in (signals(), signals("drift", last_trained_at=NOW), signals("age")):
        later = NOW + timedelta(minutes=7)
        assert decide(known, NOW, PARAMS).reason == decide(known, later, PARAMS).reason
