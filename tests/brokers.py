"""A real mosquitto on a free loopback port, that tests may stop, kill, freeze and bring back; and a listener to it.

`with brokers.mosquitto(tmp_path) as broker:` skips with a reason where mosquitto is not installed; mark such tests
`@pytest.mark.mosquitto`. The port stays the same over `kill()` and `start()`, as it does for a real broker.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from tflotilla.shared.contract import messages, topics

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: Debian puts daemons where users' PATH does not look.
_PATH = os.environ.get("PATH", os.defpath) + ":/usr/sbin:/usr/local/sbin"
PATIENCE_S = 60.0


def free_port() -> int:
    """Return a loopback TCP port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def until(holds: Callable[[], bool], what: str, *, timeout_s: float = PATIENCE_S) -> None:
    """Poll until `holds()`; fail the test, saying what was awaited, when it never does."""
    deadline = time.monotonic() + timeout_s
    while not holds():
        if time.monotonic() > deadline:
            pytest.fail(f"waited {timeout_s:.0f} s in vain: {what}")
        time.sleep(0.02)


@dataclass(kw_only=True)
class Mosquitto:
    """One broker process. `username` and `password` are both None for an open broker."""

    folder: Path
    port: int
    username: str | None = None
    password: str | None = None
    _process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> str:
        """What the broker wrote."""
        return (self.folder / "mosquitto.log").read_text()

    @property
    def running(self) -> bool:
        """Whether the process lives."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start, or start again on the same port, and wait until it takes connections."""
        with (self.folder / "mosquitto.log").open("ab") as log:
            self._process = subprocess.Popen(
                [_binary("mosquitto"), "-c", str(self.folder / "mosquitto.conf")], stdout=log, stderr=log
            )
        until(lambda: not self.running or _listens(self.port), "mosquitto to listen")

    def stop(self) -> None:
        """Stop it as an administrator does (SIGTERM)."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """Stop it as a power cut does (SIGKILL)."""
        self._end(signal.SIGKILL)

    def freeze(self) -> None:
        """Let it answer nothing while the connections stay open (SIGSTOP)."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Undo `freeze`."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def set_password(self, username: str, password: str) -> None:
        """Make the password file name this user alone; a running broker learns it at once (SIGHUP)."""
        file = self.folder / "passwords"
        subprocess.run([_binary("mosquitto_passwd"), "-b", "-c", str(file), username, password], check=True)
        file.chmod(0o600)
        if self._process is not None and self.running:
            self._process.send_signal(signal.SIGHUP)

    def add_user(self, username: str, password: str) -> None:
        """Let one more user in; a running broker learns it at once (SIGHUP)."""
        subprocess.run(
            [_binary("mosquitto_passwd"), "-b", str(self.folder / "passwords"), username, password], check=True
        )
        if self._process is not None and self.running:
            self._process.send_signal(signal.SIGHUP)

    def _end(self, number: signal.Signals) -> None:
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)
                self._process.send_signal(signal.SIGCONT)
            self._process.wait(timeout=PATIENCE_S)
            self._process = None


@contextlib.contextmanager
def mosquitto(
    folder: Path,
    *,
    username: str | None = None,
    password: str | None = None,
    acl: str | None = None,
    persistence: bool = False,
    extra: str = "",
) -> Iterator[Mosquitto]:
    """Run a broker for the time of a `with` block; `acl` is the text of mosquitto's acl_file, `extra` more settings."""
    _binary("mosquitto")
    folder.mkdir(parents=True, exist_ok=True)
    for _attempt in range(5):  # another process may take the free port first
        broker = Mosquitto(folder=folder, port=free_port(), username=username, password=password)
        lines = [
            f"listener {broker.port} 127.0.0.1",
            f"persistence {'true' if persistence else 'false'}",
            f"persistence_location {folder}/",
            f"allow_anonymous {'false' if username else 'true'}",
            "max_queued_messages 0",
        ]
        if os.geteuid() == 0:
            lines.append("user root")
        if username is not None and password is not None:
            broker.set_password(username, password)
            lines.append(f"password_file {folder / 'passwords'}")
        if acl is not None:
            (folder / "acl").write_text(acl)
            (folder / "acl").chmod(0o600)
            lines.append(f"acl_file {folder / 'acl'}")
        (folder / "mosquitto.conf").write_text("\n".join([*lines, extra, ""]))
        broker.start()
        if broker.running:
            break
    else:
        pytest.fail(f"mosquitto does not start: {broker.log[-500:]}")
    try:
        yield broker
    finally:
        broker.kill()


@dataclass(kw_only=True)
class Listener:
    """Everything a client saw, in order; safe to read while it grows."""

    received: list[tuple[str, bytes, bool]] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _client: paho.Client | None = None

    def add(self, topic: str, payload: bytes, *, retained: bool) -> None:
        """Remember one message."""
        with self._lock:
            self.received.append((topic, payload, retained))

    def messages(self, channel: topics.Channel | None = None) -> list[messages.Message[Any]]:
        """Return the parsed messages of one channel, or of all; empty ones only end what was retained."""
        with self._lock:
            seen = list(self.received)
        found = []
        for topic, payload, _ in seen:
            address = topics.parse(topic)
            if address is None or address.channel.startswith("command/") or channel not in (None, address.channel):
                continue
            if not payload:
                continue
            found.append(messages.parse(topic, payload)[1])
        return found

    def send(self, topic: str, payload: bytes) -> None:
        """Publish, once there is a connection."""
        client = self._client
        assert client is not None
        # At QoS 0 paho queues nothing while it is disconnected, so a message is never sent twice here.
        until(lambda: client.publish(topic, payload, qos=0).rc == paho.MQTT_ERR_SUCCESS, "the listener to be connected")


@contextlib.contextmanager
def listening(
    broker: Mosquitto, subscription: str = "tflotilla/#", *, username: str | None = None, password: str | None = None
) -> Iterator[Listener]:
    """Subscribe at QoS 1 with a session that outlives the connection; the broker's own user unless told."""
    listener = Listener()
    client = paho.Client(CallbackAPIVersion.VERSION2, client_id=f"listener-{os.urandom(4).hex()}", protocol=paho.MQTTv5)
    if username or broker.username:
        client.username_pw_set(username or broker.username or "", password or broker.password)
    client.reconnect_delay_set(1, 1)
    subscribed = threading.Event()

    def on_connect(*_: object) -> None:
        client.subscribe(subscription, qos=1)

    def on_message(_client: object, _data: object, message: paho.MQTTMessage) -> None:
        listener.add(message.topic, bytes(message.payload), retained=message.retain)

    client.on_connect = on_connect
    client.on_subscribe = lambda *_: subscribed.set()
    client.on_message = on_message
    properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
    properties.SessionExpiryInterval = 600
    client.connect("127.0.0.1", broker.port, clean_start=False, properties=properties)
    client.loop_start()
    listener._client = client
    try:
        if not subscribed.wait(PATIENCE_S):
            pytest.fail("the listener could not subscribe")
        yield listener
    finally:
        client.disconnect()
        # paho forgets its thread between looking at it and joining it when the thread ends in that moment.
        with contextlib.suppress(AttributeError):
            client.loop_stop()


def _binary(name: str) -> str:
    found = shutil.which(name, path=_PATH)
    if found is None:
        pytest.skip(f"{name} is not installed (Debian: apt install mosquitto)")
    return found


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0
