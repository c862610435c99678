"""`tflotilla bridge`: carry what the boards report into Home Assistant, Prometheus, …; one command per bridge.

The commands are made of what each module of `dashboards.bridges` says of itself; it is imported when it is asked for.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tflotilla.host.cli import interrupts, output
from tflotilla.host.cli.given_once import refuse_repeats
from tflotilla.host.cli.help_texts import keep_examples_whole
from tflotilla.host.cli.plain_typer import typer
from tflotilla.host.dashboards.bridges import BRIDGES
from tflotilla.shared.contract.errors import ConfigError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from tflotilla.host.dashboards.bridges import Option

_SHARED = (
    click.Option(
        ["--unknown"],
        is_flag=True,
        help="Show boards that fleet.toml doesn't know, too.",
    ),
    click.Option(["--for", "seconds"], type=float, metavar="SECONDS", help="Stop after that long; default at Ctrl-C."),
    click.Option(
        ["--fleet", "path"],
        type=click.Path(path_type=Path),
        metavar="PATH",
        help="fleet.toml; default $TFLOTILLA_FLEET, ./fleet.toml.",
    ),
    click.Option(["--json", "as_json"], is_flag=True, help="One line of JSON per thing that is worth saying."),
)


class _Bridges(typer.core.TyperGroup):
    """One command per bridge."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return list(BRIDGES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        del ctx
        if cmd_name not in BRIDGES:
            return None
        if cmd_name not in self.commands:
            self.commands[cmd_name] = _command(cmd_name)
        return self.commands[cmd_name]


app = typer.Typer(
    cls=_Bridges,
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Carry what the boards report over MQTT into tools that people have already.",
)


@app.callback()
def bridge() -> None:
    """Nothing of its own."""


def _command(name: str) -> click.Command:
    from tflotilla.host.dashboards import bridges

    module = bridges.module(name)
    # A click.Command, not typer's: what its options are is known only now.
    command = click.Command(
        name,
        callback=lambda **given: _run(name, given),
        params=[*(_option(each) for each in module.OPTIONS), *_SHARED],
        help=module.HELP,
    )
    keep_examples_whole(command)
    refuse_repeats(command)
    return command


def _option(said: Option) -> click.Option:
    flag = said.default is False
    return click.Option(
        [f"--{said.name}", said.name.replace("-", "_")],
        is_flag=flag,
        default=said.default,
        metavar=None if flag else said.metavar,
        help=said.help,
    )


def _run(name: str, given: dict[str, Any]) -> None:
    from tflotilla.host.dashboards import bridges
    from tflotilla.host.dashboards.bridges.serving import Server
    from tflotilla.host.fleet.inventory.fleet import Fleet
    from tflotilla.host.telemetry import mqtt
    from tflotilla.host.telemetry.live import Live

    seconds = given["seconds"]
    if seconds is not None and not seconds > 0:
        message = f"--for must be a number of seconds above 0, not {seconds:g}"
        raise UsageError(message)
    module = bridges.module(name)
    fleet = Fleet.load(given["path"])
    if fleet.mqtt is None:
        message = f"{fleet.path} has no [mqtt] table, so nothing reports; add host and port of your broker"
        raise ConfigError(message)
    tell = _write_json(name) if given["as_json"] else _tell
    live = Live(fleet.name, known=fleet.boards)
    setting = bridges.Setting(
        fleet=fleet,
        live=live,
        options={each.name: given[each.name.replace("-", "_")] for each in module.OPTIONS},
        unknown=given["unknown"],
        tell=tell,
    )
    interrupts.take_the_end_for_one()
    opened: bridges.Bridge = module.open_bridge(setting)
    try:
        with mqtt.connect(fleet.mqtt, folder=fleet.folder) as broker:
            tell(f"{name} of {fleet.name}: listening to {fleet.mqtt.host}:{fleet.mqtt.port}")
            server = Server(
                opened, broker, live, fleet=fleet, reload=lambda: Fleet.load(fleet.path), clock=time.time, tell=tell
            )
            server.serve(until=None if seconds is None else time.time() + seconds)
    except KeyboardInterrupt:
        output.note("stopped")
    finally:
        opened.close()


def _tell(line: str) -> None:
    typer.echo(f"{time.strftime('%H:%M:%S')} {line}")


def _write_json(name: str) -> Callable[[str], None]:
    return lambda line: typer.echo(json.dumps({"at": time.time(), "bridge": name, "message": line}, sort_keys=True))
