"""When to retrain: every branch, and both edges."""

from datetime import UTC, datetime, timedelta

from recops.monitoring.decisions import should_retrain
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
