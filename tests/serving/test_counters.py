"""Lists are counted with what they were chosen from; figures of workers that ended without notice leave the gauges."""

import os
import subprocess
import sys

import pytest

from recops.serving import counters
from recops.serving.facts import Facts


def test_a_worker_that_is_gone_no_longer_counts(tmp_path, monkeypatch):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    for pid in (ended.pid, os.getpid()):
        (tmp_path / f"gauge_livesum_{pid}.db").write_bytes(b"")
        (tmp_path / f"counter_{pid}.db").write_bytes(b"")
    counters.forget_dead_workers()
    left = {file.name for file in tmp_path.iterdir()}
    # Counters of the dead stay: they count what was answered.
    assert left == {f"gauge_livesum_{os.getpid()}.db", f"counter_{os.getpid()}.db", f"counter_{ended.pid}.db"}


def test_one_process_needs_no_folder(monkeypatch):
    monkeypatch.delenv("PROMETHEUS_MULTIPROC_DIR", raising=False)
    counters.forget_dead_workers()
    assert b"recops_requests_total" in counters.exposition(Facts(1, {}), ())


# Of six items u1 has seen a; a, c, e and f are available; x are a, b and f.
@pytest.mark.parametrize(
    ("body", "candidates", "length"),
    [
        ({"user_id": "u1", "k": 2}, 5, 2),
        ({"user_id": "u1", "k": 9}, 5, 5),
        ({"user_id": "u2", "k": 9}, 6, 6),
        ({"user_id": "u1", "exclude": ["b", "b", "a", "gone"]}, 4, 4),
        ({"user_id": "u1", "filters": {"available": True}}, 3, 3),
        ({"user_id": "u1", "filters": {"available": True, "categories": ["x"]}, "exclude": ["f", "b"]}, 0, 0),
        ({"user_id": "u1", "diversity": 0.5, "k": 2}, 5, 2),
        ({"user_id": "u1", "explain": True, "filters": {"available": True}, "k": 1}, 3, 1),
    ],
)
def test_a_list_is_counted_with_its_length_and_its_candidates(served, body, candidates, length):
    names = ("recops_list_items_sum", "recops_list_items_count", "recops_list_candidates_sum")
    names = (*names, "recops_list_candidates_count", "recops_empty_lists_total")

    def figures() -> list[float]:
        return [served.figures(name)[()] for name in names]

    before = figures()
    served.post("/recommend/batch", requests=[body, body])
    rise = [after - was for after, was in zip(figures(), before, strict=True)]
    assert rise == [2 * length, 2, 2 * candidates, 2, 2 * (length == 0)]


def test_what_has_not_happened_yet_is_there_as_nothing(served):
    dropped = served.figures("recops_answers_total")
    assert dropped[("dropped",)] == 0
    assert set(served.figures("recops_recommendations_total")) == {("model",), ("cold-start",), ("fallback",)}
    assert set(served.figures("recops_log_waiting")) == {("answers",), ("events",)}
