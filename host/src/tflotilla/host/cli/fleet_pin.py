"""`tflotilla fleet pin`: host keys for boards that have none yet."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tflotilla.host.cli import output, selecting
from tflotilla.shared.contract.errors import IdentityError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tflotilla.host.fleet.inventory.fleet import BoardEntry, Fleet
    from tflotilla.host.fleet.lines.enrolment import FoundKeys

AcceptNew = Annotated[
    bool, typer.Option("--accept-new", help="Take whatever host key each board shows now (trust on first use).")
]
KnownHosts = Annotated[
    Path | None, typer.Option("--known-hosts", metavar="FILE", help="Take the host keys that this file has.")
]


def pin(
    selector: selecting.Selector,
    accept_new: AcceptNew = False,
    known_hosts: KnownHosts = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Also for boards that have a pinned key: they were installed anew.")
    ] = False,
    limit: selecting.Limit = None,
    forks: selecting.Forks = 10,
    fleet: selecting.FleetFile = None,
    as_json: selecting.Json = False,
) -> None:
    """Pin the SSH host keys of boards: tflotilla connects to no board without one.

    Example: tflotilla fleet pin all --known-hosts ~/.ssh/known_hosts

    Exit codes: 0 every board has a key, 2 usage, 3 fleet.toml or no such file, 6 some boards got none.
    """
    from tflotilla.host.fleet.inventory.fleet import Fleet

    if accept_new == (known_hosts is not None):
        message = "say where the keys come from: --known-hosts FILE, or --accept-new"
        raise UsageError(message)
    loaded = Fleet.load(fleet)
    names = loaded.select(selector, limit=limit)
    open_ = {name: loaded.boards[name] for name in names if replace or loaded.pinned(name) is None}
    found = find(open_, loaded, accept_new=accept_new, known_hosts=known_hosts, forks=forks)
    if found.lines:
        loaded.change(pin=found.lines)
    if as_json:
        output.emit_json({"pinned": sorted(found.lines), "missing": found.missing, "already": len(names) - len(open_)})
    else:
        typer.echo(f"{len(found.lines)} pinned, {len(names) - len(open_)} were already")
    if found.missing:
        tell_missing(found.missing)
        raise typer.Exit(IdentityError.exit_code)


def find(
    boards: Mapping[str, BoardEntry], fleet: Fleet, *, accept_new: bool, known_hosts: Path | None, forks: int
) -> FoundKeys:
    """Find host keys where the options say, and for the rest say that they have none."""
    from tflotilla.host.fleet.lines import enrolment

    if known_hosts is not None:
        return enrolment.from_file(boards, known_hosts.expanduser())
    if not accept_new or not boards:
        return enrolment.FoundKeys(lines={}, missing=dict.fromkeys(boards, "nobody was asked for it"))
    with output.progress(f"asking {len(boards)} board{'s' if len(boards) > 1 else ''} for their host keys"):
        return enrolment.from_boards(boards, fleet, forks=forks)


def tell_missing(missing: Mapping[str, str], *, most: int = 10) -> None:
    """Say which boards have no key, and why."""
    for name, reason in list(missing.items())[:most]:
        output.note(f"{name} has no host key: {reason.removeprefix(f'{name} ').removeprefix(f'{name}: ')}")
    if len(missing) > most:
        output.note(f"and {len(missing) - most} more")
