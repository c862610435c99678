"""What a fleet looks like, folded from what its boards say.

Pure: no clock, no network, the same messages give the same view.

Rules it keeps: a message that is garbage, foreign or repeated is counted and changes nothing else; (board, boot, seq)
numbers a message for ever, so gaps and duplicates are exact whatever order messages come in; memory stays bounded
whatever boards send.

It does NOT decide whether a silent board is dead: `availability` is what the board, or its last will, said.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from tflotilla.host.telemetry import decoding
from tflotilla.shared.contract import messages, topics
from tflotilla.shared.contract.benchmark import BenchmarkReport
from tflotilla.shared.contract.deployment import DeploymentStatus

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tflotilla.shared.contract.messages import Message

_LAST_PREDICTIONS = 5
_LAST_EVENTS = 20
_LAST_DEPLOYMENTS = 20
_KEPT_BOOTS = 8
_KEPT_RANGES = 256
#: A clock that says less (2020) was never set.
_UNSET_CLOCK = 1577836800.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Sequence:
    """Which numbers of one boot have arrived: ranges (first, last) in order, that do not touch.

    Gaps count from the number that was heard first: what a board repeats of the time before, for others, ends no gap of
    ours. Law: after the first, `adding` the same numbers in any order gives equal values, with at most 256 ranges.
    """

    ranges: tuple[tuple[int, int], ...] = ()
    duplicates: int = 0
    #: The number that was heard first; 0 before.
    first: int = 0
    #: Numbers between ranges that were merged to save memory, before and after the first: they count as not arrived.
    given_up_before: int = 0
    given_up: int = 0
    #: The last that only the broker's memory told: not counted, because nobody listened when its neighbours were sent.
    retold: int = 0

    @property
    def received(self) -> int:
        """How many different numbers arrived."""
        return sum(last - first + 1 for first, last in self.ranges) - self.given_up_before - self.given_up

    @property
    def missing(self) -> int:
        """How many numbers between the first and the highest that arrived did not."""
        if not self.ranges:
            return 0
        arrived = sum(max(0, last - max(self.first, first) + 1) for first, last in self.ranges)
        return self.ranges[-1][1] - self.first + 1 - arrived + self.given_up

    def adding(self, number: int) -> Sequence:
        """Return this with one more number; one that is there already is a duplicate."""
        ranges = self.ranges
        if not ranges:
            return dataclasses.replace(self, ranges=((number, number),), first=number)
        if number == ranges[-1][1] + 1:
            # Nearly always: the next one.
            return dataclasses.replace(self, ranges=(*ranges[:-1], (ranges[-1][0], number)))
        position = 0
        while position < len(ranges) and ranges[position][1] < number - 1:
            position += 1
        if position < len(ranges) and ranges[position][0] <= number <= ranges[position][1]:
            return dataclasses.replace(self, duplicates=self.duplicates + 1)
        merged = list(ranges)
        if position < len(ranges) and ranges[position][1] == number - 1:
            merged[position] = (ranges[position][0], number)
            if position + 1 < len(ranges) and ranges[position + 1][0] == number + 1:
                merged[position : position + 2] = [(ranges[position][0], ranges[position + 1][1])]
        elif position < len(ranges) and ranges[position][0] == number + 1:
            merged[position] = (number, ranges[position][1])
        else:
            merged.insert(position, (number, number))
        after = dataclasses.replace(self, ranges=tuple(merged))
        return after if len(merged) <= _KEPT_RANGES else _with_the_oldest_merged(after)

    def has(self, number: int) -> bool:
        """Whether a number arrived."""
        return any(first <= number <= last for first, last in self.ranges)


def _with_the_oldest_merged(sequence: Sequence) -> Sequence:
    (lowest, end), (begin, last), *others = sequence.ranges
    between = range(end + 1, begin)
    before = len(range(between.start, min(between.stop, sequence.first)))
    return dataclasses.replace(
        sequence,
        ranges=((lowest, last), *others),
        given_up_before=sequence.given_up_before + before,
        given_up=sequence.given_up + len(between) - before,
    )


class Report(NamedTuple):
    """Names a report of a board, and says when it was made by the board's clock."""

    boot: str
    seq: int
    time: float


@dataclass(frozen=True, slots=True, kw_only=True)
class BoardView:
    """What is known of one board. Times are Unix seconds by the board's clock, but for `seen`."""

    board: str
    #: When it was heard last, by this machine's clock; of what the broker kept, when the board said it by its own.
    seen: float
    availability: Literal["online", "offline"] | None = None
    boot: str | None = None
    state: messages.State | None = None
    model: messages.ModelCard | None = None
    deployment: DeploymentStatus | None = None
    #: Which report of the board that was, and the last metrics.
    deployment_of: Report | None = None
    metrics_of: Report | None = None
    #: How deployments ended, with the time the board said so; the newest first.
    deployments: tuple[tuple[float, DeploymentStatus], ...] = ()
    metrics: messages.Metrics | None = None
    #: The newest first.
    predictions: tuple[messages.Prediction, ...] = ()
    thumbnail: messages.Thumbnail | None = None
    events: tuple[messages.Event, ...] = ()
    #: Without its single latencies: up to 100,000 of them.
    benchmark: BenchmarkReport | None = None
    messages: int = 0
    #: Sums over all metrics and predictions that arrived, each message counted once.
    inferences: int = 0
    errors: int = 0
    predicted: int = 0
    #: boot → what arrived of it; the newest boots only.
    sequences: Mapping[str, Sequence] = field(default_factory=dict)

    @property
    def duplicates(self) -> int:
        """Messages that arrived more than once."""
        return sum(sequence.duplicates for sequence in self.sequences.values())

    @property
    def missing(self) -> int:
        """Messages that were sent between two that arrived, and did not arrive."""
        return sum(sequence.missing for sequence in self.sequences.values())

    def was_retold(self, message: Message[Any]) -> bool:
        """Whether a numbered message is only known from the broker's memory: it was sent before somebody listened."""
        sequence = self.sequences.get(message.boot)
        return sequence is not None and 0 < message.seq == sequence.retold

    @property
    def inferences_per_second(self) -> float | None:
        """Over the last window that was reported."""
        if self.metrics is None or self.metrics.window_s <= 0:
            return None
        return self.metrics.count / self.metrics.window_s


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetView:
    """Every board that said something, by name, and what could not be understood."""

    fleet: str
    boards: Mapping[str, BoardView] = field(default_factory=dict)
    #: Payloads on our topics that break the contract.
    garbage: int = 0
    #: Messages on topics that are not this fleet's.
    foreign: int = 0

    def folding(self, received: Iterable[tuple[str, bytes, float]]) -> FleetView:
        """Return the view after these messages: (topic, payload, time of arrival).

        Law: `v.folding(a).folding(b) == v.folding([*a, *b])`.
        """
        boards = dict(self.boards)
        garbage, foreign = self.garbage, self.foreign
        for topic, payload, at in received:
            address = topics.parse(topic)
            if address is None or address.fleet != self.fleet:
                foreign += 1
                continue
            if not payload and address.channel in topics.RETAINED:
                # How a retained message is deleted: the broker forgets, we don't.
                continue
            message = understood(topic, payload)
            if message is None:
                garbage += 1
            elif address.channel in topics.CHANNELS:
                boards[address.board] = fold(boards.get(address.board), message, at)[0]
        return FleetView(fleet=self.fleet, boards=boards, garbage=garbage, foreign=foreign)


def understood(topic: str, payload: bytes) -> messages.Message[Any] | None:
    """Return the parsed message, None for garbage; never raises."""
    return decoding.understood(topic, payload)


def fold(
    before: BoardView | None, message: messages.Message[Any], at: float, *, retained: bool = False
) -> tuple[BoardView, bool]:
    """Return the board after this message, which came at `at`, and whether it said something new: no repetition.

    `retained`: the broker kept it for those who come later.
    """
    said_at = message.time if retained and message.time > _UNSET_CLOCK else at
    before = before or BoardView(board=message.board, seen=min(at, said_at))
    view = dataclasses.replace(before, seen=max(before.seen, min(at, said_at)), messages=before.messages + 1)
    if message.seq > 0:
        counted = before.sequences.get(message.boot, Sequence())
        known = counted.has(message.seq) or counted.retold == message.seq
        after = dataclasses.replace(counted, retold=message.seq) if retained else counted.adding(message.seq)
        view = dataclasses.replace(view, sequences=_with_boot(before.sequences, message.boot, after))
        if known:
            return view, False
    return _fold_body(view, message), True


def _fold_body(view: BoardView, message: messages.Message[Any]) -> BoardView:
    body = message.body
    changes: dict[str, Any] = {}
    match body:
        case messages.Availability():
            changes = _availability(view, message, body)
        case messages.State():
            changes = {"state": body, "boot": message.boot}
        case messages.ModelCard():
            changes = {"model": body}
        case messages.Thumbnail():
            changes = {"thumbnail": body}
        case messages.Metrics():
            changes = {"inferences": view.inferences + body.count, "errors": view.errors + body.errors}
            # An outbox that is emptied after an outage brings old windows: they count, but they are not the present.
            report = _report(message)
            if _is_later(report, view.metrics_of, view.boot):
                changes |= {"metrics": body, "metrics_of": report}
        case messages.Predictions():
            newest = sorted((*body.results, *view.predictions), key=lambda result: result.time, reverse=True)
            changes = {
                "predictions": tuple(newest[:_LAST_PREDICTIONS]),
                "predicted": view.predicted + len(body.results),
            }
        case BenchmarkReport():
            changes = {"benchmark": _without_latencies(body)}
        case messages.Event():
            changes = {"events": (body, *view.events)[:_LAST_EVENTS]}
        case DeploymentStatus():
            report = _report(message)
            if _is_later(report, view.deployment_of, view.boot):
                changes = {"deployment": body, "deployment_of": report}
            if body.state.final:
                changes["deployments"] = ((message.time, body), *view.deployments)[:_LAST_DEPLOYMENTS]
        case _:
            # An Ack is said by a collector, not by the board; Flat repeats the metrics.
            changes = {}
    return dataclasses.replace(view, **changes)


def _availability(view: BoardView, message: messages.Message[Any], body: messages.Availability) -> dict[str, Any]:
    # A last will is written when the connection is made, so its time says nothing: order of arrival counts. The will
    # of an earlier boot that comes late must not hide that the board is back.
    if body.status == "offline" and view.availability == "online" and view.boot not in (None, message.boot):
        return {}
    return {"availability": body.status, "boot": message.boot}


def _without_latencies(said: BenchmarkReport) -> BenchmarkReport:
    if said.cell is None or said.cell.measurement is None:
        return said
    measurement = dataclasses.replace(said.cell.measurement, latencies_ns=())
    return dataclasses.replace(said, cell=dataclasses.replace(said.cell, measurement=measurement))


def _report(message: messages.Message[Any]) -> Report:
    return Report(message.boot, message.seq, message.time)


def _is_later(report: Report, before: Report | None, boot: str | None) -> bool:
    """Whether a board made a report after another one; `boot` is the one that it runs in.

    Within a boot numbers say so. Between boots the running one is the later. Clocks may be wrong, and are asked last.
    """
    if before is None:
        return True
    if report.boot == before.boot:
        return report.seq >= before.seq
    if boot in (report.boot, before.boot):
        return report.boot == boot
    return report.time >= before.time


def _with_boot(sequences: Mapping[str, Sequence], boot: str, sequence: Sequence) -> dict[str, Sequence]:
    kept = dict(sequences)
    kept[boot] = sequence
    while len(kept) > _KEPT_BOOTS:
        # The boot heard of first goes first.
        del kept[next(iter(kept))]
    return kept
