from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from recops.store import open_store


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty store's, on each database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/state/store.sqlite"
    return request.getfixturevalue("new_database")()


@pytest.fixture
def store(url: str) -> Iterator[Any]:
    with closing(open_store(url)) as store:
        yield store


@pytest.fixture
def sql() -> Callable[[str, str], list[tuple]]:
    """Runs a statement on the database of a URL, past the store."""

    def run(url: str, statement: str) -> list[tuple]:
        if url.startswith("sqlite"):
            import sqlite3

            with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as con, con:
                return con.execute(statement).fetchall()
        import psycopg

        with psycopg.connect(url) as con:
            done = con.execute(statement)
            return done.fetchall() if done.description else []

    return run
