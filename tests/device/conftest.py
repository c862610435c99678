"""What most tests of the agent begin with: somebody who signs, releases, a home that trusts them, a broker."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests import brokers
from tests.device.agents import CONFIG
from tests.device.bundles_made import MadeBundle, Signer, make_bundle, make_signer, trust
from tflotilla.device.home import Home

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="session")
def signer(tmp_path_factory: pytest.TempPathFactory) -> Signer:
    """Return whoever signs the bundles of these tests."""
    return make_signer(tmp_path_factory.mktemp("keys"))


@pytest.fixture(scope="session")
def one(tmp_path_factory: pytest.TempPathFactory, signer: Signer) -> MadeBundle:
    """Return a first release."""
    return make_bundle(tmp_path_factory.mktemp("one"), signer, version="1.0.0", release=1, model=b"one")


@pytest.fixture(scope="session")
def two(tmp_path_factory: pytest.TempPathFactory, signer: Signer) -> MadeBundle:
    """Return a second release."""
    return make_bundle(tmp_path_factory.mktemp("two"), signer, version="2.0.0", release=2, model=b"two")


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory, signer: Signer) -> MadeBundle:
    """Return a bundle of which no test wants to know what it is."""
    return make_bundle(tmp_path_factory.mktemp("made"), signer)


@pytest.fixture
def home(tmp_path: Path, signer: Signer) -> Home:
    """Return a home that is configured, trusts the signer and holds no bundle."""
    made = Home(tmp_path / "home")
    trust(made, signer)
    made.config.write_text(CONFIG)
    return made


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[brokers.Mosquitto]:
    """Run a broker that keeps its clients' sessions over a stop: what is missing afterwards was lost by the agent."""
    with brokers.mosquitto(tmp_path / "broker", persistence=True) as found:
        yield found


@pytest.fixture
def listener(broker: brokers.Mosquitto) -> Iterator[brokers.Listener]:
    """Return somebody who hears all that the broker passes on."""
    with brokers.listening(broker) as found:
        yield found
