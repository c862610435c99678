"""`tflotilla fleet`: what is known of the boards, without asking them, and how they come into the fleet."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tflotilla.host.cli import fleet_export, fleet_import, fleet_pin, output, selecting

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tflotilla.host.fleet.inventory.contacts import Known
    from tflotilla.host.fleet.inventory.fleet import Fleet
    from tflotilla.host.fleet.inventory.reconciliation import Desired, Difference

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="What is known of the boards, without asking them: list, show, label, pin, import, export, diff.",
    epilog="Example: tflotilla fleet list 'site=lab and arch=aarch64 and not offline'",
)
EXIT_DIFFERS = 1


@app.command("list")
def list_boards(
    selector: selecting.OptionalSelector = "all",
    limit: selecting.Limit = None,
    fleet: selecting.FleetFile = None,
    as_json: selecting.Json = False,
) -> None:
    """Show boards: labels, whether they were there, what they served, and how old that knowledge is. Asks no board.

    Example: tflotilla fleet list 'site=lab and arch=aarch64 and not offline'

    Exit codes: 0 done, 2 the selector picks none or can't be read, 3 fleet.toml.
    """
    from tflotilla.host.cli import fleet_words
    from tflotilla.host.fleet.inventory.fleet import Fleet

    loaded = Fleet.load(fleet)
    names = loaded.select(selector, limit=limit) if loaded.boards else ()
    known = loaded.known(names)
    groups = _groups(loaded)
    if as_json:
        boards = [_document(loaded, name, groups.get(name, ()), known[name]) for name in names]
        output.emit_json({"fleet": loaded.name, "boards": boards})
        return
    if not names:
        output.note("the fleet has no boards yet; `tflotilla board add` and `tflotilla fleet import` add some")
        return
    now = time.time()
    rows = [fleet_words.row(name, loaded.boards[name], groups.get(name, ()), known[name], now) for name in names]
    output.emit_table(loaded.name, fleet_words.COLUMNS, rows)


@app.command("show")
def show(
    board: Annotated[str, typer.Argument(metavar="BOARD", help="Its name.")],
    fleet: selecting.FleetFile = None,
    as_json: selecting.Json = False,
) -> None:
    """Show everything that is known of one board: how it is reached, its groups and labels, what it said and when.

    Example: tflotilla fleet show pi-7

    Exit codes: 0 done, 2 no such board, 3 fleet.toml.
    """
    from tflotilla.host.fleet.inventory.fleet import Fleet

    loaded = Fleet.load(fleet)
    loaded.board(board)
    known = loaded.known([board])[board]
    groups = _groups(loaded).get(board, ())
    wanted = desired(loaded).get(board)
    if as_json:
        output.emit_json(_document(loaded, board, groups, known) | {"desired": wanted})
        return
    rows = _lines(loaded, board, groups, known, wanted)
    output.emit_table(board, ("what", "value"), rows)


@app.command("label")
def label(
    selector: selecting.Selector,
    changes: Annotated[
        list[str], typer.Argument(metavar="KEY=VALUE|KEY-...", help="`room=kitchen` sets, `room-` takes away.")
    ],
    limit: selecting.Limit = None,
    fleet: selecting.FleetFile = None,
    as_json: selecting.Json = False,
) -> None:
    """Set labels on boards, or take them away. fleet.toml is changed where they stand; comments stay.

    Example: tflotilla fleet label 'pi-*' room=kitchen floor-

    Exit codes: 0 done, 2 usage, 3 fleet.toml.
    """
    from tflotilla.host.fleet.inventory import labelling
    from tflotilla.host.fleet.inventory.fleet import Fleet

    wanted, unwanted = labelling.parse(changes)
    loaded = Fleet.load(fleet)
    names = loaded.select(selector, limit=limit)
    put = labelling.changes(loaded.path, names, wanted, unwanted)
    changed = loaded.change(put=put) if put else loaded
    kept = [name for name in names if any(key in changed.boards[name].labels for key in unwanted)]
    if as_json:
        boards = [{"board": name, "labels": dict(changed.boards[name].labels)} for name in names]
        output.emit_json({"boards": boards, "changed": len(put)})
    else:
        typer.echo(f"{len(put)} of {len(names)} board{'s' if len(names) > 1 else ''} changed")
    if kept:
        output.note(f"{', '.join(kept[:5])} still have a label of that name from their group, or an Ansible inventory")


@app.command("diff")
def diff(
    selector: selecting.OptionalSelector = "all",
    limit: selecting.Limit = None,
    every: Annotated[bool, typer.Option("--all", help="Also the boards that are as they should be.")] = False,
    exit_code: Annotated[bool, typer.Option("--exit-code", help="Exit with 1 when a board differs.")] = False,
    fleet: selecting.FleetFile = None,
    as_json: selecting.Json = False,
) -> None:
    """Compare what boards should be with what they said last: bundle (by the last rollout), agent and runtime.

    Example: tflotilla fleet diff room=kitchen --exit-code

    Exit codes: 0 done, 1 with --exit-code when a board differs or never reported, 2 usage, 3 fleet.toml.
    """
    from tflotilla.host import __version__
    from tflotilla.host.cli import fleet_words
    from tflotilla.host.fleet.inventory import reconciliation
    from tflotilla.host.fleet.inventory.fleet import Fleet

    loaded = Fleet.load(fleet)
    names = loaded.select(selector, limit=limit)
    runtimes = {name: runtime for name in names if (runtime := _runtime(loaded, name)) is not None}
    found = reconciliation.compare(
        names, loaded.known(names), desired=desired(loaded), agent=__version__, runtimes=runtimes
    )
    differing = [each for each in found if each.differs]
    shown = found if every else differing
    if as_json:
        output.emit_json({"boards": [_difference(each) for each in shown], "differing": len(differing)})
    elif shown:
        now = time.time()
        rows = [
            (
                each.board,
                fleet_words.aspect(each.bundle),
                fleet_words.aspect(each.agent),
                fleet_words.aspect(each.runtime),
                each.rollout or "-",
                fleet_words.ago(each.seen, now),
                "never reported" if each.said is None else "differs" if each.differs else "as it should be",
            )
            for each in shown
        ]
        output.emit_table(loaded.name, ("board", "bundle", "agent", "runtime", "rollout", "last seen", "result"), rows)
    else:
        typer.echo(f"all {len(names)} boards are as they should be")
    if exit_code and differing:
        raise typer.Exit(EXIT_DIFFERS)


app.command("pin")(fleet_pin.pin)
app.command("import")(fleet_import.import_boards)
app.command("export")(fleet_export.export)


def desired(fleet: Fleet) -> Mapping[str, Desired]:
    """Return which bundle each board should serve, by the rollouts' journal; boards of no rollout are missing."""
    from tflotilla.host.rollouts.journal import database, register

    journal = database.of_fleet(fleet, tell=output.note)
    try:
        return register.desired(journal)
    finally:
        journal.close()


def _groups(fleet: Fleet) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for group, boards in fleet.groups.items():
        for board in boards:
            found.setdefault(board, []).append(group)
    return found


def _runtime(fleet: Fleet, name: str) -> str | None:
    """Return the runtime that fleet.toml asks for; None where any will do."""
    for part in (fleet.boards[name].agent, fleet.agent):
        said = part.get("inference", {}).get("runtime")
        if said is not None:
            return None if said == "auto" else str(said)
    return None


def _document(fleet: Fleet, name: str, groups: Sequence[str], known: Known) -> dict[str, Any]:
    from tflotilla.shared.contract import codec

    contact = known.contact
    return {
        "board": name,
        **codec.encode(fleet.boards[name]),
        "groups": list(groups),
        "pinned": fleet.pinned(name) is not None,
        "online": contact.online,
        "contact": codec.encode(contact),
        "facts": codec.encode(known.facts),
        "facts_asked_at": known.asked_at,
    }


def _lines(
    fleet: Fleet,
    name: str,
    groups: Sequence[str],
    known: Known,
    wanted: Desired | None,
) -> list[tuple[str, str]]:
    from tflotilla.host.cli import fleet_words
    from tflotilla.shared.contract import digest

    entry, contact, facts, now = fleet.boards[name], known.contact, known.facts, time.time()
    pinned = fleet.pinned(name)
    lines = [
        ("address", fleet_words.address(entry)),
        ("through", entry.jump or ""),
        ("key file", entry.identity or ""),
        ("host key", f"{pinned[0]} {pinned[1][-16:]}" if pinned else f"not pinned; `tflotilla fleet pin {name}`"),
        ("stands in", "the Ansible inventory" if name in fleet.elsewhere else str(fleet.path)),
        ("groups", " ".join(groups)),
        ("labels", " ".join(f"{key}={value}" for key, value in entry.labels.items())),
        ("install", entry.install),
        ("online", fleet_words.online(contact)),
        ("last seen", fleet_words.ago(contact.seen, now)),
        ("last tried", fleet_words.ago(contact.tried, now)),
        ("last problem", contact.reason),
    ]
    if contact.heard is not None:
        lines.append(("over MQTT", f"{contact.availability}, {fleet_words.ago(contact.heard, now)} ago"))
    for what, bundle in (("serves", contact.serving), ("previous", contact.previous)):
        lines.append((what, f"{fleet_words.title(bundle)} ({digest.short(bundle.digest)})" if bundle else ""))
    lines.append(("should serve", f"{wanted.title} ({wanted.rollout})" if wanted else ""))
    lines.append(("agent", contact.agent or ""))
    if facts is not None:
        lines += [
            ("model", facts.model or ""),
            ("os", f"{facts.distribution or '?'}, Linux {facts.kernel}, {facts.libc or 'libc?'}"),
            ("arch", f"{facts.arch}, {facts.cores} cores, {facts.ram_bytes >> 20} MiB RAM"),
            ("disk free", f"{facts.disk_free_bytes >> 20} MiB"),
            ("python", facts.python),
            ("runtimes", " ".join(map(str, facts.runtimes)) or "none"),
            ("user", f"{facts.user}{', systemd' if facts.systemd else ''}"),
        ]
    lines.append(("facts", f"{fleet_words.ago(known.asked_at, now)} ago" if facts else "never asked"))
    return [(what, value) for what, value in lines if value]


def _difference(each: Difference) -> dict[str, Any]:
    from tflotilla.shared.contract import codec

    document: dict[str, Any] = codec.encode(each)
    return document | {"differs": each.differs}
