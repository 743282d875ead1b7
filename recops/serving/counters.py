"""The service's own figures for Prometheus, summed over all worker processes at `/metrics`.

BentoML sets PROMETHEUS_MULTIPROC_DIR before a worker imports this file. Knows nothing about requests.
"""

import os
from pathlib import Path

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

CONTENT_TYPE = CONTENT_TYPE_LATEST
REGISTRY = CollectorRegistry()
BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)

REQUESTS = Counter("recops_requests", "Answers by path and status.", ("path", "status"), registry=REGISTRY)
SECONDS = Histogram(
    "recops_request_seconds", "Seconds to the answer, by path.", ("path",), buckets=BUCKETS, registry=REGISTRY
)
IN_FLIGHT = Gauge(
    "recops_requests_in_flight", "Requests being answered.", registry=REGISTRY, multiprocess_mode="livesum"
)
LISTS = Counter("recops_recommendations", "Lists by what they were made from.", ("source",), registry=REGISTRY)
LOADS = Counter("recops_release_loads", "Attempts to load a release, by outcome.", ("outcome",), registry=REGISTRY)
READY = Gauge("recops_workers_ready", "Workers with a release.", registry=REGISTRY, multiprocess_mode="livesum")
ITEM_CHANGE = Gauge(
    "recops_item_change",
    "Last change of items in use, in the worker furthest behind.",
    registry=REGISTRY,
    multiprocess_mode="livemin",
)
ANSWERS = Counter("recops_answers", "Answers for the log, by outcome.", ("outcome",), registry=REGISTRY)
SHADOWS = Counter("recops_shadows", "Calls put to challengers in shadow, by outcome.", ("outcome",), registry=REGISTRY)
ARM_ERRORS = Counter("recops_challenger_errors", "Answers of challengers that failed.", ("variant",), registry=REGISTRY)
EVENTS = Counter("recops_events", "Events told, by outcome.", ("outcome",), registry=REGISTRY)
ERASURES = Counter("recops_erasures", "Users erased.", registry=REGISTRY)
PHRASED = Counter("recops_language_model", "Calls of a language model, by outcome.", ("outcome",), registry=REGISTRY)
STORE_ERRORS = Counter(
    "recops_store_errors",
    "Histories that could not be read, and items that could not be stored or used.",
    registry=REGISTRY,
)


def forget_dead_workers() -> None:
    """Takes workers that ended without notice out of the gauges; called when a worker starts."""
    folder = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
    for file in Path(folder).glob("gauge_live*.db") if folder else ():
        pid = int(file.stem.rpartition("_")[2])
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            mark_process_dead(pid)


def exposition() -> bytes:
    """All figures as Prometheus text; of all workers where there are several."""
    if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
        return generate_latest(REGISTRY)
    registry = CollectorRegistry()
    MultiProcessCollector(registry)
    return generate_latest(registry)
