"""Which of a board's cells come first, by what their scenario is about. Pure; it holds no two boards together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tflotilla.host.benchmarks.rendering import words

if TYPE_CHECKING:
    from tflotilla.host.benchmarks.results import BoardRun
    from tflotilla.shared.contract.benchmark import BenchmarkCell, Measurement, Method


def best_first(board: BoardRun) -> list[BenchmarkCell]:
    """Return the cells that have figures, best first: those that may be quoted stand before all others.

    SingleStream and MultiStream go by the median latency per sample, Offline by samples/s, Server by the rate it kept.
    """
    method = board.request.method
    measured = [(cell.measurement, cell) for cell in board.cells if cell.measurement is not None]
    ordered = sorted(
        measured,
        key=lambda pair: (
            words.standing(pair[1]) != "VALID",
            _cost(method, pair[0], pair[1].configuration.batch),
            words.configuration(pair[1]),
        ),
    )
    return [cell for _, cell in ordered]


def figure(method: Method, measurement: Measurement) -> str:
    """Spell what a cell was ranked by."""
    if method.scenario == "offline":
        return f"{words.number(measurement.samples_per_second)} samples/s"
    if method.scenario == "server" and measurement.qps is not None:
        return f"{words.number(measurement.qps)} queries/s"
    return f"p50 {words.duration(measurement.latency.median_ns)}"


def _cost(method: Method, measurement: Measurement, batch: int) -> float:
    if method.scenario == "offline":
        return -words.real(measurement.samples_per_second)
    if method.scenario == "server":
        return -words.real(measurement.qps or 0.0)
    return words.real(measurement.latency.median_ns) / batch
