"""The fleet in a terminal: a table that fits 80 columns and is redrawn in place, or plain lines where nothing can be.

It does NOT read clocks or messages: whoever calls says what time it is and which view to draw.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from tflotilla.host.pages.words import duration, printable
from tflotilla.shared.contract.deployment import DeploymentState

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rich.console import RenderableType

    from tflotilla.host.telemetry.fleet_view import BoardView, FleetView
    from tflotilla.shared.contract import messages
    from tflotilla.shared.contract.benchmark import BenchmarkReport

_SHORT_RUNTIME = {"tflite-runtime": "tflite", "ai-edge-litert": "litert"}
_NOTHING = "-"
#: A board that is online and silent for that long is shown as silent.
SILENT_S = 15.0


def status(board: BoardView, now: float) -> str:
    """Return one word for a board: what it says of itself, or that it stopped saying anything."""
    if board.availability == "offline":
        return "offline"
    if board.deployment is not None and not board.deployment.state.final:
        return board.deployment.state.value
    if board.state is not None and board.state.worker == "failing":
        return "failing"
    if now - board.seen > SILENT_S:
        return "silent"
    return "online" if board.availability == "online" else "unknown"


def _model(board: BoardView) -> str:
    serving = None if board.state is None else board.state.serving
    return _NOTHING if serving is None else f"{serving.name}-{serving.version}"


def _runtime(board: BoardView) -> str:
    if board.state is None or board.state.runtime is None:
        return _NOTHING
    name = board.state.runtime.name
    return f"{_SHORT_RUNTIME.get(name, name)} x{board.state.num_threads}"


def _latency(board: BoardView) -> tuple[str, str]:
    total = None if board.metrics is None else board.metrics.stages.get("total")
    if total is None or total.count == 0:
        return _NOTHING, _NOTHING
    return duration(total.p50_ns), duration(total.p99_ns)


def _rate(board: BoardView) -> str:
    rate = board.inferences_per_second
    return _NOTHING if rate is None else f"{rate:.1f}" if rate < 100 else f"{rate:.0f}"  # noqa: PLR2004 - three digits


def _last(board: BoardView) -> str:
    if not board.predictions or not board.predictions[0].top:
        return _NOTHING
    best = board.predictions[0].top[0]
    return f"{printable(best.label, 9)} {best.score:.2f}"


#: Title, justification and the most characters that are shown.
_COLUMNS = (
    ("board", "left", 16),
    ("status", "left", 12),
    ("model", "left", 18),
    ("runtime", "left", 12),
    ("inf/s", "right", 6),
    ("p50", "right", 8),
    ("p99", "right", 8),
    ("last", "left", 14),
)
_COLOURS = {"online": "green", "offline": "red", "failing": "red", "silent": "yellow", "unknown": "yellow"}


def table(view: FleetView, *, now: float) -> RenderableType:
    """Return the fleet as a table of rich, with a footer of what was lost or not understood."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    # No lines and one space between columns: eight columns are much for eighty characters.
    drawn = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold underline")
    for title, justify, _ in _COLUMNS:
        drawn.add_column(title, justify="right" if justify == "right" else "left", overflow="ellipsis", no_wrap=True)
    for name in sorted(view.boards):
        board = view.boards[name]
        word = status(board, now)
        cells = [name, word, _model(board), _runtime(board), _rate(board), *_latency(board), _last(board)]
        styles = {1: _COLOURS.get(word, "cyan")}
        drawn.add_row(
            *(
                Text(printable(cell, _COLUMNS[column][2]), style=styles.get(column, ""))
                for column, cell in enumerate(cells)
            )
        )
    return Group(drawn, Text(footer(view), style="dim"))


def footer(view: FleetView) -> str:
    """Return one line: how much arrived, and how much of it was wrong."""
    boards = view.boards.values()
    online = sum(1 for board in boards if board.availability == "online")
    parts = [
        f"{online} of {len(boards)} boards online" if boards else "no board said anything yet",
        f"{sum(board.inferences for board in boards)} inferences",
        f"{sum(board.messages for board in boards)} messages",
    ]
    wrong = {
        "missing": sum(board.missing for board in boards),
        "repeated": sum(board.duplicates for board in boards),
        "not understood": view.garbage,
        "foreign": view.foreign,
    }
    parts += [f"{count} {what}" for what, count in wrong.items() if count]
    return ", ".join(parts)


def lines(board: str, message: messages.Message[Any]) -> Iterable[str]:
    """Yield a plain line for what one message says; nothing for what would only be noise."""
    from tflotilla.shared.contract import messages as contract
    from tflotilla.shared.contract.benchmark import BenchmarkReport
    from tflotilla.shared.contract.deployment import DeploymentStatus

    at = time.strftime("%H:%M:%S", time.localtime(message.time)) if 0 <= message.time < 1 << 40 else "--:--:--"
    head = f"{at}  {board:<16}"
    body = message.body
    match body:
        case contract.Availability():
            yield f"{head} {body.status}"
        case contract.Metrics():
            yield f"{head} {_metrics_line(body)}"
        case contract.State():
            serving = "no model" if body.serving is None else f"{body.serving.name}-{body.serving.version}"
            runtime = "" if body.runtime is None else f" on {body.runtime} with {body.num_threads} threads"
            problem = "" if body.problem is None else f": {printable(body.problem, 200)}"
            yield f"{head} {printable(serving)}{printable(runtime, 60)}, worker {body.worker}{problem}"
        case DeploymentStatus():
            detail = body.error or body.detail
            detail = f": {printable(detail, 200)}" if detail else ""
            yield f"{head} deployment of {printable(body.title)} {DeploymentState(body.state).value}{detail}"
        case contract.Event():
            yield f"{head} {body.level}: {printable(body.message, 200)}"
        case BenchmarkReport():
            yield f"{head} {_benchmark(body)}"
        case _:
            return


def _benchmark(body: BenchmarkReport) -> str:
    """Return one report as words; the figures are `tflotilla benchmark`'s to show."""
    if body.error is not None:
        return f"benchmark over: {printable(body.error, 200)}"
    said = f"benchmark: configuration {body.position} of {body.total}"
    cell = body.cell
    if cell is None:
        return said
    if cell.error is not None:
        return f"{said} has no figures: {printable(cell.error.message, 200)}"
    if cell.measurement is None:
        return said
    runtime = "" if cell.runtime is None else f" {printable(cell.runtime.name)}"
    return f"{said} measured:{runtime} p50 {duration(cell.measurement.latency.median_ns)}"


def _metrics_line(body: messages.Metrics) -> str:
    total = body.stages.get("total")
    rate = body.count / body.window_s if body.window_s > 0 else 0.0
    latency = f", p50 {duration(total.p50_ns)}, p99 {duration(total.p99_ns)}" if total and total.count else ""
    best = max(body.labels, key=lambda label: label.count, default=None)
    label = f", mostly {printable(best.label)}" if best else ""
    errors = f", {body.errors} errors" if body.errors else ""
    unreadable = f", {body.unreadable} unreadable inputs" if body.unreadable else ""
    return f"{rate:.1f} inferences/s{latency}{label}{errors}{unreadable}"
