"""`tflotilla lab`: virtual boards and a broker on this machine, to try everything on."""

from __future__ import annotations

import shlex
import time
from pathlib import Path  # noqa: TC003 - typer reads it
from typing import TYPE_CHECKING, Annotated, Any, Literal

import click
import typer

from tflotilla.host.cli import output
from tflotilla.shared.contract.errors import BoardError, UsageError

if TYPE_CHECKING:
    from tflotilla.host.lab.lab import Lab

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Virtual boards and an MQTT broker on this machine: real SSH servers, no root, no containers.",
)
_BROKERS = ("auto", "mosquitto", "embedded")
_Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]


@app.command("up")
def up(
    name: Annotated[str, typer.Option(help="Name of the lab and of its fleet.")] = "lab",
    boards: Annotated[int, typer.Option(help="How many boards.")] = 3,
    broker: Annotated[
        Literal["auto", "mosquitto", "embedded"],
        typer.Option(click_type=click.Choice(_BROKERS), help="auto is an installed mosquitto, else the embedded one."),
    ] = "auto",
    python: Annotated[Path | None, typer.Option(help="Interpreter that is the boards' python3.")] = None,
    as_json: _Json = False,
) -> None:
    """Bring a lab up: boards NAME-1, NAME-2, … each with its own SSH server and home, a broker, and a fleet.toml.

    It stays up until `tflotilla lab down`.

    Example: tflotilla lab up --boards 5

    Exit codes: 0 up, 2 usage, 7 something does not start, 10 no broker, 11 a lab of that name is up.
    """
    from tflotilla.host.lab import lab

    if python is not None and not python.is_file():
        message = f"--python: there is no {python}"
        raise UsageError(message)
    with output.progress(f"lab {name}: {boards} boards and a broker"):
        here = lab.up(name=name, boards=boards, broker=broker, python=python)
    if as_json:
        output.emit_json(_facts(here))
        return
    _show(here)


@app.command("down")
def down(name: Annotated[str, typer.Argument(help="Which lab.")] = "lab", as_json: _Json = False) -> None:
    """Take a lab down: all of its processes end, all of its files go.

    Example: tflotilla lab down

    Exit codes: 0 gone, 2 there is no such lab, 7 something can't be ended.
    """
    from tflotilla.host.lab import lab

    with output.progress(f"lab {name} goes down"):
        lab.down(name)
    if as_json:
        output.emit_json({"name": name, "down": True})
    else:
        output.note(f"lab {name} is gone")


@app.command("list")
def list_(as_json: _Json = False) -> None:
    """List the labs of this user.

    Example: tflotilla lab list

    Exit codes: 0.
    """
    from tflotilla.host.lab import lab

    labs = [each for each in lab.list_labs() if _whole(each)]
    if as_json:
        output.emit_json([_facts(each) for each in labs])
        return
    if not labs:
        output.note("no lab is up; `tflotilla lab up` brings one up")
        return
    rows = []
    for each in labs:
        running = sum(each.running(board.name) for board in each.boards)
        broker = each.broker.kind if each.broker_running else f"{each.broker.kind} (down)"
        since = time.strftime("%Y-%m-%d %H:%M", time.localtime(each.created))
        rows.append((each.name, f"{running} of {len(each.boards)}", broker, since, str(each.fleet_file)))
    output.emit_table("Labs", ("lab", "boards on", "broker", "since", "fleet"), rows)


def _whole(here: Lab) -> bool:
    try:
        return bool(here.boards)
    except BoardError as error:
        output.complain(str(error))
        return False


def _facts(here: Lab) -> dict[str, Any]:
    broker = here.broker
    return {
        "name": here.name,
        "folder": str(here.folder),
        "fleet": str(here.fleet_file),
        "client_key": str(here.client_key),
        "broker": {
            "host": broker.host,
            "port": broker.port,
            "username": broker.username,
            "password_file": str(broker.password_file),
            "kind": broker.kind,
            "running": here.broker_running,
        },
        "boards": [
            {
                "name": board.name,
                "host": board.host,
                "port": board.port,
                "user": board.user,
                "home": str(board.home),
                "running": here.running(board.name),
            }
            for board in here.boards
        ],
    }


def _show(here: Lab) -> None:
    rows = [(board.name, f"{board.user}@{board.host}:{board.port}", str(board.home)) for board in here.boards]
    output.emit_table(f"Lab {here.name}", ("board", "ssh", "home"), rows)
    broker = here.broker
    kind = (
        "mosquitto"
        if broker.kind == "mosquitto"
        else "the embedded broker, because no mosquitto is installed or it was asked for: good for a look, not for data"
    )
    output.note(f"broker: {broker.host}:{broker.port}, {kind}")
    first = here.boards[0]
    known = here.fleet_file.parent / ".tflotilla" / "known_hosts"
    ssh = ["ssh", "-i", str(here.client_key), "-o", f"UserKnownHostsFile={known}", "-p", str(first.port)]
    fleet = shlex.quote(str(here.fleet_file))
    again = "" if here.name == "lab" else f" {here.name}"
    output.note(
        "try next:\n"
        f"  export TFLOTILLA_FLEET={fleet}\n"
        "  tflotilla board bootstrap all\n"
        "  tflotilla status\n"
        f"  {shlex.join([*ssh, f'{first.user}@{first.host}'])}\n"
        f"  tflotilla lab down{again}"
    )
