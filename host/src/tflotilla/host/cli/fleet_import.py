"""`tflotilla fleet import`: boards that stand elsewhere already; a dry run unless --write is given."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - typer reads it
from typing import TYPE_CHECKING, Annotated, Any

import click
import typer

from tflotilla.host.cli import fleet_pin, output, selecting
from tflotilla.shared.contract.errors import InputError, UsageError

if TYPE_CHECKING:
    from tflotilla.host.fleet.importing.candidates import Reading
    from tflotilla.host.fleet.importing.merging import ImportPlan
    from tflotilla.host.fleet.inventory.fleet import Fleet
    from tflotilla.host.fleet.lines.enrolment import FoundKeys

_KINDS = ("auto", "ansible", "ssh-config", "csv")
_LISTEN_S = 5.0


def import_boards(
    source: Annotated[
        Path | None,
        typer.Argument(metavar="[SOURCE]", help="An Ansible inventory or folder, ~/.ssh/config, or a table.csv."),
    ] = None,
    kind: Annotated[
        str, typer.Option("--from", click_type=click.Choice(_KINDS), help="What SOURCE is; auto looks at its name.")
    ] = "auto",
    mdns: Annotated[bool, typer.Option("--mdns", help="Instead of SOURCE: listen for boards on this network.")] = False,
    seconds: Annotated[float, typer.Option("--for", min=0.1, help="How long --mdns listens, in seconds.")] = _LISTEN_S,
    write: Annotated[bool, typer.Option("--write", help="Do it; without, only what would be done is shown.")] = False,
    select: Annotated[
        str | None, typer.Option("--select", metavar="SELECTOR", help="Only these, by their names, groups and labels.")
    ] = None,
    label: Annotated[
        list[str] | None, typer.Option("--label", metavar="KEY=VALUE", help="For every board of it; may be repeated.")
    ] = None,
    label_variable: Annotated[
        list[str] | None,
        typer.Option("--label-variable", metavar="NAME", help="Ansible variables that become labels; may be repeated."),
    ] = None,
    accept_new: fleet_pin.AcceptNew = False,
    known_hosts: fleet_pin.KnownHosts = None,
    limit: selecting.Limit = None,
    forks: selecting.Forks = 10,
    fleet: selecting.FleetFile = None,
    as_json: selecting.Json = False,
) -> None:
    """Bring boards of an Ansible inventory, ssh's configuration, a CSV table or mDNS into fleet.toml.

    Without --write nothing is changed: what would be added, changed and left out is shown, with reasons. Boards whose
    host key neither --known-hosts nor --accept-new gives are added without one; `tflotilla fleet pin` gives it later.

    Example: tflotilla fleet import hosts.ini --known-hosts ~/.ssh/known_hosts --write

    Exit codes: 0 done, 2 usage, 3 the source or fleet.toml can't be read.
    """
    from tflotilla.host.fleet.importing import merging
    from tflotilla.host.fleet.inventory.fleet import Fleet, locate
    from tflotilla.host.fleet.selection.selectors import parse_labels

    labels = parse_labels(label or [])
    if mdns == (source is not None):
        message = "name one source: a file, or --mdns"
        raise UsageError(message)
    if accept_new and known_hosts is not None:
        message = "--known-hosts and --accept-new contradict each other"
        raise UsageError(message)
    reading = _listened(seconds) if source is None else _read(source.expanduser(), kind, label_variable or [])
    path = locate(fleet)
    made = not path.exists()
    loaded = None if made else Fleet.load(path)
    plan = merging.plan(
        reading,
        {} if loaded is None else loaded.boards,
        {} if loaded is None else loaded.groups,
        labels=labels,
        wanted=_wanted(reading, labels, select, limit),
    )
    keys: FoundKeys | None = None
    if write and not plan.empty:
        loaded = loaded or Fleet.create(path, name="fleet")
        keys = _apply(plan, loaded, accept_new=accept_new, known_hosts=known_hosts, forks=forks)
        if made:
            output.note(f"made {path}; set [signing] key and [mqtt] host there before `tflotilla board bootstrap`")
    if as_json:
        output.emit_json(_document(plan, keys, written=write))
        return
    _tell(plan, keys, written=write, asked=accept_new or known_hosts is not None)


def _listened(seconds: float) -> Reading:
    from tflotilla.host.fleet.importing import mdns

    with output.progress(f"listening for {seconds:g} s"):
        return mdns.reading(mdns.listen(timeout_s=seconds), resolves=mdns.resolves)


def _read(source: Path, kind: str, label_variables: list[str]) -> Reading:
    if not source.exists():
        message = f"there is no {source}"
        raise InputError(message)
    if kind == "auto":
        kind = _guessed(source)
    if kind == "csv":
        from tflotilla.host.fleet.importing import table

        return table.read(source)
    if kind == "ssh-config":
        from tflotilla.host.fleet.importing import ssh_hosts

        return ssh_hosts.read(source)
    from tflotilla.host.fleet.importing import ansible

    return ansible.read(source, label_variables=label_variables)


def _guessed(source: Path) -> str:
    if source.suffix.lower() in (".csv", ".tsv"):
        return "csv"
    if source.parent.name == ".ssh" or source.name in ("ssh_config", "config", ".sshconfig"):
        return "ssh-config"
    return "ansible"


def _wanted(reading: Reading, labels: dict[str, str], select: str | None, limit: str | None) -> frozenset[str] | None:
    """Return the names that --select and --limit leave; None is all."""
    from tflotilla.host.fleet.selection import selectors

    if select is None and limit is None:
        return None
    boards = {each.name: {**each.table.get("labels", {}), **labels} for each in reading.candidates}
    groups: dict[str, list[str]] = {}
    for each in reading.candidates:
        for group in each.groups:
            groups.setdefault(group, []).append(each.name)
    names = selectors.select(select or "all", boards, groups=groups)
    return frozenset(names if limit is None else selectors.limited(names, limit, boards, groups=groups))


def _apply(plan: ImportPlan, fleet: Fleet, *, accept_new: bool, known_hosts: Path | None, forks: int) -> FoundKeys:
    keys = fleet_pin.find(plan.added, fleet, accept_new=accept_new, known_hosts=known_hosts, forks=forks)
    fleet.change(add=plan.added, put=plan.values(fleet.named_groups()), pin=keys.lines)
    return keys


def _tell(plan: ImportPlan, keys: FoundKeys | None, *, written: bool, asked: bool) -> None:
    from tflotilla.host.cli.fleet_words import address

    rows = [
        (name, "added" if written else "would be added", address(entry), "; ".join(plan.notes.get(name, ())))
        for name, entry in plan.added.items()
    ]
    verb = "changed" if written else "would be changed"
    rows += [(each.board, verb, f"{each.key}: {_said(each.before)} → {_said(each.after)}", "") for each in plan.changed]
    rows += [("", f"group @{group}", f"{len(names)} more: {_few(names)}", "") for group, names in plan.joined.items()]
    rows += [(each.origin, "left out", "", each.reason) for each in plan.left_out]
    if rows:
        output.emit_table(plan.source, ("board", "what", "value", "why"), rows)
    for note in plan.notes.get("", ()):
        output.note(note)
    changed = len({each.board for each in plan.changed})
    counted = f"{len(plan.added)} new, {changed} changed, {len(plan.same)} as they are, {len(plan.left_out)} left out"
    typer.echo(f"{counted}{'' if written or plan.empty else '; --write does it'}")
    if keys is not None and keys.missing:
        if asked:
            fleet_pin.tell_missing(keys.missing)
        output.note(
            f"{len(keys.missing)} boards have no host key yet, and none is connected to without one; "
            f"`tflotilla fleet pin` gives them theirs"
        )


def _said(value: Any) -> str:  # noqa: ANN401 - any value of a board's table
    if isinstance(value, dict):
        return " ".join(f"{key}={each}" for key, each in value.items()) or "none"
    return "-" if value is None else str(value)


def _few(names: tuple[str, ...]) -> str:
    shown = 4
    return " ".join(names[:shown]) + (" …" if len(names) > shown else "")


def _document(plan: ImportPlan, keys: FoundKeys | None, *, written: bool) -> dict[str, Any]:
    from tflotilla.shared.contract import codec

    return {
        "source": plan.source,
        "written": written and not plan.empty,
        "added": codec.encode(plan.added),
        "changed": codec.encode(plan.changed),
        "same": list(plan.same),
        "left_out": codec.encode(plan.left_out),
        "joined": codec.encode(plan.joined),
        "notes": codec.encode(plan.notes),
        "pinned": [] if keys is None else sorted(keys.lines),
        "unpinned": {} if keys is None else dict(keys.missing),
    }
