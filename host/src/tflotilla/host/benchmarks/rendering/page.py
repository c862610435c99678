"""A run as one HTML page: no scripts, nothing loaded from elsewhere, readable on a phone, in the dark and on paper.

Rules: Jinja escapes every word; plots are SVGs inside the page. What it does NOT do: choose words (`words`,
`board_state`) or plots (`pictures`).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tflotilla.host.benchmarks.rendering import board_state, foreign, operators, pictures, ranking, table, words
from tflotilla.host.benchmarks.results import BoardRun
from tflotilla.host.pages import jinja
from tflotilla.shared.contract import codec
from tflotilla.shared.contract.benchmark import BenchmarkCell

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tflotilla.host.benchmarks.rendering.pictures import Picture
    from tflotilla.host.benchmarks.results import Run
    from tflotilla.shared.contract.benchmark import Distribution, OperatorProfile

#: More cells than that are in the tables, and have no plots of their own.
MOST_PICTURED = 8
_MOST_TEXT_LINES = 400
_SUMMARY_PERCENTILES = (50.0, 90.0, 99.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shown:
    """One cell, with where it stands on the page."""

    anchor: str
    board: BoardRun
    cell: BenchmarkCell
    pictured: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One percentile in a table: a figure with its bound, or why there is none."""

    value: str
    bound: str = ""
    lacking: str = ""


def render(run: Run) -> str:
    """Return the page."""
    environment = jinja.environment(Path(__file__).parent / "templates")
    environment.globals |= {
        "words": words,
        "state": board_state,
        "table": table,
        "operators": operators,
        "foreign": foreign,
        "percentile": percentile,
        "raw_lines": raw_lines,
        "request_of": request_of,
        "drawn": drawn,
        "most_boards": pictures.MOST_BOARDS,
        "of_fleet": pictures.of_fleet,
        "of_board": pictures.of_board,
        "of_cell": pictures.of_cell,
    }
    shown = _shown(run)
    return environment.get_template("benchmark.html.j2").render(
        run=run,
        shown=shown,
        facts=facts(run),
        percentiles=_SUMMARY_PERCENTILES,
        unpictured=sum(1 for each in shown if each.cell.measurement is not None and not each.pictured),
        methods=list(dict.fromkeys(board.request.method for board in run.boards)),
    )


def _shown(run: Run) -> list[_Shown]:
    pictured: set[tuple[int, int]] = set()
    for place in _by_turns(run):
        if len(pictured) == MOST_PICTURED:
            break
        pictured.add(place)
    return [
        _Shown(anchor=f"cell-{b}-{c}", board=board, cell=cell, pictured=(b, c) in pictured)
        for b, board in enumerate(run.boards)
        for c, cell in enumerate(board.cells)
    ]


def _by_turns(run: Run) -> list[tuple[int, int]]:
    """Return the cells with figures, the best of every board before the second of any."""
    places = []
    for b, board in enumerate(run.boards):
        order = {id(cell): rank for rank, cell in enumerate(ranking.best_first(board))}
        places += [(order[id(cell)], b, c) for c, cell in enumerate(board.cells) if id(cell) in order]
    return [(b, c) for _, b, c in sorted(places)]


def facts(run: Run) -> list[str]:
    """Return what a reader wants to know first, in sentences; only of figures that may be quoted. Pure."""
    found = [words.tally(run)[0].upper() + words.tally(run)[1:] + "."]
    for board in run.boards:
        valid = [cell for cell in ranking.best_first(board) if words.standing(cell) == "VALID"]
        if not valid:
            if board.cells:
                found.append(f"{words.subject(board)}: no figure may be quoted.")
            continue
        found.append(_best(board, valid))
    return found


def _best(board: BoardRun, valid: Sequence[BenchmarkCell]) -> str:
    method = board.request.method
    claim = words.claim(method)
    measurement, cell = next((each.measurement, each) for each in valid if each.measurement is not None)
    if claim is None:
        said = ranking.figure(method, measurement)
    else:
        figure = percentile(measurement.latency, claim)
        what = words.percent_name(claim)
        said = f"{what}: {figure.lacking}" if figure.lacking else f"{what} {figure.value}"
        said += f" (99 % sure: {figure.bound})" if figure.bound else ""
        if method.scenario == "server" and measurement.qps is not None:
            said += f" at {words.number(measurement.qps)} queries/s"
    word = "Best" if len(valid) > 1 else "Measured"
    right = words.correctness(measurement.correctness)
    return f"{word} on {words.subject(board)}: {words.configuration(cell)}, {said}; answers: {right}."


def percentile(latency: Distribution, wanted: float) -> Figure:
    """Return a percentile as the page shows it."""
    figure = words.found(latency, wanted)
    if figure is None:
        return Figure(value="")
    if figure.value_ns is None:
        return Figure(value="", lacking=words.shortage(latency, figure))
    bound = "" if figure.bound_ns is None else f"{words.bound_sign(figure)} {words.duration(figure.bound_ns)}"
    return Figure(value=words.duration(figure.value_ns), bound=bound)


def drawn(found: Sequence[Picture], name: str) -> list[tuple[str, str]]:
    """Return SVGs with their captions; `name` keeps the ids of one page apart."""
    return [(picture.plot.svg(name=f"{name} {number}"), picture.caption) for number, picture in enumerate(found)]


def raw_lines(profile: OperatorProfile) -> str:
    """Return what a profiler printed that nobody understood, without control characters."""
    lines = (profile.text or "").splitlines()
    kept = [words.cut(line, 400) for line in lines[:_MOST_TEXT_LINES]]
    return "\n".join([*kept, *(["…"] if len(lines) > _MOST_TEXT_LINES else [])])


def request_of(board: BoardRun) -> str:
    """Return what the board was asked, as JSON."""
    return codec.canonical_json(board.request).decode()
