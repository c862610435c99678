"""The collector: keeps everything that boards report, and tells them what it keeps.

    receive → read the envelope → batch → store → ack

Rules it keeps: a number is acked when the store says that it is durable, also when it came before; what the store can't
keep just now waits, and the batch is given again; nothing is acked that nobody could name. Memory is bounded: while one
batch waits no other is taken, and the connection's own queue drops its oldest, which stay unacked.
Boards whose `reporting.confirm` is "broker" hear no ack, and don't need one: of them a collector that is killed loses
what it had not written, a quarter of a second.
What it does NOT do: connect, read bodies (sums are the store's business), look at a clock or wait by itself.
"""

from __future__ import annotations

import sys
import threading
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from tflotilla.host.telemetry import decoding
from tflotilla.host.telemetry.acknowledging import Debts
from tflotilla.host.telemetry.store.numbers import Numbers
from tflotilla.host.telemetry.store.port import Arrival, UnavailableError
from tflotilla.shared.contract import messages, topics
from tflotilla.shared.contract.errors import BrokerError, InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from tflotilla.host.telemetry.inbox import Received
    from tflotilla.host.telemetry.mqtt import Connection
    from tflotilla.host.telemetry.store.port import Store

#: What is kept: the numbered channels, and of the retained ones what a reader of the store wants to know.
CHANNELS: tuple[topics.Channel, ...] = ("metrics", "predictions", "deployment", "benchmark", "event", "state", "model")
#: Messages come together for so long, and are written at once: a write is a flush of the disk.
BATCH_S = 0.25
MOST_BATCH = 5000
#: So long the broker holds what comes for a collector that is away.
SESSION_EXPIRY_S = 24 * 3600
_TICK_S = 0.25
_FIRST_RETRY_S = 1.0
_LAST_RETRY_S = 15.0
_MAINTAIN_S = 5.0
_SWITCH_S = 0.0005
#: Who is always busy must not keep sums from being made for ever.
_MOST_PATIENCE_S = 0.5
_MOST_BOOTS = 100_000


def subscriptions(fleet: str, share: str | None = None) -> tuple[str, ...]:
    """Return what a collector subscribes to; those of one `share` get every message once between them."""
    front = "" if share is None else f"$share/{share}/"
    return tuple(f"{front}{topics.ROOT}/{fleet}/+/{channel}" for channel in CHANNELS)


def role(name: str | None, share: str | None) -> str:
    """Return what tells sessions apart: another one with another share, whose subscriptions it would keep."""
    return "-".join(("collector", *(() if share is None else ("share", share)), *(() if name is None else (name,))))


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """What a collector did since it began."""

    received: int
    stored: int
    #: Came again; acked again.
    duplicates: int
    #: Numbers that lie between others that came since we listen, and did not come.
    missing: int
    #: On topics of boards, and no message of the contract.
    garbage: int
    #: Lost in here, because the store took nothing for too long: unacked, so boards that wait for acks send them again.
    dropped: int
    acks: int
    #: From coming here to durable, in seconds, the longest since it was last asked.
    lag_s: float
    #: Why nothing is stored just now.
    problem: str | None


class Collector:
    """One thread; `take`, `write` and `acknowledge` in turns."""

    def __init__(
        self,
        *,
        fleet: str,
        store: Store,
        send: Callable[[Sequence[tuple[str, bytes]]], bool],
        clock: Callable[[], float],
        tell: Callable[[str], None],
        debts: Debts | None = None,
    ) -> None:
        """Take a store, and what the world is.

        `send` publishes (topic, payload)s without waiting; `clock` is Unix seconds; `tell` hears what is wrong.
        """
        self._fleet = fleet
        self._store = store
        self._send = send
        self._clock = clock
        self._tell = tell
        self._debts = debts or Debts()
        self._waiting: list[Arrival] = []
        #: Numbers that came since we listen, by board and boot.
        self._heard: dict[tuple[str, str], Numbers] = {}
        self._received = self._stored = self._duplicates = self._garbage = self._acks = 0
        self._lag_s = 0.0
        self._problem: str | None = None
        self._retry_at = 0.0
        self._retry_s = _FIRST_RETRY_S

    @property
    def blocked(self) -> bool:
        """Whether a batch waits for the store: nothing more should be taken meanwhile."""
        return bool(self._waiting)

    def counts(self, *, dropped: int = 0) -> Counts:
        """Return what was done; `dropped` is the connection's."""
        lag_s, self._lag_s = self._lag_s, 0.0
        return Counts(
            received=self._received,
            stored=self._stored,
            duplicates=self._duplicates,
            missing=sum(numbers.missing for numbers in self._heard.values()),
            garbage=self._garbage,
            dropped=dropped,
            acks=self._acks,
            lag_s=lag_s,
            problem=self._problem,
        )

    def take(self, received: Sequence[Received]) -> None:
        """Read what came; it waits for `write`."""
        for each in received:
            if not each.payload:
                # How a retained message is deleted: the broker forgets, we don't.
                continue
            found = decoding.envelope(each.topic, each.payload)
            if found is None or found[0].fleet != self._fleet or found[0].channel not in CHANNELS:
                self._garbage += 1
                continue
            address, envelope = found
            self._received += 1
            if envelope.seq and not each.retained:
                self._hear(envelope.board, envelope.boot, envelope.seq)
            self._waiting.append(
                Arrival(
                    board=envelope.board,
                    boot=envelope.boot,
                    seq=envelope.seq,
                    channel=address.channel,
                    time=envelope.time,
                    at=each.at,
                    bundle=envelope.bundle,
                    payload=each.payload,
                )
            )

    def write(self, *, last: bool = False) -> None:
        """Store what waits, if it is time to try; the `last` time whether it is or not.

        Raises:
            InputError: the store can't be used, now or later.

        """
        if not self._waiting or (self._problem is not None and not last and self._clock() < self._retry_at):
            return
        try:
            outcomes = self._store.append(self._waiting)
        except UnavailableError as error:
            self._wait_for_the_store(str(error))
            return
        now = self._clock()
        if self._problem is not None:
            self._tell("the store takes reports again")
            self._problem, self._retry_s = None, _FIRST_RETRY_S
        for arrival, outcome in zip(self._waiting, outcomes, strict=True):
            if outcome == "refused":
                self._garbage += 1
                continue
            self._stored += outcome == "stored"
            self._duplicates += outcome == "duplicate"
            if arrival.seq:
                self._debts.stored(arrival.board, arrival.boot, arrival.seq, now)
        self._lag_s = max(self._lag_s, now - min(arrival.at for arrival in self._waiting))
        self._waiting = []

    def acknowledge(self, *, everything: bool = False) -> None:
        """Tell boards what is stored, those who wait longest first; at the end `everything`."""
        now = self._clock()
        acks = [
            (
                topics.topic(self._fleet, board, "ack"),
                messages.Message(board=board, boot=ack.boot, seq=0, time=now, bundle=None, body=ack).to_bytes(),
            )
            for board, ack in self._debts.due(now, everything=everything)
        ]
        # Without a connection they are unheard: boards send again what is not acked, and are acked then.
        if acks and self._send(acks):
            self._acks += len(acks)

    def _wait_for_the_store(self, problem: str) -> None:
        if problem != self._problem:
            self._tell(f"{problem}; nothing is acked meanwhile, tried again every few seconds")
        self._problem = problem
        self._retry_at = self._clock() + self._retry_s
        self._retry_s = min(_LAST_RETRY_S, 2 * self._retry_s)

    def _hear(self, board: str, boot: str, number: int) -> None:
        key = board, boot
        heard = self._heard.get(key)
        if heard is None:
            if len(self._heard) >= _MOST_BOOTS:
                del self._heard[next(iter(self._heard))]
            heard = self._heard[key] = Numbers()
        heard.add(number)


def collect(
    broker: Connection,
    collector: Collector,
    *,
    stop: Callable[[], bool],
    wait: Callable[[float], None],
    monotonic: Callable[[], float],
    tell: Callable[[str], None],
    progress: Callable[[], None] = lambda: None,
    maintenance: Maintenance | None = None,
) -> None:
    """Collect until `stop`; then store and ack what came already, and leave the rest with the broker.

    Raises:
        BrokerError: another collector took our session.
        InputError: the store can't be used, now or later.

    """
    lost = Losses(tell)
    while not stop():
        if maintenance is not None and maintenance.failure is not None:
            raise maintenance.failure
        began = monotonic()
        received: tuple[Received, ...] = ()
        if not collector.blocked:
            received = broker.receive(timeout_s=_TICK_S, most=MOST_BATCH)
        with nullcontext() if maintenance is None else maintenance.giving_way():
            collector.take(received)
            collector.write()
            collector.acknowledge()
        lost.look(broker)
        progress()
        if len(received) < MOST_BATCH:
            wait(max(0.0, BATCH_S - (monotonic() - began)))
    broker.hold()
    while not collector.blocked and (received := broker.receive(timeout_s=0.0, most=MOST_BATCH)):
        collector.take(received)
        collector.write(last=True)
    collector.write(last=True)
    collector.acknowledge(everything=True)
    if collector.blocked:
        tell("the store takes nothing, so the last reports are dropped here, unacked")


class Losses:
    """Says once when the connection is lost, when it is back, and how much was dropped in here."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._problem: str | None = None
        self._dropped = 0

    def look(self, broker: Connection) -> None:
        """Look at a connection. Raises BrokerError when somebody else has our session."""
        if broker.taken_over:
            message = (
                "somebody else took our session at the MQTT broker: was .tflotilla/*.session copied with fleet.toml?"
            )
            raise BrokerError(message)
        if broker.problem is not None and self._problem is None:
            self._tell(f"{broker.problem}; trying again")
        elif broker.problem is None and self._problem is not None:
            self._tell("the MQTT broker is back")
        self._problem = broker.problem
        if broker.dropped > self._dropped:
            lost = broker.dropped - self._dropped
            self._tell(f"{lost} messages came faster than they could be kept; they are dropped here, unacked")
            self._dropped = broker.dropped


class Maintenance:
    """Sums up and forgets in a thread of its own for the time of a `with` block.

    Both are work of the interpreter, so it goes on only while the collector has nothing to do, or after a while.
    """

    def __init__(self, store: Store, *, clock: Callable[[], float], tell: Callable[[str], None]) -> None:
        self._store = store
        self._clock = clock
        self._tell = tell
        self._end = threading.Event()
        self._way_is_free = threading.Event()
        self._way_is_free.set()
        self._thread = threading.Thread(target=self._run, name="maintenance", daemon=True)
        self._problem: str | None = None
        #: Why it ended before its time.
        self.failure: InputError | None = None

    def __enter__(self) -> Self:
        """Begin."""
        # Who hears needs the interpreter often and shortly, who sums up takes all it gets: five milliseconds for each
        # wake would be 200 wakes a second, of the 20 messages that a broker has under way by default.
        sys.setswitchinterval(_SWITCH_S)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End, in the middle of a step: what isn't done is done next time."""
        self._end.set()
        self._way_is_free.set()
        self._thread.join()

    @contextmanager
    def giving_way(self) -> Iterator[None]:
        """Let it wait for the time of the block."""
        self._way_is_free.clear()
        try:
            yield
        finally:
            self._way_is_free.set()

    def _is_to_stop(self) -> bool:
        self._way_is_free.wait(_MOST_PATIENCE_S)
        return self._end.is_set()

    def _run(self) -> None:
        while not self._end.is_set():
            try:
                more = self._store.maintain(now=self._clock(), stop=self._is_to_stop).more
                self._problem = None
            except UnavailableError as error:
                if str(error) != self._problem:
                    self._tell(f"summing up waits: {error}")
                self._problem, more = str(error), False
            except InputError as error:
                self.failure = error
                return
            self._end.wait(0.0 if more else _MAINTAIN_S)
