"""Topics and messages: what is written is read back, what is foreign is refused."""

from __future__ import annotations

import json
import random
import re
from typing import Any

import pytest

from tests.shared.random_values import value_of
from tflotilla.shared.contract import messages, topics
from tflotilla.shared.contract.benchmark import BenchmarkRequest
from tflotilla.shared.contract.errors import ContractError
from tflotilla.shared.contract.messages import Ack, Availability, Message, Thumbnail


def _topic(channel: str, board: str = "pi-1", fleet: str = "lab") -> str:
    return f"tflotilla/{fleet}/{board}/{channel}"


def _message(
    body: object, *, board: str = "pi-1", boot: str = "b1", time: float = 1700000000.25, bundle: str | None = None
) -> Message[Any]:
    return Message(board=board, boot=boot, seq=7, time=time, bundle=bundle, body=body)


@pytest.mark.parametrize("channel", sorted(messages.BODIES))
def test_every_message_is_read_back_as_it_was_written(channel: str) -> None:
    rng = random.Random(channel)  # noqa: S311 - a test wants the same messages each time
    for _ in range(40):
        body = value_of(messages.BODIES[channel], rng)
        message = _message(
            body,
            boot=body.boot if isinstance(body, Ack) else "b1",
            time=body.time if isinstance(body, Thumbnail) else 1700000000.25,
            bundle=body.bundle if isinstance(body, BenchmarkRequest) else None,
        )
        address, again = messages.parse(_topic(channel), message.to_bytes())

        assert again == message
        assert address == topics.Address(fleet="lab", board="pi-1", channel=channel)


def test_no_body_has_a_key_of_the_envelope_but_these_in_place_of_it() -> None:
    envelope = {"schema", "board", "boot", "seq", "time", "bundle"}
    shared = {channel: envelope & set(kind.__dataclass_fields__) for channel, kind in messages.BODIES.items()}

    assert {channel: keys for channel, keys in shared.items() if keys} == {
        "ack": {"boot"},
        "command/benchmark": {"bundle"},
        "thumbnail": {"time"},
    }


def test_an_ack_names_the_boot_that_it_acknowledges_whatever_sent_it() -> None:
    message = _message(Ack(boot="the board's", up_to=7), boot="the collector's")
    _, again = messages.parse(_topic("ack"), message.to_bytes())

    assert again.body == Ack(boot="the board's", up_to=7)


@pytest.mark.parametrize(
    ("up_to", "also", "said"),
    [
        (-1, (), "up_to must be 0.."),
        (1 << 53, (), "up_to must be 0.."),
        (0, ((2, 1),), "ranges (first, last) of 1.."),
        (0, ((0, 1),), "ranges (first, last) of 1.."),
        (0, ((1, 1 << 53),), "ranges (first, last) of 1.."),
        (0, ((1, 2),) * (messages.ACK_RANGES + 1), "10001 ranges; at most 10000"),
    ],
)
def test_an_ack_of_numbers_that_no_report_has_is_refused(
    up_to: int, also: tuple[tuple[int, int], ...], said: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        Ack(boot="b1", up_to=up_to, also=also)


def test_every_channel_and_command_has_a_body_and_a_topic_that_parses_back() -> None:
    told = [topics.topic("lab", "pi-1", channel) for channel in topics.CHANNELS]
    asked = [topics.command("lab", "pi-1", name) for name in topics.COMMANDS]
    addresses = [topics.parse(topic) for topic in told + asked]

    assert [address.channel for address in addresses if address is not None] == [
        *topics.CHANNELS,
        *(f"command/{name}" for name in topics.COMMANDS),
    ]
    assert {address.channel for address in addresses if address is not None} == set(messages.BODIES)


def test_a_fleet_is_heard_without_what_is_sent_to_it() -> None:
    subscriptions = topics.every_board("lab")

    assert "tflotilla/lab/+/predictions" in subscriptions
    assert not [s for s in subscriptions if "ack" in s or "command" in s or "#" in s]


@pytest.mark.parametrize(
    "topic",
    [
        "",
        "tflotilla",
        "tflotilla/lab/pi-1",
        "tflotilla/lab/pi-1/invented",
        "tflotilla/lab/pi-1/command/reboot",
        "tflotilla/lab/pi-1/state/more",
        "tflotilla/lab/Pi-1/state",
        "tflotilla/lab/pi 1/state",
        "tflotilla/lab//state",
        "tflotilla/LAB/pi-1/state",
        "tflotilla/lab/+/state",
        "other/lab/pi-1/state",
        "/tflotilla/lab/pi-1/state",
    ],
)
def test_a_topic_that_is_not_ours_has_no_address(topic: str) -> None:
    assert topics.parse(topic) is None
    with pytest.raises(ContractError, match="is not a topic of this contract"):
        messages.parse(topic, _message(Availability(status="online")).to_bytes())


@pytest.mark.parametrize(
    ("payload", "said"),
    [
        (b"", "not valid JSON"),
        (b"online", "not valid JSON"),
        (b"[]", "not a message of schema 1"),
        (b'{"schema":2}', "not a message of schema 1"),
        (b'{"schema":1}', "key 'board' is missing"),
        (b"\xff" * 10, "not valid JSON"),
    ],
)
def test_a_payload_of_another_contract_is_refused_naming_the_topic(payload: bytes, said: str) -> None:
    with pytest.raises(ContractError) as caught:
        messages.parse(_topic("availability"), payload)

    assert str(caught.value).startswith(_topic("availability"))
    assert said in str(caught.value)


def test_a_board_can_not_speak_for_another() -> None:
    payload = _message(Availability(status="online"), board="pi-2").to_bytes()

    with pytest.raises(ContractError, match="the message says it is from board 'pi-2'"):
        messages.parse(_topic("availability"), payload)


def test_a_body_of_another_channel_is_refused() -> None:
    with pytest.raises(ContractError, match="is missing"):
        messages.parse(_topic("metrics"), _message(Availability(status="online")).to_bytes())


def test_a_message_is_flat_so_that_dashboards_need_no_path() -> None:
    document = json.loads(_message(Availability(status="online")).to_bytes())

    assert document == {
        "schema": 1,
        "board": "pi-1",
        "boot": "b1",
        "seq": 7,
        "time": 1700000000.25,
        "bundle": None,
        "status": "online",
    }


@pytest.mark.parametrize("name", ["", "-a", "A", "a_b", "a.b", "a" * 64, "a/b", "a+", "a#", "ä", "a\n", "$(x)"])
def test_a_name_that_is_no_topic_level_is_refused_for_fleets(name: str) -> None:
    with pytest.raises(ValueError, match="use lower-case letters"):
        topics.check_fleet(name)
