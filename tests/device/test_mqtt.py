"""MQTT as brokers really speak it: refusals, denials, old protocols, TLS. The port's promises are proven elsewhere."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import threading
from typing import TYPE_CHECKING, Any

import pytest

from tests import brokers
from tests.device.test_transports_contract import FAREWELL, WILL, Diary, publication, with_deadline
from tflotilla.device.backoff import Backoff
from tflotilla.device.transports import Connected, Lost, Publication, Received, Settled
from tflotilla.device.transports.mqtt import MqttTransport
from tflotilla.shared.contract.agent_config import MqttConfig

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

pytestmark = pytest.mark.mosquitto
COMMAND = "tflotilla/t/pi-1/command/state"


def living(config: MqttConfig, story: Callable[[MqttTransport, Diary], Awaitable[None]]) -> None:
    async def live() -> None:
        diary = Diary()
        transport = MqttTransport(
            config,
            client_id="tflotilla-t-pi-1",
            will=WILL,
            subscriptions=(COMMAND,),
            backoff=Backoff(first_s=0.05, limit_s=0.2),
        )
        transport.start(diary.write)
        try:
            await story(transport, diary)
        finally:
            await transport.stop(FAREWELL)

    asyncio.run(live())


def test_the_newest_protocol_is_spoken(tmp_path: Path) -> None:
    with brokers.mosquitto(tmp_path) as broker:

        async def story(_transport: MqttTransport, diary: Diary) -> None:
            assert (await diary.first(Connected)).protocol == "5"

        living(MqttConfig(port=broker.port), story)


def test_an_older_protocol_is_spoken_when_asked_for(tmp_path: Path) -> None:
    with brokers.mosquitto(tmp_path) as broker:

        async def story(transport: MqttTransport, diary: Diary) -> None:
            assert (await diary.first(Connected)).protocol == "3.1.1"
            transport.publish(publication(1), 1)
            assert await diary.first(Settled) == Settled(token=1)

        living(MqttConfig(port=broker.port, protocol="3.1.1"), story)


@pytest.mark.parametrize("protocol", ["auto", "5", "3.1.1"])
def test_a_wrong_password_is_a_refusal_that_names_it(tmp_path: Path, protocol: Any) -> None:  # noqa: ANN401
    (tmp_path / "password").write_text("wrong\n")
    with brokers.mosquitto(tmp_path, username="pi", password="right") as broker:

        async def story(_transport: MqttTransport, diary: Diary) -> None:
            lost = await diary.first(Lost)
            assert lost.refused
            assert f"127.0.0.1:{broker.port} refuses this board" in lost.reason
            assert "ot authorized" in lost.reason or "Bad user name or password" in lost.reason
            assert "wrong" not in lost.reason

        config = MqttConfig(
            port=broker.port, username="pi", password_file=str(tmp_path / "password"), protocol=protocol
        )
        living(config, story)


def test_a_password_that_becomes_right_is_taken_up(tmp_path: Path) -> None:
    password = tmp_path / "password"
    password.write_text("wrong")
    with brokers.mosquitto(tmp_path, username="pi", password="right") as broker:

        async def story(_transport: MqttTransport, diary: Diary) -> None:
            await diary.first(Lost)
            password.write_text("right\n")
            await diary.first(Connected)

        living(MqttConfig(port=broker.port, username="pi", password_file=str(password)), story)


def test_an_absent_password_file_is_named(tmp_path: Path) -> None:
    async def story(_transport: MqttTransport, diary: Diary) -> None:
        lost = await diary.first(Lost)
        assert lost == Lost(
            reason=f"mqtt.password_file {tmp_path / 'password'} can't be read: No such file or directory", refused=True
        )

    living(MqttConfig(port=1, username="pi", password_file=str(tmp_path / "password")), story)


def test_an_acl_denial_is_told_per_message_under_mqtt_5(tmp_path: Path) -> None:
    acl = "topic write tflotilla/t/pi-1/event\ntopic write tflotilla/t/pi-1/availability\n"
    with brokers.mosquitto(tmp_path, acl=acl) as broker:

        async def story(transport: MqttTransport, diary: Diary) -> None:
            await diary.first(Connected)
            transport.publish(Publication(topic="tflotilla/t/pi-2/event", payload=b"forged"), 1)
            assert await diary.first(Settled) == Settled(token=1, problem="Not authorized")

            # mosquitto 2.0 hangs up after a denial; what is allowed passes on whatever connection there is.
            await with_deadline(lambda: transport.publish(publication(2), 2), "a connection")
            assert await diary.first(Settled, count=2) == Settled(token=2)

        living(MqttConfig(port=broker.port), story)


def test_a_message_larger_than_the_broker_takes_is_known_before_it_is_sent(tmp_path: Path) -> None:
    with brokers.mosquitto(tmp_path, extra="max_packet_size 5000") as broker:

        async def story(_transport: MqttTransport, diary: Diary) -> None:
            assert (await diary.first(Connected)).max_bytes == 5000

        living(MqttConfig(port=broker.port), story)


def test_a_retained_request_is_not_obeyed_again_and_again(tmp_path: Path) -> None:
    with brokers.mosquitto(tmp_path) as broker, brokers.listening(broker) as listener:
        assert listener._client is not None
        listener._client.publish(COMMAND, b"old", qos=1, retain=True).wait_for_publish(brokers.PATIENCE_S)

        async def story(transport: MqttTransport, diary: Diary) -> None:
            await diary.first(Connected)
            # The broker sends the retained one with its answer to the subscription, before what comes later.
            while not diary.of(Received):
                transport.publish(Publication(topic=COMMAND, payload=b"new"))
                await asyncio.sleep(0.05)
            assert {received.payload for received in diary.of(Received)} == {b"new"}

        living(MqttConfig(port=broker.port), story)


def test_a_second_board_of_the_same_name_is_named_as_the_trouble(tmp_path: Path) -> None:
    with brokers.mosquitto(tmp_path) as broker:

        async def story(_transport: MqttTransport, diary: Diary) -> None:
            await diary.first(Connected)
            twin = MqttTransport(
                MqttConfig(port=broker.port),
                client_id="tflotilla-t-pi-1",
                will=WILL,
                subscriptions=(),
                backoff=Backoff(first_s=0.05, limit_s=0.2),
            )
            twin.start(lambda _: None)
            try:
                assert "does another board have the same name?" in (await diary.first(Lost, count=3)).reason
            finally:
                await twin.stop(FAREWELL)

        living(MqttConfig(port=broker.port), story)


def test_a_port_that_hangs_up_is_said_so() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=_hang_up, args=(server,), daemon=True).start()

        async def story(_transport: MqttTransport, diary: Diary) -> None:
            lost = await diary.first(Lost)
            assert "hung up before it answered" in lost.reason
            assert not lost.refused

        living(MqttConfig(port=server.getsockname()[1]), story)


def _hang_up(server: socket.socket) -> None:
    while True:
        try:
            connection, _ = server.accept()
        except OSError:
            return
        connection.recv(100)
        connection.close()


def test_a_name_that_does_not_exist_is_said_so() -> None:
    async def story(_transport: MqttTransport, diary: Diary) -> None:
        lost = await diary.first(Lost)
        assert lost.reason == "broker broker.invalid:1883 can't be reached: its name can't be resolved"

    living(MqttConfig(host="broker.invalid"), story)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("certificates")
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    for name in ("broker", "stranger"):
        subject = ["-subj", f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "2"]
        files = ["-keyout", str(folder / f"{name}.key"), "-out", str(folder / f"{name}.pem")]
        subprocess.run([*command, *subject, *files], check=True, capture_output=True)
    return folder


def test_tls_reaches_a_broker_whose_certificate_is_trusted(tmp_path: Path, certificates: Path) -> None:
    extra = f"certfile {certificates / 'broker.pem'}\nkeyfile {certificates / 'broker.key'}"
    with brokers.mosquitto(tmp_path, extra=extra) as broker:

        async def story(transport: MqttTransport, diary: Diary) -> None:
            await diary.first(Connected)
            transport.publish(publication(1), 1)
            assert await diary.first(Settled) == Settled(token=1)

        living(MqttConfig(port=broker.port, tls=True, ca_file=str(certificates / "broker.pem")), story)


def test_tls_refuses_a_broker_whose_certificate_is_not_trusted(tmp_path: Path, certificates: Path) -> None:
    extra = f"certfile {certificates / 'broker.pem'}\nkeyfile {certificates / 'broker.key'}"
    with brokers.mosquitto(tmp_path, extra=extra) as broker:

        async def story(_transport: MqttTransport, diary: Diary) -> None:
            assert "its certificate is not trusted" in (await diary.first(Lost)).reason

        living(MqttConfig(port=broker.port, tls=True, ca_file=str(certificates / "stranger.pem")), story)


def test_an_absent_ca_file_is_named(tmp_path: Path) -> None:
    async def story(_transport: MqttTransport, diary: Diary) -> None:
        lost = await diary.first(Lost)
        assert lost.refused
        assert lost.reason == f"mqtt.ca_file {tmp_path / 'ca.pem'} can't be used: No such file or directory"

    living(MqttConfig(port=1, tls=True, ca_file=str(tmp_path / "ca.pem")), story)


def test_the_embedded_broker_of_labs_is_spoken_to_in_its_older_protocol() -> None:
    """amqtt neither answers nor hangs up on MQTT 5: after a silence 3.1.1 is tried, and kept for the next time."""
    broker_module = pytest.importorskip("amqtt.broker", reason="amqtt is the host's package")
    port = brokers.free_port()
    settings = {
        "listeners": {"default": {"type": "tcp", "bind": f"127.0.0.1:{port}"}},
        "plugins": {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}},
    }

    async def story(transport: MqttTransport, diary: Diary) -> None:
        broker = broker_module.Broker(settings)
        await broker.start()
        try:
            assert (await diary.first(Connected)).protocol == "3.1.1"
            transport.publish(publication(1), 1)
            assert await diary.first(Settled) == Settled(token=1)
        finally:
            await transport.stop(FAREWELL)
            await broker.shutdown()

    living(MqttConfig(port=port), story)
