"""A real broker with a password, a fleet of three on it, and scripted boards."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests import brokers
from tests.host.telemetry.fake_board import FakeBoard
from tflotilla.host.fleet.inventory.fleet import BoardEntry, Fleet
from tflotilla.shared.contract.agent_config import MqttConfig

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

PASSWORD = "open sesame"
FLEET = "barn"


@pytest.fixture
def mosquitto(tmp_path: Path) -> Iterator[brokers.Mosquitto]:
    with brokers.mosquitto(tmp_path / "broker", username="host", password=PASSWORD) as broker:
        yield broker


@pytest.fixture
def config(mosquitto: brokers.Mosquitto, tmp_path: Path) -> MqttConfig:
    """Give what fleet.toml says of the broker; the password file is relative to tmp_path."""
    (tmp_path / "password").write_text(PASSWORD + "\n")
    return MqttConfig(port=mosquitto.port, username="host", password_file="password")


@pytest.fixture
def fleet_file(config: MqttConfig, tmp_path: Path) -> Path:
    """Give a fleet of pi-1, pi-2 and pi-3 on the broker."""
    path = tmp_path / "fleet.toml"
    fleet = Fleet.create(path, name=FLEET, mqtt=config)
    for number in (1, 2, 3):
        fleet = fleet.add(f"pi-{number}", BoardEntry(host="127.0.0.1"), "127.0.0.1 ssh-ed25519 AAAA")
    return path


@pytest.fixture
def board(config: MqttConfig) -> Callable[..., FakeBoard]:
    """Give a maker of scripted boards of the fleet."""

    def make(name: str, **more: object) -> FakeBoard:
        return FakeBoard(config=config, password=PASSWORD, fleet=FLEET, board=name, **more)  # type: ignore[arg-type]

    return make
