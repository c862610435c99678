"""A host without the habits of whoever runs the tests."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.network import fleets

if TYPE_CHECKING:
    from collections.abc import Iterator


_HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave what lies here to `make test-fleet`: it takes minutes."""
    for item in items:
        if _HERE in item.path.parents:
            item.add_marker(pytest.mark.fleet)


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
