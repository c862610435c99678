"""`tflotilla collect`: keep everything that boards report, and tell them what is kept."""

from __future__ import annotations

import dataclasses
import json
import re
import signal
import time
from contextlib import nullcontext
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tflotilla.host.cli import output, selecting
from tflotilla.shared.contract.errors import ConfigError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from tflotilla.host.telemetry.collecting import Collector, Counts
    from tflotilla.host.telemetry.mqtt import Connection

_TERMINAL_S = 1.0
_PIPED_S = 10.0
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


def collect(
    store: Annotated[
        str | None,
        typer.Option("--store", metavar="FILE|URL", help="Where to keep it; default [telemetry] store in fleet.toml."),
    ] = None,
    share: Annotated[
        str | None,
        typer.Option("--share", metavar="GROUP", help="Share the work with the other collectors of this group."),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option("--name", help="Tells collectors of one fleet and one folder apart."),
    ] = None,
    seconds: Annotated[
        float | None, typer.Option("--for", metavar="SECONDS", help="Stop after that long; default at Ctrl-C.")
    ] = None,
    fleet: selecting.FleetFile = None,
    as_json: selecting.Json = False,
) -> None:
    """Keep metrics, predictions, events, deployments and benchmarks of every board in a database.

    What is stored is acknowledged to its board, which forgets it only then, where reporting.confirm = "collector". Old
    reports become sums per minute, hour and day, for `tflotilla query` and `tflotilla export`. It may be stopped and
    killed at any moment: the broker holds what comes meanwhile, boards send again what was not acknowledged, and what
    comes twice is kept once. Several collectors share the work on one PostgreSQL with --share.

    Example: tflotilla collect --for 3600 --json

    Exit codes: 0 stopped, 3 bad fleet file or store, 10 the broker refuses us, 11 another collector runs from here.
    """
    from tflotilla.host.cli import telemetry_store
    from tflotilla.host.fleet.inventory.fleet import Fleet
    from tflotilla.host.telemetry import collecting, mqtt, sessions

    if seconds is not None and not seconds > 0:
        raise UsageError(f"--for must be a number of seconds above 0, not {seconds:g}")
    loaded = Fleet.load(fleet)
    if loaded.mqtt is None:
        raise ConfigError(f"{loaded.path} has no [mqtt] table, so nothing reports; add host and port of your broker")
    group = None if share is None else _name("--share", share)
    role = collecting.role(None if name is None else _name("--name", name), group)
    stopping = _Stopping(None if seconds is None else time.monotonic() + seconds)
    with sessions.held(loaded.state, role) as drawn, telemetry_store.opened(loaded, store) as opened:
        stopping.listen()
        session = mqtt.Session(
            client_id=f"tflotilla-{role}-{loaded.name}-{drawn}", expiry_s=collecting.SESSION_EXPIRY_S
        )
        with (
            mqtt.connect(loaded.mqtt, folder=loaded.folder, session=session) as broker,
            collecting.Maintenance(opened, clock=time.time, tell=output.note) as maintenance,
            output.progress("") if output.notes().is_terminal and not as_json else nullcontext(_say) as say,
        ):
            collector = collecting.Collector(
                fleet=loaded.name,
                store=opened,
                send=broker.send_all,
                clock=time.time,
                tell=output.note,
            )
            broker.subscribe(collecting.subscriptions(loaded.name, group))
            output.note(f"collecting {loaded.name} into {opened.where}")
            told = _Progress(collector, broker, say, as_json=as_json, every_s=_TERMINAL_S if say != _say else _PIPED_S)
            collecting.collect(
                broker,
                collector,
                stop=stopping,
                wait=time.sleep,
                monotonic=time.monotonic,
                tell=output.note,
                progress=told.look,
                maintenance=maintenance,
            )
            told.say()


def _name(option: str, text: str) -> str:
    if not _NAME.fullmatch(text):
        raise UsageError(f"{option} {text[:80]!r}: use letters, digits, '.', '_' and '-', at most 63")
    return text


class _Stopping:
    """Whether it is time to end: signals only say so, so that what is being written is written whole."""

    def __init__(self, until: float | None) -> None:
        self._until = until
        self._asked = False

    def listen(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, self._ask)

    def _ask(self, _number: int, _frame: Any) -> None:  # noqa: ANN401 - the interpreter's
        self._asked = True

    def __call__(self) -> bool:
        return self._asked or (self._until is not None and time.monotonic() >= self._until)


def _say(line: str) -> None:
    typer.echo(line)


class _Progress:
    """Says every now and then what was done."""

    def __init__(
        self, collector: Collector, broker: Connection, say: Callable[[str], None], *, as_json: bool, every_s: float
    ) -> None:
        self._collector = collector
        self._broker = broker
        self._write = say
        self._as_json = as_json
        self._every_s = every_s
        self._said_at = time.monotonic()
        self._received = 0

    def look(self) -> None:
        if time.monotonic() - self._said_at >= self._every_s:
            self.say()

    def say(self) -> None:
        now = time.monotonic()
        counts = self._collector.counts(dropped=self._broker.dropped)
        per_second = (counts.received - self._received) / max(0.001, now - self._said_at)
        self._said_at, self._received = now, counts.received
        if self._as_json:
            document = {"time": time.time(), "messages_per_second": round(per_second, 1), **dataclasses.asdict(counts)}
            _say(json.dumps(document, sort_keys=True))
        else:
            self._write(f"{time.strftime('%H:%M:%S')}  {_line(counts, per_second)}")


def _line(counts: Counts, per_second: float) -> str:
    said = [
        f"{per_second:,.0f}/s",
        f"lag {counts.lag_s:.2f} s",
        f"stored {counts.stored:,}",
        f"duplicates {counts.duplicates:,}",
        f"missing {counts.missing:,}",
        f"garbage {counts.garbage:,}",
    ]
    if counts.dropped:
        said.append(f"dropped {counts.dropped:,}")
    if counts.problem is not None:
        said.append(f"waiting: {counts.problem}")
    return "  ".join(said)
