"""The broker, the fleet and the scripted boards of the tests of telemetry."""

from tests.host.telemetry.conftest import board, config, fleet_file, mosquitto

__all__ = ["board", "config", "fleet_file", "mosquitto"]
