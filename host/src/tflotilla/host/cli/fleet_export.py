"""`tflotilla fleet export`: the fleet in the words of other tools."""

from __future__ import annotations

import dataclasses
from pathlib import Path  # noqa: TC003 - typer reads it
from typing import TYPE_CHECKING, Annotated, Any

import click
import typer

from tflotilla.host.cli import output, selecting
from tflotilla.shared.contract.errors import InputError

if TYPE_CHECKING:
    from tflotilla.host.fleet.inventory.entries import BoardEntry
    from tflotilla.host.fleet.inventory.fleet import Fleet

FORMATS = ("ansible", "ansible-ini", "csv", "ssh-config", "json")


def export(
    selector: selecting.OptionalSelector = "all",
    form: Annotated[
        str,
        typer.Option(
            "--format", click_type=click.Choice(FORMATS), help="`ansible` is YAML; `ssh-config` goes into ~/.ssh."
        ),
    ] = "ansible",
    to: Annotated[Path | None, typer.Option("--output", "-o", metavar="FILE", help="Instead of stdout.")] = None,
    limit: selecting.Limit = None,
    fleet: selecting.FleetFile = None,
    as_json: selecting.Json = False,
) -> None:
    """Write boards with their addresses, groups and labels for Ansible, spreadsheets, ssh or programs.

    Example: tflotilla fleet export room=kitchen --format ansible --output kitchen.yml

    Exit codes: 0 done, 2 usage, 3 fleet.toml, or the file can't be written.
    """
    from tflotilla.host.fleet.inventory import exporting
    from tflotilla.host.fleet.inventory.fleet import Fleet

    loaded = Fleet.load(fleet)
    boards = {name: _anywhere(loaded, name) for name in loaded.select(selector, limit=limit)}
    chosen: Any = "json" if as_json else form
    text = exporting.text(chosen, boards, loaded.groups, fleet=loaded.name, known_hosts=loaded.known_hosts)
    if to is None:
        typer.echo(text, nl=False)
        return
    output.check_writable(to)
    try:
        to.write_text(text)
    except OSError as error:
        message = f"{to} can't be written: {error.strerror}"
        raise InputError(message) from error
    output.note(f"wrote {len(boards)} boards to {to}")


def _anywhere(fleet: Fleet, name: str) -> BoardEntry:
    """Return a board with its key file named so that it is found from another folder."""
    entry = fleet.boards[name]
    if entry.identity is None or entry.identity.startswith("~"):
        return entry
    return dataclasses.replace(entry, identity=str(fleet.resolve(entry.identity)))
