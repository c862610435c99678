"""Ask boards over the broker and gather their answers. Who is asked when, and who is given up, `plan` decides."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

from tflotilla.host.benchmarks import interruption
from tflotilla.host.telemetry.fleet_view import understood
from tflotilla.shared.contract import messages, topics
from tflotilla.shared.contract.benchmark import BenchmarkRequest
from tflotilla.shared.contract.errors import BrokerError, TflotillaError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tflotilla.host.benchmarks.plan import Asking
    from tflotilla.host.telemetry.mqtt import Connection
    from tflotilla.shared.contract.benchmark import BenchmarkReport
    from tflotilla.shared.contract.board import BoardFacts

_TICK_S = 0.25


def ask(
    broker: Connection,
    fleet: str,
    asking: Asking,
    *,
    build: Callable[[str, BoardFacts], BenchmarkRequest],
    on_report: Callable[[str, BenchmarkReport], None] = lambda _board, _report: None,
    tell: Callable[[str], None] = lambda _: None,
) -> Asking:
    """Publish a request to each board in its turn and return when every board has answered or is given up.

    Args:
        broker: connected.
        fleet: the fleet's name.
        asking: who is to be asked.
        build: makes a board's request from what the board is; its errors are that board's.
        on_report: hears every answer once.
        tell: hears what is being waited for.

    Raises:
        BrokerError: the broker refuses what is asked of it.

    """
    channels: tuple[topics.Channel, ...] = ("availability", "state", "benchmark")
    broker.subscribe(tuple(topics.topic(fleet, board, channel) for board in asking.boards for channel in channels))
    state = [asking]
    try:
        return _follow(broker, fleet, state, build, on_report, tell)
    except KeyboardInterrupt:
        # Whoever asked does not want it any more, so the boards need not go on; one may just have been asked.
        with interruption.held_off():
            _abandon(broker, fleet, asking.request, state[0].unfinished)
        raise


def cancel(broker: Connection, fleet: str, board: str, request: str) -> None:
    """Ask a board to end what it was asked for. Raises BrokerError."""
    _send(broker, fleet, board, BenchmarkRequest(request=request, cancel=True))


def _follow(
    broker: Connection,
    fleet: str,
    state: list[Asking],
    build: Callable[[str, BoardFacts], BenchmarkRequest],
    on_report: Callable[[str, BenchmarkReport], None],
    tell: Callable[[str], None],
) -> Asking:
    """Ask and hear to the end; `state` always holds how far it is."""
    (asking,) = state
    told = ""
    away = False
    while True:
        state[0] = asking
        measuring, asking = asking.measuring, asking.at(time.monotonic())
        _abandon(broker, fleet, asking.request, [board for board in measuring if board in asking.failures])
        if not broker.connected:
            away = True
        elif away:
            away, asking = False, asking.doubting()
        for board in () if away else asking.due():
            asking = _ask_one(broker, fleet, asking, board, build)
        if asking.finished:
            return asking
        doing = _doing(asking, away=away)
        if doing != told:
            told = doing
            tell(doing)
        for received in broker.receive(timeout_s=_TICK_S):
            message = understood(received.topic, received.payload)
            if message is None:
                continue
            before = asking.cells(message.board)
            asking = asking.hearing(message, time.monotonic())
            for report in asking.cells(message.board):
                if report not in before:
                    on_report(message.board, report)


def _ask_one(
    broker: Connection, fleet: str, asking: Asking, board: str, build: Callable[[str, BoardFacts], BenchmarkRequest]
) -> Asking:
    try:
        request = build(board, asking.facts[board])
    except TflotillaError as error:
        return asking.failing(board, error)
    try:
        _send(broker, fleet, board, request)
    except BrokerError:
        if broker.connected:
            raise
        # It went away in this moment; asked again when it is back.
        return asking
    return asking.asking((board,), time.monotonic())


def _send(broker: Connection, fleet: str, board: str, request: BenchmarkRequest) -> None:
    said = messages.Message(board=board, boot="host", seq=0, time=time.time(), bundle=None, body=request)
    broker.publish(topics.command(fleet, board, "benchmark"), said.to_bytes())


def _abandon(broker: Connection, fleet: str, request: str, boards: Sequence[str]) -> None:
    """Tell boards that nobody waits for them any more; one that can't be told goes on to its own end."""
    for board in boards if broker.connected else ():
        with contextlib.suppress(BrokerError):
            cancel(broker, fleet, board, request)


def _doing(asking: Asking, *, away: bool) -> str:
    if away:
        return "the broker is away; waiting for it"
    cells = sum(len(asking.cells(board)) for board in asking.boards)
    done = sum(board not in asking.measuring for board in asking.boards if board in asking.asked)
    waiting = _some(asking.measuring) or "nobody yet"
    return f"{done} of {len(asking.boards)} boards done, {cells} configurations measured; measuring: {waiting}"


_SHOWN_NAMES = 4


def _some(names: tuple[str, ...]) -> str:
    more = len(names) - _SHOWN_NAMES
    return ", ".join(names[:_SHOWN_NAMES]) + (f" and {more} more" if more > 0 else "")
