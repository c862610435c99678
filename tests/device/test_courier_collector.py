"""What a collector acknowledged is forgotten, and nothing else is: by ranges, late, twice, of earlier runs, wrongly."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.device.desks import ACK, Desk, at
from tflotilla.device.courier import SILENCE_S
from tflotilla.device.transports import Received
from tflotilla.shared.contract import messages

if TYPE_CHECKING:
    from pathlib import Path


def _ack(fields: str) -> bytes:
    return b'{"schema":1,"board":"pi-1","boot":"boot","seq":0,"time":0,%b}' % fields.encode()


#: Acknowledgements that name nothing, or more than there can be.
_NO_ACKS = tuple(
    map(
        _ack,
        (
            '"up_to":-1',
            '"up_to":true',
            f'"up_to":{10**30}',
            '"up_to":0,"also":[[2,1]]',
            '"up_to":0,"also":[[0,1]]',
            '"up_to":0,"also":[[1]]',
            '"up_to":0,"also":[[1,2,3]]',
            '"up_to":0,"also":[1,2]',
            f'"up_to":0,"also":[[1,{10**30}]]',
            '"up_to":0,"also":[' + "[1,2]," * messages.ACK_RANGES + "[1,2]]",
        ),
    )
)


@pytest.fixture
def collected(tmp_path: Path) -> Desk:
    return Desk(tmp_path, confirm="collector")


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


def test_what_is_repeated_of_a_deployment_does_not_take_the_place_of_its_end(collected: Desk) -> None:
    topic = "tflotilla/t/pi-1/deployment"

    async def story() -> None:
        collected.courier.report("deployment", b'{"state":"confirming"}', bundle=None)
        collected.report(50)
        collected.courier.report("deployment", b'{"state":"succeeded"}', bundle=None)
        await collected.until(lambda: len(collected.arrived()) == 50)
        collected.pass_time(SILENCE_S + 1)
        await collected.until(lambda: len(collected.arrived()) > 50)
        await collected.idle()

        repeated = [each.retain for each in collected.broker.published if b'"confirming"' in each.payload]
        assert repeated == [True, False]
        assert b'"succeeded"' in collected.broker.retained[topic]

    at(collected, story)


def test_what_is_acknowledged_by_ranges_is_not_sent_again(collected: Desk) -> None:
    """Collectors that share the work each say what they have; only what none has is sent once more."""

    async def story() -> None:
        collected.report(10)
        await collected.until(lambda: len(collected.arrived()) == 10)
        collected.acknowledge(1, (4, 5), (9, 10))
        collected.acknowledge(0, (5, 6), (3, 3))
        await collected.idle()
        collected.pass_time(6)
        await collected.until(lambda: collected.outbox.rows == 3)
        collected.broker.go_down()
        collected.broker.come_up()
        await collected.until(lambda: len(collected.arrived()) == 13)
        collected.acknowledge(0, (2, 2), (7, 8))
        await collected.idle()
        collected.pass_time(6)
        await collected.until(lambda: collected.outbox.rows == 0)
        collected.pass_time(SILENCE_S + 1)
        await collected.idle()

        assert collected.arrived() == [*range(1, 11), 2, 7, 8]

    at(collected, story)


def test_what_was_never_sent_can_not_be_acknowledged(collected: Desk) -> None:
    """A collector that says more than it can know does not make a board forget what nobody has."""

    async def story() -> None:
        collected.report(3)
        await collected.until(lambda: len(collected.arrived()) == 3)
        collected.acknowledge(99, (50, 1000), boot="boot")
        collected.acknowledge(7, boot="a boot of another board")
        await collected.until(lambda: collected.outbox.rows == 0)
        collected.broker.go_down()
        await collected.until(lambda: not collected.courier.connected)
        collected.report(3)
        collected.courier.take(Received(topic=ACK, payload=_ack('"up_to":6,"also":[[1,6]]')))
        await collected.idle()
        assert collected.outbox.rows == 3
        collected.broker.come_up()
        await collected.until(lambda: collected.arrived()[-1] == 6)

        assert collected.arrived() == [1, 2, 3, 4, 5, 6]

    at(collected, story)


def test_reports_of_an_earlier_run_are_acknowledged_by_its_name(tmp_path: Path) -> None:
    before = Desk(tmp_path, confirm="collector", boot="before")
    before.broker.up = False
    before.report(5)
    before.outbox.commit()
    before.outbox.close()
    now = Desk(tmp_path, confirm="collector", boot="now")

    async def story() -> None:
        now.report(2)
        await now.until(lambda: len(now.arrived()) == 7)
        now.acknowledge(1, (3, 5), boot="before")
        await now.idle()
        now.pass_time(6)
        await now.until(lambda: now.outbox.rows == 3)
        now.pass_time(SILENCE_S + 1)
        await now.until(lambda: len(now.arrived()) == 10)

        assert now.arrived() == [1, 2, 3, 4, 5, 1, 2, 2, 1, 2]

    at(now, story)


@pytest.mark.parametrize("payload", [b"", b"\xff", b"[]", b'{"schema":1}', *_NO_ACKS])
def test_an_acknowledgement_that_names_nothing_changes_nothing(collected: Desk, payload: bytes) -> None:
    async def story() -> None:
        collected.report(3)
        await collected.until(lambda: len(collected.arrived()) == 3)
        collected.broker.send(ACK, payload)
        await collected.idle()
        collected.pass_time(6)
        await collected.idle()

        assert collected.outbox.rows == 3

    at(collected, story)
