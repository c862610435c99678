"""The last windows of one board, as curves: a ring of plain numbers.

Rules it keeps: times ascend, whatever a board's clock does; one window is 56 bytes, and there are at most 600.
What it does NOT do: add windows up; a percentile of a window stays that window's.
"""

from __future__ import annotations

import math
from array import array
from typing import TYPE_CHECKING, Any, get_args

from tflotilla.shared.contract.messages import Stage

if TYPE_CHECKING:
    from tflotilla.shared.contract.messages import Message, Metrics

LENGTH = 600
STAGES: tuple[str, ...] = get_args(Stage)
#: rate, temperature, p50 and p99 of each stage.
_WIDTH = 2 + 2 * len(STAGES)
_PLACES = {stage: 2 + number for number, stage in enumerate(STAGES)}
_NOTHING = (math.nan,) * _WIDTH
_NS_PER_MS = 1e6
#: A board's clock is believed that far: ahead of ours, and behind it (a board that was cut off tells what it kept).
_AHEAD_S = 60.0
_BEHIND_S = 7 * 86400.0

Point = dict[str, Any]


class Series:
    """One board's."""

    __slots__ = ("_boot", "_figures", "_next", "_seq", "_times")

    def __init__(self) -> None:
        self._times = array("d")
        self._figures = array("f")
        #: Where the next one goes, once the ring is full.
        self._next = 0
        self._boot = ""
        self._seq = 0

    def __len__(self) -> int:
        """Return how many windows are in it."""
        return len(self._times)

    def add(self, message: Message[Metrics], at: float) -> bool:
        """Add a window that arrived at `at`; return whether it is drawn: one that comes too late isn't."""
        time = message.time if -_BEHIND_S < message.time - at < _AHEAD_S else at
        last = self._last()
        if time <= last:
            # Reordered, or kept back: its place is past. A clock that was set back must not stop the curve.
            if at <= last or (message.boot == self._boot and message.seq <= self._seq):
                return False
            time = at
        self._boot, self._seq = message.boot, message.seq
        row = _row(message.body)
        if len(self._times) < LENGTH:
            self._times.append(time)
            self._figures.extend(row)
        else:
            self._times[self._next] = time
            self._figures[self._next * _WIDTH : (self._next + 1) * _WIDTH] = row
            self._next = (self._next + 1) % LENGTH
        return True

    def last(self) -> Point:
        """Return the newest window as a point; there must be one."""
        place = (self._next - 1) % len(self._times)
        return _point(self._times[place], self._figures[place * _WIDTH : (place + 1) * _WIDTH])

    def document(self) -> dict[str, Any]:
        """Return all of it in order, column by column; stages that never ran are left out."""
        order = [(self._next + number) % len(self._times) for number in range(len(self._times))]
        figures = self._figures

        def column(number: int) -> list[float | None]:
            return [_known(figures[place * _WIDTH + number]) for place in order]

        p50 = {stage: column(2 + number) for number, stage in enumerate(STAGES)}
        p99 = {stage: column(2 + len(STAGES) + number) for number, stage in enumerate(STAGES)}
        return {
            "time": [self._times[place] for place in order],
            "rate": column(0),
            "temperature_c": column(1),
            "p50_ms": {stage: values for stage, values in p50.items() if any(v is not None for v in values)},
            "p99_ms": {stage: values for stage, values in p99.items() if any(v is not None for v in values)},
        }

    def _last(self) -> float:
        return self._times[self._next - 1] if self._times else 0.0


def _row(window: Metrics) -> array[float]:
    row = array("f", _NOTHING)
    if window.window_s > 0:
        row[0] = window.count / window.window_s
    if window.temperature_c is not None:
        row[1] = window.temperature_c
    for name, stage in window.stages.items():
        place = _PLACES.get(name)
        if place is not None and stage.count > 0:
            # Of 64 bits at most, or it would not have been understood.
            row[place] = stage.p50_ns / _NS_PER_MS
            row[place + len(STAGES)] = stage.p99_ns / _NS_PER_MS
    return row


def _point(time: float, row: array[float]) -> Point:
    p50, p99 = row[2 : 2 + len(STAGES)], row[2 + len(STAGES) :]
    return {
        "time": time,
        "rate": _known(row[0]),
        "temperature_c": _known(row[1]),
        "p50_ms": {stage: _known(value) for stage, value in zip(STAGES, p50, strict=True) if math.isfinite(value)},
        "p99_ms": {stage: _known(value) for stage, value in zip(STAGES, p99, strict=True) if math.isfinite(value)},
    }


def _known(value: float) -> float | None:
    # Single precision has seven digits; more of them would be noise on the line.
    return float(f"{value:.6g}") if math.isfinite(value) else None
