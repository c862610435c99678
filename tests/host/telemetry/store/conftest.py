"""Stores for tests: one of SQLite, one of a real PostgreSQL."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest

from tests import postgres
from tflotilla.host.telemetry.store import database

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tflotilla.host.telemetry.store.database import DatabaseStore
    from tflotilla.host.telemetry.store.retention import Retention

_COUNTER = itertools.count()


@pytest.fixture(scope="session")
def server() -> Iterator[postgres.Postgres]:
    """A PostgreSQL for all tests of a run."""
    with postgres.server() as running:
        yield running


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where a store may be made, that is not there yet."""
    if request.param == "sqlite":
        return str(tmp_path / "telemetry.db")
    pytest.importorskip("psycopg")
    running: postgres.Postgres = request.getfixturevalue("server")
    name = f"store{next(_COUNTER)}"
    running.execute(f"CREATE DATABASE {name}")
    return running.url(database=name)


@pytest.fixture
def opened(url: str) -> Iterator[Callable[..., DatabaseStore]]:
    """Open it, several times if need be."""
    stores: list[DatabaseStore] = []

    def open_it(retention: Retention | None = None) -> DatabaseStore:
        stores.append(database.open_store(url, retention=retention))
        return stores[-1]

    yield open_it
    for store in stores:
        store.close()
