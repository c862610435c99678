"""Sessions that outlive connections, wills, and what is taken off the wire, against a real mosquitto."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import pytest

from tests import brokers
from tflotilla.host.telemetry import mqtt, sessions
from tflotilla.host.telemetry.inbox import Inbox
from tflotilla.shared.contract.errors import ConflictError, InputError

if TYPE_CHECKING:
    from pathlib import Path

    from tflotilla.shared.contract.agent_config import MqttConfig

SESSION = mqtt.Session(client_id="keeper", expiry_s=600)


def gathered(connection: mqtt.Connection, count: int) -> list[bytes]:
    payloads: list[bytes] = []

    def enough() -> bool:
        payloads.extend(each.payload for each in connection.receive(timeout_s=0.05))
        return len(payloads) >= count

    brokers.until(enough, f"{count} messages")
    return payloads


@pytest.mark.mosquitto
@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_a_session_gets_what_came_while_nobody_was_connected(config: MqttConfig, tmp_path: Path, protocol: str) -> None:
    wanted = dataclasses.replace(config, protocol=protocol)  # type: ignore[arg-type]
    with mqtt.connect(config, folder=tmp_path) as other:
        with mqtt.connect(wanted, folder=tmp_path, session=SESSION) as connection:
            connection.subscribe(["a"])
        for number in range(50):
            other.publish("a", b"%d" % number)
        with mqtt.connect(wanted, folder=tmp_path, session=SESSION) as connection:
            found = gathered(connection, 50)

    assert [b"%d" % number for number in range(50)] == found


@pytest.mark.mosquitto
def test_what_is_held_stays_with_the_broker_for_the_next_connection(config: MqttConfig, tmp_path: Path) -> None:
    with mqtt.connect(config, folder=tmp_path) as other:
        with mqtt.connect(config, folder=tmp_path, session=SESSION) as connection:
            connection.subscribe(["a"])
            other.publish("a", b"before")
            before = gathered(connection, 1)
            connection.hold()
            other.publish("a", b"after")
            during = connection.receive(timeout_s=0.2)
        with mqtt.connect(config, folder=tmp_path, session=SESSION) as connection:
            after = gathered(connection, 1)

    assert ([b"before"], (), [b"after"]) == (before, during, after)


@pytest.mark.mosquitto
def test_a_connection_without_a_session_leaves_nothing_behind(config: MqttConfig, tmp_path: Path) -> None:
    with mqtt.connect(config, folder=tmp_path) as other:
        with mqtt.connect(config, folder=tmp_path) as connection:
            connection.subscribe(["a"])
        other.publish("a", b"x")
        with mqtt.connect(config, folder=tmp_path) as connection:
            assert connection.receive(timeout_s=0.2) == ()


@pytest.mark.mosquitto
def test_thousands_of_messages_of_all_sizes_come_whole_and_in_order(config: MqttConfig, tmp_path: Path) -> None:
    expected = [b"%d:" % number + b"x" * (number * 37 % 5000) for number in range(3000)]
    with mqtt.connect(config, folder=tmp_path) as connection, mqtt.connect(config, folder=tmp_path) as other:
        connection.subscribe(["a"])
        for payload in expected:
            other.send("a", payload)
        found = gathered(connection, len(expected))

    assert expected == found


@pytest.mark.mosquitto
@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_many_messages_are_sent_at_once(config: MqttConfig, tmp_path: Path, protocol: str) -> None:
    wanted = dataclasses.replace(config, protocol=protocol)  # type: ignore[arg-type]
    with mqtt.connect(config, folder=tmp_path) as connection, mqtt.connect(wanted, folder=tmp_path) as other:
        connection.subscribe(["a/+"])
        sent = other.send_all([(f"a/{number}", b"%d" % number) for number in range(2000)])
        other.publish("a/last", b"last")
        found = gathered(connection, 2001)

    assert sent
    assert [*(b"%d" % number for number in range(2000)), b"last"] == found


@pytest.mark.mosquitto
def test_a_message_of_megabytes_comes_whole(config: MqttConfig, tmp_path: Path) -> None:
    large = bytes(range(256)) * (4 << 12)
    with mqtt.connect(config, folder=tmp_path) as connection:
        connection.subscribe(["a"])
        connection.publish("a", large)

        assert [large] == gathered(connection, 1)


@pytest.mark.mosquitto
def test_no_more_is_taken_than_was_asked_for(config: MqttConfig, tmp_path: Path) -> None:
    with mqtt.connect(config, folder=tmp_path) as connection:
        connection.subscribe(["a"])
        for number in range(10):
            connection.publish("a", b"%d" % number)
        brokers.until(lambda: len(connection._inbox._waiting) == 10, "all of them")
        batches = [len(connection.receive(timeout_s=0.0, most=4)) for _ in range(4)]

    assert [4, 4, 2, 0] == batches


@pytest.mark.mosquitto
def test_a_will_is_published_when_we_are_gone_without_a_word(config: MqttConfig, tmp_path: Path) -> None:
    will = mqtt.Will(topic="gone", payload=b"yes")
    with mqtt.connect(config, folder=tmp_path) as other:
        other.subscribe(["gone"])
        with mqtt.connect(config, folder=tmp_path, will=will) as connection:
            socket = connection._client.socket()
            assert socket is not None
            socket.shutdown(2)  # type: ignore[attr-defined]
            found = gathered(other, 1)

    assert [b"yes"] == found


@pytest.mark.mosquitto
def test_why_there_is_no_connection_is_known(config: MqttConfig, tmp_path: Path, mosquitto: brokers.Mosquitto) -> None:
    with mqtt.connect(config, folder=tmp_path) as connection:
        before = connection.problem
        mosquitto.kill()
        brokers.until(lambda: connection.problem is not None, "the loss to be noticed")
        during = connection.problem
        mosquitto.start()
        brokers.until(lambda: connection.problem is None, "the connection to be back")

    assert before is None
    assert during is not None
    assert f"the connection to the MQTT broker 127.0.0.1:{mosquitto.port} is lost" in during


def test_what_nobody_takes_is_bounded_in_number_and_bytes() -> None:
    inbox = Inbox(most=5, most_bytes=100)
    inbox.put([(b"a", b"%d" % number, False) for number in range(8)])
    by_number = [each.payload for each in inbox.take(timeout_s=0, most=None)]
    inbox.put([(b"a", b"x" * 60, False), (b"b", b"y" * 60, False)])
    by_bytes = [each.topic for each in inbox.take(timeout_s=0, most=None)]

    assert [b"3", b"4", b"5", b"6", b"7"] == by_number
    assert ["b"] == by_bytes
    assert 4 == inbox.dropped


def test_a_session_has_the_same_name_each_time_and_each_role_its_own(tmp_path: Path) -> None:
    names = []
    for role in ("collector", "collector", "collector-night"):
        with sessions.held(tmp_path / "new", role) as name:
            names.append(name)

    assert names[0] == names[1] != names[2]


def test_a_session_has_one_holder(tmp_path: Path) -> None:
    with (
        sessions.held(tmp_path, "collector"),
        pytest.raises(ConflictError, match="--name"),
        sessions.held(tmp_path, "collector"),
    ):
        pass


def test_a_folder_that_can_not_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="can't be made"), sessions.held(tmp_path / "file", "collector"):
        pass
