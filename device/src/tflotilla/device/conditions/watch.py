"""Watches the board while a cell is timed, from between the runs, and hands the verdict its evidence.

Order of calls: `prepare` (after cooling, before the model is loaded), `begin` (before the first timed run), `look`
(between runs, as often as one likes), `end` (after the last run).
Rules it keeps: between two looks that are due nothing is read; what looking took is added up in `cost_ns`; the readings
kept are bounded: when there are too many, neighbours become one that has the worst of both, so that nothing bad is
thinned away. Lowest and highest frequency are of all looks.
What it does NOT do: judge, or look from a thread of its own (which would disturb what is timed).
"""

from __future__ import annotations

import dataclasses
import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from tflotilla.device import facts
from tflotilla.device.conditions import clocks, memory, processes, quota, readings, throttling
from tflotilla.shared.contract.benchmark import BoardReading, Conditions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

#: 30 KB of a report.
KEEP = 120
_NS = 1_000_000_000
_Number = TypeVar("_Number", int, float)


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """The lowest and the highest frequency of the cores that worked, in kHz."""

    lowest_khz: int
    highest_khz: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """All that is known of the board while the runs were timed. None is what this board can't tell."""

    conditions: Conditions
    #: From `begin` to `end`.
    seconds: float
    frequency: Span | None
    pages_swapped: int | None
    #: How often x86 cores were slowed down for heat.
    throttle_events: int | None
    #: How long a CPU quota stopped this process.
    quota_stopped_us: int | None
    #: How often this process waited for the disk to give a page of it.
    disk_faults: int
    clock: clocks.ClockChange
    #: What the machine calls itself, as in `BoardFacts.model`.
    machine: str | None
    #: Whether the throttling bits before and after are the firmware's own, not what the kernel heard before.
    firmware_answered: bool
    #: What the looks took together, and how many there were.
    cost_ns: int
    looks: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Counters:
    processes: processes.Snapshot
    pages_swapped: int | None
    throttle_events: int | None
    quota_stopped_us: int | None
    disk_faults: int
    clocks: clocks.Clocks


class Watch:
    """One cell's watch.

    `threads` and `cores` (none: any) say which frequencies matter; the `own` processes are this cell (None: this one).
    """

    def __init__(
        self,
        root: Path = readings.ROOT,
        *,
        interval_s: float = 0.5,
        threads: int = 1,
        cores: Sequence[int] = (),
        own: frozenset[int] | None = None,
        clock: Callable[[], int] = time.monotonic_ns,
        read_clocks: Callable[[], clocks.Clocks] = clocks.read,
        disk_faults: Callable[[], int] = memory.disk_faults,
        keep: int = KEEP,
    ) -> None:
        self._root = root
        self._interval_ns = round(interval_s * _NS)
        self._threads = threads
        self._cores = frozenset(cores)
        self._own = frozenset({os.getpid()}) if own is None else own
        self._clock = clock
        self._read_clocks = read_clocks
        self._disk_faults = disk_faults
        self._sensors = readings.Sensors(root)
        self._before: tuple[int, BoardReading] | None = None
        self._counters: _Counters | None = None
        self._began_ns = 0
        self._thinned = Thinned(keep)
        self._span: Span | None = None
        #: The monotonic time of the next look; a loop may compare it itself and spare itself the call.
        self.due_ns = 0
        self.cost_ns = 0
        self.looks = 0

    def prepare(self) -> BoardReading:
        """Read the board before anything of the cell has warmed it."""
        reading = self._sensors.read(at_s=0.0, ask_firmware=True)
        self._before = (self._clock(), reading)
        return reading

    def begin(self) -> None:
        """Count from here; the next look is due at once."""
        if self._before is None:
            self.prepare()
        self._counters = self._count()
        self._began_ns = self._clock()
        self.due_ns = self._began_ns

    def look(self, now_ns: int) -> bool:
        """Read the board when that is due, at `now_ns` of the clock; return whether it was."""
        if now_ns < self.due_ns:
            return False
        reading = self._sensors.read(at_s=self._since(now_ns))
        self._thinned.add(reading)
        self._span = _widened(self._span, working_khz(reading.frequencies_khz, self._threads, self._cores))
        self.looks += 1
        ended_ns = self._clock()
        self.cost_ns += ended_ns - now_ns
        self.due_ns = ended_ns + self._interval_ns
        return True

    def end(self, *, cooled_s: float = 0.0) -> Evidence:
        """Read the board a last time, and say what happened since `begin`.

        Raises:
            RuntimeError: `begin` was not called.

        """
        if self._before is None or self._counters is None:
            message = "a watch that never began can't end"
            raise RuntimeError(message)
        ended_ns = self._clock()
        # The frequency first, and the firmware last, because asking starts a program.
        after = self._sensors.read(at_s=self._since(ended_ns))
        counters, first = self._count(), self._counters
        others, other_cpu = processes.between(first.processes, counters.processes, self._own)
        span = self._span
        if self.looks < 2:  # noqa: PLR2004 - two points make a line
            span = _widened(span, working_khz(after.frequencies_khz, self._threads, self._cores))
        before_ns, before = self._before
        bits = self._sensors.ask_firmware()
        return Evidence(
            conditions=Conditions(
                before=dataclasses.replace(before, at_s=self._since(before_ns)),
                after=dataclasses.replace(after, throttled=bits),
                during=self._thinned.readings(),
                others=processes.named(others, self._root),
                other_cpu_percent=other_cpu,
                cooled_s=cooled_s,
            ),
            seconds=(ended_ns - self._began_ns) / _NS,
            frequency=span,
            pages_swapped=_grown(first.pages_swapped, counters.pages_swapped),
            throttle_events=_grown(first.throttle_events, counters.throttle_events),
            quota_stopped_us=_grown(first.quota_stopped_us, counters.quota_stopped_us),
            disk_faults=counters.disk_faults - first.disk_faults,
            clock=clocks.between(first.clocks, counters.clocks),
            machine=facts.machine_model(self._root),
            firmware_answered=self._sensors.firmware_answered,
            cost_ns=self.cost_ns,
            looks=self.looks,
        )

    def _since(self, at_ns: int) -> float:
        return round((at_ns - self._began_ns) / _NS, 3)

    def _count(self) -> _Counters:
        return _Counters(
            clocks=self._read_clocks(),
            pages_swapped=memory.pages_swapped(self._root),
            throttle_events=throttling.events(self._root),
            quota_stopped_us=quota.stopped_us(self._root),
            disk_faults=self._disk_faults(),
            processes=processes.snapshot(self._root, clock=self._clock),
        )


class Thinned:
    """Readings in order, at most `keep`: each of so many that neighbours were made one as often as needed."""

    def __init__(self, keep: int) -> None:
        if keep < 1:
            message = f"at least one reading must be kept, not {keep}"
            raise ValueError(message)
        self._keep = keep
        self._kept: list[BoardReading] = []
        self._pending: BoardReading | None = None
        self._pending_count = 0
        self._per_kept = 1

    def add(self, reading: BoardReading) -> None:
        """Take the next one."""
        self._pending = reading if self._pending is None else worst(self._pending, reading)
        self._pending_count += 1
        if self._pending_count < self._per_kept:
            return
        self._kept.append(self._pending)
        self._pending, self._pending_count = None, 0
        if len(self._kept) > self._keep:
            last = self._kept.pop() if len(self._kept) % 2 else None
            self._kept = [worst(*pair) for pair in zip(self._kept[::2], self._kept[1::2], strict=True)]
            self._pending, self._pending_count = last, self._per_kept if last else 0
            self._per_kept *= 2

    def readings(self) -> tuple[BoardReading, ...]:
        """Return what is kept; the last stands for the fewest."""
        if self._pending is None:
            return tuple(self._kept)
        if len(self._kept) < self._keep:
            return (*self._kept, self._pending)
        return (*self._kept[:-1], worst(self._kept[-1], self._pending))


def worst(first: BoardReading, second: BoardReading) -> BoardReading:
    """Return one reading with the worst of two, at the time of the first."""
    frequencies = second.frequencies_khz
    if len(first.frequencies_khz) == len(frequencies):
        frequencies = tuple(min(pair) for pair in zip(first.frequencies_khz, frequencies, strict=True))
    throttled = [bits for bits in (first.throttled, second.throttled) if bits is not None]
    return BoardReading(
        at_s=first.at_s,
        temperature_c=_of_known(max, first.temperature_c, second.temperature_c),
        frequencies_khz=frequencies,
        governor=second.governor or first.governor,
        throttled=throttled[0] | throttled[-1] if throttled else None,
        cooling=_of_known(max, first.cooling, second.cooling),
        load_1min=_of_known(max, first.load_1min, second.load_1min),
        swap_used_bytes=_of_known(max, first.swap_used_bytes, second.swap_used_bytes),
        memory_available_bytes=_of_known(min, first.memory_available_bytes, second.memory_available_bytes),
    )


def working_khz(frequencies: Sequence[int], threads: int, cores: frozenset[int]) -> int | None:
    """Return the frequency of the slowest core that works, None when none is known.

    Without knowing where threads run, the `threads` fastest cores are those that work: idle ones are slow, and may be.
    """
    known = sorted(
        (khz for core, khz in enumerate(frequencies) if khz > 0 and (not cores or core in cores)), reverse=True
    )
    return known[min(max(1, threads), len(known)) - 1] if known else None


def _widened(span: Span | None, khz: int | None) -> Span | None:
    if khz is None:
        return span
    if span is None:
        return Span(lowest_khz=khz, highest_khz=khz)
    return Span(lowest_khz=min(span.lowest_khz, khz), highest_khz=max(span.highest_khz, khz))


def _grown(first: int | None, last: int | None) -> int | None:
    return max(0, last - first) if first is not None and last is not None else None


def _of_known(
    choose: Callable[[Iterable[_Number]], _Number], first: _Number | None, second: _Number | None
) -> _Number | None:
    known = [value for value in (first, second) if value is not None]
    return choose(known) if known else None
