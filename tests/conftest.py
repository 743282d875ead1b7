"""Fixtures every test may use: where the real data lies."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

# The same examples in every run, and none fails for being slow: machines are busy at times.
settings.register_profile("recops", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("recops")

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real data sets; the test is skipped, and says so, where it is missing."""
    folder = Path(os.environ.get("RECOPS_TEST_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}: set RECOPS_TEST_DATA")
    return folder
