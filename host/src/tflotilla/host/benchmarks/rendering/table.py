"""A run as tables for a terminal: values first (`tables`), and as plain text for a file or a pipe (`text`).

Rules: the summary fits 80 columns where names are short; beside a percentile stands its bound at 99 % confidence; one
that too few runs support is `*`, and a line below says how many are lacking; every reason for INVALID and ERROR is a
line of its own. What it does NOT do: colours, or anything a terminal might obey.
"""

from __future__ import annotations

import dataclasses
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tflotilla.host.benchmarks.rendering import board_state, foreign, operators, ranking, words
from tflotilla.shared.contract.benchmark import Measurement

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tflotilla.host.benchmarks.rendering.words import Unit
    from tflotilla.host.benchmarks.results import BoardRun, Run
    from tflotilla.shared.contract.benchmark import BenchmarkCell, Distribution, Method, OperatorProfile

#: Stands where a percentile would, when too few runs support it.
MARK = "*"
_MOST_OPERATORS = 30
_MOST_NAMED = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """One table; the columns named in `right` are figures. `notes` are lines below it."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    right: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Column:
    head: str
    spell: Callable[[Measurement], str]


def tables(run: Run, *, details: bool = False) -> tuple[Table, ...]:
    """Return the summary (a table for each method and model), with `details` also everything known of each cell."""
    methods = list(dict.fromkeys(board.request.method for board in run.boards))
    groups = dict.fromkeys((board.request.method, board.model) for board in run.boards)
    found = [_summary(run, method, model, several=len(methods) > 1) for method, model in groups]
    found += matrix(run)
    if details:
        for board in run.boards:
            found += [table for cell in board.cells for table in _details(board, cell)]
            if board.identity is not None:
                found.append(_properties(f"{words.name(board.board)}: what was measured", board_state.identity(board)))
        found += [_properties("how it was measured", board_state.method(method)) for method in methods]
    return (*found, *_foreign(run, details=details))


def asked_for(run: Run) -> tuple[Table, ...]:
    """Return what a run has only when somebody asked for it: stages, the sustained course, operators."""
    return tuple(table for board in run.boards for cell in board.cells for table in _asked_for(board, cell))


def text(run: Run, *, details: bool = True) -> str:
    """Return all tables as plain text, nothing cut and nothing folded."""
    parts = [f"{words.title(run)}, {words.when(run.created)}\n{words.tally(run)}\n"]
    for table in tables(run, details=details):
        lines = _aligned(table)
        parts.append("\n".join([table.title, *lines, *table.notes]) + "\n")
    return "\n".join(parts)


def heading(run: Run) -> str:
    """Say what a run is in one line: its name, when, by whom, and how many cells may be quoted."""
    tool = "" if run.tool == "tflotilla" else f", measured by {run.tool}"
    return f"{words.title(run)}, {words.when(run.created)}{tool}; {words.tally(run)}"


def _aligned(table: Table) -> Iterator[str]:
    lines = [table.columns, *table.rows]
    widths = [max(_width(line[n]) for line in lines) for n in range(len(table.columns))]
    for line in lines:
        cells = (
            " " * (width - _width(cell)) + cell if column in table.right else cell + " " * (width - _width(cell))
            for cell, width, column in zip(line, widths, table.columns, strict=True)
        )
        yield "  ".join(cells).rstrip()


def _width(text: str) -> int:
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def _percentile(wanted: float, unit: Unit) -> _Column:
    def spell(measurement: Measurement) -> str:
        return percentile(measurement.latency, wanted, unit, bound=True)

    return _Column(head=f"p{wanted:g}, {unit}", spell=spell)


def percentile(latency: Distribution, wanted: float, unit: Unit, *, bound: bool) -> str:
    """Spell a percentile, with its bound if asked; `*` where runs are lacking, `-` where nobody gave it."""
    figure = words.found(latency, wanted)
    if figure is None:
        return words.NOTHING
    if figure.value_ns is None:
        return MARK
    shown = words.figure(figure.value_ns, unit)
    if bound and figure.bound_ns is not None:
        shown += f" {words.bound_sign(figure)}{words.figure(figure.bound_ns, unit)}"
    return shown


def _columns(method: Method, unit: Unit) -> tuple[_Column, ...]:
    """Return what a scenario is about."""
    throughput = _Column(head="per s", spell=lambda found: words.number(found.samples_per_second))
    if method.scenario == "single_stream":
        return (_percentile(50, unit), _percentile(90, unit), _percentile(99, unit))
    if method.scenario == "multi_stream":
        return (_percentile(50, unit), _percentile(99, unit), throughput)
    if method.scenario == "offline":
        return (throughput, _percentile(50, unit))
    rate = _Column(head="QPS", spell=lambda found: words.NOTHING if found.qps is None else words.number(found.qps))
    return (rate, _percentile(50, unit), _percentile(99, unit))


def wanted(method: Method) -> tuple[float, ...]:
    """Return the percentiles that the summary of a scenario shows."""
    return (50.0, 90.0, 99.0) if method.scenario == "single_stream" else (50.0, 99.0)


def matrix(run: Run) -> list[Table]:
    """Return what each board does best with each model; nothing unless there are several of both."""
    boards = list(dict.fromkeys(board.board for board in run.boards))
    models = list(dict.fromkeys(board.model for board in run.boards))
    if len(boards) < 2 or len(models) < 2:  # noqa: PLR2004 - several
        return []
    best: dict[tuple[str, str], str] = {}
    for part in run.boards:
        best.setdefault((part.board, part.model), _best(part))
    return [
        Table(
            title="the best of each board with each model",
            columns=("board", *(words.name(model) for model in models)),
            rows=tuple(
                (words.name(board), *(best.get((board, model), words.NOTHING) for model in models)) for board in boards
            ),
        )
    ]


def _best(board: BoardRun) -> str:
    cells = ranking.best_first(board)
    if not cells:
        return "ERROR" if board.cells or board.error is not None else words.NOTHING
    measurement = cells[0].measurement
    if measurement is None or words.standing(cells[0]) != "VALID":
        return "INVALID"
    figure = ranking.figure(board.request.method, measurement)
    right = words.short_correctness(measurement.correctness)
    return f"{figure}, {words.configuration(cells[0], short=True)} ({right})"


def _foreign(run: Run, *, details: bool) -> Iterator[Table]:
    if not run.foreign:
        return
    yield Table(
        title=f"measured by {run.tool}",
        columns=foreign.COLUMNS,
        rows=tuple(foreign.row(each) for each in run.foreign),
        right=foreign.FIGURES,
        notes=(foreign.NOTE,),
    )
    for each in run.foreign if details else ():
        name = f"{words.name(each.model)}, {foreign.choices(each)}"
        yield _properties(name, foreign.figures(each))
        if each.profile is not None:
            yield from profile_tables(f"{name}: ", each.profile)


def _summary(run: Run, method: Method, model: str, *, several: bool) -> Table:
    boards = [board for board in run.boards if (board.request.method, board.model) == (method, model)]
    many = len({board.board for board in run.boards}) > 1
    measured = [cell.measurement for board in boards for cell in board.cells if cell.measurement is not None]
    columns = _columns(method, words.unit_of(found.latency.median_ns for found in measured))
    subject = [words.name(part) for part in (() if many else (boards[0].board,)) + ((model,) if model else ())]
    title = f"{', '.join(subject)} ({words.SCENARIOS[method.scenario]})".strip()
    if several:
        title += f", seed {method.seed}, at least {method.min_runs} runs"
    rows: list[tuple[str, ...]] = []
    notes: list[str] = []
    for board in boards:
        head = (words.name(board.board),) if many else ()
        rows += [(*head, *_row(cell, columns)) for cell in board.cells]
        notes += [" ".join((*head, line)) for line in gathered(board)]
        if disturbed := words.worst_serving(board):
            notes.append(f"{words.name(board.board)}: {disturbed}")
        if board.error is not None:
            notes.append(f"{words.subject(board)}: {words.sentence(board.error)}")
    heads = tuple(column.head for column in columns)
    return Table(
        title=title,
        columns=(*(("board",) if many else ()), "with", *heads, "right", "verdict"),
        rows=tuple(rows),
        right=(*heads, "right"),
        notes=tuple(notes),
    )


def _row(cell: BenchmarkCell, columns: Sequence[_Column]) -> tuple[str, ...]:
    measurement = cell.measurement
    with_what = words.configuration(cell, short=True)
    standing = words.standing(cell)
    if measurement is None:
        return (with_what, *(words.NOTHING for _ in columns), words.NOTHING, standing)
    figures = (column.spell(measurement) for column in columns)
    return (with_what, *figures, words.short_correctness(measurement.correctness), standing)


def gathered(board: BoardRun) -> Iterator[str]:
    """Yield every line about a board's cells once, with the cells that it is about."""
    about: dict[str, list[str]] = {}
    for cell in board.cells:
        for line in _notes(cell, board.request.method):
            about.setdefault(line, []).append(words.configuration(cell, short=True))
    for line, cells in about.items():
        if len(cells) == len(board.cells) > 1:
            yield f"all {len(cells)}: {line}"
        elif len(cells) > _MOST_NAMED:
            yield f"{'; '.join(cells[:_MOST_NAMED])} and {len(cells) - _MOST_NAMED} more: {line}"
        else:
            yield f"{'; '.join(cells)}: {line}"


def _notes(cell: BenchmarkCell, method: Method) -> Iterator[str]:
    standing = words.standing(cell)
    for reason in words.reasons(cell):
        yield f"{standing}: {reason}"
    lacking = "" if cell.measurement is None else words.shortages(cell.measurement.latency, wanted(method))
    if lacking:
        yield f"{MARK} {lacking}"
    yield from words.remarks(cell)


def _properties(title: str, rows: Sequence[tuple[str, str]]) -> Table:
    return Table(title=title, columns=("what", "figure"), rows=tuple(rows))


def _details(board: BoardRun, cell: BenchmarkCell) -> Iterator[Table]:
    name = f"{words.subject(board)}, {words.configuration(cell, short=True)}"
    measurement = cell.measurement
    if measurement is None:
        return
    rows = [
        ("verdict", "; ".join((words.standing(cell), *words.reasons(cell)))),
        ("answers", words.correctness(measurement.correctness)),
    ]
    if delegation := words.delegation(cell):
        rows.append(("nodes", delegation))
    if cell.serving is not None:
        rows.append(("the model that serves, meanwhile", words.serving(cell.serving)))
    yield _properties(name, (*rows, *board_state.figures(measurement)))
    yield percentiles(f"{name}: latency", measurement.latency)
    if measurement.invoke != measurement.latency:
        yield percentiles(f"{name}: invoke alone", measurement.invoke)
    if conditions := board_state.conditions(measurement.conditions):
        yield Table(title=f"{name}: the board", columns=("what", "before", "during", "after"), rows=conditions)
    if others := board_state.others(measurement.conditions):
        yield Table(title=f"{name}: other processes", columns=("process", "CPU"), rows=others, right=("CPU",))
    yield from passes(f"{name}: ", measurement)
    if measurement.profile is not None:
        yield from profile_tables(f"{name}: ", measurement.profile)


def _asked_for(board: BoardRun, cell: BenchmarkCell) -> Iterator[Table]:
    if cell.measurement is None:
        return
    prefix = f"{words.subject(board)}, {words.configuration(cell, short=True)}: "
    # The rates that were tried only lead to the figure that stands above.
    yield from passes(prefix, dataclasses.replace(cell.measurement, trials=()))
    if cell.measurement.profile is not None:
        yield from profile_tables(prefix, cell.measurement.profile)


def percentiles(title: str, latency: Distribution) -> Table:
    """Return a distribution as a table of percentiles, each with what is sure of it."""
    rows = [
        (
            words.percent_name(figure.percent),
            words.shortage(latency, figure) if figure.value_ns is None else words.duration(figure.value_ns),
            "" if figure.bound_ns is None else f"{words.bound_sign(figure)} {words.duration(figure.bound_ns)}",
        )
        for figure in latency.percentiles
    ]
    rows += [
        ("min, max", f"{words.duration(latency.min_ns)}, {words.duration(latency.max_ns)}", ""),
        ("mean ± std", f"{words.duration(latency.mean_ns)} ± {words.duration(latency.std_ns)}", ""),
        ("median ± MAD", f"{words.duration(latency.median_ns)} ± {words.duration(latency.mad_ns)}", ""),
    ]
    return Table(title=title, columns=("of the latency", "figure", "99 % sure"), rows=tuple(rows))


def passes(prefix: str, measurement: Measurement) -> Iterator[Table]:
    """Return the tables of the passes beside the timed one: stages, rates, sustained."""
    if measurement.stages:
        unit = words.unit_of(each.latency.median_ns for each in measurement.stages)
        heads = (f"p50, {unit}", f"p90, {unit}", f"mean, {unit}")
        yield Table(
            title=f"{prefix}stages",
            columns=("stage", *heads),
            rows=tuple(
                (
                    each.stage,
                    percentile(each.latency, 50, unit, bound=True),
                    percentile(each.latency, 90, unit, bound=True),
                    words.figure(each.latency.mean_ns, unit),
                )
                for each in measurement.stages
            ),
            right=heads,
        )
    if measurement.trials:
        yield Table(
            title=f"{prefix}rates that were tried",
            columns=("QPS", "p50, ms", "p99, ms", "bound"),
            rows=tuple(
                (
                    words.number(each.qps),
                    percentile(each.latency, 50, "ms", bound=True),
                    percentile(each.latency, 99, "ms", bound=True),
                    "kept" if each.kept else "not kept",
                )
                for each in measurement.trials
            ),
            right=("QPS", "p50, ms", "p99, ms"),
        )
    if measurement.sustained is not None:
        found = measurement.sustained
        yield _properties(
            f"{prefix}sustained for {words.number(found.seconds)} s",
            (
                ("cold p50", words.duration(found.cold_p50_ns)),
                ("steady p50", words.duration(found.steady_p50_ns)),
                *(
                    ("steady against cold", slower)
                    for slower in [slowdown(found.cold_p50_ns, found.steady_p50_ns)]
                    if slower
                ),
                *board_state.heat(found),
            ),
        )


def profile_tables(prefix: str, profile: OperatorProfile, *, most: int | None = _MOST_OPERATORS) -> Iterator[Table]:
    """Return the operators (at most so many) and their sums by node type."""
    more = 0 if most is None else len(profile.operators) - most
    yield Table(
        title=f"{prefix}operators",
        columns=operators.COLUMNS,
        rows=operators.rows(profile)[:most],
        right=operators.FIGURES,
        notes=(operators.how(profile), *((f"and {more} more operators",) if more > 0 else ())),
    )
    yield Table(
        title=f"{prefix}by node type",
        columns=operators.SUMMARY_COLUMNS,
        rows=operators.summary(profile),
        right=operators.SUMMARY_FIGURES,
    )


def slowdown(cold_ns: int, steady_ns: int) -> str:
    """Say how much slower steady is than cold; nothing when cold is no time at all."""
    return "" if cold_ns <= 0 else words.off(steady_ns, cold_ns)
