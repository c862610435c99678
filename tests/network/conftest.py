"""A host without the habits of whoever runs the tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.network import fleets

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """Return a cache of environments that every test of this run shares, so that one is built once."""
    base = tmp_path_factory.getbasetemp()
    return (base if worker_id == "master" else base.parent) / "tflotilla-cache"


@pytest.fixture(scope="module", autouse=True)
def quiet(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Iterator[Path]:
    """Give the host a HOME of its own; return it."""
    home = tmp_path_factory.mktemp("host-home") / "home"
    with fleets.quiet_host(home, cache):
        yield home
