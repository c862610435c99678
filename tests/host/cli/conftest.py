"""The brokers and scripted boards of the telemetry tests, for the commands that need them."""

from __future__ import annotations

from tests.host.telemetry.conftest import board, config, fleet_file, mosquitto

__all__ = ["board", "config", "fleet_file", "mosquitto"]
