"""deploy/mosquitto as it is shipped, only with other paths and another port, in front of a real mosquitto."""

from __future__ import annotations

import datetime
import ipaddress
import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests import brokers
from tflotilla.host.lab import broker as lab_broker
from tflotilla.host.telemetry import mqtt
from tflotilla.shared.contract import topics
from tflotilla.shared.contract.agent_config import MqttConfig
from tflotilla.shared.contract.errors import BrokerError

if TYPE_CHECKING:
    from collections.abc import Iterator

EXAMPLE = Path(__file__).resolve().parents[3] / "deploy" / "mosquitto"
INSTALLED = "/etc/mosquitto/tflotilla"
USERS = ("host", "pi-1", "pi-2")
REPORTS = tuple(channel for channel in topics.CHANNELS if channel != "ack")

pytestmark = [
    pytest.mark.mosquitto,
    pytest.mark.skipif(lab_broker.find_mosquitto() is None, reason="mosquitto is not installed"),
]


def make_certificates(folder: Path, name: str) -> None:
    """Write NAME.ca, and server.crt with server.key for 127.0.0.1 signed by it."""
    today = datetime.datetime.now(datetime.UTC)
    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{name} CA")])

    def certificate(subject: str, public: ec.EllipticCurvePublicKey, *extensions: x509.ExtensionType) -> bytes:
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)]))
            .issuer_name(issuer)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(today - datetime.timedelta(days=1))
            .not_valid_after(today + datetime.timedelta(days=1))
        )
        for extension in extensions:
            builder = builder.add_extension(extension, critical=True)
        return builder.sign(ca_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    authority = x509.BasicConstraints(ca=True, path_length=0)
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    (folder / f"{name}.ca").write_bytes(certificate(f"{name} CA", ca_key.public_key(), authority))
    (folder / "server.crt").write_bytes(certificate("broker", key.public_key(), address))
    (folder / "server.key").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, int]]:
    """Give the folder and the port of a mosquitto that runs on the shipped example."""
    folder = tmp_path_factory.mktemp("mosquitto")
    make_certificates(folder, "stranger")
    make_certificates(folder, "fleet")
    lines = [lab_broker.password_line(user, f"secret of {user}") for user in USERS]
    (folder / "passwords").write_text("".join(f"{line}\n" for line in lines))
    (folder / "acl").write_text((EXAMPLE / "acl").read_text())
    for user in USERS:
        (folder / f"{user}.password").write_text(f"secret of {user}\n")
    for file in folder.iterdir():
        file.chmod(0o600)
    port = brokers.free_port()
    shipped = (EXAMPLE / "tflotilla.conf").read_text()
    assert shipped.count(INSTALLED) >= 4
    text = shipped.replace(INSTALLED, str(folder)).replace("listener 8883", f"listener {port} 127.0.0.1")
    if os.geteuid() == 0:
        text += "\nuser root\n"
    (folder / "tflotilla.conf").write_text(text)
    program = lab_broker.find_mosquitto()
    assert program is not None
    with (
        (folder / "log").open("wb") as log,
        subprocess.Popen([program, "-c", str(folder / "tflotilla.conf")], stdout=log, stderr=log) as process,
    ):
        try:
            brokers.until(
                lambda: process.poll() is not None or brokers._listens(port), "mosquitto to listen on the example"
            )
            assert process.poll() is None, (folder / "log").read_text()
            yield folder, port
        finally:
            process.kill()


def config(broker: tuple[Path, int], user: str, *, ca: str = "fleet") -> MqttConfig:
    return MqttConfig(port=broker[1], username=user, password_file=f"{user}.password", tls=True, ca_file=f"{ca}.ca")


def forbidden(broker: tuple[Path, int], user: str, topic: str) -> bool:
    with mqtt.connect(config(broker, user), folder=broker[0]) as connection:
        try:
            connection.publish(topic, b"x", timeout_s=brokers.PATIENCE_S)
        except BrokerError as error:
            return str(error).endswith(f"does not let us write {topic}: Not authorized")
        return False


def test_a_board_writes_all_of_its_own_reports(broker: tuple[Path, int]) -> None:
    with mqtt.connect(config(broker, "pi-1"), folder=broker[0]) as connection:
        for channel in REPORTS:
            connection.publish(topics.topic("barn", "pi-1", channel), b"x", timeout_s=brokers.PATIENCE_S)


@pytest.mark.parametrize("topic", [topics.topic("barn", "pi-2", channel) for channel in REPORTS])
def test_a_board_cannot_speak_for_another(broker: tuple[Path, int], topic: str) -> None:
    assert forbidden(broker, "pi-1", topic)


@pytest.mark.parametrize("board", ["pi-1", "pi-2"])
@pytest.mark.parametrize("name", topics.COMMANDS)
def test_a_board_cannot_command_another_nor_itself(broker: tuple[Path, int], board: str, name: topics.Command) -> None:
    assert forbidden(broker, "pi-1", topics.command("barn", board, name))


def test_the_host_commands_and_acknowledges_but_cannot_pretend_to_be_a_board(broker: tuple[Path, int]) -> None:
    assert not forbidden(broker, "host", topics.command("barn", "pi-1", "benchmark"))
    assert not forbidden(broker, "host", topics.topic("barn", "pi-1", "ack"))
    assert forbidden(broker, "host", topics.topic("barn", "pi-1", "metrics"))


@pytest.mark.parametrize(
    "topic", [topics.host_topic("barn", "pi-1", "update"), "homeassistant/device/tflotilla/config"]
)
def test_the_host_tells_other_tools_what_no_board_can(broker: tuple[Path, int], topic: str) -> None:
    assert not forbidden(broker, "host", topic)
    assert forbidden(broker, "pi-1", topic)


def test_a_board_hears_what_is_asked_of_it_and_nothing_else(broker: tuple[Path, int]) -> None:
    with (
        mqtt.connect(config(broker, "pi-2"), folder=broker[0]) as board,
        mqtt.connect(config(broker, "host"), folder=broker[0]) as host,
        mqtt.connect(config(broker, "pi-1"), folder=broker[0]) as other,
    ):
        board.subscribe([topics.command("barn", "pi-2", "state"), "tflotilla/#"])
        host.publish(topics.command("barn", "pi-1", "state"), b"not yours")
        other.publish(topics.topic("barn", "pi-1", "metrics"), b"not yours")
        host.publish(topics.command("barn", "pi-2", "state"), b"yours")
        heard = board.receive(timeout_s=brokers.PATIENCE_S)

    assert {each.payload for each in heard} == {b"yours"}


def test_the_host_hears_the_whole_fleet(broker: tuple[Path, int]) -> None:
    with (
        mqtt.connect(config(broker, "host"), folder=broker[0]) as host,
        mqtt.connect(config(broker, "pi-1"), folder=broker[0]) as board,
    ):
        host.subscribe(topics.every_board("orchard"))
        board.publish(topics.topic("orchard", "pi-1", "metrics"), b"x")

        assert [each.payload for each in host.receive(timeout_s=brokers.PATIENCE_S)] == [b"x"]


def test_a_broker_with_a_strangers_certificate_is_refused(broker: tuple[Path, int]) -> None:
    with (
        pytest.raises(BrokerError, match="a certificate we don't trust"),
        mqtt.connect(config(broker, "host", ca="stranger"), folder=broker[0]),
    ):
        pass


def test_without_tls_nobody_gets_in(broker: tuple[Path, int]) -> None:
    plain = MqttConfig(port=broker[1], username="host", password_file="host.password")

    with pytest.raises(BrokerError, match="TLS"), mqtt.connect(plain, folder=broker[0], timeout_s=5):
        pass
