"""The page's ear: one connection to the broker, in a thread of its own, for as long as the page lives.

Rules it keeps: a broker that is away is tried again and again, and the page is told why; what is to be published waits
for its turn in the same thread, and fails after some seconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import queue
import secrets
import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING

from tflotilla.host.telemetry import mqtt, presence
from tflotilla.shared.contract import messages, topics
from tflotilla.shared.contract.benchmark import BenchmarkRequest
from tflotilla.shared.contract.errors import BrokerError, TflotillaError

if TYPE_CHECKING:
    from pathlib import Path

    from tflotilla.host.dashboards.web.fleet_now import FleetNow
    from tflotilla.host.telemetry.mqtt import Connection
    from tflotilla.shared.contract.agent_config import MqttConfig

_TICK_S = 0.25
_AGAIN_S = 3.0
_PATIENCE_S = 10.0
_MOST_WAITING = 100
_AWAY = "the MQTT broker is away; nothing was asked"


class Ear:
    """Feeds a `FleetNow`."""

    def __init__(self, now: FleetNow, config: MqttConfig | None, *, folder: Path, fleet_file: Path) -> None:
        self._now = now
        self._config = config
        self._folder = folder
        self._fleet_file = fleet_file
        self._stop = threading.Event()
        self._outgoing: queue.Queue[tuple[str, bytes, Future[None]]] = queue.Queue(_MOST_WAITING)
        self._thread = threading.Thread(target=self._run, name="ear", daemon=True)

    def start(self) -> None:
        """Begin to listen."""
        if self._config is None:
            self._now.connection(
                connected=False, reason=f"{self._fleet_file} has no [mqtt] table; add host and port of your broker"
            )
            return
        self._thread.start()

    def stop(self) -> None:
        """Hang up."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=_PATIENCE_S)

    async def benchmark(self, board: str) -> str:
        """Ask a board to measure what it serves; return the request's id. Raises BrokerError."""
        if not self._now.connected:
            raise BrokerError(_AWAY)
        request = f"dashboard-{secrets.token_hex(6)}"
        said = messages.Message(
            board=board, boot="host", seq=0, time=self._now.time(), bundle=None, body=BenchmarkRequest(request=request)
        )
        done: Future[None] = Future()
        try:
            self._outgoing.put_nowait((topics.command(self._now.fleet, board, "benchmark"), said.to_bytes(), done))
        except queue.Full as error:
            raise BrokerError(_AWAY) from error
        try:
            await asyncio.wait_for(asyncio.wrap_future(done), timeout=_PATIENCE_S)
        except TimeoutError as error:
            raise BrokerError(_AWAY) from error
        return request

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._listen()
            except TflotillaError as error:
                self._now.connection(connected=False, reason=str(error))
                self._stop.wait(_AGAIN_S)

    def _listen(self) -> None:
        assert self._config is not None  # noqa: S101 - `start` saw to it
        config = dataclasses.replace(self._config, keepalive_s=min(self._config.keepalive_s, presence.KEEPALIVE_S))
        with mqtt.connect(config, folder=self._folder) as broker:
            broker.subscribe(topics.every_board(self._now.fleet))
            self._now.connection(connected=True)
            while not self._stop.is_set():
                self._now.hear(broker.receive(timeout_s=_TICK_S))
                self._now.connection(connected=broker.connected, reason="the connection to the MQTT broker was lost")
                self._publish(broker)

    def _publish(self, broker: Connection) -> None:
        while broker.connected:
            try:
                topic, payload, done = self._outgoing.get_nowait()
            except queue.Empty:
                return
            if not done.set_running_or_notify_cancel():
                continue
            try:
                broker.publish(topic, payload, timeout_s=_PATIENCE_S / 2)
            except BrokerError as error:
                with contextlib.suppress(Exception):
                    done.set_exception(error)
            else:
                done.set_result(None)
