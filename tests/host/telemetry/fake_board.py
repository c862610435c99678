"""A scripted board: says over a real broker what a board says, and answers requests as its script tells it.

The bodies it sends (`state`, `metrics`, `predictions`) serve tests of whatever reads them, too.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from tests import facts_made
from tests.facts_made import LITERT
from tflotilla.shared.contract import messages, topics
from tflotilla.shared.contract.agent_config import MqttConfig
from tflotilla.shared.contract.benchmark import BenchmarkReport, BenchmarkRequest

if TYPE_CHECKING:
    from tflotilla.shared.contract.board import BoardFacts

PATIENCE_S = 60.0


def facts() -> BoardFacts:
    return facts_made.facts()


def state(**changes: Any) -> messages.State:  # noqa: ANN401 - any field of State
    values: dict[str, Any] = {
        "agent_version": "0.1.0",
        "facts": facts(),
        "serving": messages.ServedBundle(digest="ab" * 32, name="digits", version="1.0.0", release=1),
        "previous": None,
        "worker": "running",
        "runtime": LITERT,
        "num_threads": 2,
        "delegate": messages.DelegateReport(requested=None, active=None),
        "source": "synthetic",
        "uptime_s": 12.0,
        "outbox_rows": 0,
        "outbox_dropped": 0,
    }
    return messages.State(**{**values, **changes})


def latency(p50_ns: int = 25_000, count: int = 10) -> messages.StageLatency:
    return messages.StageLatency(
        count=count,
        mean_ns=float(p50_ns),
        min_ns=p50_ns // 2,
        p50_ns=p50_ns,
        p90_ns=p50_ns * 2,
        p99_ns=p50_ns * 3,
        max_ns=p50_ns * 4,
    )


def metrics(count: int = 10, errors: int = 0) -> messages.Metrics:
    return messages.Metrics(
        window_s=1.0,
        count=count,
        errors=errors,
        dropped=0,
        stages={"invoke": latency(20_000, count), "total": latency(25_000, count)},
        labels=(messages.LabelCount(label="seven", count=count, mean_score=0.9),),
        rss_bytes=50 << 20,
    )


def predictions(*times: float, label: str = "seven") -> messages.Predictions:
    top = (messages.Candidate(label=label, index=7, score=0.97), messages.Candidate(label="one", index=1, score=0.02))
    return messages.Predictions(
        results=tuple(
            messages.Prediction(item=f"{moment:g}.png", time=moment, stages_ns={"total": 25_000}, top=top)
            for moment in times
        )
    )


#: What a board does with a request: the reports it answers with, none to say nothing.
Script = Callable[[BenchmarkRequest], tuple[BenchmarkReport, ...]]


@dataclass(kw_only=True)
class FakeBoard:
    """One board of a fleet on a broker, online for the time of the `with` block."""

    config: MqttConfig
    password: str | None
    fleet: str
    board: str
    script: Script = lambda _: ()
    boot: str = "boot-1"
    requests: list[BenchmarkRequest] = field(default_factory=list)
    _seq: int = 0
    _client: Any = None

    def message(self, body: Any, *, seq: int = 0, at: float | None = None) -> bytes:  # noqa: ANN401 - any body
        moment = time.time() if at is None else at
        return messages.Message(
            board=self.board, boot=self.boot, seq=seq, time=moment, bundle=None, body=body
        ).to_bytes()

    def say(self, channel: topics.Channel, body: Any) -> None:  # noqa: ANN401 - any body
        """Publish one message and wait for the broker; queued channels are numbered."""
        numbered = channel not in topics.MOMENTARY
        self._seq += numbered
        info = self._client.publish(
            topics.topic(self.fleet, self.board, channel),
            self.message(body, seq=self._seq if numbered else 0),
            qos=1,
            retain=channel in topics.RETAINED,
        )
        info.wait_for_publish(PATIENCE_S)

    def die(self) -> None:
        """Break the connection without a goodbye: the broker publishes the last will."""
        self._client.socket().shutdown(2)
        self._client.loop_stop()

    def __enter__(self) -> Self:
        client = paho.Client(CallbackAPIVersion.VERSION2, client_id=f"board-{self.board}", protocol=paho.MQTTv5)
        client.username_pw_set(self.config.username, self.password)
        own = topics.topic(self.fleet, self.board, "availability")
        client.will_set(own, self.message(messages.Availability(status="offline")), qos=1, retain=True)
        ready = threading.Event()
        client.on_subscribe = lambda *_: ready.set()
        client.on_message = self._asked
        client.connect(self.config.host, self.config.port)
        client.loop_start()
        client.subscribe(topics.command(self.fleet, self.board, "benchmark"), qos=1)
        self._client = client
        assert ready.wait(PATIENCE_S)
        self.say("availability", messages.Availability(status="online"))
        return self

    def __exit__(self, *_: object) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def _asked(self, _client: paho.Client, _data: object, received: paho.MQTTMessage) -> None:
        _, message = messages.parse(received.topic, bytes(received.payload))
        self.requests.append(message.body)
        for answer in self.script(message.body):
            self._seq += 1
            # Not waited for: this is the thread that would have to hear the broker's answer.
            self._client.publish(
                topics.topic(self.fleet, self.board, "benchmark"), self.message(answer, seq=self._seq), qos=1
            )
