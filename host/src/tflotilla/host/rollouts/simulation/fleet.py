"""A seeded fleet that isn't there: boards, links, telemetry and a clock, for the engine to be driven without waiting.

Boards behave as agents do where the engine can tell: a deployment belongs to the board and ends whether or not anybody
listens; asked again with its id, the board tells what became of it; a rollback names the bundle to be left, and changes
nothing where another one serves. Telemetry is made when it is asked for, as real `Metrics` through `evidence.fold`.
What it does NOT do: probe, verify, or undo by itself; bundles here are worse than any a board would confirm.
"""

from __future__ import annotations

import heapq
import math
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from tflotilla.host.rollouts import evidence as telemetry
from tflotilla.host.rollouts.evidence import Evidence
from tflotilla.host.rollouts.jobs import Job, JobResult
from tflotilla.shared.contract.deployment import ShadowReport
from tflotilla.shared.contract.messages import Event, LabelCount, Message, Metrics, StageLatency

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

#: How a bundle behaves once it serves. `crashing`: its worker dies again and again, 30 s after it began.
Behaviour = Literal["good", "wrong_labels", "slow", "crashing", "nan"]
OLD, NEW = "0" * 64, "1" * 64
_LABELS = tuple(f"label-{number}" for number in range(10))
#: A mix that isn't even, so that a shift of labels shows.
_MIX = tuple(0.32 * 0.7**number for number in range(10))
_SCORES = (0, 0, 0, 0, 1, 2, 5, 12, 25, 55)
_BASE_NS = 12_000_000
_CRASHES_AFTER_S = 30.0
_CRASHES_EVERY_S = 5.0
_RATE_HZ = 30.0
#: However long it was listened to, telemetry comes in so many windows here.
_WINDOWS = 4
_CONNECT_TIMEOUT_S = 5.0
_TELLS_AFTER_S = 0.3


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """What the fleet is like; times are ranges in seconds."""

    seed: int = 0
    behaviour: Behaviour = "good"
    #: Share of jobs that meet a fault: the link is cut, before or after the board has all; the board reboots.
    faults: float = 0.0
    #: Share of boards whose disk is full, say: they never take a bundle.
    broken: float = 0.0
    push_s: tuple[float, float] = (4.0, 20.0)
    undo_s: tuple[float, float] = (0.3, 1.2)
    #: How long a board stays away.
    away_s: tuple[float, float] = (60.0, 1800.0)


@dataclass(slots=True)
class _Board:
    serving: str
    previous: str | None = None
    since: float = 0.0
    back_at: float | None = None
    broken: bool = False
    #: Deployment → when it ends, and the result that is told then and ever after.
    stories: dict[str, tuple[float, JobResult]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Switch:
    """A bundle came into service on a board."""

    at: float
    board: str
    bundle: str


class World:
    """The boards of a simulated fleet and its clock; also its telemetry, by board and digest."""

    def __init__(self, boards: Sequence[str], conditions: Conditions, *, off: Sequence[str] = ()) -> None:
        """`off` are boards that are away at the beginning."""
        self.conditions = conditions
        self.now = 1_000_000.0
        self.switches: list[Switch] = []
        #: Every deployment that a board was asked to begin: more than one per round would be one too many.
        self.begun: list[tuple[str, str]] = []
        self._random = random.Random(conditions.seed)  # noqa: S311 - a simulation
        self._boards = {name: _Board(serving=OLD, since=self.now - 3600) for name in boards}
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._number = 0
        self._results: list[JobResult] = []
        self._births: list[str] = []
        self._listens_since = self.now - 3600
        for name, board in self._boards.items():
            board.broken = self._random.random() < conditions.broken
            if name in set(off):
                self._leaves(name)

    # The executor's side

    def submit(self, job: Job) -> None:
        """Begin a job."""
        board = self._boards[job.board]
        if board.back_at is not None:
            self._tell(_CONNECT_TIMEOUT_S, _missed(job, begun=False))
        elif job.kind == "undo":
            self._undo(job, board)
        else:
            self._push(job, board)

    def advance(self, until: float) -> tuple[list[JobResult], list[str]]:
        """Let time pass; return the jobs that came to an end, and the boards that came back."""
        while self._queue and self._queue[0][0] <= until:
            self.now, _number, happens = heapq.heappop(self._queue)
            happens()
        self.now = max(self.now, until)
        results, births = self._results, self._births
        self._results, self._births = [], []
        return results, births

    @property
    def next_at(self) -> float | None:
        """When something happens next by itself."""
        return self._queue[0][0] if self._queue else None

    def forget_listeners(self) -> None:
        """Let the host die: nobody hears the results of what is under way, nor what was told before."""
        self._number += 1
        self._results, self._births = [], []
        self._listens_since = self.now
        self._deaf_before = self._number

    def serving(self, board: str) -> str:
        """Return the digest of what serves on a board."""
        return self._boards[board].serving

    @property
    def away(self) -> frozenset[str]:
        """Boards that are off now."""
        return frozenset(name for name, board in self._boards.items() if board.back_at is not None)

    _deaf_before = 0

    def _at(self, after_s: float, happens: Callable[[], None]) -> None:
        self._number += 1
        heapq.heappush(self._queue, (self.now + after_s, self._number, happens))

    def _tell(self, after_s: float, result: JobResult) -> None:
        number = self._number + 1

        def told() -> None:
            if number > self._deaf_before:
                self._results.append(result)

        self._at(after_s, told)

    def _leaves(self, name: str) -> None:
        away_s = self._random.uniform(*self.conditions.away_s)
        self._boards[name].back_at = self.now + away_s

        def returns() -> None:
            self._boards[name].back_at = None
            self._births.append(name)

        self._at(away_s, returns)

    def _push(self, job: Job, board: _Board) -> None:
        known = board.stories.get(job.deployment)
        if known is not None:
            ends_at, result = known
            self._tell(max(ends_at - self.now, 0.0) + _TELLS_AFTER_S, result)
            return
        duration_s = self._random.uniform(*self.conditions.push_s)
        if board.broken:
            error = JobResult(job=job, error="VerificationError", detail="the board trusts another key")
            self._tell(duration_s / 4, error)
            return
        fault = self._random.random() / self.conditions.faults if self.conditions.faults else math.inf
        if fault < 0.4:  # noqa: PLR2004 - the link breaks while bytes travel
            self._tell(duration_s * self._random.random(), _missed(job, begun=True))
            return
        if fault < 0.6:  # noqa: PLR2004 - it reboots before it has all
            self._tell(duration_s * self._random.random(), _missed(job, begun=True))
            self._leaves(job.board)
            return
        self.begun.append((job.board, job.deployment))
        result = self._deployed(job, board, duration_s)
        board.stories[job.deployment] = self.now + duration_s, result
        self._at(duration_s * 0.7, lambda: self._switch(job.board, job.bundle))
        if fault < 1:
            # The link breaks when the deployment is the board's already: it goes through, and nobody hears of it.
            self._tell(duration_s * 0.6, _missed(job, begun=True))
        else:
            self._tell(duration_s, result)

    def _deployed(self, job: Job, board: _Board, duration_s: float) -> JobResult:
        same = 0.1 if self.conditions.behaviour in ("wrong_labels", "nan") else 0.97
        agreed = sum(self._random.random() < same for _ in range(job.shadow))
        return JobResult(
            job=job,
            changed=True,
            bytes_sent=400_000,
            duration_s=duration_s,
            before=board.serving,
            shadow=ShadowReport(inputs=job.shadow, agreed=agreed) if job.shadow else None,
        )

    def _undo(self, job: Job, board: _Board) -> None:
        duration_s = self._random.uniform(*self.conditions.undo_s)
        if self._random.random() < self.conditions.faults:
            self._tell(duration_s, _missed(job, begun=True))
            return

        def goes_back() -> None:
            if board.serving == job.bundle and board.previous is not None:
                self._switch(job.board, board.previous)

        self._at(duration_s * 0.9, goes_back)
        self._tell(duration_s, JobResult(job=job, changed=True, before=board.previous))

    def _switch(self, name: str, bundle: str) -> None:
        board = self._boards[name]
        board.serving, board.previous, board.since = bundle, board.serving, self.now
        self.switches.append(Switch(at=self.now, board=name, bundle=bundle))

    # Telemetry

    @property
    def evidence(self) -> Mapping[str, Mapping[str, Evidence]]:
        """What was heard by now."""
        return _Telemetry(self)

    def heard(self, name: str) -> Mapping[str, Evidence]:
        """Return what was heard of the bundle that serves on a board; a board that is off says nothing."""
        board = self._boards[name]
        since = max(board.since, self._listens_since)
        if board.back_at is not None or self.now - since < 1:
            return {}
        length_s = (self.now - since) / _WINDOWS
        behaviour = self.conditions.behaviour if board.serving == NEW else "good"
        dice = random.Random(f"{self.conditions.seed} {name} {board.serving}")  # noqa: S311 - a simulation
        heard: Evidence | None = None
        for number in range(1, _WINDOWS + 1):
            body = _window(dice, behaviour, min(length_s, 30.0))
            heard = telemetry.fold(heard, _message(name, board.serving, body), since + number * length_s)
        if behaviour == "crashing":
            served_s = self.now - board.since - _CRASHES_AFTER_S
            for number in range(min(int(served_s / _CRASHES_EVERY_S), 10)):
                crash = Event(level="error", kind="worker", message="its worker was killed by signal 11")
                at = board.since + _CRASHES_AFTER_S + number * _CRASHES_EVERY_S
                heard = telemetry.fold(heard, _message(name, board.serving, crash), at)
        return {} if heard is None else {board.serving: heard}


class _Telemetry(Mapping[str, Mapping[str, Evidence]]):
    """Made when it is asked for: of 10,000 boards few are looked at in one moment."""

    def __init__(self, world: World) -> None:
        self._world = world

    def __getitem__(self, board: str) -> Mapping[str, Evidence]:
        return self._world.heard(board)

    def __iter__(self) -> Iterator[str]:
        return iter(self._world._boards)  # noqa: SLF001 - a part of it

    def __len__(self) -> int:
        return len(self._world._boards)  # noqa: SLF001


def _missed(job: Job, *, begun: bool) -> JobResult:
    detail = "the connection was lost" if begun else "no answer in 5 s"
    return JobResult(job=job, error="UnreachableError", detail=detail, begun=begun)


def _message(board: str, bundle: str, body: Metrics | Event) -> Message[Metrics | Event]:
    return Message(board=board, boot="b", seq=1, time=0.0, bundle=bundle, body=body)


def _window(dice: random.Random, behaviour: Behaviour, window_s: float) -> Metrics:
    results = int(_RATE_HZ * window_s)
    slower = 3.0 if behaviour == "slow" else 1.0
    p50 = int(_BASE_NS * slower * dice.uniform(0.97, 1.03))
    mix = _MIX[::-1] if behaviour == "wrong_labels" else _MIX
    labels = tuple(
        LabelCount(label=label, count=count, mean_score=math.nan if behaviour == "nan" else 0.9)
        for label, count in zip(_LABELS, _dealt(dice, results, mix), strict=True)
        if count
    )
    total = StageLatency(
        count=results,
        mean_ns=float(p50),
        min_ns=p50 // 2,
        p50_ns=p50,
        p90_ns=int(p50 * 1.2),
        p99_ns=int(p50 * dice.uniform(1.4, 1.6)),
        max_ns=p50 * 3,
    )
    return Metrics(
        window_s=window_s,
        count=results,
        errors=0,
        dropped=0,
        stages={"total": total} if results else {},
        labels=labels,
        rss_bytes=int(60e6 * dice.uniform(1.0, 1.05)),
        temperature_c=dice.uniform(45.0, 60.0),
        scores=_dealt(dice, results, _SCORES),
    )


def _dealt(dice: random.Random, results: int, weights: Sequence[float]) -> tuple[int, ...]:
    """Return counts about in proportion to the weights, with the noise of a sample."""
    scale = results / sum(weights)
    return tuple(
        max(0, round(dice.gauss(weight * scale, math.sqrt(weight * scale)))) if weight else 0 for weight in weights
    )
