"""Which plots a page shows: thinned without losing what matters, INVALID where a figure may not be quoted."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import pytest

from tests.host.benchmarks import measured, rich_runs
from tflotilla.host.benchmarks.rendering import pictures
from tflotilla.shared.contract.benchmark import Verdict

if TYPE_CHECKING:
    from tflotilla.host.benchmarks.results import BoardRun

INVALID = Verdict(valid=False, reasons=("too warm",))


def test_scaling_is_how_many_times_faster_than_with_the_fewest_threads() -> None:
    cells = [measured.cell((median,) * 20, threads=n) for n, median in ((4, 3_000), (1, 9_000), (2, 4_500))]

    (series,) = pictures.scaling(cells)

    assert (series.name, series.x, series.y) == ("litert", (1.0, 2.0, 4.0), (1.0, 2.0, 3.0))


def test_one_number_of_threads_or_no_time_at_all_scales_nothing() -> None:
    none = [measured.cell((0,) * 19 + (1,), threads=n) for n in (1, 2)]

    assert [] == pictures.scaling([measured.cell((5,) * 20)])
    assert [] == pictures.scaling(none)


def test_thinning_keeps_the_slowest_runs_and_their_order() -> None:
    latencies = [1_000] * 10_000
    latencies[1234], latencies[9999] = 90_000, 80_000

    places = pictures._thinned(latencies, 500)

    assert len(places) <= 500
    assert places == sorted(set(places))
    assert {0, 1234, 9999} <= set(places)
    assert pictures._thinned(latencies[:500], 500) == list(range(500))


@pytest.mark.parametrize("count", [1, 2, 239, 240, 241, 5000])
def test_steps_are_spread_evenly_from_the_first_to_the_last(count: int) -> None:
    steps = pictures._evenly(count, 240)

    assert (steps[0], steps[-1]) == (0, count - 1)
    assert len(steps) == min(count, 240)


def test_a_bar_that_may_not_be_quoted_is_hatched() -> None:
    good = measured.board_run([rich_runs.cell(1, rich_runs.measurement())])
    wrong = dataclasses.replace(rich_runs.measurement(), verdict=INVALID)
    bad = measured.board_run([rich_runs.cell(1, wrong)], board="pi-2")

    def hatches(*boards: BoardRun) -> int:
        (picture,) = pictures.of_fleet(measured.run(*boards))
        return picture.plot.svg().count("url(#")

    assert hatches(good, bad) == hatches(good, good) + 1
    assert pictures.of_fleet(measured.run(good)) == ()


def test_a_cell_without_a_thermometer_has_a_course_without_temperature() -> None:
    cold = measured.cell(rich_runs.latencies(70, 1_000_000))
    warm = dataclasses.replace(cold, measurement=rich_runs.measurement(70))

    assert "°C" not in pictures.of_cell(cold)[0].plot.svg()
    assert "°C" in pictures.of_cell(warm)[0].plot.svg()
