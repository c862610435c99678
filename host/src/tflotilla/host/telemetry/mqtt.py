"""The host's connection to the MQTT broker; its only door to paho.

    with connect(fleet.mqtt, folder=fleet.folder) as broker:
        broker.subscribe(topics.every_board(fleet.name))
        for received in broker.receive(timeout_s=1.0): ...

Rules it keeps: MQTT 5 first, 3.1.1 where the broker can't (or answers nothing to 5); every wait has an end; what goes
wrong is a BrokerError of one line; after an interruption it connects and subscribes again by itself; what nobody takes
is bounded in number and bytes, the oldest go first and are counted.

It does NOT read messages: topics and payloads go out as they came in, garbage too.
"""

from __future__ import annotations

import secrets
import socket
import ssl
import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from tflotilla.host.telemetry import mqtt_frames
from tflotilla.host.telemetry.inbox import Inbox, Received
from tflotilla.shared.contract.errors import BrokerError, ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from paho.mqtt.enums import MQTTErrorCode
    from paho.mqtt.reasoncodes import ReasonCode

    from tflotilla.shared.contract.agent_config import MqttConfig

#: A broker that takes longer to answer a CONNECT of MQTT 5 is taken for one that doesn't understand it.
_PATIENCE_WITH_5_S = 3.0
_TICK_S = 0.05
#: No message of the contract is longer; a broker of MQTT 5 keeps longer ones to itself.
_MOST_PACKET_BYTES = (8 << 20) + (1 << 16)
_CHUNK_BYTES = 1 << 18
_MOST_ANSWERS = 1000
_HELD_S = 0.01
_MOST_REFUSED = 1000
_REFUSALS = frozenset({"Bad user name or password", "Not authorized", "Bad authentication method", "Banned"})
_OTHER_VERSION = "Unsupported protocol version"
_TAKEN_OVER = "Session taken over"


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """A session that outlives the connection: the broker holds what comes for it meanwhile, as much as it may."""

    #: The same again each time; two connections of one name take the session from each other.
    client_id: str
    expiry_s: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Will:
    """What the broker publishes when we are gone without a word."""

    topic: str
    payload: bytes
    retain: bool = True


class _Client(paho.Client):
    """paho, but for publications: they are taken off the wire many at a time, at a tenth of the cost.

    Bytes go through us; whatever is no publication paho reads by itself, one packet at a time, through `_sock_recv`.
    """

    def __init__(self, inbox: Inbox, client_id: str, version: Any, *, clean: bool) -> None:  # noqa: ANN401
        # MQTT 5 is told when it connects.
        legacy = None if version == paho.MQTTv5 else clean
        super().__init__(CallbackAPIVersion.VERSION2, client_id=client_id, clean_session=legacy, protocol=version)
        self._inbox = inbox
        self._version_5 = version == paho.MQTTv5
        self._left = b""
        self.held = threading.Event()
        #: What paho is to read now: bytes of one packet, "" at the end of the connection, or why it broke.
        self._for_paho: bytes | OSError | None = None

    def reconnect(self) -> MQTTErrorCode:
        self._left, self._for_paho = b"", None
        return super().reconnect()

    def loop_read(self, max_packets: int = 1) -> MQTTErrorCode:
        if self.held.is_set():
            # The socket has something to say, and paho would ask again at once.
            time.sleep(_HELD_S)
            return paho.MQTT_ERR_SUCCESS
        try:
            chunk = super()._sock_recv(_CHUNK_BYTES)
        except BlockingIOError:
            return paho.MQTT_ERR_SUCCESS
        except OSError as error:
            self._for_paho = error
            return super().loop_read(max_packets)
        if not chunk:
            self._for_paho = b""
            return super().loop_read(max_packets)
        self._last_bytes_received = time.monotonic()
        data = self._left + chunk if self._left else chunk
        self._left = b""
        while True:
            taken = mqtt_frames.take(data, properties=self._version_5)
            if taken.publications:
                self._inbox.put(taken.publications)
            if taken.acknowledgements:
                self._packet_queue(paho.PUBACK, taken.acknowledgements, 0, 1)
            if not taken.foreign:
                self._left = data[taken.size :]
                return paho.MQTT_ERR_SUCCESS
            self._for_paho = data[taken.size : taken.size + taken.foreign]
            data = data[taken.size + taken.foreign :]
            code = super().loop_read(max_packets)
            if code != paho.MQTT_ERR_SUCCESS or self.socket() is None:
                return code

    def send_all(self, messages: Iterable[tuple[str, bytes]]) -> None:
        """Put publications at QoS 0 on the wire, all at once."""
        packets = [mqtt_frames.publication(topic, payload, properties=self._version_5) for topic, payload in messages]
        # As what paho has nothing more to do with once it is written.
        self._packet_queue(paho.PUBACK, b"".join(packets), 0, 0)

    def _sock_recv(self, bufsize: int) -> bytes:
        waiting = self._for_paho
        if isinstance(waiting, OSError):
            self._for_paho = None
            raise waiting
        if waiting is None:
            raise BlockingIOError
        given, rest = waiting[:bufsize], waiting[bufsize:]
        self._for_paho = rest or None
        return given


class Connection:
    """A live connection; made by `connect`, used by one thread."""

    def __init__(self, client: _Client, inbox: Inbox, where: str, protocol: str) -> None:
        self.protocol = protocol
        #: Why there is no connection now; None while there is one.
        self.problem: str | None = None
        #: Somebody else connected under our name, and has our session now.
        self.taken_over = False
        self._client = client
        self._where = where
        self._subscriptions: tuple[str, ...] = ()
        self._inbox = inbox
        self._arrived = inbox.arrived
        self._answers: dict[int, list[ReasonCode]] = {}
        #: Number → topic of what was sent and is not confirmed yet.
        self._sent: dict[int, str] = {}
        self._refused: dict[str, str] = {}
        self._connections = 1
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_subscribe = self._on_subscribe
        client.on_publish = self._on_publish

    @property
    def connected(self) -> bool:
        """Whether there is a connection now; without one, it is being tried again."""
        return self._client.is_connected()

    @property
    def connections(self) -> int:
        """How many times it connected; one more than before means that the broker may have forgotten things."""
        return self._connections

    @property
    def dropped(self) -> int:
        """Messages lost in here, because `receive` was not called for too long."""
        return self._inbox.dropped

    def subscribe(self, subscriptions: Sequence[str], *, timeout_s: float = 10.0) -> None:
        """Subscribe, and again after each interruption.

        Raises:
            BrokerError: the broker refuses, or does not answer in time.

        """
        self._subscriptions = tuple(subscriptions)
        _, number = self._client.subscribe([(topic, 1) for topic in self._subscriptions])
        for topic, code in zip(self._subscriptions, self._await(number, timeout_s), strict=False):
            if code.is_failure:
                message = f"MQTT broker {self._where} does not let us read {topic}: {code}"
                raise BrokerError(message)

    def publish(self, topic: str, payload: bytes, *, retain: bool = False, timeout_s: float = 10.0) -> None:
        """Publish at QoS 1 and return when the broker has it.

        Raises:
            BrokerError: the broker refuses, or does not answer in time.

        """
        number = self._client.publish(topic, payload, qos=1, retain=retain).mid
        for code in self._await(number, timeout_s):
            # "No matching subscribers" is a success here; whether somebody answers is the caller's business.
            if code.is_failure:
                message = f"MQTT broker {self._where} does not let us write {topic}: {code}"
                raise BrokerError(message)

    def send(self, topic: str, payload: bytes, *, retained: bool = False, qos: int = 1) -> bool:
        """Hand over without waiting for the broker; return False, and keep nothing, when there is no connection.

        What the broker refuses can be asked for with `refusals`. What was handed over when the connection broke is sent
        again.
        """
        if not self._client.is_connected():
            return False
        number = self._client.publish(topic, payload, qos=qos, retain=retained).mid
        if qos > 0:
            with self._arrived:
                # The answer may be here already; see `_await`.
                codes = self._answers.pop(number, None)
                self._sent[number] = topic
            if codes is not None:
                self._answer(number, codes)
        return True

    def confirmed(self, *, most: int = 0, timeout_s: float = 10.0) -> bool:
        """Wait until the broker confirmed all but `most` of what was sent; False when it did not in time."""
        with self._arrived:
            return self._arrived.wait_for(lambda: len(self._sent) <= most, timeout=timeout_s)

    def send_all(self, messages: Sequence[tuple[str, bytes]]) -> bool:
        """Publish many messages (topic, payload) at QoS 0; return False, and keep nothing, without a connection."""
        if not self._client.is_connected():
            return False
        if messages:
            self._client.send_all(messages)
        return True

    def refusals(self) -> dict[str, str]:
        """Return the topics that the broker did not let us `send` to since the last call, with its reason."""
        with self._arrived:
            refused, self._refused = self._refused, {}
        return refused

    def receive(self, *, timeout_s: float, most: int | None = None) -> tuple[Received, ...]:
        """Wait until something is there, at most that long, and return all of it (or so many), in order of arrival."""
        return self._inbox.take(timeout_s=timeout_s, most=most)

    def hold(self) -> None:
        """Take no more publications: what comes from now on stays with the broker, for the session's next connection.

        For the end: what came before can still be received, and answers to it sent.
        """
        self._client.held.set()

    def _await(self, number: int | None, timeout_s: float) -> list[ReasonCode]:
        # paho's locks must not be asked for while ours is held: its thread calls us while it holds them. So an answer
        # may be here before we wait for it.
        with self._arrived:
            if not self._arrived.wait_for(lambda: number in self._answers, timeout=timeout_s):
                message = f"MQTT broker {self._where} did not answer within {timeout_s:g} s"
                raise BrokerError(message)
            return self._answers.pop(number or 0)

    def _on_connect(self, client: paho.Client, _data: Any, _flags: Any, code: ReasonCode, _properties: Any) -> None:  # noqa: ANN401
        if code.is_failure:
            self.problem = f"MQTT broker {self._where} {_spoken(str(code))}"
            return
        self.problem = None
        self._connections += 1
        if self._subscriptions:
            client.subscribe([(topic, 1) for topic in self._subscriptions])

    def _on_disconnect(self, _client: paho.Client, _data: Any, _flags: Any, code: ReasonCode, _: Any) -> None:  # noqa: ANN401
        if str(code) == _TAKEN_OVER:
            self.taken_over = True
        self.problem = self.problem or f"the connection to the MQTT broker {self._where} is lost: {code}"

    def _on_subscribe(self, _client: paho.Client, _data: Any, number: int, codes: list[ReasonCode], _: Any) -> None:  # noqa: ANN401
        self._answer(number, codes)

    def _on_publish(self, _client: paho.Client, _data: Any, number: int, code: ReasonCode, _: Any) -> None:  # noqa: ANN401
        self._answer(number, [code])

    def _answer(self, number: int, codes: list[ReasonCode]) -> None:
        with self._arrived:
            topic = self._sent.pop(number, None)
            if topic is None:
                self._answers[number] = codes
                while len(self._answers) > _MOST_ANSWERS:
                    # Of what was sent at QoS 0: nobody asks.
                    del self._answers[next(iter(self._answers))]
                self._arrived.notify_all()
                return
            if any(code.is_failure for code in codes) and len(self._refused) < _MOST_REFUSED:
                self._refused[topic] = str(codes[0])
            self._arrived.notify_all()


@contextmanager
def connect(
    config: MqttConfig,
    *,
    folder: Path,
    timeout_s: float = 10.0,
    session: Session | None = None,
    will: Will | None = None,
) -> Iterator[Connection]:
    """Connect for the time of the block; relative files of the configuration start at `folder`.

    Raises:
        BrokerError: the broker is down, refuses the password, or speaks something else.
        ConfigError: the password or CA file can't be read.

    """
    where = f"{config.host}:{config.port}"
    password = _password(config, folder)
    inbox = Inbox()
    versions = {"auto": (paho.MQTTv5, paho.MQTTv311), "5": (paho.MQTTv5,), "3.1.1": (paho.MQTTv311,)}[config.protocol]
    for version in versions:
        client = _client(config, folder, version, password, inbox, session, will)
        patience_s = timeout_s if version == versions[-1] else min(timeout_s, _PATIENCE_WITH_5_S)
        refusal = _shake_hands(
            client, config, where, timeout_s=timeout_s, patience_s=patience_s, version=version, session=session
        )
        if refusal is None:
            break
        client.disconnect()
        if refusal in _REFUSALS:
            who = f"user {config.username!r}" if config.username else "connections without a user"
            message = f"MQTT broker {where} refuses {who}: {refusal}; see [mqtt] username and password_file"
            raise BrokerError(message)
        if refusal not in {_OTHER_VERSION, ""} or version == versions[-1]:
            message = f"MQTT broker {where} {_spoken(refusal)}"
            raise BrokerError(message)
    connection = Connection(client, inbox, where, "5" if version == paho.MQTTv5 else "3.1.1")
    client.loop_start()
    try:
        yield connection
    finally:
        client.disconnect()
        client.loop_stop()


def _spoken(refusal: str) -> str:
    if refusal:
        return f"refuses us: {refusal}"
    return "took the connection but did not answer as an MQTT broker does: wrong password, port or TLS setting?"


def _client(
    config: MqttConfig,
    folder: Path,
    version: Any,  # noqa: ANN401
    password: str | None,
    inbox: Inbox,
    session: Session | None,
    will: Will | None,
) -> _Client:
    client_id = f"tflotilla-host-{secrets.token_hex(6)}" if session is None else session.client_id
    client = _Client(inbox, client_id, version, clean=session is None)
    if will is not None:
        client.will_set(will.topic, will.payload, qos=1, retain=will.retain)
    client.reconnect_delay_set(min_delay=1, max_delay=10)
    if config.username is not None:
        client.username_pw_set(config.username, password)
    if config.tls:
        ca_file = None if config.ca_file is None else str(folder / config.ca_file)
        try:
            client.tls_set(ca_certs=ca_file)
        except (OSError, ValueError) as error:
            message = f"[mqtt] ca_file {ca_file}: {error}"
            raise ConfigError(message) from error
    return client


def _password(config: MqttConfig, folder: Path) -> str | None:
    if config.password_file is None:
        return None
    file = (folder / config.password_file).expanduser()
    try:
        return file.read_text().rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a text file"
        message = f"[mqtt] password_file {file} can't be read: {reason}"
        raise ConfigError(message) from error


def _shake_hands(
    client: paho.Client,
    config: MqttConfig,
    where: str,
    *,
    timeout_s: float,
    patience_s: float,
    version: Any,  # noqa: ANN401
    session: Session | None,
) -> str | None:
    """Return None when the broker takes us, its reason when it doesn't, "" when it hangs up or says nothing."""
    outcome: list[str | None] = []

    def on_connect(_client: paho.Client, _data: Any, _flags: Any, code: ReasonCode, _properties: Any) -> None:  # noqa: ANN401
        outcome.append(str(code) if code.is_failure else None)

    client.on_connect = on_connect
    client.connect_timeout = timeout_s
    try:
        client.connect(config.host, config.port, keepalive=config.keepalive_s, **_of_version_5(version, session))
    except (OSError, ValueError) as error:
        _unreachable(where, error, tls=config.tls)
    deadline = time.monotonic() + patience_s
    while not outcome and time.monotonic() < deadline:
        with suppress(OSError):
            if client.loop(_TICK_S) == paho.MQTT_ERR_SUCCESS:
                continue
        break
    return outcome[0] if outcome else ""


def _of_version_5(version: Any, session: Session | None) -> dict[str, Any]:  # noqa: ANN401
    if version != paho.MQTTv5:
        return {}
    properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
    properties.MaximumPacketSize = _MOST_PACKET_BYTES
    if session is not None:
        properties.SessionExpiryInterval = session.expiry_s
    return {"clean_start": session is None, "properties": properties}


def _unreachable(where: str, error: OSError | ValueError, *, tls: bool) -> NoReturn:
    advice = "is it running, and are [mqtt] host and port in fleet.toml right?"
    if isinstance(error, ssl.SSLCertVerificationError):
        message = f"MQTT broker {where} shows a certificate we don't trust: {error.verify_message}; see [mqtt] ca_file"
    elif isinstance(error, ssl.SSLError):
        message = f"MQTT broker {where} does not speak TLS as we do: {error.reason or error}; see [mqtt] tls and port"
    elif isinstance(error, socket.gaierror):
        message = f"MQTT broker {where}: no such host name; {advice}"
    elif isinstance(error, TimeoutError):
        message = f"MQTT broker {where} does not answer; {advice}"
    elif isinstance(error, ConnectionError) and tls:
        message = f"MQTT broker {where} hung up: {error.strerror or error}; does that port speak TLS?"
    elif isinstance(error, OSError):
        message = f"MQTT broker {where} can't be reached: {error.strerror or error}; {advice}"
    else:
        message = f"MQTT broker {where}: {error}; {advice}"
    raise BrokerError(message) from error
