"""`tflotilla watch`: see what the boards report, live."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from pathlib import Path  # noqa: TC003 - typer reads it
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tflotilla.host.cli import output
from tflotilla.shared.contract.errors import ConfigError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from tflotilla.host.telemetry.fleet_view import FleetView
    from tflotilla.host.telemetry.mqtt import Connection, Received

_TICK_S = 0.25


def watch(
    fleet: Annotated[Path | None, typer.Option("--fleet", help="fleet.toml; default $TFLOTILLA_FLEET.")] = None,
    seconds: Annotated[
        float | None, typer.Option("--for", metavar="SECONDS", help="Stop after that long; default at Ctrl-C.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One line of JSON per message.")] = False,
) -> None:
    """See predictions, latencies and states of every board as they come in over MQTT.

    On a terminal it is a table that follows the fleet; piped, one plain line per report; with --json one JSON object
    per message, with its channel, the time it arrived and the message itself.

    Example: tflotilla watch --for 10 --json | grep predictions

    Exit codes: 0 done, 3 bad fleet file, 10 the broker is down or refuses the password.
    """
    from tflotilla.host.fleet.inventory.fleet import Fleet
    from tflotilla.host.telemetry import mqtt
    from tflotilla.shared.contract import topics

    if seconds is not None and not seconds > 0:
        message = f"--for must be a number of seconds above 0, not {seconds:g}"
        raise UsageError(message)
    loaded = Fleet.load(fleet)
    if loaded.mqtt is None:
        message = f"{loaded.path} has no [mqtt] table, so nothing reports; add host and port of your broker"
        raise ConfigError(message)
    deadline = None if seconds is None else time.monotonic() + seconds
    with mqtt.connect(loaded.mqtt, folder=loaded.folder) as broker:
        broker.subscribe(topics.every_board(loaded.name))
        with contextlib.suppress(KeyboardInterrupt):
            if as_json:
                _follow(broker, deadline, _write_json)
            elif output.console().is_terminal:
                _draw(broker, deadline, loaded.name)
            else:
                _follow(broker, deadline, _write_lines)


def _remaining(deadline: float | None) -> float:
    """Return how long to wait for the next messages; at most a tick, so that Ctrl-C and the end are noticed."""
    return _TICK_S if deadline is None else min(_TICK_S, deadline - time.monotonic())


def _follow(broker: Connection, deadline: float | None, write: Callable[[Received], None]) -> None:
    while (wait_s := _remaining(deadline)) > 0:
        received = broker.receive(timeout_s=wait_s)
        for message in received:
            write(message)
        if received:
            sys.stdout.flush()


def _write_json(received: Received) -> None:
    from tflotilla.host.telemetry.fleet_view import understood
    from tflotilla.shared.contract import codec, topics

    address = topics.parse(received.topic)
    message = None if address is None else understood(received.topic, received.payload)
    document: dict[str, Any] = {"received": received.at, "topic": received.topic, "retained": received.retained}
    if address is None or message is None:
        document["error"] = "not a message of the contract"
    else:
        document |= {"board": address.board, "channel": address.channel, "message": codec.encode(message)}
    sys.stdout.write(json.dumps(document, sort_keys=True) + "\n")


def _write_lines(received: Received) -> None:
    from tflotilla.host.dashboards import terminal
    from tflotilla.host.telemetry.fleet_view import understood
    from tflotilla.shared.contract import topics

    address = topics.parse(received.topic)
    message = None if address is None else understood(received.topic, received.payload)
    if address is not None and message is not None:
        for line in terminal.lines(address.board, message):
            sys.stdout.write(line + "\n")


def _draw(broker: Connection, deadline: float | None, fleet: str) -> None:
    from rich.live import Live

    from tflotilla.host.dashboards import terminal
    from tflotilla.host.telemetry.fleet_view import FleetView

    view: FleetView = FleetView(fleet=fleet)
    # The last picture stays on the screen when it ends.
    with Live(terminal.table(view, now=time.time()), console=output.console(), auto_refresh=False) as live:
        while (wait_s := _remaining(deadline)) > 0:
            view = view.folding((each.topic, each.payload, each.at) for each in broker.receive(timeout_s=wait_s))
            live.update(terminal.table(view, now=time.time()), refresh=True)
            # Boards that report all at once are drawn once.
            time.sleep(max(0.0, min(_TICK_S, _remaining(deadline))))
