"""What is the same in every worker, as figures for Prometheus: which release is served, how old it is, how it drifts.

In: the release, how many workers there are to be, and the store's report `drift`. Out: metrics, made when they are
asked for. Moments are Unix seconds, so that an age is `time() - …`. Reads nothing itself.
"""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from recops.serving.release import Release


class Facts(Collector):
    """`drift` is a report of any release, or None; one about another release than `release` says nothing here."""

    def __init__(self, release: Release | None, workers: int, drift: Mapping[str, Any] | None) -> None:
        self.release, self.workers = release, workers
        self.drift = drift if drift is not None and release and drift.get("release") == release.id else None

    def collect(self) -> Iterator[Metric]:
        yield GaugeMetricFamily("recops_workers", "Workers that are to serve.", self.workers)
        if self.release is not None:
            yield from _of_release(self.release)
        if self.drift is not None:
            yield from _of_drift(self.drift)


def _of_release(release: Release) -> Iterator[Metric]:
    manifest, record = release.bundle.manifest, release.record
    info = GaugeMetricFamily(
        "recops_release_info", "The release that is served; always 1.", labels=("release", "model", "commit")
    )
    info.add_metric((release.id, str(manifest.get("model") or ""), str(record.get("commit") or "")), 1)
    yield info
    yield GaugeMetricFamily("recops_release_items", "Items of the catalogue.", release.bundle.num_items)
    yield from _moment("recops_release_promoted", "When the release was promoted.", record.get("promoted_at"))
    yield from _moment(
        "recops_release_fitted_until", "The newest event that the model was fitted on.", manifest.get("fitted_until")
    )


def _of_drift(report: Mapping[str, Any]) -> Iterator[Metric]:
    verdict = GaugeMetricFamily("recops_drift_verdict", "The last verdict on the release; 1.", labels=("verdict",))
    verdict.add_metric((report["verdict"],), 1)
    yield verdict
    yield GaugeMetricFamily("recops_drift_events", "Events in the window that was judged.", report["num_events"])
    yield from _moment("recops_drift_checked", "When drift was last looked for.", report.get("checked_at"))
    for name, key, about in (
        ("recops_drift_statistic", "statistic", "Effect size of a drift test on a feature."),
        ("recops_drift_threshold", "threshold", "Effect size that counts as drift."),
        ("recops_drift_detected", "drifted", "1: the effect is that large, and no chance."),
    ):
        family = GaugeMetricFamily(name, about, labels=("feature", "test"))
        for result in report["results"]:
            family.add_metric((result["feature"], result["test"]), float(result[key]))
        yield family


def _moment(name: str, about: str, iso: str | None) -> Iterator[Metric]:
    """Nothing where the time is not known; a time without zone is UTC."""
    if iso is None:
        return
    at = datetime.fromisoformat(iso)
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    yield GaugeMetricFamily(f"{name}_timestamp_seconds", about, at.timestamp())
