"""One board as the fleet page shows it, and what hurts about it. Pure.

    documents = tile("pi-7", labels, view, heard, listening=…, usual_p99_ms=…)

Rules it keeps: what isn't known is None, never 0; figures are those of the last window.
What it does NOT do: order tiles (the browser does, by `hurt`), or look at a clock.
"""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Any

from tflotilla.host.dashboards.web.figures import finite, milliseconds, short
from tflotilla.host.telemetry import presence
from tflotilla.shared.contract.deployment import DeploymentState

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from tflotilla.host.telemetry.fleet_view import BoardView
    from tflotilla.host.telemetry.presence import Listening

#: So many boards of one model are a crowd to be compared with.
_CROWD = 3
_SLOWER = 1.5
#: Raspberry Pis slow themselves down at 80 °C.
_HOT_C = 80.0
_UNDONE = frozenset({DeploymentState.ROLLED_BACK, DeploymentState.FAILED, DeploymentState.REJECTED})

Tile = dict[str, Any]


def status(view: BoardView | None, listening: Listening) -> str:
    """Return one word: what the board says of itself, or that it stopped saying anything."""
    if view is None:
        return "unknown"
    if view.availability == "offline":
        return "offline"
    if view.deployment is not None and not view.deployment.state.final:
        return view.deployment.state.value
    if view.state is not None and view.state.worker == "failing":
        return "failing"
    if presence.is_silent(view, listening):
        return "silent"
    # Metrics are never kept by the broker: whoever sent some was there, whatever became of its `availability`.
    return "online" if view.availability == "online" or view.metrics is not None else "unknown"


def tile(
    board: str,
    labels: Mapping[str, str],
    view: BoardView | None,
    *,
    seen: float | None,
    listening: Listening,
    usual_p99_ms: float | None = None,
    known: bool = True,
) -> Tile:
    """Return the document of one board; `usual_p99_ms` is the fleet's median of the model that it serves.

    `seen` is when it was last heard (Unix seconds of this machine); `known` is whether fleet.toml has it.
    """
    word = status(view, listening)
    document: Tile = {
        "board": board,
        "known": known,
        "labels": dict(labels),
        "status": word,
        "seen": seen,
        **_served(view),
        **_figures(view),
        "deployment": _deployment(view),
        "problem": None if view is None or view.state is None else view.state.problem,
    }
    hurt, why = hurts(document, usual_p99_ms)
    document["hurt"], document["why"] = hurt, why
    return document


def _served(view: BoardView | None) -> Tile:
    state = None if view is None else view.state
    serving = None if state is None else state.serving
    runtime = None if state is None else state.runtime
    delegate = None if state is None else state.delegate
    return {
        "model": None if serving is None else f"{serving.name}-{serving.version}",
        "name": None if serving is None else serving.name,
        "version": None if serving is None else serving.version,
        "digest": None if serving is None else serving.digest,
        "runtime": None if runtime is None else f"{runtime.name} {runtime.version}",
        "threads": None if state is None or runtime is None else state.num_threads,
        "delegate": None
        if delegate is None
        else {"requested": delegate.requested, "active": delegate.active, "reason": delegate.reason},
    }


def _figures(view: BoardView | None) -> Tile:
    metrics = None if view is None else view.metrics
    total = None if metrics is None else metrics.stages.get("total")
    timed = total is not None and total.count > 0
    counted = 0 if metrics is None else sum(label.count for label in metrics.labels)
    low = None if metrics is None else metrics.low_confidence
    return {
        "p50_ms": milliseconds(total.p50_ns) if timed and total is not None else None,
        "p99_ms": milliseconds(total.p99_ns) if timed and total is not None else None,
        "rate": None if view is None else finite(view.inferences_per_second),
        "errors": None if metrics is None else metrics.errors,
        "dropped": None if metrics is None else metrics.dropped,
        "temperature_c": None if metrics is None else finite(metrics.temperature_c),
        "throttled": None if metrics is None else metrics.throttled,
        "top": top(view),
        "low_confidence_share": None if low is None or counted == 0 else min(1.0, low / counted),
    }


def top(view: BoardView | None) -> Tile | None:
    """Return the last answer, or the commonest of the last window where answers are not reported one by one."""
    if view is None:
        return None
    if view.predictions and view.predictions[0].top:
        best = view.predictions[0].top[0]
        return {"label": short(best.label), "score": finite(best.score)}
    if view.metrics is not None and view.metrics.labels:
        commonest = max(view.metrics.labels, key=lambda label: label.count)
        return {"label": short(commonest.label), "score": finite(commonest.mean_score)}
    return None


def _deployment(view: BoardView | None) -> Tile | None:
    if view is None or view.deployment is None:
        return None
    said = view.deployment
    return {"state": said.state.value, "title": said.title, "detail": said.detail}


def hurts(shown: Tile, usual_p99_ms: float | None) -> tuple[float, str | None]:
    """Return how much it hurts, and why; 0 and None where nothing does. The worst of what it has counts."""
    return max(_pains(shown, usual_p99_ms), key=lambda pain: pain[0], default=(0.0, None))


def _pains(shown: Tile, usual_p99_ms: float | None) -> Iterable[tuple[float, str | None]]:
    problem = f": {shown['problem']}" if shown["problem"] else ""
    if shown["status"] == "failing":
        yield 100.0, f"its model does not run{problem}"
    elif shown["problem"]:
        yield 65.0, shown["problem"]
    if shown["status"] == "offline":
        yield 90.0, "it is off, or its connection is broken"
    if shown["status"] == "silent":
        yield 80.0, "it stopped saying anything"
    if shown["throttled"]:
        yield 70.0, "it is slowed down by heat or low voltage"
    if shown["errors"]:
        yield 60.0 + min(9.0, shown["errors"] / 100), f"{shown['errors']} inferences of the last window failed"
    said = shown["deployment"]
    if said is not None and said["state"] in {state.value for state in _UNDONE}:
        yield 50.0, f"{said['title']} did not come into service: {said['state'].replace('_', ' ')}"
    if usual_p99_ms and shown["p99_ms"] is not None and shown["p99_ms"] > _SLOWER * usual_p99_ms:
        times = shown["p99_ms"] / usual_p99_ms
        yield 40.0 + min(9.0, times), f"p99 is {times:.1f} times the fleet's median of this model"
    if shown["temperature_c"] is not None and shown["temperature_c"] >= _HOT_C:
        yield 35.0, f"{shown['temperature_c']:.0f} °C"
    delegate = shown["delegate"]
    if delegate is not None and delegate["requested"] and delegate["requested"] != delegate["active"]:
        yield 30.0, f"its delegate {delegate['requested']} is not active"
    if shown["dropped"]:
        yield 25.0, f"{shown['dropped']} results of the last window were dropped"
    if shown["status"] == "unknown":
        yield 20.0, "nothing was heard of it yet"


def usual(shown: Iterable[Tile]) -> dict[str, float]:
    """Return the median p99 of each bundle that several boards serve: what a board is compared with."""
    by_bundle: dict[str, list[float]] = {}
    for each in shown:
        if each["digest"] is not None and each["p99_ms"] is not None and each["status"] == "online":
            by_bundle.setdefault(each["digest"], []).append(each["p99_ms"])
    return {digest: statistics.median(found) for digest, found in by_bundle.items() if len(found) >= _CROWD}
