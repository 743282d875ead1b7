"""What is the same in every worker, as figures for Prometheus: which release is served, how old it is, how it drifts.

In: how many workers there are to be, and of each tenant the release and the store's report `drift`. Out: metrics, made
when they are asked for. Moments are Unix seconds, so that an age is `time() - …`. Reads nothing itself.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from recops.serving.counters import TENANT
from recops.serving.release import Release


class Figure(NamedTuple):
    name: str
    about: str
    value: float
    labels: Mapping[str, str] = {}


@dataclass(frozen=True)
class Served:
    """What there is to say of one tenant. `drift` is a report of any release, or None; one about another release than
    `release` says nothing here."""

    release: Release | None
    drift: Mapping[str, Any] | None

    def figures(self) -> Iterator[Figure]:
        if self.release is None:
            return
        yield from _of_release(self.release)
        if self.drift is not None and self.drift.get("release") == self.release.id:
            yield from _of_drift(self.drift)


class Facts(Collector):
    """Of the service, and of each tenant by name."""

    def __init__(self, workers: int, tenants: Mapping[str, Served]) -> None:
        self.workers, self.tenants = workers, tenants

    def collect(self) -> Iterator[Metric]:
        yield GaugeMetricFamily("recops_workers", "Workers that are to serve.", self.workers)
        families: dict[str, GaugeMetricFamily] = {}
        for tenant, served in self.tenants.items():
            for name, about, value, labels in served.figures():
                if name not in families:
                    families[name] = GaugeMetricFamily(name, about, labels=(TENANT, *labels))
                families[name].add_metric((tenant, *labels.values()), value)
        yield from families.values()


def _of_release(release: Release) -> Iterator[Figure]:
    manifest, record = release.bundle.manifest, release.record
    labels = {
        "release": release.id,
        "model": str(manifest.get("model") or ""),
        "commit": str(record.get("commit") or ""),
    }
    yield Figure("recops_release_info", "The release that is served; always 1.", 1, labels)
    yield Figure("recops_release_items", "Items of the catalogue.", release.bundle.num_items)
    yield from _moment("recops_release_promoted", "When the release was promoted.", record.get("promoted_at"))
    yield from _moment(
        "recops_release_fitted_until", "The newest event that the model was fitted on.", manifest.get("fitted_until")
    )


def _of_drift(report: Mapping[str, Any]) -> Iterator[Figure]:
    verdict = {"verdict": report["verdict"]}
    yield Figure("recops_drift_verdict", "The last verdict on the release; 1.", 1, verdict)
    yield Figure("recops_drift_events", "Events in the window that was judged.", report["num_events"])
    yield from _moment("recops_drift_checked", "When drift was last looked for.", report.get("checked_at"))
    for name, key, about in (
        ("recops_drift_statistic", "statistic", "Effect size of a drift test on a feature."),
        ("recops_drift_threshold", "threshold", "Effect size that counts as drift."),
        ("recops_drift_detected", "drifted", "1: the effect is that large, and no chance."),
    ):
        for result in report["results"]:
            yield Figure(name, about, float(result[key]), {"feature": result["feature"], "test": result["test"]})


def _moment(name: str, about: str, iso: str | None) -> Iterator[Figure]:
    """Nothing where the time is not known; a time without zone is UTC."""
    if iso is None:
        return
    at = datetime.fromisoformat(iso)
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    yield Figure(f"{name}_timestamp_seconds", about, at.timestamp())
