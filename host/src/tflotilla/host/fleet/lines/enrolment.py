"""Host keys for boards that have none pinned: from a known_hosts file, or as the boards show them now.

Rules it keeps: a key is pinned by somebody's decision, `--accept-new` or a file they trust; a board without one stays
in the fleet, unpinned, and is not connected to.
What it does NOT do: write; `Fleet.change(pin=…)` does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tflotilla.host.fleet import pool
from tflotilla.host.fleet.lines import pins, ssh, ssh_config
from tflotilla.shared.contract.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tflotilla.host.fleet.inventory.fleet import BoardEntry, Fleet


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundKeys:
    """Board → its key as a line of known_hosts without comment; board → why there is none."""

    lines: Mapping[str, str]
    missing: Mapping[str, str]


def from_file(boards: Mapping[str, BoardEntry], path: Path) -> FoundKeys:
    """Take the keys that a known_hosts file has for boards. Raises InputError."""
    try:
        known = pins.KnownHosts(path.read_text(errors="replace"))
    except OSError as error:
        message = f"{path}: {error.strerror or error}"
        raise InputError(message) from error
    config = ssh_config.load()
    lines: dict[str, str] = {}
    missing: dict[str, str] = {}
    for name, entry in boards.items():
        addresses = ssh_config.addresses(config, entry.host, entry.port)
        key = known.lookup(addresses)
        if key is None:
            missing[name] = f"{path} has no key of {' or '.join(addresses)}"
        else:
            lines[name] = f"{addresses[0]} {key[0]} {key[1]}"
    return FoundKeys(lines=lines, missing=missing)


def from_boards(
    boards: Mapping[str, BoardEntry],
    fleet: Fleet,
    *,
    forks: int,
    on_result: Callable[[str], None] = lambda _name: None,
) -> FoundKeys:
    """Ask boards for the keys they show now, at most `forks` at once."""
    found = pool.run(
        tuple(boards),
        lambda name: ssh.fetch_host_keys(name, boards[name], fleet)[0].line,
        forks=forks,
        on_result=lambda result: on_result(result.board),
    )
    return FoundKeys(
        lines={result.board: result.value for result in found if result.value is not None},
        missing={result.board: str(result.error) for result in found if result.error is not None},
    )
