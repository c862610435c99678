"""From the outbox to the broker: order, confirmation, outages, denials. The broker is the transport's fake."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Literal

import pytest

from tests import brokers
from tflotilla.device.courier import COMMIT_CONNECTED_S, DENIED_S, SILENCE_S, Courier
from tflotilla.device.outbox import Outbox
from tflotilla.device.reporting import Envelopes
from tflotilla.device.transports import Lost
from tflotilla.device.transports.memory import MemoryBroker, MemoryTransport
from tflotilla.shared.contract import messages, topics
from tflotilla.shared.contract.messages import Ack, Event, Message

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

    def acknowledge(self, up_to: int) -> None:
        ack = Message(board="pi-1", boot="c", seq=0, time=0.0, bundle=None, body=Ack(boot=self.boot, up_to=up_to))
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


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


@pytest.fixture
def collected(tmp_path: Path) -> Desk:
    return Desk(tmp_path, confirm="collector")


def test_reports_arrive_in_order_and_are_forgotten(desk: Desk) -> None:
    async def story() -> None:
        desk.report(100)
        await desk.until(lambda: len(desk.arrived()) == 100 and desk.outbox.rows == 0)

        assert desk.arrived() == list(range(1, 101))

    at(desk, story)


def test_a_report_is_a_message_of_the_contract(desk: Desk) -> None:
    async def story() -> None:
        desk.courier.report("event", BODY, bundle="ab" * 32)
        await desk.until(lambda: bool(desk.arrived()))

        _, message = messages.parse(EVENTS, desk.broker.published[0].payload)
        assert (message.board, message.boot, message.seq, message.bundle) == ("pi-1", "boot", 1, "ab" * 32)
        assert message.body == Event(level="info", kind="test", message="hello")

    at(desk, story)


def test_what_a_healthy_broker_takes_in_time_never_touches_the_disk(desk: Desk) -> None:
    async def story() -> None:
        await desk.until(lambda: desk.courier.connected)
        desk.report(50)
        await desk.until(lambda: desk.outbox.rows == 0)
        desk.pass_time(2 * COMMIT_CONNECTED_S)
        await desk.idle()

        assert desk.outbox._rows == 0
        assert not desk.outbox.forgetting

    at(desk, story)


def test_without_a_broker_reports_are_on_disk_within_a_moment(desk: Desk) -> None:
    desk.broker.up = False

    async def story() -> None:
        desk.report(3)
        await desk.idle()
        desk.pass_time(0.1)
        await desk.until(lambda: not desk.outbox.uncommitted)

        assert desk.outbox.rows == 3

    at(desk, story)


def test_what_a_silent_broker_does_not_confirm_is_on_disk_soon(desk: Desk) -> None:
    desk.broker.silent = True

    async def story() -> None:
        await desk.until(lambda: desk.courier.connected)
        desk.report(3)
        await desk.idle()
        assert desk.outbox.uncommitted
        desk.pass_time(2 * COMMIT_CONNECTED_S)
        await desk.until(lambda: not desk.outbox.uncommitted)

    at(desk, story)


def test_a_flood_is_committed_before_memory_is_full(desk: Desk) -> None:
    desk.broker.silent = True

    async def story() -> None:
        await desk.until(lambda: desk.courier.connected)
        for _ in range(100):
            desk.courier.report("event", b'{"message":"%b"}' % (b"x" * 50_000), bundle=None)
            await desk.idle() if desk.outbox.pressing else None
        await desk.until(lambda: not desk.outbox.pressing)

        assert desk.outbox.dropped == 0
        assert desk.outbox.rows == 100

    at(desk, story)


def test_an_outage_leaves_no_gap(desk: Desk) -> None:
    async def story() -> None:
        desk.report(10)
        await desk.until(lambda: len(desk.arrived()) == 10)
        desk.broker.go_down()
        await desk.until(lambda: not desk.courier.connected)
        assert desk.courier.problem in ("the broker went away", "the broker can't be reached")
        for _ in range(10):
            desk.report(10)
            desk.pass_time(0.1)
            await desk.idle()
        desk.broker.come_up()
        await desk.until(lambda: desk.outbox.rows == 0)

        assert desk.arrived() == list(range(1, 111))
        assert desk.connections == 2
        assert desk.courier.problem is None

    at(desk, story)


def test_a_lasting_trouble_is_told_once(desk: Desk) -> None:
    desk.broker.refuses = "the broker refuses this board: Not authorized"

    async def story() -> None:
        await desk.until(lambda: desk.courier.problem is not None)
        for _ in range(5):
            desk.courier.take(Lost(reason=desk.broker.refuses or "", refused=True))

        assert desk.troubles == ["the broker refuses this board: Not authorized; reports are kept meanwhile"]
        assert desk.courier.refused

    at(desk, story)


def test_what_was_on_its_way_when_the_connection_broke_is_sent_again(desk: Desk) -> None:
    async def story() -> None:
        await desk.until(lambda: desk.courier.connected)
        desk.broker.silent = True
        desk.report(5)
        await desk.idle()
        desk.broker.go_down()
        desk.broker.silent = False
        desk.broker.come_up()
        await desk.until(lambda: desk.outbox.rows == 0)

        assert desk.arrived() == [1, 2, 3, 4, 5]

    at(desk, story)


def test_reports_of_an_earlier_run_go_first(tmp_path: Path) -> None:
    before = Outbox(tmp_path / "outbox.db", max_bytes=16 << 20)
    old = Envelopes(board="pi-1", boot="old")
    before.add(boot="old", seq=7, channel="event", payload=old.around(BODY, seq=7, bundle=None))
    before.close()
    desk = Desk(tmp_path, boot="new")

    async def story() -> None:
        desk.report(1)
        await desk.until(lambda: desk.outbox.rows == 0)

        found = [messages.parse(p.topic, p.payload)[1] for p in desk.broker.published]
        assert [(message.boot, message.seq) for message in found] == [("old", 7), ("new", 1)]

    at(desk, story)


def test_a_denied_channel_does_not_hold_up_the_others(desk: Desk) -> None:
    desk.broker.denied[EVENTS] = "Not authorized"

    async def story() -> None:
        for _ in range(40):
            desk.report(1, "event")
            desk.report(1, "benchmark")
        await desk.until(lambda: len(desk.arrived("tflotilla/t/pi-1/benchmark")) == 40 and desk.outbox.rows == 40)

        assert desk.courier.problem == "the broker refuses this board's event: Not authorized"

    at(desk, story)


def test_a_report_that_is_secured_is_on_the_disk(desk: Desk) -> None:
    async def story() -> None:
        row = desk.courier.report("event", BODY, bundle=None)
        assert desk.outbox.holds_in_memory(row)

        await desk.courier.secure(row, 60.0)

        assert not desk.outbox.holds_in_memory(row)

    at(desk, story)


def test_a_denied_channel_is_tried_again_and_then_delivered(desk: Desk) -> None:
    desk.broker.denied[EVENTS] = "Not authorized"

    async def story() -> None:
        desk.report(30)
        await desk.until(lambda: desk.courier.problem is not None)
        desk.broker.denied.clear()
        await desk.idle()
        assert desk.arrived() == []
        desk.pass_time(DENIED_S + 1)
        await desk.until(lambda: desk.outbox.rows == 0)

        assert desk.arrived() == list(range(1, 31))
        assert desk.courier.problem is None

    at(desk, story)


def test_a_denial_outlives_a_reconnect(desk: Desk) -> None:
    """mosquitto hangs up after each denial: sending the same again at once would be a circle."""
    desk.broker.denied[EVENTS] = "Not authorized"

    async def story() -> None:
        desk.report(1)
        await desk.until(lambda: desk.courier.problem is not None)
        desk.broker.go_down()
        desk.broker.denied.clear()
        desk.broker.come_up()
        await desk.until(lambda: desk.connections == 2)
        await desk.idle()
        assert desk.arrived() == []
        desk.pass_time(DENIED_S + 1)
        await desk.until(lambda: desk.arrived() == [1])

    at(desk, story)


def test_a_report_too_large_for_the_broker_is_dropped_and_counted(desk: Desk) -> None:
    desk.broker.max_bytes = 2000

    async def story() -> None:
        desk.courier.report("event", b'{"message":"%b"}' % (b"x" * 3000), bundle=None)
        desk.report(1)
        await desk.until(lambda: desk.outbox.rows == 0)

        assert desk.arrived() == [2]
        assert desk.outbox.dropped == 1

    at(desk, story)


def test_reports_that_come_too_fast_are_lost_aloud(desk: Desk) -> None:
    large = b'{"detail":{},"kind":"test","level":"info","message":"' + b"x" * 100_000 + b'"}'

    async def story() -> None:
        assert desk.courier.losing is None
        for _ in range(100):
            desk.courier.report("event", large, bundle=None)
        lost = desk.outbox.dropped
        assert lost
        await desk.until(lambda: desk.courier.losing is not None)

        assert desk.troubles == [f"more reports come than can be kept and delivered: {lost} are lost so far"]
        desk.pass_time(60)
        assert desk.courier.losing is None

    at(desk, story)


def test_the_last_deployment_is_retained_again_for_a_broker_that_forgot_it(desk: Desk) -> None:
    topic = "tflotilla/t/pi-1/deployment"

    async def story() -> None:
        desk.courier.report("deployment", b'{"state":"first"}', bundle=None)
        desk.courier.report("deployment", b'{"state":"last"}', bundle=None)
        await desk.until(lambda: desk.outbox.rows == 0)
        desk.broker.go_down()
        desk.broker.retained.clear()
        desk.broker.come_up()
        await desk.until(lambda: topic in desk.broker.retained)

        assert b'"last"' in desk.broker.retained[topic]

    at(desk, story)


def test_requests_reach_the_agent_and_garbage_reaches_nobody(desk: Desk) -> None:
    async def story() -> None:
        await desk.until(lambda: desk.courier.connected)
        desk.broker.send(STATE, b"{}")
        for garbage in (b"", b"\xff", b"[]", b'{"schema":1}', b'{"boot":"boot","up_to":1}'):
            desk.broker.send(ACK, garbage)
        await desk.idle()

        assert desk.requests == [("command/state", b"{}")]

    at(desk, story)


def test_a_broker_that_took_a_report_is_no_collector(collected: Desk) -> None:
    async def story() -> None:
        collected.report(5)
        await collected.until(lambda: len(collected.arrived()) == 5)
        await collected.idle()
        assert collected.outbox.rows == 5

        collected.acknowledge(3)
        await collected.until(lambda: collected.outbox.rows == 2)

    at(collected, story)


def test_what_no_collector_acknowledged_is_sent_again_after_a_reconnect(collected: Desk) -> None:
    async def story() -> None:
        collected.report(5)
        await collected.until(lambda: len(collected.arrived()) == 5)
        collected.acknowledge(2)
        await collected.until(lambda: collected.outbox.rows == 3)
        collected.broker.go_down()
        collected.broker.come_up()
        await collected.until(lambda: len(collected.arrived()) == 8)

        assert collected.arrived() == [1, 2, 3, 4, 5, 3, 4, 5]

    at(collected, story)


def test_a_collector_that_was_away_gets_everything_portion_by_portion(collected: Desk) -> None:
    async def story() -> None:
        collected.report(50)
        await collected.until(lambda: len(collected.arrived()) == 50)
        # The collector was not there. The live reports went on; what it missed comes again once it was silent for long.
        collected.pass_time(SILENCE_S + 1)
        await collected.until(lambda: len(collected.arrived()) > 50)
        await collected.idle()
        portion = collected.arrived()[50:]
        assert portion == list(range(1, len(portion) + 1))
        assert len(portion) <= 20

        while collected.arrived()[-1] != 50:
            before = len(collected.arrived())
            collected.acknowledge(collected.arrived()[-1])
            await collected.until(lambda before=before: len(collected.arrived()) > before)  # type: ignore[misc]
            await collected.idle()
        collected.acknowledge(50)
        await collected.idle()
        collected.pass_time(6)
        await collected.until(lambda: collected.outbox.rows == 0)

        assert collected.arrived()[50:] == list(range(1, 51))

    at(collected, story)
