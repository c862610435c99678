"""An Ansible inventory that is used where it is: `[inventory] ansible = "hosts.ini"` in fleet.toml.

Its boards are read each time. What fleet.toml says of a board of the same name goes over it, key by key; host keys are
pinned beside fleet.toml (`tflotilla fleet pin`). Hosts that can't be boards are not there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tflotilla.host.fleet.importing import ansible
from tflotilla.shared.contract.errors import ConfigError, InputError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


def read(path: Path) -> tuple[Mapping[str, Mapping[str, Any]], dict[str, tuple[str, ...]]]:
    """Return the boards' tables and each group's boards. Raises ConfigError."""
    try:
        found = ansible.read(path)
    except InputError as error:
        message = f"inventory.ansible: {error}"
        raise ConfigError(message) from error
    groups: dict[str, list[str]] = {}
    for candidate in found.candidates:
        for group in candidate.groups:
            groups.setdefault(group, []).append(candidate.name)
    tables = {candidate.name: candidate.table for candidate in found.candidates}
    return tables, {group: tuple(boards) for group, boards in groups.items()}
