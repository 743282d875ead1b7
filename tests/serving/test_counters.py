"""Figures of workers that ended without notice leave the gauges."""

import os
import subprocess
import sys

from recops.serving import counters


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
    assert b"recops_requests_total" in counters.exposition()
