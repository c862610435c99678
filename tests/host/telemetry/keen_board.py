"""A board that keeps each report until a collector says that it is stored, and says it again until then.

As the agent does with `reporting.confirm = "collector"`, but impatient: after a second, not thirty.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import Any, Self

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from tests.host.telemetry.fake_board import metrics
from tflotilla.shared.contract import messages, topics
from tflotilla.shared.contract.agent_config import MqttConfig

_AGAIN_S = 1.0
_METRICS = metrics()


@dataclass(kw_only=True)
class KeenBoard:
    """Reports `last` times, `pause_s` apart, in a thread of its own for the time of the `with` block."""

    config: MqttConfig
    password: str | None
    fleet: str
    board: str
    last: int
    boot: str = "boot-1"
    pause_s: float = 0.005
    #: What a board's clock says.
    clock_s: float | None = None
    acked: set[int] = field(default_factory=set)
    sent: int = 0
    _client: Any = None
    _end: threading.Event = field(default_factory=threading.Event)
    _thread: Any = None

    @property
    def done(self) -> bool:
        """Whether all that will ever be said is said, and acked."""
        return len(self.acked) == self.last

    def say(self, number: int) -> None:
        """Publish one report."""
        at = time.time() if self.clock_s is None else self.clock_s
        message = messages.Message(board=self.board, boot=self.boot, seq=number, time=at, bundle=None, body=_METRICS)
        self._client.publish(topics.topic(self.fleet, self.board, "metrics"), message.to_bytes(), qos=1)
        self.sent += 1

    def __enter__(self) -> Self:
        client = paho.Client(CallbackAPIVersion.VERSION2, client_id=f"keen-{self.board}", protocol=paho.MQTTv5)
        client.username_pw_set(self.config.username, self.password)
        client.reconnect_delay_set(1, 1)
        client.on_connect = self._on_connect
        client.on_message = self._hear
        client.connect(self.config.host, self.config.port)
        client.loop_start()
        self._client = client
        self._thread = threading.Thread(target=self._talk, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()
        self._client.disconnect()
        self._client.loop_stop()

    def _on_connect(self, client: paho.Client, *_: object) -> None:
        client.subscribe(topics.topic(self.fleet, self.board, "ack"), qos=1)

    def _hear(self, _client: paho.Client, _data: object, received: paho.MQTTMessage) -> None:
        _, message = messages.parse(received.topic, bytes(received.payload))
        if message.body.boot != self.boot:
            return
        said = set(range(1, message.body.up_to + 1))
        for first, last in message.body.also:
            said |= set(range(first, last + 1))
        self.acked |= said

    def _talk(self) -> None:
        for number in range(1, self.last + 1):
            self.say(number)
            if self._end.wait(self.pause_s):
                return
        while not self._end.wait(_AGAIN_S):
            for number in sorted(set(range(1, self.last + 1)) - self.acked):
                self.say(number)
