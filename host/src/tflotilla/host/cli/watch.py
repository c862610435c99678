"""`tflotilla watch`: see what the boards report, live."""

from __future__ import annotations

import contextlib
import dataclasses
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

    from tflotilla.host.dashboards.looking import Looking
    from tflotilla.host.fleet.inventory.fleet import Fleet
    from tflotilla.host.telemetry.inbox import Received
    from tflotilla.host.telemetry.mqtt import Connection

_TICK_S = 0.25


def watch(
    fleet: Annotated[Path | None, typer.Option("--fleet", help="fleet.toml; default $TFLOTILLA_FLEET.")] = None,
    seconds: Annotated[
        float | None, typer.Option("--for", metavar="SECONDS", help="Stop after that long; default at Ctrl-C.")
    ] = None,
    only: Annotated[
        str | None, typer.Option("--filter", metavar="SELECTOR", help="Only these boards: pi-*, room=kitchen, …")
    ] = None,
    sort: Annotated[
        str, typer.Option(metavar="KEY", help="On a terminal: hurt, name, p99, p50, rate, temperature or seen.")
    ] = "hurt",
    as_json: Annotated[bool, typer.Option("--json", help="One line of JSON per message.")] = False,
) -> None:
    """See predictions, latencies and states of every board as they come in over MQTT.

    On a terminal it is a table that follows the fleet, what hurts on top; keys sort (h n p m i t l, s the next, r the
    other way round), scroll (j k, space) and quit (q). Boards that are off or silent are dim, and say since when.
    Piped, it is one plain line per report; with --json one JSON object per message, with its channel, the time it
    arrived and the message itself.

    Example: tflotilla watch --for 10 --json | grep predictions

    Exit codes: 0 done, 2 usage, 3 bad fleet file, 10 the broker is down or refuses the password.
    """
    from tflotilla.host.dashboards.looking import SORTS, Looking
    from tflotilla.host.fleet.inventory.fleet import Fleet
    from tflotilla.host.telemetry import mqtt, presence
    from tflotilla.shared.contract import topics

    if seconds is not None and not seconds > 0:
        message = f"--for must be a number of seconds above 0, not {seconds:g}"
        raise UsageError(message)
    chosen = next((each for each in SORTS if each == sort), None)
    if chosen is None:
        message = f"--sort {sort!r}: expected one of {', '.join(SORTS)}"
        raise UsageError(message)
    loaded = Fleet.load(fleet)
    if loaded.mqtt is None:
        message = f"{loaded.path} has no [mqtt] table, so nothing reports; add host and port of your broker"
        raise ConfigError(message)
    picked = None if only is None else loaded.select(only)
    wanted = None if picked is None else frozenset(picked)
    deadline = None if seconds is None else time.monotonic() + seconds
    config = dataclasses.replace(loaded.mqtt, keepalive_s=min(loaded.mqtt.keepalive_s, presence.KEEPALIVE_S))
    with mqtt.connect(config, folder=loaded.folder) as broker:
        broker.subscribe(topics.every_board(loaded.name))
        with contextlib.suppress(KeyboardInterrupt):
            if as_json:
                _follow(broker, deadline, _write_json, wanted)
            elif output.console().is_terminal:
                _draw(broker, deadline, loaded, wanted, Looking(sort=chosen))
            else:
                _follow(broker, deadline, _write_lines, wanted)


def _remaining(deadline: float | None) -> float:
    """Return how long to wait for the next messages; at most a tick, so that Ctrl-C and the end are noticed."""
    return _TICK_S if deadline is None else min(_TICK_S, deadline - time.monotonic())


def _follow(
    broker: Connection, deadline: float | None, write: Callable[[Received], None], wanted: frozenset[str] | None
) -> None:
    from tflotilla.shared.contract import topics

    while (wait_s := _remaining(deadline)) > 0:
        received = broker.receive(timeout_s=wait_s)
        for message in received:
            address = topics.parse(message.topic)
            if wanted is None or (address is not None and address.board in wanted):
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


def _draw(
    broker: Connection, deadline: float | None, fleet: Fleet, wanted: frozenset[str] | None, looking: Looking
) -> None:
    from rich.live import Live as Screen

    from tflotilla.host.cli import keyboard
    from tflotilla.host.dashboards import terminal
    from tflotilla.host.telemetry.live import Live

    live = Live(fleet.name, known=fleet.boards)
    labels = {name: entry.labels for name, entry in fleet.boards.items() if wanted is None or name in wanted}
    hearing_since, deaf_since = time.time(), None

    def scene() -> terminal.Scene:
        return terminal.Scene(
            view=live.view,
            labels=labels,
            only_known=wanted is not None,
            now=time.time(),
            hearing_since=hearing_since,
            deaf_since=deaf_since,
        )

    console = output.console()
    # The last picture stays on the screen when it ends.
    with (
        keyboard.keys() as pressed,
        Screen(terminal.table(scene(), looking, rows=1), console=console, auto_refresh=False) as screen,
    ):
        while (wait_s := _remaining(deadline)) > 0 and not looking.quits:
            live.hear(broker.receive(timeout_s=wait_s))
            if broker.connected and deaf_since is not None:
                hearing_since, deaf_since = time.time(), None
            elif not broker.connected and deaf_since is None:
                deaf_since = time.time()
            begun = time.monotonic()
            shown, rows = scene(), terminal.rows_of(console.height)
            for key in pressed() if pressed is not None else ():
                looking = looking.pressed(key, boards=terminal.board_count(shown), rows=rows)
            screen.update(terminal.table(shown, looking, rows=rows, keys=pressed is not None), refresh=True)
            # Boards that report all at once are drawn once, and drawing takes a fifth of the time at most.
            rest_s = max(_TICK_S, 4 * (time.monotonic() - begun))
            time.sleep(max(0.0, min(rest_s, deadline - time.monotonic() if deadline is not None else rest_s)))
