"""Benchmark answers as rows of text and as JSON; figures that too few runs support are marked. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tflotilla.host.dashboards.terminal import duration, printable
from tflotilla.shared import statistics
from tflotilla.shared.contract import codec

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tflotilla.shared.contract import messages
    from tflotilla.shared.contract.errors import TflotillaError

COLUMNS = ("board", "runtime", "threads", "p50", "p90", "p99", "load", "RSS", "runs", "")
FIGURES = ("threads", "p50", "p90", "p99", "load", "RSS", "runs")
#: Stands behind a percentile that the number of runs does not support at 99 % confidence.
MARK = "*"
_NOTHING = "-"
_PERCENTILES = (50, 90, 99)


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What is printed: rows for `COLUMNS`, and sentences below them."""

    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...]


def report(answers: Mapping[str, messages.BenchmarkReport]) -> Report:
    """Put the boards' answers side by side, fastest configuration first within a board."""
    rows: list[tuple[str, ...]] = []
    notes: list[str] = []
    for board in sorted(answers):
        cells = sorted(answers[board].cells, key=_speed)
        for position, cell in enumerate(cells):
            fastest = position == 0 and len(cells) > 1 and cell.latency is not None
            rows.append(_row(board, cell, remark="fastest" if fastest else ""))
            lacking = shortage(cell)
            if lacking:
                notes.append(f"{MARK} {board}, {_runtime(cell)}, threads {cell.num_threads}: {lacking}")
        if not cells:
            notes.append(f"{board}: has no runtime that was asked for")
    return Report(rows=tuple(rows), notes=tuple(notes))


def shortage(cell: messages.BenchmarkCell) -> str | None:
    """Return `not enough runs for p99: 120 of 662`; None when every percentile is supported.

    The number of runs is MLPerf LoadGen's early stopping, see `shared.statistics.minimum_runs`.
    """
    if cell.latency is None:
        return None
    needed = {percent: statistics.minimum_runs(percent) for percent in _PERCENTILES}
    lacking = [f"p{percent}: {cell.runs} of {runs}" for percent, runs in needed.items() if cell.runs < runs]
    return f"not enough runs for {', '.join(lacking)}" if lacking else None


def document(
    request: messages.BenchmarkRequest,
    answers: Mapping[str, messages.BenchmarkReport],
    failures: Mapping[str, TflotillaError],
) -> dict[str, Any]:
    """Return everything for `--json`: the request, and per board its cells (with shortages) or its error."""
    boards: dict[str, Any] = {}
    for board, answer in answers.items():
        cells = [{**codec.encode(cell), "shortage": shortage(cell)} for cell in sorted(answer.cells, key=_speed)]
        boards[board] = {"model_sha256": answer.model_sha256, "cells": cells, "error": None}
    for board, error in failures.items():
        boards[board] = {"model_sha256": None, "cells": [], "error": str(error)}
    return {"request": codec.encode(request), "boards": boards}


def _speed(cell: messages.BenchmarkCell) -> tuple[float, str, int]:
    return (float("inf") if cell.latency is None else cell.latency.p50_ns, _runtime(cell), cell.num_threads)


def _runtime(cell: messages.BenchmarkCell) -> str:
    return _NOTHING if cell.runtime is None else printable(f"{cell.runtime.name} {cell.runtime.version}")


def _row(board: str, cell: messages.BenchmarkCell, *, remark: str) -> tuple[str, ...]:
    head = (board, _runtime(cell), str(cell.num_threads))
    if cell.latency is None:
        return (*head, *(_NOTHING,) * 6, printable(cell.error or "no figures", 200))
    figures = dict(zip(_PERCENTILES, (cell.latency.p50_ns, cell.latency.p90_ns, cell.latency.p99_ns), strict=True))
    percentiles = (
        duration(value) + ("" if cell.runs >= statistics.minimum_runs(percent) else MARK)
        for percent, value in figures.items()
    )
    load = _NOTHING if cell.load_ns is None else duration(cell.load_ns)
    memory = _NOTHING if cell.peak_rss_bytes is None else f"{cell.peak_rss_bytes / (1 << 20):.0f} MiB"
    remarks = [remark] if remark else []
    if cell.delegate_active is not None:
        remarks.append(printable(cell.delegate_active))
    return (*head, *percentiles, load, memory, str(cell.runs), ", ".join(remarks))
