"""Boards from ssh's client configuration: each `Host` that stands there without wildcards.

Of the person's own ~/.ssh/config only the alias is taken: ssh looks the rest up whenever it connects. Of another file,
what it says is written down, because nobody would look there later.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tflotilla.host.fleet.importing.candidates import Candidate, LeftOut, Reading, board_name, distinct
from tflotilla.host.fleet.inventory.entries import BoardEntry
from tflotilla.host.fleet.lines import ssh_config

if TYPE_CHECKING:
    from pathlib import Path

    from tflotilla.host.fleet.lines.ssh_config import ConfiguredHost


def read(path: Path) -> Reading:
    """Read a configuration. Raises InputError."""
    own = path.absolute().resolve() == ssh_config.user_file().absolute().resolve()
    candidates: list[Candidate] = []
    left_out: list[LeftOut] = []
    for host in ssh_config.hosts(path):
        try:
            candidates.append(_candidate(host, own=own))
        except ValueError as error:
            left_out.append(LeftOut(origin=host.alias, reason=str(error)))
    kept = distinct(candidates, left_out)
    return Reading(source=str(path), candidates=kept, left_out=tuple(left_out))


def _candidate(host: ConfiguredHost, *, own: bool) -> Candidate:
    name = board_name(host.alias)
    table: dict[str, Any] = {"host": host.alias}
    if not own:
        if host.command is not None:
            message = f"its ProxyCommand works from {ssh_config.user_file()} alone"
            raise ValueError(message)
        said = {"host": host.host, "port": host.port, "user": host.user, "identity": host.identity, "jump": host.jump}
        table = {key: value for key, value in said.items() if value is not None}
    BoardEntry(**table)
    notes = (f"{host.alias} becomes {name}",) if name != host.alias else ()
    return Candidate(name=name, origin=host.alias, table=table, notes=notes)
