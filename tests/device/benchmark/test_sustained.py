"""A board that grows hot, with a clock that moves when the test says so."""

from __future__ import annotations

import itertools

import pytest

from tflotilla.device.benchmark import sustained
from tflotilla.device.benchmark.loops import Calls
from tflotilla.shared.contract.benchmark import BoardReading, SustainedFigures

_MS = 1_000_000
_NS = 1_000_000_000


class _Heating:
    """A run takes 10 ms, and from the 200th second on 15: the processor was slowed down."""

    def __init__(self) -> None:
        self.now_ns = 3
        self.begun: list[tuple[float, float]] = []

    def __call__(self) -> int:
        return self.now_ns

    def _invoke(self) -> None:
        self.now_ns += (10 if self.now_ns < 200 * _NS else 15) * _MS

    def _read(self, at_s: float) -> BoardReading:
        frequencies = (600_000, 1_800_000) if at_s < 200 else (600_000, 1_200_000)
        return BoardReading(at_s=at_s, temperature_c=50 + at_s / 20, frequencies_khz=frequencies)

    def run(self, seconds: float) -> SustainedFigures:
        return sustained.run(
            Calls(lambda _: None, self._invoke, lambda: None),
            itertools.repeat(0),
            seconds,
            cold_p50_ns=9 * _MS,
            read=self._read,
            begins=lambda at_s, part_s: self.begun.append((at_s, part_s)),
            clock=self,
        )


def test_the_end_of_a_sustained_run_is_what_does_not_change_any_more() -> None:
    found = _Heating().run(600)

    assert (found.cold_p50_ns, found.steady_p50_ns) == (9 * _MS, 15 * _MS)
    assert found.seconds == pytest.approx(600, abs=0.1)


def test_the_course_tells_when_it_happened_and_how_hot_it_was() -> None:
    found = _Heating().run(600)

    assert len(found.course) == 120
    assert [point.p50_ns // _MS for point in found.course] == [10] * 40 + [15] * 80
    assert found.course[-1].temperature_c == pytest.approx(80, abs=0.1)
    assert (found.course[0].frequency_khz, found.course[-1].frequency_khz) == (1_800_000, 1_200_000)
    gaps = [later.at_s - first.at_s for first, later in itertools.pairwise(found.course)]
    assert gaps == pytest.approx([5.0] * 119, abs=0.02)


def test_each_part_is_announced_so_that_silence_means_something() -> None:
    board = _Heating()
    board.run(100)

    assert len(board.begun) == 20
    assert board.begun[0] == (0.0, 5.0)


def test_runs_longer_than_a_part_still_make_a_course() -> None:
    """Ten parts of a tenth of a second, and a run of ten milliseconds; then of runs much longer than a part."""
    assert len(_Heating().run(1).course) == 10
    slow = _Heating()
    slow.now_ns = 200 * _NS

    found = slow.run(0.02)

    assert [point.p50_ns for point in found.course] == [15 * _MS] * 10
