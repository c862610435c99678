"""Ask boards over the broker and gather their answers. Who is asked when, and who is given up, `plan` decides."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from tflotilla.host.telemetry.fleet_view import understood
from tflotilla.shared.contract import messages, topics

if TYPE_CHECKING:
    from collections.abc import Callable

    from tflotilla.host.benchmarks.plan import Asking
    from tflotilla.host.telemetry.mqtt import Connection

_TICK_S = 0.25


def ask(
    broker: Connection,
    fleet: str,
    request: messages.BenchmarkRequest,
    asking: Asking,
    *,
    tell: Callable[[str], None] = lambda _: None,
) -> Asking:
    """Publish the request to each board in its turn and return when every board has answered or is given up.

    Raises:
        BrokerError: the broker refuses what is asked of it.

    """
    channels: tuple[topics.Channel, ...] = ("availability", "benchmark")
    broker.subscribe(tuple(topics.topic(fleet, board, channel) for board in asking.boards for channel in channels))
    told = ""
    while True:
        asking = asking.at(time.monotonic())
        due = asking.due()
        for board in due:
            said = messages.Message(board=board, boot="host", seq=0, time=time.time(), bundle=None, body=request)
            broker.publish(topics.command(fleet, board, "benchmark"), said.to_bytes())
        asking = asking.asking(due, time.monotonic())
        if asking.finished:
            return asking
        doing = f"{len(asking.answers)} of {len(asking.boards)} boards answered; measuring: {_some(asking.measuring)}"
        if doing != told:
            told = doing
            tell(doing)
        for received in broker.receive(timeout_s=_TICK_S):
            message = understood(received.topic, received.payload)
            if message is not None:
                asking = asking.hearing(message)


_SHOWN_NAMES = 4


def _some(names: tuple[str, ...]) -> str:
    more = len(names) - _SHOWN_NAMES
    return ", ".join(names[:_SHOWN_NAMES]) + (f" and {more} more" if more > 0 else "")
