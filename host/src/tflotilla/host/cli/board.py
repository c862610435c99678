"""`tflotilla board`: the boards of a fleet: add, list, probe, bootstrap, remove."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import click
import typer

from tflotilla.host.cli import output, selecting
from tflotilla.shared.contract.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from tflotilla.host.fleet.agents.bootstrap import Bootstrapped
    from tflotilla.host.fleet.agents.probe import Probe
    from tflotilla.host.fleet.lines.ssh import HostKey
    from tflotilla.shared.contract.board import BoardFacts

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="The boards of a fleet: add, list, probe, bootstrap, remove.",
    epilog="Example: tflotilla board add pi-7 pi@192.168.1.7 --label room=kitchen",
)

_FleetOption = Annotated[
    Path | None, typer.Option("--fleet", help="fleet.toml; default $TFLOTILLA_FLEET, ./fleet.toml.")
]
_JsonOption = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]
_ForksOption = Annotated[int, typer.Option("--forks", min=1, help="How many boards at once.")]
_MIB = 1 << 20


@app.command("add")
def add(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Its name: lower-case letters, digits, '-'.")],
    address: Annotated[
        str, typer.Argument(metavar="[USER@]HOST[:PORT]", help="As for ssh; a Host of ~/.ssh/config will do.")
    ],
    label: Annotated[list[str] | None, typer.Option("--label", metavar="KEY=VALUE", help="May be repeated.")] = None,
    fingerprint: Annotated[
        str | None, typer.Option("--fingerprint", metavar="SHA256:…", help="Take the board with this host key only.")
    ] = None,
    accept_new: Annotated[
        bool, typer.Option("--accept-new", help="Take whatever host key it shows now (trust on first use).")
    ] = False,
    identity: Annotated[
        Path | None, typer.Option("--identity", metavar="FILE", help="Private key to log in with.")
    ] = None,
    install: Annotated[
        Literal["auto", "user", "system"],
        typer.Option(
            "--install",
            click_type=click.Choice(["auto", "user", "system"]),
            help="Where the agent will live; auto is system with root and systemd.",
        ),
    ] = "auto",
    fleet: _FleetOption = None,
    as_json: _JsonOption = False,
) -> None:
    """Enrol a board: pin its SSH host key and write it into fleet.toml, which is made when there is none.

    Example: tflotilla board add pi-7 pi@192.168.1.7 --label room=kitchen --fingerprint SHA256:2Yx…

    Exit codes: 0 added, 2 usage, or nobody confirmed the key; 3 fleet.toml; 5 unreachable; 6 another host key.
    """
    from tflotilla.host.fleet.agents import bootstrap
    from tflotilla.host.fleet.inventory.fleet import BoardEntry, Fleet, locate
    from tflotilla.host.fleet.selection.selectors import parse_labels

    if fingerprint is not None and accept_new:
        message = "--fingerprint and --accept-new contradict each other"
        raise UsageError(message)
    user, host, port = _parse_address(address)
    try:
        entry = BoardEntry(
            host=host,
            port=port,
            user=user,
            identity=None if identity is None else str(identity.expanduser().absolute()),
            labels=parse_labels(label or []),
            install=install,
        )
    except ValueError as error:
        raise UsageError(str(error)) from error
    path = locate(fleet)
    made = not path.exists()
    loaded = Fleet.create(path, name="fleet") if made else Fleet.load(path)
    try:
        _changed, key = bootstrap.enrol(
            name, entry, loaded, fingerprint=fingerprint, confirm=_confirmation(name, accept_new=accept_new)
        )
    except BaseException:
        if made:
            path.unlink()
        raise
    if made:
        output.note(f"made {path}; set [signing] key and [mqtt] host there before `tflotilla board bootstrap`")
    if as_json:
        output.emit_json({"board": name, "address": key.address, "host_key": key.kind, "fingerprint": key.fingerprint})
    else:
        typer.echo(f"{name} is enrolled: {key.address}, host key {key.fingerprint}")


@app.command("list")
def list_boards(
    selector: selecting.OptionalSelector = "all",
    limit: selecting.Limit = None,
    fleet: _FleetOption = None,
    as_json: _JsonOption = False,
) -> None:
    """Show the boards of the fleet and what they said about themselves last. Asks no board.

    Example: tflotilla board list room=kitchen

    Exit codes: 0 done, 2 the selector picks none, 3 fleet.toml.
    """
    from tflotilla.host.fleet.inventory.fleet import Fleet
    from tflotilla.shared.contract import codec

    loaded = Fleet.load(fleet)
    names = loaded.select(selector, limit=limit) if loaded.boards else ()
    if as_json:
        boards = [
            {"board": name, "facts": codec.encode(loaded.facts(name)), **codec.encode(loaded.board(name))}
            for name in names
        ]
        output.emit_json({"fleet": loaded.name, "boards": boards})
        return
    if not names:
        output.note("the fleet has no boards yet; `tflotilla board add NAME [user@]host` adds one")
        return
    rows = []
    for name in names:
        entry = loaded.board(name)
        address = "".join((f"{entry.user}@" if entry.user else "", entry.host, f":{entry.port}" if entry.port else ""))
        labels = " ".join(f"{key}={value}" for key, value in entry.labels.items())
        rows.append((name, address, labels, *_facts_cells(loaded.facts(name))))
    output.emit_table(loaded.name, ("board", "address", "labels", *_FACTS_COLUMNS), rows, right=_FIGURES)


@app.command("probe")
def probe_boards(
    selector: selecting.Selector,
    limit: selecting.Limit = None,
    forks: _ForksOption = 10,
    fleet: _FleetOption = None,
    as_json: _JsonOption = False,
) -> None:
    """Ask boards what they are: model, architecture, Python, memory, disk, runtimes. Installs nothing.

    Example: tflotilla board probe all

    Exit codes: 0 done, 2 usage, 3 fleet.toml, 5 unreachable, 6 host key or login, 7 no or too old Python; 1 when
    boards failed in different ways.
    """
    from tflotilla.host.cli import results
    from tflotilla.host.fleet import pool
    from tflotilla.host.fleet.agents import probe
    from tflotilla.host.fleet.inventory.fleet import Fleet

    loaded = Fleet.load(fleet)
    names = loaded.select(selector, limit=limit)
    with output.progress(f"asking {len(names)} board{'s' if len(names) > 1 else ''}"):
        found = pool.run(names, lambda name: probe.probe(name, loaded), forks=forks)

    def row(result: Probe) -> tuple[str, ...]:
        return (*_facts_cells(result.facts), result.agent_version or "not installed")

    results.finish(loaded.name, (*_FACTS_COLUMNS, "agent"), found, row, as_json=as_json, right=_FIGURES)


@app.command("bootstrap")
def bootstrap_boards(
    selector: selecting.Selector,
    runtime: Annotated[
        Literal["auto", "tflite-runtime", "ai-edge-litert", "both"],
        typer.Option(
            "--runtime",
            click_type=click.Choice(["auto", "tflite-runtime", "ai-edge-litert", "both"]),
            help="Which runtimes to install; auto: both where both have wheels.",
        ),
    ] = "auto",
    window: Annotated[
        float,
        typer.Option(
            "--window",
            metavar="SECONDS",
            min=1,
            help="How long a new agent may take to report; else the old comes back.",
        ),
    ] = 60.0,
    limit: selecting.Limit = None,
    forks: _ForksOption = 10,
    fleet: _FleetOption = None,
    as_json: _JsonOption = False,
) -> None:
    """Install or update the agent: packages are built here and pushed, the board needs no pip and no internet.

    Running it again sends only what changed. A new agent that doesn't answer, serve what was served and report as the
    one before did within its window is undone by the board itself, even when this command was ended.

    Example: tflotilla board bootstrap all

    Exit codes: 0 the agents run, 2 usage, 3 fleet.toml, 5 unreachable, 6 host key or login, 7 the board lacks
    something (Python, wheels, space) or has its old agent back; 1 when boards failed in different ways.
    """
    from tflotilla.host.cli import results
    from tflotilla.host.fleet import pool
    from tflotilla.host.fleet.agents import bootstrap
    from tflotilla.host.fleet.inventory.fleet import Fleet

    loaded = Fleet.load(fleet)
    names = loaded.select(selector, limit=limit)
    # What is wrong for every board is said once, before any board is asked.
    loaded.allowed_signers()
    loaded.mqtt_files()
    if loaded.mqtt is None:
        output.note(f"{loaded.path} has no [mqtt]: the agents look for a broker on their own board")
    with results.progress(names) as shown:
        found = pool.run(
            names,
            lambda name: bootstrap.bootstrap(
                name,
                loaded,
                runtime=runtime,
                window_s=window,
                on_step=lambda text: shown.step(name, text),
                on_bytes=lambda sent, total: shown.bytes(name, sent, total),
            ),
            forks=forks,
        )
    columns = ("runtimes", "sent", "environment", "agent", "changed")
    results.finish(loaded.name, columns, found, _bootstrapped_cells, as_json=as_json, right=("sent",))


@app.command("remove")
def remove(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The board.")],
    purge: Annotated[
        bool, typer.Option("--purge", help="Also stop its agent and delete what it had there, bundles included.")
    ] = False,
    fleet: _FleetOption = None,
    as_json: _JsonOption = False,
) -> None:
    """Take a board out of the fleet and forget its host key; without --purge the board itself is not touched.

    Example: tflotilla board remove pi-7 --purge

    Exit codes: 0 removed, 2 no such board, 3 fleet.toml; with --purge: 5 unreachable, 6 host key or login, 7 it
    could not be removed there; then nothing is forgotten.
    """
    from tflotilla.host.fleet.agents import bootstrap
    from tflotilla.host.fleet.inventory.fleet import Fleet

    loaded = Fleet.load(fleet)
    if name not in loaded.boards:
        message = f"no board {name!r} in {loaded.path}"
        raise UsageError(message)
    if purge:
        with output.progress(f"removing the agent of {name}"):
            bootstrap.purge(name, loaded)
    loaded.remove(name)
    if as_json:
        output.emit_json({"board": name, "purged": purge})
    else:
        typer.echo(f"{name} is removed{' and its agent too' if purge else '; its agent, if any, goes on there'}")


def _confirmation(name: str, *, accept_new: bool) -> Callable[[HostKey], bool]:
    def confirm(key: HostKey) -> bool:
        if accept_new:
            return True
        if not sys.stdin.isatty():
            message = (
                f"{name} ({key.address}) shows the {key.kind} host key {key.fingerprint}; compare it with "
                f"`ssh-keygen -lf` on the board, then add --fingerprint {key.fingerprint} (or --accept-new)"
            )
            raise UsageError(message)
        typer.echo(f"{name} ({key.address}) shows the {key.kind} host key\n    {key.fingerprint}", err=True)
        typer.echo("On the board, `ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub` must show the same.", err=True)
        return typer.confirm("Is it this board?", default=False, err=True)

    return confirm


def _parse_address(text: str) -> tuple[str | None, str, int | None]:
    found = re.fullmatch(
        r"(?:(?P<user>[^@]+)@)?(?:\[(?P<six>[^\]]+)\]|(?P<host>[^:@]+|[^@]*:[^@]*:[^@]*?))(?::(?P<port>\d{1,5}))?", text
    )
    if found is None:
        message = f"address {text!r}: write [user@]host[:port], an IPv6 address with a port in brackets"
        raise UsageError(message)
    port = found["port"]
    return found["user"], found["six"] or found["host"], int(port) if port else None


_FACTS_COLUMNS = ("model", "arch", "python", "cores", "RAM MiB", "free MiB", "runtimes")
_FIGURES = ("cores", "RAM MiB", "free MiB")


def _facts_cells(facts: BoardFacts | None) -> tuple[str, ...]:
    if facts is None:
        return ("never asked", "", "", "", "", "", "")
    return (
        facts.model or facts.distribution or facts.hostname,
        facts.arch,
        facts.python,
        str(facts.cores),
        str(facts.ram_bytes // _MIB),
        str(facts.disk_free_bytes // _MIB),
        " ".join(map(str, facts.runtimes)) or "none yet",
    )


def _bootstrapped_cells(done: Bootstrapped) -> tuple[str, ...]:
    from tflotilla.shared.contract import digest

    return (
        " ".join(map(str, done.hello.facts.runtimes)),
        f"{done.bytes_sent / 1e6:.2f} MB",
        digest.short(done.environment),
        done.hello.agent_version,
        ", ".join(done.changed) or "nothing, it was up to date",
    )
