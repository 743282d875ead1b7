"""The service's own figures for Prometheus, summed over all worker processes at `/metrics`.

BentoML sets PROMETHEUS_MULTIPROC_DIR before a worker imports this file. Knows nothing about requests.
"""

import os
from collections.abc import Collection, Iterator
from pathlib import Path

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector

CONTENT_TYPE = CONTENT_TYPE_LATEST
TENANT = "tenant"  # the label of a figure that is one tenant's
REGISTRY = CollectorRegistry()
SECONDS_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
LENGTH_BUCKETS = (0, 1, 5, 10, 20, 50, 100, 200, 500, 1000)
CANDIDATE_BUCKETS = (0, 1, 10, 100, 1_000, 10_000, 100_000, 1_000_000, 10_000_000)

REQUESTS = Counter("recops_requests", "Answers by path and status.", ("path", "status"), registry=REGISTRY)
SECONDS = Histogram(
    "recops_request_seconds", "Seconds to the answer, by path.", ("path",), buckets=SECONDS_BUCKETS, registry=REGISTRY
)
IN_FLIGHT = Gauge(
    "recops_requests_in_flight", "Requests being answered.", registry=REGISTRY, multiprocess_mode="livesum"
)
LISTS = Counter("recops_recommendations", "Lists by what they were made from.", ("source",), registry=REGISTRY)
LIST_ITEMS = Histogram("recops_list_items", "Items in a list.", buckets=LENGTH_BUCKETS, registry=REGISTRY)
LIST_CANDIDATES = Histogram(
    "recops_list_candidates",
    "Items that might have stood in a list: the catalogue without what rules and filters hide.",
    buckets=CANDIDATE_BUCKETS,
    registry=REGISTRY,
)
EMPTY_LISTS = Counter("recops_empty_lists", "Lists without an item.", registry=REGISTRY)
LOADS = Counter("recops_release_loads", "Attempts to load a release, by outcome.", ("outcome",), registry=REGISTRY)
READY = Gauge("recops_workers_ready", "Workers with a release.", registry=REGISTRY, multiprocess_mode="livesum")
ITEM_CHANGE = Gauge(
    "recops_item_change",
    "Last change of items in use, in the worker furthest behind.",
    (TENANT,),
    registry=REGISTRY,
    multiprocess_mode="livemin",
)
ANSWERS = Counter("recops_answers", "Answers for the log, by outcome.", ("outcome",), registry=REGISTRY)
SHADOWS = Counter("recops_shadows", "Calls put to challengers in shadow, by outcome.", ("outcome",), registry=REGISTRY)
ARM_ERRORS = Counter(
    "recops_challenger_errors", "Answers of challengers that failed.", (TENANT, "variant"), registry=REGISTRY
)
LOG_WAITING = Gauge(
    "recops_log_waiting",
    "Answers, or events, that are not on disk yet.",
    ("log",),
    registry=REGISTRY,
    multiprocess_mode="livesum",
)
LOG_LAG = Gauge(
    "recops_log_lag_seconds",
    "How long the oldest answer, or event, that is being written has waited, in the worker furthest behind.",
    ("log",),
    registry=REGISTRY,
    multiprocess_mode="livemax",
)
LOG_WRITTEN = Gauge(
    "recops_log_written_timestamp_seconds",
    "When answers, or events, were last written; 0: not yet.",
    ("log",),
    registry=REGISTRY,
    multiprocess_mode="max",
)
EVENTS = Counter("recops_events", "Events told, by outcome.", ("outcome",), registry=REGISTRY)
ERASURES = Counter("recops_erasures", "Users erased.", registry=REGISTRY)
PHRASED = Counter("recops_language_model", "Calls of a language model, by outcome.", ("outcome",), registry=REGISTRY)
STORE_ERRORS = Counter(
    "recops_store_errors",
    "What could not be read from the store or put there, and items that could not be used.",
    registry=REGISTRY,
)

# There from the start, so that the first of a kind is seen as a rise.
for counter, values in (
    (LISTS, ("model", "cold-start", "fallback")),
    (LOADS, ("loaded", "failed")),
    (ANSWERS, ("logged", "dropped", "lost")),
    (SHADOWS, ("answered", "failed", "left out")),
    (EVENTS, ("stored", "duplicate", "rejected")),
    (PHRASED, ("used", "refused", "unchecked")),
    (LOG_WAITING, ("answers", "events")),
    (LOG_LAG, ("answers", "events")),
    (LOG_WRITTEN, ("answers", "events")),
):
    for value in values:
        counter.labels(value)


def num_ready() -> int:
    """Workers with a release, of this service."""
    if not os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
        return int(READY._value.get())
    found = MultiProcessCollector(CollectorRegistry()).collect()
    return int(sum(one.value for metric in found if metric.name == "recops_workers_ready" for one in metric.samples))


def forget_dead_workers() -> None:
    """Takes workers that ended without notice out of the gauges; called when a worker starts."""
    folder = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
    for file in Path(folder).glob("gauge_live*.db") if folder else ():
        pid = int(file.stem.rpartition("_")[2])
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            mark_process_dead(pid)


class _Seen(Collector):
    """What `collector` says without figures of other tenants than these."""

    def __init__(self, collector: Collector, tenants: Collection[str]) -> None:
        self.collector, self.tenants = collector, tenants

    def collect(self) -> Iterator[Metric]:
        for family in self.collector.collect():
            family.samples = [one for one in family.samples if one.labels.get(TENANT) in (None, *self.tenants)]
            yield family


def exposition(facts: Collector, tenants: Collection[str]) -> bytes:
    """All figures as Prometheus text, of all workers where there are several; those of one tenant only of `tenants`.
    `facts`: what is the same in each of them, so that the one which is asked says it."""
    registry: CollectorRegistry = REGISTRY
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        registry = CollectorRegistry()
        MultiProcessCollector(registry)
    told = CollectorRegistry()
    told.register(_Seen(registry, tenants))
    told.register(facts)
    return generate_latest(told)
