"""Which plots a run's page shows, as values: a run in, named plots out.

Rules: what may not be quoted is drawn too, and its name says INVALID; no plot has more points than an eye can tell
apart; a page of very many cells shows those of the best ones, and says so. What it does NOT do: draw (`models.plots`).
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tflotilla.host.benchmarks.rendering import ranking, words
from tflotilla.host.models import measurement_plots, plots

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tflotilla.host.benchmarks.results import BoardRun, Run
    from tflotilla.shared.contract.benchmark import BenchmarkCell, Measurement
    from tflotilla.shared.contract.benchmark import BoardReading as Reading

#: Lines in one plot: as many as there are colours.
MOST_LINES = len(plots.COLOURS)
_MOST_POINTS = 240
_MOST_DOTS = 500
#: Boards that have plots of their own, or a bar among the others.
MOST_BOARDS = 6
_MOST_BARS = 60
_MS = words.NS_PER["ms"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A plot and what a reader must know of it."""

    plot: plots.Plot
    caption: str


def of_fleet(run: Run) -> tuple[Picture, ...]:
    """Return the plot that holds boards and models against each other; nothing where there is one of each."""
    best = [(board, cells[0]) for board in run.boards if (cells := ranking.best_first(board))][:_MOST_BARS]
    if len(best) < 2:  # noqa: PLR2004 - several
        return ()
    values = [cell.measurement.latency.median_ns if cell.measurement is not None else 0 for _, cell in best]
    unit = words.unit_of(values)
    plot = plots.bars(
        labels=[words.subject(board) for board, _ in best],
        values=[words.real(value) / words.NS_PER[unit] for value in values],
        title="The best of each board and model",
        value_label=f"median, {unit} (hatched: INVALID)",
        highlight=[n for n, (_, cell) in enumerate(best) if words.standing(cell) != "VALID"],
    )
    return (Picture(plot=plot, caption="Each with the configuration that is best there."),)


def of_board(board: BoardRun) -> tuple[Picture, ...]:
    """Return the plots that hold a board's cells against each other."""
    cells = ranking.best_first(board)
    found = []
    if cells:
        found.append(_spread(board, cells[:MOST_LINES], left_out=len(cells) - MOST_LINES))
    scaled = scaling(board.cells)
    if scaled:
        invalid = any(words.standing(cell) == "INVALID" for cell in cells)
        found.append(
            Picture(
                plot=measurement_plots.scaling(
                    series=scaled[:MOST_LINES], title=f"What threads bring: {words.subject(board)}"
                ),
                caption="Median latency with the fewest threads, divided by that with more."
                + (" Some of the cells are INVALID, see the table." if invalid else ""),
            )
        )
    return tuple(found)


def of_cell(cell: BenchmarkCell) -> tuple[Picture, ...]:
    """Return the plots of one cell: the course of its runs, of its sustained pass, of the rates that were tried."""
    measurement = cell.measurement
    if measurement is None:
        return ()
    name = words.configuration(cell, short=True)
    found = []
    if measurement.latencies_ns:
        found.append(_course(name, measurement))
    if measurement.sustained is not None and measurement.sustained.course:
        found.append(_sustained(name, measurement))
    if measurement.trials:
        found.append(_trials(name, measurement))
    if measurement.stages:
        found.append(_stages(name, measurement))
    return tuple(found)


def scaling(cells: Sequence[BenchmarkCell]) -> list[plots.Series]:
    """Return for each way to run the model that was tried with several numbers of threads how much faster each is."""
    groups: dict[str, dict[int, float]] = {}
    for cell in cells:
        if cell.measurement is None or cell.measurement.latency.median_ns <= 0:
            continue
        ways = (words.runtime(cell, short=True), *words.choices(cell.configuration)[1:])
        threads = cell.configuration.inference.num_threads
        groups.setdefault(", ".join(ways), {})[threads] = words.real(cell.measurement.latency.median_ns)
    return [
        plots.Series(
            name=name,
            x=tuple(float(threads) for threads in sorted(medians)),
            y=tuple(medians[min(medians)] / medians[threads] for threads in sorted(medians)),
        )
        for name, medians in sorted(groups.items())
        if len(medians) > 1
    ]


def _line_name(cell: BenchmarkCell) -> str:
    invalid = "" if words.standing(cell) == "VALID" else "INVALID: "
    return invalid + words.configuration(cell, short=True)


def _spread(board: BoardRun, cells: Sequence[BenchmarkCell], *, left_out: int) -> Picture:
    series = []
    unit = words.unit_of(cell.measurement.invoke.median_ns for cell in cells if cell.measurement is not None)
    for cell in cells:
        if cell.measurement is None or not cell.measurement.latencies_ns:
            continue
        ordered = sorted(words.real(value) / words.NS_PER[unit] for value in cell.measurement.latencies_ns)
        steps = _evenly(len(ordered), _MOST_POINTS)
        series.append(
            plots.Series(
                name=_line_name(cell),
                x=tuple(ordered[step] for step in steps),
                y=tuple((step + 1) / len(ordered) for step in steps),
            )
        )
    caption = "The share of invokes that took at most so long."
    if left_out > 0:
        caption += f" The best {len(cells)} cells; {left_out} others are in the table."
    plot = measurement_plots.cumulative(
        series=series, title=f"How latency is spread: {words.subject(board)}", x_label=f"latency of invoke, {unit}"
    )
    return Picture(plot=plot, caption=caption)


def _evenly(count: int, most: int) -> list[int]:
    """Return at most so many places below `count`, the first and the last among them."""
    if count <= most:
        return list(range(count))
    return [round(step * (count - 1) / (most - 1)) for step in range(most)]


def _course(name: str, measurement: Measurement) -> Picture:
    """Show single runs over time. They are spread evenly over the timed seconds: a run's own moment is not reported."""
    latencies = measurement.latencies_ns
    seconds = words.real(measurement.seconds)
    places = _thinned(latencies, _MOST_DOTS)
    unit = words.unit_of([measurement.invoke.median_ns])
    runs = plots.Series(
        name="one invoke",
        x=tuple(seconds * (place + 0.5) / len(latencies) for place in places),
        y=tuple(words.real(latencies[place]) / words.NS_PER[unit] for place in places),
    )
    conditions = measurement.conditions
    readings = (conditions.before, *conditions.during, conditions.after)
    temperature = _series("temperature", readings, "temperature_c", scale=1.0)
    other, label = ([temperature], "°C") if temperature.x else ([], "")
    return Picture(
        plot=measurement_plots.over_time(
            series=[runs],
            title=f"Over time: {name}",
            y_label=f"latency of invoke, {unit}",
            other=other,
            other_label=label,
            dots=True,
        ),
        caption="Runs in their order, the slowest of each moment kept." if len(places) < len(latencies) else "",
    )


def _thinned(latencies: Sequence[int], most: int) -> list[int]:
    """Return places of at most `most` runs in order: of each stretch the slowest and the first."""
    if len(latencies) <= most:
        return list(range(len(latencies)))
    stretches = most // 2
    edges = [len(latencies) * step // stretches for step in range(stretches + 1)]
    picked: set[int] = set()
    for begin, end in itertools.pairwise(edges):
        picked |= {begin, max(range(begin, end), key=latencies.__getitem__)}
    return sorted(picked)


def _series(name: str, readings: Sequence[Reading], attribute: str, *, scale: float) -> plots.Series:
    pairs = [
        (words.real(reading.at_s), words.real(value) * scale)
        for reading in readings
        if (value := getattr(reading, attribute)) is not None
    ]
    return plots.Series(name=name, x=tuple(x for x, _ in pairs), y=tuple(y for _, y in pairs))


def _sustained(name: str, measurement: Measurement) -> Picture:
    found = measurement.sustained
    course = found.course if found is not None else ()
    places = _evenly(len(course), _MOST_POINTS)
    shown = [course[place] for place in places]
    times = tuple(words.real(point.at_s) for point in shown)
    scale = words.NS_PER[unit := words.unit_of(point.p50_ns for point in shown)]
    latency = plots.Series(name="p50", x=times, y=tuple(words.real(point.p50_ns) / scale for point in shown))
    warm = [(words.real(p.at_s), words.real(p.temperature_c)) for p in shown if p.temperature_c is not None]
    other = [plots.Series(name="temperature", x=tuple(x for x, _ in warm), y=tuple(y for _, y in warm))] if warm else []
    marks = (
        [
            measurement_plots.Mark(name="cold", y=words.real(found.cold_p50_ns) / scale),
            measurement_plots.Mark(name="steady", y=words.real(found.steady_p50_ns) / scale),
        ]
        if found is not None
        else []
    )
    plot = measurement_plots.over_time(
        series=[latency],
        title=f"Sustained: {name}",
        y_label=f"p50 of invoke, {unit}",
        other=other,
        other_label="°C" if other else "",
        marks=marks,
    )
    return Picture(plot=plot, caption="What heat does: the median latency of each part of the run.")


def _trials(name: str, measurement: Measurement) -> Picture:
    kept = [trial for trial in measurement.trials if trial.kept]
    points = []
    for trial in measurement.trials:
        figure = words.found(trial.latency, 99)
        if figure is None or figure.value_ns is None:
            continue
        # What is held against the bound is not the figure but what is sure of it.
        sure = figure.value_ns if figure.bound_ns is None else figure.bound_ns
        best = bool(kept) and trial.kept and trial.qps == max(each.qps for each in kept)
        points.append(
            plots.Point(
                label="",
                x=words.real(trial.qps),
                y=words.real(sure) / _MS,
                group="bound kept" if trial.kept else "not kept",
                highlight=best,
            )
        )
    plot = plots.scatter(
        points=points,
        title=f"Rates that were tried: {name}",
        x_label="queries/s",
        y_label="p99, at most (99 % sure), ms",
        log_y=True,
    )
    return Picture(plot=plot, caption="Latency is from the scheduled arrival. The highest rate that kept has a ring.")


def _stages(name: str, measurement: Measurement) -> Picture:
    stages = [each for each in measurement.stages if each.stage != "end_to_end"]
    unit = words.unit_of(each.latency.median_ns for each in stages)
    plot = plots.bars(
        labels=[each.stage for each in stages],
        values=[words.real(each.latency.median_ns) / words.NS_PER[unit] for each in stages],
        title=f"Stages: {name}",
        value_label=f"median, {unit}",
        highlight=[number for number, each in enumerate(stages) if each.stage == "invoke"],
    )
    return Picture(plot=plot, caption="From the encoded picture to the report's bytes; invoke is hatched.")
