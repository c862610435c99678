"""One board as its page shows it. Pure.

Rules it keeps: what isn't known is None; sums are those since we listen, of the bundle that serves.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tflotilla.host.dashboards.web import figures
from tflotilla.host.telemetry.totals import Totals
from tflotilla.shared.contract import codec

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tflotilla.host.dashboards.web.series import Series
    from tflotilla.host.dashboards.web.tiles import Tile
    from tflotilla.host.telemetry.fleet_view import BoardView
    from tflotilla.shared.contract import messages
    from tflotilla.shared.contract.benchmark import BenchmarkReport
    from tflotilla.shared.contract.deployment import DeploymentStatus
    from tflotilla.shared.contract.manifest import Reference
    from tflotilla.shared.contract.messages import Candidate, ModelCard, Prediction

_SHOWN_ANSWERS = 5
_SHOWN_DEPLOYMENTS = 50
_MOST_REASONS = 20


def document(
    tile: Tile,
    view: BoardView | None,
    *,
    events: Sequence[dict[str, Any]],
    totals: Totals | None,
    card: ModelCard | None,
    series: Series | None,
    past: Sequence[dict[str, Any]] = (),
    benchmark: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Return what `GET /api/boards/NAME` answers; without `series`, without that key. `past`: earlier deployments."""
    state = None if view is None else view.state
    totals = totals or Totals()
    found: dict[str, Any] = {
        "tile": tile,
        "facts": None if state is None else codec.encode(state.facts),
        "agent_version": None if state is None else state.agent_version,
        "uptime_s": None if state is None else figures.finite(state.uptime_s),
        "inference": None if state is None or state.inference is None else codec.encode(state.inference),
        "source": None if state is None else state.source,
        "outbox_rows": None if state is None else state.outbox_rows,
        "outbox_dropped": None if state is None else state.outbox_dropped,
        "missing": None if view is None else view.missing,
        "duplicates": None if view is None else view.duplicates,
        "card": None if card is None else codec.encode(card),
        "deployments": merged([] if view is None else [deployment(at, said) for at, said in view.deployments], past),
        "events": list(events),
        "benchmark": benchmark,
        "predictions": [] if view is None else [prediction(each) for each in view.predictions],
        "thumbnail": None if view is None or view.thumbnail is None else thumbnail(view.thumbnail),
        "labels": figures.labels(totals),
        "reference": None if card is None or card.reference is None else reference(card.reference),
        "scores": list(totals.scores),
        "stages": figures.stages(totals),
    }
    if series is not None:
        found["series"] = series.document()
    return found


def prediction(said: Prediction) -> dict[str, Any]:
    """Return one answer of a board."""
    stages = {stage: figures.milliseconds(taken) for stage, taken in said.stages_ns.items()}
    return {
        "item": figures.short(said.item),
        "time": figures.finite(said.time),
        "top": _answers(said.top),
        "total_ms": stages.get("total"),
        "stages_ms": stages,
    }


def thumbnail(said: messages.Thumbnail) -> dict[str, Any]:
    """Return what a board looked at; `jpeg` is base64."""
    return {
        "jpeg": said.jpeg,
        "item": figures.short(said.item),
        "top": _answers(said.top),
        "time": figures.finite(said.time),
    }


def event(said: messages.Event, at: float) -> dict[str, Any]:
    """Return one event; `at` is when the board says that it was."""
    return {
        "time": figures.finite(at),
        "level": said.level,
        "kind": figures.short(said.kind),
        "message": figures.text(said.message),
    }


def benchmark_of(said: BenchmarkReport, at: float) -> dict[str, Any]:
    """Return what a board measured of a bundle, in short: one configuration, or why there are no figures."""
    cell = said.cell
    measured = None if cell is None else cell.measurement
    invoke = {} if measured is None else {each.percent: each.value_ns for each in measured.invoke.percentiles}
    error = said.error or (None if cell is None or cell.error is None else cell.error.message)
    return {
        "time": figures.finite(at),
        "request": figures.short(said.request),
        "position": said.position,
        "total": said.total,
        "model": None if said.identity is None else figures.short(said.identity.title),
        "runtime": None if cell is None or cell.runtime is None else f"{cell.runtime.name} {cell.runtime.version}",
        "threads": None if cell is None else cell.configuration.inference.num_threads,
        "runs": None if measured is None else measured.runs,
        "p50_ms": figures.milliseconds(invoke.get(50.0)),
        "p90_ms": figures.milliseconds(invoke.get(90.0)),
        "p99_ms": figures.milliseconds(invoke.get(99.0)),
        "valid": None if measured is None else measured.verdict.valid,
        "reasons": []
        if measured is None
        else [figures.text(each) for each in measured.verdict.reasons[:_MOST_REASONS]],
        "error": None if error is None else figures.text(error),
    }


def reference(said: Reference) -> dict[str, Any]:
    """Return what a bundle answered where it was made."""
    total = sum(said.scores)
    return {
        "labels": figures.shares(said.labels),
        "scores": [count / total if total else None for count in said.scores],
        "samples": said.samples,
        "data": said.data,
    }


def _answers(top: Sequence[Candidate]) -> list[dict[str, Any]]:
    return [{"label": figures.short(each.label), "score": figures.finite(each.score)} for each in top[:_SHOWN_ANSWERS]]


def merged(*told: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return deployments that several remember, newest first, each once, as the first of them tells it."""
    found: dict[Any, dict[str, Any]] = {}
    for each in (each for some in told for each in some):
        found.setdefault((each["deployment"], each["state"]), each)
    return sorted(found.values(), key=lambda each: -(each["time"] or 0.0))[:_SHOWN_DEPLOYMENTS]


def deployment(at: float, said: DeploymentStatus) -> dict[str, Any]:
    """Return a deployment that ended; `at` is when the board says that it did."""
    return {
        "deployment": said.deployment,
        "time": figures.finite(at),
        "state": said.state.value,
        "title": said.title,
        "detail": said.detail,
        "error": said.error,
    }
