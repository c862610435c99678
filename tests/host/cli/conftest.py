from __future__ import annotations

from tests.host.telemetry.conftest import board, config, fleet_file, mosquitto

__all__ = ["board", "config", "fleet_file", "mosquitto"]
