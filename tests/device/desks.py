"""A courier with everything around it, in memory: what its tests look at and turn off."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Literal

from tests import brokers
from tflotilla.device.courier import Courier
from tflotilla.device.outbox import Outbox
from tflotilla.device.reporting import Envelopes
from tflotilla.device.transports.memory import MemoryBroker, MemoryTransport
from tflotilla.shared.contract import messages, topics
from tflotilla.shared.contract.messages import Ack, Message

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

BODY = b'{"detail":{},"kind":"test","level":"info","message":"hello"}'
BODIES: dict[topics.Channel, bytes] = {"event": BODY, "benchmark": b'{"request":"r","method":{},"total":1}'}
EVENTS = "tflotilla/t/pi-1/event"
ACK = "tflotilla/t/pi-1/ack"
STATE = "tflotilla/t/pi-1/command/state"


class Desk:
    """A courier with everything around it."""

    def __init__(self, folder: Path, *, confirm: Literal["broker", "collector"] = "broker", boot: str = "boot") -> None:
        self.broker = MemoryBroker()
        self.now = 1000.0
        self.outbox = Outbox(folder / "outbox.db", max_bytes=16 << 20)
        self.requests: list[tuple[str, bytes]] = []
        self.troubles: list[str] = []
        self.connections = 0
        self.boot = boot
        self.courier = Courier(
            outbox=self.outbox,
            envelopes=Envelopes(board="pi-1", boot=boot),
            fleet="t",
            confirm=confirm,
            on_connected=self._count,
            on_request=lambda channel, payload: self.requests.append((channel, payload)),
            on_trouble=self.troubles.append,
            clock=lambda: self.now,
        )
        self.transport = MemoryTransport(
            self.broker,
            will=self.courier.publication("availability", b"gone"),
            subscriptions=(STATE, ACK),
        )

    def _count(self) -> None:
        self.connections += 1

    def report(self, count: int, channel: topics.Channel = "event") -> None:
        for _ in range(count):
            self.courier.report(channel, BODIES[channel], bundle=None)

    def arrived(self, topic: str = EVENTS) -> list[int]:
        """The seqs that reached the broker, in order, duplicates included."""
        mine = [publication for publication in self.broker.published if publication.topic == topic]
        return [messages.parse(publication.topic, publication.payload)[1].seq for publication in mine]

    def acknowledge(self, up_to: int, *also: tuple[int, int], boot: str | None = None) -> None:
        body = Ack(boot=boot or self.boot, up_to=up_to, also=also)
        ack = Message(board="pi-1", boot="c", seq=0, time=0.0, bundle=None, body=body)
        self.broker.send(ACK, ack.to_bytes())

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        self.courier._wake.set()

    async def until(self, holds: Callable[[], bool]) -> None:
        deadline = asyncio.get_running_loop().time() + brokers.PATIENCE_S
        while not holds():
            assert asyncio.get_running_loop().time() < deadline, (self.arrived(), self.outbox.rows)
            await asyncio.sleep(0.001)

    async def idle(self) -> None:
        """Let everything happen that happens without the clock."""
        for _ in range(30):
            await asyncio.sleep(0.001)


def at(desk: Desk, story: Callable[[], Awaitable[None]]) -> None:
    async def live() -> None:
        desk.courier.attach(desk.transport)
        task = asyncio.create_task(desk.courier.run())
        try:
            await story()
            assert not task.done(), task.exception()
        finally:
            task.cancel()
            await asyncio.wait([task])
            await desk.transport.stop(desk.courier.publication("availability", b"bye"))
            desk.outbox.close()

    # Made on the loop: `asyncio.Event` of Python 3.10 may not wander between loops.
    asyncio.run(live())
