"""What is stored, as rows for other tools: metrics, predictions, events, deployments, benchmarks, and rollups.

Rules it keeps: one row per window, prediction, report, or sum; lists and tables within one are JSON; a message that
this version can't read is left out. What it does NOT do: write files (`exporting`).
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Literal, get_args

from tflotilla.host.telemetry import fleet_view
from tflotilla.host.telemetry.store import history
from tflotilla.host.telemetry.store.exporting import Table
from tflotilla.shared import sketches
from tflotilla.shared.contract import codec, messages, topics
from tflotilla.shared.contract.messages import Stage

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence

    from tflotilla.host.telemetry.store.database import DatabaseStore
    from tflotilla.host.telemetry.store.exporting import Kind
    from tflotilla.host.telemetry.store.history import Stored
    from tflotilla.host.telemetry.store.sums import Sums

What = Literal["metrics", "predictions", "events", "deployments", "benchmarks", "rollups"]
WHATS: tuple[What, ...] = get_args(What)
Span = Literal["minute", "hour", "day"]
SPANS: dict[Span, int] = {"minute": 60, "hour": 3600, "day": 86400}
_STAGES: tuple[Stage, ...] = get_args(Stage)
_ENVELOPE: tuple[tuple[str, Kind], ...] = (
    ("time", "time"),
    ("arrived", "time"),
    ("board", "text"),
    ("boot", "text"),
    ("seq", "whole"),
    ("bundle", "text"),
)
_QUANTITIES = ("count", "mean_ns", "min_ns", "p50_ns", "p90_ns", "p99_ns", "max_ns")
_METRICS: tuple[tuple[str, Kind], ...] = (
    ("window_s", "number"),
    ("count", "whole"),
    ("errors", "whole"),
    ("unreadable", "whole"),
    ("dropped", "whole"),
    ("low_confidence", "whole"),
    ("rss_bytes", "whole"),
    ("temperature_c", "number"),
    ("throttled", "truth"),
)
_PERCENTILES = (50, 90, 99)
#: Sums of that many spans are in memory at a time.
_SPANS_AT_ONCE = 20


def table(
    store: DatabaseStore,
    what: What,
    *,
    since: float,
    until: float,
    boards: Collection[str] | None = None,
    span: Span = "hour",
) -> Table:
    """Return a table of what is stored; its rows are read as they are taken. Raises InputError when they are."""
    if what == "rollups":
        return Table(columns=_ROLLUPS, rows=_rollups(store, since, until, boards, span))
    source, channel, columns, rows = _SOURCES[what]

    def stream() -> Iterator[Sequence[Any]]:
        for stored in history.messages(store, source, since=since, until=until, boards=boards, channel=channel):
            # The board in it was held against its topic when it came.
            topic = f"{topics.ROOT}/fleet/{stored.board}/{stored.channel}"
            message = fleet_view.understood(topic, stored.payload)
            if message is not None:
                envelope = (stored.time, stored.at, stored.board, stored.boot, stored.seq, stored.bundle)
                for row in rows(message.body, stored):
                    yield (*envelope, *row)

    return Table(columns=_ENVELOPE + columns, rows=stream())


def _metrics(body: messages.Metrics, _stored: Stored) -> Iterator[Sequence[Any]]:
    row: list[Any] = [getattr(body, name) for name, _ in _METRICS]
    for stage in _STAGES:
        latency = body.stages.get(stage)
        row += [None if latency is None else getattr(latency, name) for name in _QUANTITIES]
    yield [*row, _json([codec.encode(label) for label in body.labels]), _json(list(body.scores))]


def _predictions(body: messages.Predictions, _stored: Stored) -> Iterator[Sequence[Any]]:
    for result in body.results:
        winner = result.top[0] if result.top else None
        yield [
            result.time,
            result.item,
            None if winner is None else winner.label,
            None if winner is None else winner.score,
            _json([codec.encode(candidate) for candidate in result.top]),
            *(result.stages_ns.get(stage) for stage in _STAGES),
        ]


def _events(body: messages.Event, _stored: Stored) -> Iterator[Sequence[Any]]:
    yield [body.level, body.kind, body.message, _json(codec.encode(body.detail))]


def _deployments(body: Any, _stored: Stored) -> Iterator[Sequence[Any]]:  # noqa: ANN401 - a DeploymentStatus
    yield [body.deployment, body.candidate, body.title, body.state.value, body.detail, body.error]


def _benchmarks(body: Any, _stored: Stored) -> Iterator[Sequence[Any]]:  # noqa: ANN401 - a BenchmarkReport
    yield [_json(codec.encode(body))]


_SOURCES: dict[
    What, tuple[history.Table, str, tuple[tuple[str, Kind], ...], Callable[..., Iterator[Sequence[Any]]]]
] = {
    "metrics": (
        "metrics",
        "metrics",
        (
            *_METRICS,
            *(
                (f"{stage}_{name}", "number" if name == "mean_ns" else "whole")
                for stage in _STAGES
                for name in _QUANTITIES
            ),
            ("labels", "text"),
            ("scores", "text"),
        ),
        _metrics,
    ),
    "predictions": (
        "predictions",
        "predictions",
        (
            ("predicted", "time"),
            ("item", "text"),
            ("label", "text"),
            ("score", "number"),
            ("top", "text"),
            *((f"{stage}_ns", "whole") for stage in _STAGES),
        ),
        _predictions,
    ),
    "events": (
        "reports",
        "event",
        (("level", "text"), ("kind", "text"), ("message", "text"), ("detail", "text")),
        _events,
    ),
    "deployments": (
        "reports",
        "deployment",
        (
            ("deployment", "text"),
            ("candidate", "text"),
            ("title", "text"),
            ("state", "text"),
            ("detail", "text"),
            ("error", "text"),
        ),
        _deployments,
    ),
    "benchmarks": ("reports", "benchmark", (("report", "text"),), _benchmarks),
}
_SUMS: tuple[tuple[str, Kind], ...] = (
    ("windows", "whole"),
    ("seconds", "number"),
    ("count", "whole"),
    ("errors", "whole"),
    ("unreadable", "whole"),
    ("dropped", "whole"),
    ("judged", "whole"),
    ("low_confidence", "whole"),
)
_ROLLUPS: tuple[tuple[str, Kind], ...] = (
    ("start", "time"),
    ("span_s", "whole"),
    ("board", "text"),
    ("bundle", "text"),
    ("version", "text"),
    *_SUMS,
    ("rss_mean_bytes", "number"),
    ("rss_max_bytes", "whole"),
    ("temperature_mean_c", "number"),
    ("temperature_max_c", "number"),
    ("throttled_share", "number"),
    *(
        (f"{stage}_{name}", "whole" if name == "count" else "number")
        for stage in _STAGES
        for name in ("count", *(f"p{percent}_ns" for percent in _PERCENTILES))
    ),
    ("labels", "text"),
    ("scores", "text"),
    ("sketches", "text"),
)


def _rollups(
    store: DatabaseStore, since: float, until: float, boards: Collection[str] | None, span: Span
) -> Iterator[Sequence[Any]]:
    chosen = None if boards is None else frozenset(boards)
    length = SPANS[span]
    # Of spans that were forgotten coarser sums may be left: those are another table's.
    start = max(since // length * length, -(-history.kept_from(store, span) // length) * length)
    # Of years before the first report there is nothing to ask.
    first = history.began(store)
    start = max(start, (until if first is None else first) // length * length)
    while start < until:
        end = start + length * _SPANS_AT_ONCE
        question = history.Question(
            since=start, until=min(end, until), boards=chosen, by=(span, "board", "bundle", "version")
        )
        for group in history.ask(store, question).groups:
            began, board, bundle, version = group.key
            yield (history.read_time(began), length, board, bundle, version, *_summed(group.sums))
        start = end


def _summed(sums: Sums) -> Iterator[Any]:
    scalars = sums.scalars
    yield from (getattr(scalars, name) for name, _ in _SUMS)
    yield scalars.rss_sum / scalars.windows if scalars.windows else None
    yield scalars.rss_max
    yield scalars.temperature_sum / scalars.temperatures if scalars.temperatures else None
    yield scalars.temperature_max if scalars.temperatures else None
    yield scalars.throttled / scalars.throttle_known if scalars.throttle_known else None
    stages = sums.stages
    for stage in _STAGES:
        sketch = stages.get(stage)
        yield None if sketch is None else sketches.count(sketch)
        for percent in _PERCENTILES:
            yield None if sketch is None else sketches.percentile(sketch, percent)
    yield _json({label: count for label, (count, _, _) in sorted(sums.labels.items())})
    yield _json(sums.scores)
    yield _json({stage: codec.encode(sketch) for stage, sketch in stages.items()})


def _json(value: object) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
