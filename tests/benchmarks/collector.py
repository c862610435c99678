"""The collector under 10,000 boards: everything through a real mosquitto, at QoS 1, into SQLite, on one core.

    python -m tests.benchmarks collector

Boards are simulated by one cheap process: a few connections over which prebuilt reports are written, each with its
board's name, the next number and the time. Lag is from that time until the store says that it is durable.
What it does NOT simulate: 10,000 connections (that is the broker's work) and boards' outboxes.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import selectors
import signal
import socket
import struct
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tests import brokers
from tests.benchmarks import busy
from tests.benchmarks.busy import Others
from tflotilla.host.telemetry import collecting, mqtt
from tflotilla.host.telemetry.store import database
from tflotilla.host.telemetry.store.retention import Retention
from tflotilla.shared import sketches
from tflotilla.shared.contract import messages
from tflotilla.shared.contract.agent_config import MqttConfig

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tflotilla.host.telemetry.store.port import Arrival, Outcome

FLEET = "bench"
BOARDS = 10_000
SECONDS = 60.0
LIMIT_S = 1.0
#: Of the collector's memory: the most of the second half over the most of the first, from the tenth second on.
MOST_GROWTH = 0.1
_WARM_S = 10.0
_SAMPLED_S = 0.5
_LONGEST_LAG_MS = 100_000
_CONNECTIONS = 20
_TICKS_PER_SECOND = 100
_INFERENCES = 10
_LABELS = ("two", "seven", "nine")
_VARIANTS = 64
MIB = 1 << 20
#: As deploy/mosquitto/tflotilla.conf has it.
_SETTINGS = "max_queued_messages 1000000\nmax_queued_bytes 268435456\nmax_inflight_messages 1000"


@dataclass(frozen=True, slots=True, kw_only=True)
class Collected:
    """One run."""

    boards: int
    seconds: float
    payload_bytes: int
    sent: int
    stored: int
    duplicates: int
    dropped: int
    lag_p50_s: float
    lag_p99_s: float
    lag_max_s: float
    #: Of it in the collector: from the wire to durable.
    here_p99_s: float
    #: Of one core, over the time that was measured.
    cpu_share: float
    #: The most of the first and of the second half; sums of 60,000 windows at once are most of it.
    rss_mib: tuple[float, ...]
    #: How long after the last report everything was stored.
    behind_s: float
    #: Windows that were summed up meanwhile.
    folded: int
    others: Others

    @property
    def kept(self) -> bool | None:
        """Whether all of it was stored in time, in flat memory; None where a busy machine was late, perhaps."""
        if self.stored != self.sent or self.rss_mib[1] > self.rss_mib[0] * (1 + MOST_GROWTH):
            return None if self.others.too_busy else False
        if self.lag_p99_s < LIMIT_S:
            return True
        return None if self.others.too_busy else False


def measure(folder: Path, *, boards: int = BOARDS, seconds: float = SECONDS) -> Collected:
    """Run broker, collector and boards; the collector has one core, which is no other's."""
    watch = busy.Watch()
    everything = os.sched_getaffinity(0)
    own = max(everything)
    if len(everything) > 1:
        # Of this process and all that it starts, but for the collector.
        os.sched_setaffinity(0, everything - {own})
    try:
        return _measure(folder, own, watch, boards=boards, seconds=seconds)
    finally:
        os.sched_setaffinity(0, everything)


def _measure(folder: Path, core: int, watch: busy.Watch, *, boards: int, seconds: float) -> Collected:
    with brokers.mosquitto(folder / "broker", extra=_SETTINGS) as broker:
        role = [sys.executable, "-m", "tests.benchmarks.collector", "--port", str(broker.port), "--folder", str(folder)]
        collector = subprocess.Popen(["taskset", "-c", str(core), *role, "collect"], stdout=subprocess.PIPE, text=True)
        try:
            assert collector.stdout is not None
            # It says so when it is subscribed.
            assert "ready" in collector.stdout.readline()
            load = [*role, "generate", "--boards", str(boards), "--seconds", str(seconds)]
            with subprocess.Popen(load, stdout=subprocess.PIPE, text=True) as generator:
                began, memory = time.monotonic(), []
                while generator.poll() is None:
                    memory.append((time.monotonic() - began, _rss(collector.pid)))
                    time.sleep(_SAMPLED_S)
                assert generator.stdout is not None
                sent = json.loads(generator.stdout.read())
            others = watch.others()
            collector.send_signal(signal.SIGTERM)
            found = json.loads(collector.communicate(timeout=60)[0])
        finally:
            collector.kill()
            collector.wait()
    return Collected(
        boards=boards,
        seconds=seconds,
        others=others,
        rss_mib=tuple(
            round(max((size for at, size in memory if first <= at < last), default=0) / MIB, 1)
            for first, last in ((_WARM_S, seconds / 2 + _WARM_S / 2), (seconds / 2 + _WARM_S / 2, seconds + _WARM_S))
        ),
        behind_s=max(0.0, found.pop("last_at") - sent.pop("last_at")),
        **found,
        **sent,
    )


def _rss(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) * 1024


# The boards


def _bodies(chance: np.random.Generator) -> Iterator[tuple[bytes, bytes, bytes]]:
    """Yield reports in three parts, between which stand the number and the time; the name is replaced."""
    for _ in range(_VARIANTS):
        stages = {}
        for stage, middle_ns in (("preprocess", 3e5), ("invoke", 8e6)):
            values = (chance.lognormal(np.log(middle_ns), 0.02, _INFERENCES)).astype(np.int64)
            stages[stage] = values
        stages["total"] = np.sum(list(stages.values()), axis=0)
        body = messages.Metrics(
            window_s=1.0,
            count=_INFERENCES,
            errors=0,
            dropped=0,
            stages={name: _latency(values) for name, values in stages.items()},
            labels=tuple(messages.LabelCount(label=name, count=3, mean_score=0.9, std_score=0.05) for name in _LABELS),
            rss_bytes=54480896,
            temperature_c=48.7,
            scores=(0, 0, 0, 0, 0, 0, 0, 1, 2, 7),
            low_confidence=0,
            throttled=False,
        )
        message = messages.Message(
            board="BOARD", boot="6b02015d-176d8fc9", seq=987654321, time=1234567.5, bundle="ab" * 32, body=body
        )
        head, rest = message.to_bytes().split(b"987654321")
        middle, tail = rest.split(b"1234567.5")
        yield head, middle, tail


def _latency(values: np.ndarray[Any, np.dtype[np.int64]]) -> messages.StageLatency:
    ordered = np.sort(values)
    return messages.StageLatency(
        count=len(ordered),
        mean_ns=round(float(ordered.mean()), 1),
        min_ns=int(ordered[0]),
        p50_ns=int(ordered[len(ordered) // 2]),
        p90_ns=int(ordered[-2]),
        p99_ns=int(ordered[-1]),
        max_ns=int(ordered[-1]),
        sketch=sketches.of(values),
    )


def _text(value: bytes) -> bytes:
    return struct.pack("!H", len(value)) + value


def _packet(kind: int, body: bytes) -> bytes:
    length, encoded = len(body), bytearray()
    while True:
        encoded.append(length & 0x7F | (0x80 if length > 0x7F else 0))
        length >>= 7
        if not length:
            return bytes([kind]) + bytes(encoded) + body


def _connection(port: int, number: int) -> socket.socket:
    made = socket.create_connection(("127.0.0.1", port))
    # MQTT 3.1.1, clean session, no keepalive.
    made.sendall(_packet(0x10, _text(b"MQTT") + b"\x04\x02\x00\x00" + _text(b"boards-%d" % number)))
    made.recv(4)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * MIB)
    return made


def generate(port: int, *, boards: int, seconds: float) -> dict[str, Any]:
    """Be all the boards: each reports once a second, spread over it."""
    bodies = list(_bodies(np.random.default_rng(1)))
    names = [b"pi-%d" % number for number in range(boards)]
    reports = []
    for number, name in enumerate(names):
        head, middle, tail = bodies[number % _VARIANTS]
        topic = _text(b"tflotilla/%s/%s/metrics" % (FLEET.encode(), name))
        reports.append((topic, head.replace(b"BOARD", name), middle, tail))
    connections = [_connection(port, number) for number in range(_CONNECTIONS)]
    answers = selectors.DefaultSelector()
    for connection in connections:
        answers.register(connection, selectors.EVENT_READ)
    per_tick = boards // _TICKS_PER_SECOND
    began, sent, size = time.time(), 0, 0
    for tick in range(int(seconds * _TICKS_PER_SECOND)):
        first = tick % _TICKS_PER_SECOND * per_tick
        seq = b"%d" % (tick // _TICKS_PER_SECOND + 1)
        now = b"%.4f" % time.time()
        frames = []
        for number in range(first, first + per_tick):
            topic, head, middle, tail = reports[number]
            size = len(head) + len(seq) + len(middle) + len(now) + len(tail)
            frames.append(
                _packet(0x32, b"".join((topic, struct.pack("!H", number % 60000 + 1), head, seq, middle, now, tail)))
            )
        connections[tick % _CONNECTIONS].sendall(b"".join(frames))
        sent += len(frames)
        for ready, _ in answers.select(timeout=0):
            # PUBACKs; what mosquitto took is its business from here on.
            ready.fileobj.recv(1 << 16)  # type: ignore[union-attr]
        time.sleep(max(0.0, began + (tick + 1) / _TICKS_PER_SECOND - time.time()))
    last_at = time.time()
    time.sleep(5.0)
    return {"sent": sent, "payload_bytes": size, "last_at": last_at}


# The collector


class _Timed:
    """The store, with a watch: when did which report become durable?"""

    def __init__(self, store: database.DatabaseStore) -> None:
        self._store = store
        #: How many reports had which lag, in milliseconds; a list of all would be memory that grows.
        self.lags = np.zeros(_LONGEST_LAG_MS, dtype=np.int64)
        self.here = np.zeros(_LONGEST_LAG_MS, dtype=np.int64)
        self.last_at = 0.0
        self.folded = 0

    def append(self, batch: Sequence[Arrival]) -> Sequence[Outcome]:
        outcomes = self._store.append(batch)
        self.last_at = time.time()
        self.lags += self._counted([each.time for each in batch])
        self.here += self._counted([each.at for each in batch])
        return outcomes

    def _counted(self, began: list[float]) -> np.ndarray[Any, np.dtype[np.int64]]:
        lags = ((self.last_at - np.array(began)) * 1000).astype(np.int64)
        return np.bincount(lags.clip(0, _LONGEST_LAG_MS - 1), minlength=_LONGEST_LAG_MS)

    def maintain(self, **given: Any) -> Any:  # noqa: ANN401 - passed on
        done = self._store.maintain(**given)
        self.folded += done.folded
        return done

    def close(self) -> None:
        self._store.close()


def collect(port: int, folder: Path) -> dict[str, Any]:
    """Be the collector, as `tflotilla collect` is it, until SIGTERM."""
    asked: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _frame: asked.append(number))
    session = mqtt.Session(client_id="bench-collector", expiry_s=60)
    week_s = 7 * 86400.0
    opened = database.open_store(str(folder / "telemetry.db"), retention=Retention(raw_s=week_s))
    store = _Timed(opened)
    with (
        contextlib.closing(store),
        mqtt.connect(MqttConfig(port=port), folder=folder, session=session) as broker,
        collecting.Maintenance(store, clock=time.time, tell=_complain) as maintenance,
    ):
        collector = collecting.Collector(
            fleet=FLEET,
            store=store,
            send=broker.send_all,
            clock=time.time,
            tell=_complain,
        )
        broker.subscribe(collecting.subscriptions(FLEET))
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        began, cpu = time.monotonic(), time.process_time()
        collecting.collect(
            broker,
            collector,
            stop=lambda: bool(asked),
            wait=time.sleep,
            monotonic=time.monotonic,
            tell=_complain,
            maintenance=maintenance,
        )
        share = (time.process_time() - cpu) / (time.monotonic() - began)
        counts = collector.counts(dropped=broker.dropped)
    return {
        "stored": counts.stored,
        "duplicates": counts.duplicates,
        "dropped": counts.dropped,
        "lag_p50_s": _percentile(store.lags, 50),
        "lag_p99_s": _percentile(store.lags, 99),
        "here_p99_s": _percentile(store.here, 99),
        "lag_max_s": _percentile(store.lags, 100),
        "cpu_share": round(share, 3),
        "last_at": store.last_at,
        "folded": store.folded,
    }


def _percentile(counts: np.ndarray[Any, np.dtype[np.int64]], percent: float) -> float:
    return float(np.searchsorted(np.cumsum(counts), counts.sum() * percent / 100)) / 1000


def _complain(line: str) -> None:
    sys.stderr.write(line + "\n")


def _main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("role", choices=["collect", "generate"])
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--boards", type=int, default=BOARDS)
    parser.add_argument("--seconds", type=float, default=SECONDS)
    given = parser.parse_args()
    if given.role == "collect":
        found = collect(given.port, given.folder)
    else:
        found = generate(given.port, boards=given.boards, seconds=given.seconds)
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    _main()
