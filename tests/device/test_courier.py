"""From the outbox to the broker: order, confirmation, outages, denials. The broker is the transport's fake."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.device.desks import ACK, BODY, EVENTS, STATE, Desk, at
from tflotilla.device.courier import COMMIT_CONNECTED_S, DENIED_S
from tflotilla.device.outbox import Outbox
from tflotilla.device.reporting import Envelopes
from tflotilla.device.transports import Lost
from tflotilla.shared.contract import messages
from tflotilla.shared.contract.messages import Event

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


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
