"""Write a lab's fleet folder: the inventory with its boards enrolled, their host keys pinned, a signing key allowed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tflotilla.host.fleet.inventory.fleet import BoardEntry, Fleet
from tflotilla.host.lab import keys

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tflotilla.shared.contract.agent_config import MqttConfig

SIGNING_KEY = "signing_key"


def write(fleet_file: Path, *, name: str, boards: Mapping[str, tuple[BoardEntry, str]], mqtt: MqttConfig) -> None:
    """Write the fleet of these boards (name → entry and public host key line)."""
    fleet_file.parent.mkdir(parents=True)
    signing_key = fleet_file.parent / SIGNING_KEY
    keys.generate(signing_key, comment=f"tflotilla lab {name}")
    fleet = Fleet.create(fleet_file, name=name, mqtt=mqtt, signing_key=signing_key)
    for board, (entry, host_key) in boards.items():
        fleet = fleet.add(board, entry, f"[{entry.host}]:{entry.port} {host_key}")
    # Made now, so that a script may read it before the first deployment.
    fleet.allowed_signers()
