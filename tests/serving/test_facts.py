"""What /metrics says of the release that is served and of its drift."""

from datetime import UTC, datetime

import pytest

RESULTS = [
    {"feature": "category", "test": "psi", "statistic": 0.5, "threshold": 0.25, "p_value": 0.001, "drifted": True},
    {"feature": "hour", "test": "ks", "statistic": 0.125, "threshold": 0.25, "p_value": None, "drifted": False},
]


def report(release: str, **changes) -> dict:
    report = {"verdict": "drift", "num_events": 700, "features": ["category"], "results": RESULTS, "release": release}
    return {**report, "checked_at": "2026-01-02T00:00:00+00:00", **changes}


def seconds(*date: int) -> float:
    return datetime(*date, tzinfo=UTC).timestamp()


def test_a_release_says_what_it_is_and_how_old(serve, tmp_path):
    served = serve(fitted_until="2025-12-31T12:00:00.000000")  # the newest event, as the manifest has it: UTC
    served.state.release.record.update(promoted_at="2026-01-01T01:00:00+01:00", commit="abc")
    assert served.figures("recops_release_info") == {("abc", "item_knn", served.state.release.id, "main"): 1}
    assert served.figures("recops_release_items") == {("main",): 6}
    assert served.figures("recops_workers") == {(): 1}
    assert served.figures("recops_release_promoted_timestamp_seconds") == {("main",): seconds(2026, 1, 1)}
    assert served.figures("recops_release_fitted_until_timestamp_seconds") == {("main",): seconds(2025, 12, 31, 12)}


def test_what_is_not_known_of_a_release_is_left_out(served):
    names = {sample.name for sample in served.samples()}
    assert "recops_release_info" in names
    assert not {name for name in names if name.startswith(("recops_release_promoted", "recops_release_fitted"))}


def test_drift_of_the_served_release_is_told_and_that_of_another_is_not(serve):
    served = serve()
    store = served.state.store
    assert served.figures("recops_drift_verdict") == {}
    store.put_report("drift", report("another"))
    assert served.figures("recops_drift_verdict") == {}
    store.put_report("drift", report(served.state.release.id))
    assert served.figures("recops_drift_verdict") == {("main", "drift"): 1}
    assert served.figures("recops_drift_events") == {("main",): 700}
    assert served.figures("recops_drift_statistic") == {("category", "main", "psi"): 0.5, ("hour", "main", "ks"): 0.125}
    assert served.figures("recops_drift_threshold") == {("category", "main", "psi"): 0.25, ("hour", "main", "ks"): 0.25}
    assert served.figures("recops_drift_detected") == {("category", "main", "psi"): 1, ("hour", "main", "ks"): 0}
    assert served.figures("recops_drift_checked_timestamp_seconds") == {("main",): seconds(2026, 1, 2)}
    # The next report takes its place whole: no feature of the last one stays.
    store.put_report("drift", report(served.state.release.id, verdict="none", results=RESULTS[1:]))
    assert served.figures("recops_drift_verdict") == {("main", "none"): 1}
    assert served.figures("recops_drift_statistic") == {("hour", "main", "ks"): 0.125}


def test_a_store_that_cannot_be_read_costs_only_what_it_would_say(serve, monkeypatch):
    served = serve()
    served.state.store.put_report("drift", report(served.state.release.id))
    before = served.figures("recops_store_errors_total")[()]

    def broken(kind: str) -> None:
        raise OSError("disk")

    monkeypatch.setattr(served.state.store, "report", broken)
    assert served.figures("recops_drift_verdict") == {}
    assert served.figures("recops_release_items") == {("main",): 6}
    assert served.figures("recops_store_errors_total")[()] == pytest.approx(before + 3)  # the last is of this very call
