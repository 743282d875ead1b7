"""Two minutes of the soak (`benchmarks/soak.py`, which runs it for half an hour): memory and errors of the service."""

import os
from pathlib import Path

import pytest

from benchmarks.soak import MOST_GROWTH, SWAP_S, WORKERS, errors, soak

# It waits more than it works, so that tests beside it have the cores; a shorter time is for trying it out.
SECONDS = float(os.environ.get("RECOPS_SOAK_S", 120))
CALLS_PER_S = 10.0


@pytest.mark.process
def test_the_service_stays_as_it_is(tmp_path: Path) -> None:
    """Mixed traffic on two workers while the release changes every four seconds."""
    found = soak(tmp_path, SECONDS, CALLS_PER_S)
    assert found["errors"] == []
    assert found["memory_end_over_warm"] <= MOST_GROWTH, found
    # It was as hard as it says: releases changed in both workers, and every kind of call was answered.
    assert found["swaps"] >= SECONDS / SWAP_S / 2
    assert found["loads"] >= WORKERS * found["swaps"] / 2
    assert found["calls"] >= SECONDS * CALLS_PER_S / 3
    assert all(row["statuses"] for row in found["kinds"].values())


def test_what_is_an_error() -> None:
    kinds = {
        "recommend": {"statuses": {"200": 5, "503": 2, "0": 1, "429": 1}},
        "malformed": {"statuses": {"400": 3, "404": 1, "200": 1, "500": 1}},
        "users": {"statuses": {}},
    }
    numbers = {"kinds": kinds, "workers_that_ended": 1, "failed_loads": 0, "tracebacks": 0}
    assert errors(numbers) == [
        "recommend: 2 times 503",
        "recommend: 1 times no answer",
        "recommend: 1 times 429",
        "malformed: 1 times 200",
        "malformed: 1 times 500",
        "workers that ended: 1",
    ]
