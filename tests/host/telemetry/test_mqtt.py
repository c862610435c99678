"""The host's connection against a real mosquitto, and against what is no broker at all."""

from __future__ import annotations

import dataclasses
import socket
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from tests import brokers
from tflotilla.host.telemetry import mqtt
from tflotilla.shared.contract.agent_config import MqttConfig
from tflotilla.shared.contract.errors import BrokerError, ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.mosquitto
PATIENCE_S = brokers.PATIENCE_S
PASSWORD = "open sesame"


def error_of(config: MqttConfig, folder: Path, *, timeout_s: float = PATIENCE_S) -> str:
    with pytest.raises(BrokerError) as caught, mqtt.connect(config, folder=folder, timeout_s=timeout_s):
        pass
    assert "\n" not in str(caught.value)
    return str(caught.value)


def collect(connection: mqtt.Connection, count: int) -> list[bytes]:
    payloads: list[bytes] = []

    def enough() -> bool:
        payloads.extend(each.payload for each in connection.receive(timeout_s=0.05))
        return len(payloads) >= count

    brokers.until(enough, f"{count} messages")
    return payloads


@contextmanager
def listener(answer: bytes | None) -> Iterator[int]:
    """Give the port of something that answers every connection with `answer` and hangs up; None says nothing."""
    server = socket.create_server(("127.0.0.1", 0))
    open_ones = []

    def serve() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            open_ones.append(connection)
            if answer is not None:
                connection.recv(1024)
                connection.sendall(answer)
                connection.close()

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield int(server.getsockname()[1])
    finally:
        server.close()
        for connection in open_ones:
            connection.close()


def test_messages_come_as_they_were_sent_and_in_order(config: MqttConfig, tmp_path: Path) -> None:
    with mqtt.connect(config, folder=tmp_path) as connection:
        connection.subscribe(["tflotilla/#"])
        for number in range(100):
            connection.publish("tflotilla/a", b"%d\xff" % number)

        assert connection.protocol == "5"
        assert collect(connection, 100) == [b"%d\xff" % number for number in range(100)]


def test_what_is_sent_without_waiting_arrives_and_stays_where_it_is_retained(
    config: MqttConfig, tmp_path: Path
) -> None:
    with mqtt.connect(config, folder=tmp_path) as connection:
        assert connection.send("kept", b"k", retained=True)
        for number in range(100):
            connection.send("a", b"%d" % number)
        connection.publish("a", b"the last one is confirmed, so are those before it")
        connection.subscribe(["kept"])

        assert [b"k"] == collect(connection, 1)
        assert {} == connection.refusals()


def test_what_the_broker_refuses_of_it_can_be_asked_for(tmp_path: Path) -> None:
    rules = "user host\ntopic readwrite mine/#\n"
    with brokers.mosquitto(tmp_path / "strict", username="host", password=PASSWORD, acl=rules) as broker:
        (tmp_path / "password").write_text(PASSWORD)
        config = MqttConfig(port=broker.port, username="host", password_file="password")
        with mqtt.connect(config, folder=tmp_path) as connection:
            connection.send("mine/a", b"x")
            connection.send("homeassistant/device/a/config", b"x")
            connection.publish("mine/a", b"answers come in order")

            assert ["homeassistant/device/a/config"] == list(connection.refusals())
            assert {} == connection.refusals()


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_both_versions_of_the_protocol_are_spoken(config: MqttConfig, tmp_path: Path, protocol: str) -> None:
    wanted = dataclasses.replace(config, protocol=protocol)  # type: ignore[arg-type]
    with mqtt.connect(wanted, folder=tmp_path) as connection:
        connection.subscribe(["a"])
        connection.publish("a", b"x")

        assert connection.protocol == protocol
        assert collect(connection, 1) == [b"x"]


def test_receiving_nothing_ends_in_time(config: MqttConfig, tmp_path: Path) -> None:
    with mqtt.connect(config, folder=tmp_path) as connection:
        connection.subscribe(["a"])

        assert connection.receive(timeout_s=0.05) == ()


def test_subscriptions_survive_a_restart_of_the_broker(
    config: MqttConfig, tmp_path: Path, mosquitto: brokers.Mosquitto
) -> None:
    with mqtt.connect(config, folder=tmp_path) as connection:
        connection.subscribe(["a"])
        mosquitto.kill()
        brokers.until(lambda: not connection.connected, "the connection to be noticed lost")
        mosquitto.start()
        brokers.until(lambda: connection.connected, "the connection to come back")
        assert connection.connections == 2
        heard: list[bytes] = []

        def echoed() -> bool:
            connection.publish("a", b"again")
            heard.extend(each.payload for each in connection.receive(timeout_s=0.2))
            return bool(heard)

        brokers.until(echoed, "the subscription to be back")
    assert set(heard) == {b"again"}


def test_a_broker_that_is_down_is_one_line_that_says_where(tmp_path: Path) -> None:
    port = brokers.free_port()

    error = error_of(MqttConfig(port=port), tmp_path)

    assert error == (
        f"MQTT broker 127.0.0.1:{port} can't be reached: Connection refused; "
        "is it running, and are [mqtt] host and port in fleet.toml right?"
    )


def test_a_host_that_does_not_exist_is_named(tmp_path: Path) -> None:
    assert "no-such-host.invalid:1883: no such host name" in error_of(MqttConfig(host="no-such-host.invalid"), tmp_path)


def test_a_refused_password_names_the_user_and_not_the_password(config: MqttConfig, tmp_path: Path) -> None:
    (tmp_path / "password").write_text("wrong-password\n")

    error = error_of(config, tmp_path)

    assert "refuses user 'host'" in error
    assert "password_file" in error
    assert "wrong-password" not in error


def test_a_refused_password_is_refused_in_3_1_1_too(config: MqttConfig, tmp_path: Path) -> None:
    (tmp_path / "password").write_text("wrong\n")

    assert "refuses user 'host'" in error_of(dataclasses.replace(config, protocol="3.1.1"), tmp_path)


def test_no_user_where_one_is_needed_is_refused(config: MqttConfig, tmp_path: Path) -> None:
    anonymous = dataclasses.replace(config, username=None, password_file=None)

    assert "refuses connections without a user" in error_of(anonymous, tmp_path)


def test_a_password_file_that_is_not_there_is_a_config_error(config: MqttConfig, tmp_path: Path) -> None:
    (tmp_path / "password").unlink()

    with pytest.raises(ConfigError, match="password_file"), mqtt.connect(config, folder=tmp_path):
        pass


@pytest.mark.parametrize("answer", [b"SSH-2.0-OpenSSH_9.2\r\n", b"HTTP/1.1 400 Bad Request\r\n\r\n", b""])
def test_something_that_is_no_broker_is_told_as_such(tmp_path: Path, answer: bytes) -> None:
    with listener(answer) as port:
        assert "did not answer as an MQTT broker does" in error_of(MqttConfig(port=port), tmp_path)


def test_something_that_says_nothing_is_given_up_in_time(tmp_path: Path) -> None:
    with listener(None) as port:
        assert "did not answer" in error_of(MqttConfig(port=port), tmp_path, timeout_s=0.5)


def test_an_old_broker_that_refuses_version_5_is_spoken_to_in_3_1_1(tmp_path: Path) -> None:
    """CONNACK with return code 1, as brokers from before MQTT 5 send it; then the same to 3.1.1: refused for good."""
    with listener(b"\x20\x02\x00\x01") as port:
        error = error_of(MqttConfig(port=port), tmp_path, timeout_s=5)

    assert "refuses us" in error or "did not answer" in error


def test_what_the_acl_forbids_to_write_is_an_error(tmp_path: Path) -> None:
    with brokers.mosquitto(tmp_path / "b", username="host", password="x", acl="user host\ntopic read #\n") as broker:
        (tmp_path / "password").write_text("x")
        config = MqttConfig(port=broker.port, username="host", password_file="password")
        with (
            mqtt.connect(config, folder=tmp_path) as connection,
            pytest.raises(BrokerError, match="does not let us write tflotilla/a: Not authorized"),
        ):
            connection.publish("tflotilla/a", b"x")
