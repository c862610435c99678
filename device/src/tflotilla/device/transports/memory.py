"""A broker and its transport in memory: the port's fake, for tests of whatever reports.

It keeps the port's promises without sockets, threads or waiting: everything happens at the next turn of the event
loop. `MemoryBroker` is where a test turns the network off, refuses, or looks at what came.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tflotilla.device.transports import (
    MAX_IN_FLIGHT,
    NOBODY,
    Connected,
    Happening,
    Lost,
    Publication,
    Received,
    Settled,
)

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(kw_only=True)
class MemoryBroker:
    """What MQTT brokers do, as far as the port promises it."""

    up: bool = True
    #: Why nobody may connect; None lets everybody in.
    refuses: str | None = None
    #: Topic → why publications to it are refused.
    denied: dict[str, str] = field(default_factory=dict)
    #: While set, publications are taken and not answered.
    silent: bool = False
    max_bytes: int | None = None
    published: list[Publication] = field(default_factory=list)
    retained: dict[str, bytes] = field(default_factory=dict)
    _members: list[MemoryTransport] = field(default_factory=list)

    def take(self, publication: Publication) -> None:
        """Store and distribute one message."""
        self.published.append(publication)
        if publication.retain:
            self.retained[publication.topic] = publication.payload
        for member in self._members:
            if publication.topic in member.subscriptions:
                member.tell_soon(Received(topic=publication.topic, payload=publication.payload))

    def send(self, topic: str, payload: bytes) -> None:
        """Be another client that publishes."""
        self.take(Publication(topic=topic, payload=payload))

    def go_down(self) -> None:
        """End every connection; wills are not published, as with a broker that dies."""
        self.up = False
        for member in tuple(self._members):
            member.lose("the broker went away")

    def come_up(self) -> None:
        """Let transports connect again, with nothing forgotten."""
        self.up = True

    def drop(self, member: MemoryTransport) -> None:
        """Break one connection from outside, as a dead board does; its will is published."""
        self.leave(member)
        self.take(member.will)

    def join(self, member: MemoryTransport) -> None:
        """Take part."""
        self._members.append(member)

    def leave(self, member: MemoryTransport) -> None:
        """Take part no more."""
        if member in self._members:
            self._members.remove(member)


class MemoryTransport:
    """The port, spoken to a `MemoryBroker`; tries again every millisecond."""

    def __init__(self, broker: MemoryBroker, *, will: Publication, subscriptions: tuple[str, ...]) -> None:
        self.will = will
        self.subscriptions = subscriptions
        self._broker = broker
        self._tell: Callable[[Happening], None] | None = None
        self._connected = False
        self._unsettled = 0
        self._task: asyncio.Task[None] | None = None

    def start(self, tell: Callable[[Happening], None]) -> None:
        """Begin connecting."""
        self._tell = tell
        self._task = asyncio.create_task(self._keep_connected())

    def publish(self, publication: Publication, token: int = NOBODY) -> bool:
        """Hand the message to the broker."""
        if not self._connected or self._unsettled >= MAX_IN_FLIGHT:
            return False
        broker = self._broker
        if broker.silent:
            self._unsettled += 1
            return True
        too_large = broker.max_bytes is not None and len(publication.payload) > broker.max_bytes
        problem = "Packet too large" if too_large else broker.denied.get(publication.topic)
        if problem is None:
            broker.take(publication)
        if token != NOBODY:
            self.tell_soon(Settled(token=token, problem=problem, hopeless=too_large))
        return True

    async def stop(self, farewell: Publication) -> None:
        """Say farewell and leave."""
        if self._task is not None:
            self._task.cancel()
        self.publish(farewell)
        self._connected = False
        self._broker.leave(self)

    def tell_soon(self, happening: Happening) -> None:
        """Hand a happening over at the next turn of the event loop."""
        if self._tell is not None:
            asyncio.get_running_loop().call_soon(self._tell, happening)

    def lose(self, reason: str) -> None:
        """Be disconnected."""
        self._broker.leave(self)
        self._connected = False
        self._unsettled = 0
        self.tell_soon(Lost(reason=reason))

    async def _keep_connected(self) -> None:
        told: str | None = None
        while True:
            if not self._connected:
                if self._broker.refuses is not None:
                    reason = self._broker.refuses
                elif not self._broker.up:
                    reason = "the broker can't be reached"
                else:
                    told = None
                    self._connected = True
                    self._broker.join(self)
                    self.tell_soon(Connected(protocol="memory", max_bytes=self._broker.max_bytes))
                    continue
                if reason != told:
                    told = reason
                    self.tell_soon(Lost(reason=reason, refused=self._broker.refuses is not None))
            await asyncio.sleep(0.001)
