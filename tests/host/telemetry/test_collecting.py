"""What a collector keeps, acks and says, without a broker and a disk: every step by hand."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from tests.host.telemetry.fake_board import metrics, state
from tests.host.telemetry.fake_store import FakeStore
from tflotilla.host.telemetry import collecting
from tflotilla.host.telemetry.acknowledging import Debts
from tflotilla.host.telemetry.collecting import Collector, Losses, Maintenance
from tflotilla.host.telemetry.inbox import Received
from tflotilla.shared.contract import messages, topics
from tflotilla.shared.contract.errors import BrokerError, InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

FLEET = "barn"


@dataclass(kw_only=True)
class Bench:
    """A collector with everything around it in a test's hand."""

    store: FakeStore = field(default_factory=FakeStore)
    now: float = 1000.0
    connected: bool = True
    sent: list[tuple[str, bytes]] = field(default_factory=list)
    told: list[str] = field(default_factory=list)
    collector: Collector = field(init=False)

    def __post_init__(self) -> None:
        self.collector = Collector(
            fleet=FLEET,
            store=self.store,
            send=self.send,
            clock=lambda: self.now,
            tell=self.told.append,
            debts=Debts(gathered_s=0.0),
        )

    def send(self, sent: Sequence[tuple[str, bytes]]) -> bool:
        if self.connected:
            self.sent += sent
        return self.connected

    def round(self, *received: Received, everything: bool = True) -> None:
        if not self.collector.blocked:
            self.collector.take(received)
        self.collector.write()
        self.collector.acknowledge(everything=everything)

    @property
    def acks(self) -> list[tuple[str, messages.Ack]]:
        """What boards were told, as they read it."""
        found = []
        for topic, payload in self.sent:
            address, message = messages.parse(topic, payload)
            assert address.channel == "ack"
            found.append((address.board, message.body))
        return found


def received(
    seq: int,
    *,
    board: str = "pi-1",
    boot: str = "a",
    channel: topics.Channel = "metrics",
    body: Any = None,  # noqa: ANN401 - any body
    time: float = 999.0,
    at: float = 1000.0,
    retained: bool = False,
) -> Received:
    message = messages.Message(board=board, boot=boot, seq=seq, time=time, bundle=None, body=body or metrics())
    topic = topics.topic(FLEET, board, channel)
    return Received(topic=topic, payload=message.to_bytes(), at=at, retained=retained)


def test_what_is_stored_is_acked_to_its_board() -> None:
    bench = Bench()
    bench.round(received(1), received(2), received(1, board="pi-2", boot="b"))

    assert {("pi-1", "a", 1), ("pi-1", "a", 2), ("pi-2", "b", 1)} == bench.store.numbers
    assert [("pi-1", messages.Ack(boot="a", up_to=2)), ("pi-2", messages.Ack(boot="b", up_to=1))] == bench.acks


def test_messages_are_kept_as_they_came() -> None:
    bench = Bench()
    message = received(5, time=12.5, at=1000.25)
    bench.round(message)
    (kept,) = bench.store.kept

    assert (message.payload, 12.5, 1000.25, "metrics") == (kept.payload, kept.time, kept.at, kept.channel)


def test_a_duplicate_is_kept_once_and_acked_again() -> None:
    bench = Bench()
    bench.round(received(1))
    bench.round(received(1))

    assert 1 == len(bench.store.kept)
    assert [("pi-1", messages.Ack(boot="a", up_to=1))] * 2 == bench.acks
    assert (1, 1) == (bench.collector.counts().stored, bench.collector.counts().duplicates)


def test_late_and_reordered_messages_are_no_gaps_once_they_are_here() -> None:
    bench = Bench()
    bench.round(received(1), received(5), received(3))
    before = bench.collector.counts().missing
    bench.round(received(4), received(2))

    assert (2, 0) == (before, bench.collector.counts().missing)
    assert [
        ("pi-1", messages.Ack(boot="a", up_to=1, also=((3, 3), (5, 5)))),
        ("pi-1", messages.Ack(boot="a", up_to=2, also=((4, 4),))),
    ] == bench.acks


def test_a_report_that_the_broker_kept_for_us_is_no_gap() -> None:
    """A retained deployment is from long ago."""
    bench = Bench()
    bench.round(received(1, retained=True), received(5000))

    assert 0 == bench.collector.counts().missing
    assert 2 == len(bench.store.kept)


def test_garbage_is_counted_and_neither_kept_nor_acked() -> None:
    bench = Bench()
    good = received(1)
    bench.round(
        Received(topic=good.topic, payload=b"\xff\xfe", at=1.0),
        Received(topic=good.topic.replace("pi-1", "pi-2"), payload=good.payload, at=1.0),
        Received(topic=good.topic.replace(FLEET, "other"), payload=good.payload, at=1.0),
        Received(topic="\ufffd", payload=good.payload, at=1.0),
        Received(topic=topics.topic(FLEET, "pi-1", "flat"), payload=good.payload, at=1.0),
        received(0),
    )

    assert 6 == bench.collector.counts().garbage
    assert ([], []) == (bench.store.kept, bench.acks)


def test_an_emptied_retained_message_is_nothing() -> None:
    bench = Bench()
    bench.round(Received(topic=topics.topic(FLEET, "pi-1", "model"), payload=b"", at=1.0))

    assert (0, 0) == (bench.collector.counts().garbage, bench.collector.counts().received)


def test_what_describes_the_moment_is_kept_and_has_no_number_to_ack() -> None:
    bench = Bench()
    bench.round(received(0, channel="state", body=state()))

    assert ["state"] == [each.channel for each in bench.store.kept]
    assert [] == bench.acks


def test_a_body_that_only_a_newer_reader_understands_is_kept_whole() -> None:
    """The envelope names it for ever; what its body means can still be found out."""
    bench = Bench()
    message = received(1)
    bench.round(Received(topic=message.topic, payload=message.payload.replace(b"window_s", b"window_t"), at=1.0))

    assert [("pi-1", messages.Ack(boot="a", up_to=1))] == bench.acks


def test_a_clock_at_1970_is_no_obstacle() -> None:
    bench = Bench()
    bench.round(received(1, time=0.0), received(2, time=-5.0), received(3, time=1e300))

    assert messages.Ack(boot="a", up_to=3) == bench.acks[0][1]


def test_while_the_store_takes_nothing_nothing_is_acked_and_nothing_more_taken() -> None:
    bench = Bench(store=FakeStore(problem="the disk is full"))
    bench.round(received(1))
    bench.round(received(2))

    assert bench.collector.blocked
    assert [] == bench.acks
    assert "the disk is full" == bench.collector.counts().problem
    assert ["the disk is full; nothing is acked meanwhile, tried again every few seconds"] == bench.told


def test_it_goes_on_when_the_store_does() -> None:
    bench = Bench(store=FakeStore(problem="locked"))
    bench.round(received(1))
    bench.store.problem = None
    bench.round()
    too_early = list(bench.store.kept)
    bench.now += 1.0
    bench.round()
    bench.round(received(2))

    assert [] == too_early
    assert {("pi-1", "a", 1), ("pi-1", "a", 2)} == bench.store.numbers
    assert "the store takes reports again" == bench.told[-1]
    assert messages.Ack(boot="a", up_to=2) == bench.acks[-1][1]


def test_a_store_that_is_damaged_ends_it() -> None:
    bench = Bench(store=FakeStore(failure=InputError("damaged")))

    with pytest.raises(InputError, match="damaged"):
        bench.round(received(1))
    assert [] == bench.acks


def test_an_ack_that_could_not_be_sent_is_made_up_by_the_repetition() -> None:
    bench = Bench(connected=False)
    bench.round(received(1))
    bench.connected = True
    bench.round(received(1))

    assert [("pi-1", messages.Ack(boot="a", up_to=1))] == bench.acks


def test_a_lag_is_from_coming_here_to_durable() -> None:
    bench = Bench()
    bench.now = 1000.75
    bench.round(received(1, at=1000.0), received(2, at=1000.5))

    assert [0.75, 0.0] == [bench.collector.counts().lag_s, bench.collector.counts().lag_s]


@pytest.mark.parametrize("seed", range(10))
def test_whatever_happens_nothing_is_acked_that_is_not_stored(seed: int) -> None:
    """Any order, repetitions, a store that comes and goes, a collector that is killed and begins again."""
    chance = random.Random(seed)  # noqa: S311 - the same each time
    store = FakeStore()
    bench = Bench(store=store)
    coming = [number for number in range(1, 200) for _ in range(chance.choice((1, 1, 2)))]
    coming.sort(key=lambda number: number + chance.randrange(20))
    acked: set[int] = set()
    while coming:
        batch, coming = coming[: chance.randrange(1, 12)], coming[12:]
        store.problem = chance.choice((None, None, "away"))
        bench.round(*(received(number) for number in batch), everything=chance.random() < 0.5)
        bench.now += chance.random() * 3
        for _, ack in bench.acks:
            acked |= set(range(1, ack.up_to + 1))
            for first, last in ack.also:
                acked |= set(range(first, last + 1))
        assert acked <= {number for _, _, number in store.numbers}
        if chance.random() < 0.1:
            bench = Bench(store=store, now=bench.now)


def test_of_a_share_each_message_is_for_one_and_the_session_is_another() -> None:
    assert "$share/night/tflotilla/barn/+/metrics" in collecting.subscriptions(FLEET, "night")
    assert "tflotilla/barn/+/metrics" in collecting.subscriptions(FLEET)
    assert ["collector", "collector-here", "collector-share-night", "collector-share-night-here"] == [
        collecting.role(name, share) for share in (None, "night") for name in (None, "here")
    ]


@dataclass(kw_only=True)
class FakeConnection:
    """What `Losses` looks at, and what `collect` takes from."""

    problem: str | None = None
    taken_over: bool = False
    dropped: int = 0
    held: bool = False
    coming: list[list[Received]] = field(default_factory=list)

    def receive(self, *, timeout_s: float, most: int | None = None) -> Sequence[Received]:
        assert most == collecting.MOST_BATCH
        del timeout_s
        return self.coming.pop(0) if self.coming else ()

    def hold(self) -> None:
        self.held = True


def test_a_lost_connection_is_said_once_and_that_it_is_back() -> None:
    told: list[str] = []
    losses, connection = Losses(told.append), FakeConnection()
    for problem in (None, "gone", "gone", None, None):
        connection.problem = problem
        losses.look(connection)  # type: ignore[arg-type]

    assert ["gone; trying again", "the MQTT broker is back"] == told


def test_what_is_dropped_in_here_is_said_with_its_number() -> None:
    told: list[str] = []
    losses, connection = Losses(told.append), FakeConnection()
    for dropped in (0, 3, 3, 5):
        connection.dropped = dropped
        losses.look(connection)  # type: ignore[arg-type]

    assert ["3", "2"] == [line.split()[0] for line in told]


def test_somebody_who_takes_the_session_ends_it() -> None:
    with pytest.raises(BrokerError, match="took our session"):
        Losses(print).look(FakeConnection(taken_over=True))  # type: ignore[arg-type]


def test_at_the_end_what_came_already_is_stored_and_acked_and_the_rest_left_with_the_broker() -> None:
    bench = Bench()
    connection = FakeConnection(coming=[[received(1)], [received(2)], [received(3)]])
    rounds = iter((False, True))
    collecting.collect(
        connection,  # type: ignore[arg-type]
        bench.collector,
        stop=lambda: next(rounds),
        wait=lambda _s: None,
        monotonic=lambda: 0.0,
        tell=bench.told.append,
    )

    assert connection.held
    assert {("pi-1", "a", 1), ("pi-1", "a", 2), ("pi-1", "a", 3)} == bench.store.numbers
    assert messages.Ack(boot="a", up_to=3) == bench.acks[-1][1]


def test_at_the_end_a_store_that_takes_nothing_is_not_waited_for() -> None:
    bench = Bench(store=FakeStore(problem="full"))
    connection = FakeConnection(coming=[[received(1)]])
    rounds = iter((False, True))
    collecting.collect(
        connection,  # type: ignore[arg-type]
        bench.collector,
        stop=lambda: next(rounds),
        wait=lambda _s: None,
        monotonic=lambda: 0.0,
        tell=bench.told.append,
    )

    assert [] == bench.acks
    assert "the store takes nothing, so the last reports are dropped here, unacked" == bench.told[-1]


def test_summing_up_goes_on_beside_and_its_failure_is_handed_over() -> None:
    store = FakeStore(failure=InputError("damaged"))
    with Maintenance(store, clock=lambda: 0.0, tell=print) as maintenance:
        maintenance._thread.join(timeout=60)

    assert "damaged" == str(maintenance.failure)
