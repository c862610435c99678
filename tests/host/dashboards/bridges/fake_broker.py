"""A broker that is a list: hears what the test says, keeps what a bridge sends; implements `serving.Broker`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tflotilla.host.telemetry.inbox import Received
from tflotilla.shared.contract import messages, topics

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

FLEET = "barn"
NOW = 1_700_000_000.0


@dataclass(kw_only=True)
class FakeBroker:
    """Takes everything while it is connected; `retained` is what it would show to who comes later."""

    connected: bool = True
    connections: int = 1
    dropped: int = 0
    takes: bool = True
    subscribed: tuple[str, ...] = ()
    waiting: list[Received] = field(default_factory=list)
    sent: list[tuple[str, bytes, bool]] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)

    @property
    def retained(self) -> dict[str, bytes]:
        """Topic → what is retained there."""
        found: dict[str, bytes] = {}
        for topic, payload, retained in self.sent:
            if retained and payload:
                found[topic] = payload
            elif retained:
                found.pop(topic, None)
        return found

    def subscribe(self, subscriptions: Sequence[str]) -> None:
        self.subscribed = tuple(subscriptions)

    def send(self, topic: str, payload: bytes, *, retained: bool = False) -> bool:
        if self.connected:
            self.sent.append((topic, payload, retained))
        return self.connected

    def confirmed(self, *, most: int = 0, timeout_s: float = 10.0) -> bool:
        del timeout_s
        return self.takes or len(self.sent) <= most

    def refusals(self) -> Mapping[str, str]:
        refused, self.refused = self.refused, {}
        return refused

    def receive(self, *, timeout_s: float) -> Sequence[Received]:
        del timeout_s
        waiting, self.waiting = self.waiting, []
        return waiting

    def interrupt(self) -> None:
        """Go away and come back, between two looks."""
        self.connections += 1


def received(
    board: str,
    channel: topics.Channel,
    body: object,
    *,
    seq: int = 0,
    at: float = NOW,
    boot: str = "boot-1",
) -> Received:
    """Return a message of a board as it comes in."""
    said: messages.Message[object] = messages.Message(board=board, boot=boot, seq=seq, time=at, bundle=None, body=body)
    return Received(topic=topics.topic(FLEET, board, channel), payload=said.to_bytes(), at=at)
