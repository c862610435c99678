"""The fleet in a terminal: a table that fits 80 columns and is redrawn in place, or plain lines where nothing can be.

It does NOT read clocks or messages: whoever calls says what time it is and which view to draw.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tflotilla.host.dashboards.looking import Looking, ranked
from tflotilla.host.dashboards.web import tiles
from tflotilla.host.pages.words import age, duration, printable
from tflotilla.host.telemetry.fleet_view import FleetView
from tflotilla.host.telemetry.presence import Listening
from tflotilla.shared.contract.deployment import DeploymentState

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rich.console import RenderableType

    from tflotilla.shared.contract import messages
    from tflotilla.shared.contract.benchmark import BenchmarkReport

_SHORT_RUNTIME = {"tflite-runtime": "tflite", "ai-edge-litert": "litert"}
_NOTHING = "-"
_NS_PER_MS = 1e6
#: Their figures are of the time when they were heard last.
_STALE = frozenset({"offline", "silent"})
#: Title, justification and the most characters that are shown; eighty columns hold the usual ones.
_COLUMNS = (
    ("board", "left", 16),
    ("status", "left", 12),
    ("model", "left", 18),
    ("runtime", "left", 12),
    ("inf/s", "right", 6),
    ("p50", "right", 8),
    ("p99", "right", 8),
    ("°C", "right", 4),
    ("last", "left", 14),
)
_STATUS = 1
#: Where the window is narrow these are shortened; half a figure would be another figure.
_WORDS = frozenset({"board", "model", "runtime", "last"})
_HINT = "; h n p m i t l s sort, r reverse, j k scroll, q quit"
_SHORT_HINT = "; s sort, r reverse, j k, q quit"
_WIDTH = 80
_COLOURS = {"online": "green", "offline": "red", "failing": "red", "silent": "yellow", "unknown": "yellow"}
#: Lines that are no boards: the header, the footer, and the line on keys.
_OTHER_LINES = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """What there is to be drawn, and when."""

    view: FleetView
    #: Boards of fleet.toml with their labels, those that never spoke among them; shown are these and what else speaks.
    labels: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    #: Show those of `labels` alone.
    only_known: bool = False
    now: float
    hearing_since: float = 0.0
    #: Since when the broker is away; None while it is there.
    deaf_since: float | None = None


def tiles_of(scene: Scene) -> list[tiles.Tile]:
    """Return every board of a scene as a tile, as the live page shows it; in the order of their names."""
    until = scene.now if scene.deaf_since is None else scene.deaf_since
    listening = Listening(since=scene.hearing_since, now=until)
    views = scene.view.boards
    names = scene.labels.keys() if scene.only_known else scene.labels.keys() | views.keys()

    def one(name: str, usual: Mapping[str, float]) -> tiles.Tile:
        view = views.get(name)
        serving = None if view is None or view.state is None else view.state.serving
        return tiles.tile(
            name,
            scene.labels.get(name, {}),
            view,
            seen=None if view is None else view.seen,
            listening=listening,
            usual_p99_ms=None if serving is None else usual.get(serving.digest),
        )

    usual = tiles.usual(one(name, {}) for name in names)
    return [one(name, usual) for name in sorted(names)]


def board_count(scene: Scene) -> int:
    """Return how many boards there are to be shown."""
    return len(scene.labels) if scene.only_known else len(scene.labels.keys() | scene.view.boards.keys())


def rows_of(height: int) -> int:
    """Return how many boards fit into so many lines."""
    return max(1, height - _OTHER_LINES)


def table(scene: Scene, looking: Looking, *, rows: int | None = None, keys: bool = False) -> RenderableType:
    """Return the fleet as a table of rich, the worst on top, with a footer of what was lost or not understood.

    `rows` is how many boards fit, None for all; `keys` says whether there is a keyboard.
    """
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    ordered = ranked(tiles_of(scene), looking)
    rows = len(ordered) if rows is None else rows
    first = looking.within(boards=len(ordered), rows=rows).first
    # No lines and one space between columns: nine columns are much for eighty characters.
    drawn = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold underline")
    for title, justify, _ in _COLUMNS:
        drawn.add_column(
            Text(title, no_wrap=True, overflow="ellipsis"),
            justify="right" if justify == "right" else "left",
            # What may wrap is what gets narrow; no cell does, for each is told so.
            no_wrap=title not in _WORDS,
        )
    for tile in ordered[first : first + rows]:
        stale = tile["status"] in _STALE or scene.deaf_since is not None
        drawn.add_row(
            *(
                Text(
                    printable(cell, _COLUMNS[column][2]),
                    style=_COLOURS.get(tile["status"], "cyan") if column == _STATUS else "dim" if stale else "",
                    no_wrap=True,
                    overflow="ellipsis",
                )
                for column, cell in enumerate(_cells(tile, scene, stale=stale))
            )
        )
    shown = "" if rows >= len(ordered) else f", boards {first + 1} to {min(first + rows, len(ordered))}"
    order = f"by {looking.sort}{' reversed' if looking.reverse else ''}{shown}"
    hint = (_HINT if len(order + _HINT) <= _WIDTH else _SHORT_HINT) if keys else ""
    return Group(
        drawn,
        Text(footer(scene), style="dim", no_wrap=True, overflow="ellipsis"),
        Text(f"{order}{hint}", style="dim", no_wrap=True),
    )


def _cells(tile: tiles.Tile, scene: Scene, *, stale: bool) -> list[str]:
    runtime = (tile["runtime"] or "").split(" ")[0]
    rate, heat = tile["rate"], tile["temperature_c"]
    return [
        tile["board"],
        tile["status"],
        tile["model"] or _NOTHING,
        f"{_SHORT_RUNTIME.get(runtime, runtime)} x{tile['threads']}" if runtime else _NOTHING,
        _NOTHING if rate is None else f"{rate:.1f}" if rate < 100 else f"{rate:.0f}",  # noqa: PLR2004 - three digits
        _NOTHING if tile["p50_ms"] is None else duration(tile["p50_ms"] * _NS_PER_MS),
        _NOTHING if tile["p99_ms"] is None else duration(tile["p99_ms"] * _NS_PER_MS),
        (_NOTHING if heat is None else f"{heat:.0f}") + ("!" if tile["throttled"] else ""),
        _last(tile, scene, stale=stale),
    ]


def _last(tile: tiles.Tile, scene: Scene, *, stale: bool) -> str:
    """Return the last answer; where figures are old, how old they are."""
    if stale and tile["seen"] is not None:
        return f"{age(scene.now - tile['seen'])} ago"
    if tile["top"] is None or tile["top"]["score"] is None:
        return _NOTHING
    return f"{printable(tile['top']['label'], 9)} {tile['top']['score']:.2f}"


def footer(scene: Scene) -> str:
    """Return one line: how much arrived, and how much of it was wrong."""
    view = scene.view
    boards = [board for name, board in view.boards.items() if not scene.only_known or name in scene.labels]
    online = sum(1 for board in boards if board.availability == "online")
    parts = [
        f"{online} of {board_count(scene)} boards online" if boards else "no board said anything yet",
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
    if scene.deaf_since is not None:
        parts.insert(0, f"the broker is away for {age(scene.now - scene.deaf_since)}: all of this is old")
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
