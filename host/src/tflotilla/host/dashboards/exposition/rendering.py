"""From what is known of a fleet to the figures of every metric of the catalogue.

Pure. What isn't known is left out, never 0; what a board was is not what it is: gauges of a window go when no new
window comes, and all that is of the present goes while there is no connection to the broker.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tflotilla.host.dashboards.exposition import catalogue
from tflotilla.host.dashboards.exposition.catalogue import Distribution, Family, Figure, Metric
from tflotilla.host.dashboards.exposition.sums import BOUNDS_S, SCORE_BOUNDS, Histogram, Sums, word
from tflotilla.host.telemetry.fleet_view import BoardView

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tflotilla.shared.contract.messages import Metrics, ModelCard

#: A window's gauges go after that many windows without a new one, and not before a minute.
_WINDOWS_OF_PATIENCE = 5
_LEAST_PATIENCE_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """A fleet at a moment. `windows` is when each board's newest window arrived; times are Unix seconds, ours."""

    fleet: str
    now: float
    since: float
    connected: bool
    boards: Mapping[str, BoardView] = field(default_factory=dict)
    #: Board of fleet.toml → its labels there.
    enrolled: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    windows: Mapping[str, float] = field(default_factory=dict)
    connections: int = 0
    garbage: int = 0
    foreign: int = 0


def families(scene: Scene, sums: Sums) -> list[Family]:
    """Return every metric of the catalogue, in its order, those included of which nothing is known."""
    known = {
        family.metric.name: family
        for part in (_bundles(sums), _models(scene, sums), _boards(scene), _present(scene), _bridge(scene, sums))
        for family in part
    }
    return [known[metric.name] for metric in catalogue.CATALOGUE]


def _bundles(sums: Sums) -> Iterable[Family]:
    bundles = [
        ((board, *bundle), of_bundle)
        for board, of_board in sorted(sums.bundles.items())
        for bundle, of_bundle in sorted(of_board.items())
    ]
    yield Family(
        metric=catalogue.LATENCY,
        distributions=tuple(
            _distribution((*labels, stage), BOUNDS_S, histogram)
            for labels, of_bundle in bundles
            for stage, histogram in sorted(of_bundle.stages.items())
        ),
    )
    yield _family(catalogue.INFERENCES, ((labels, each.inferences) for labels, each in bundles))
    yield _family(catalogue.ERRORS, ((labels, each.errors) for labels, each in bundles))
    yield _family(catalogue.UNREADABLE, ((labels, each.unreadable) for labels, each in bundles))
    yield _family(catalogue.DROPPED, ((labels, each.dropped) for labels, each in bundles))
    yield _family(catalogue.LOW_CONFIDENCE, ((labels, each.low_confidence) for labels, each in bundles))


def _models(scene: Scene, sums: Sums) -> Iterable[Family]:
    models = sorted(sums.models.items())
    yield _family(
        catalogue.PREDICTED,
        (((*bundle, label), count) for bundle, model in models for label, count in sorted(model.labels.items())),
    )
    yield Family(
        metric=catalogue.SCORE,
        distributions=tuple(
            _distribution(bundle, SCORE_BOUNDS, model.scores) for bundle, model in models if any(model.scores.counts)
        ),
    )
    cards = [card for _, view in sorted(scene.boards.items()) if (card := _card(view)) is not None]
    yield _family(
        catalogue.MODEL, (((word(c.name), word(c.version), str(c.release)[:20], c.scheme.value), 1) for c in cards)
    )
    yield _family(
        catalogue.ACCURACY,
        (((word(c.name), word(c.version)), c.evaluation.accuracy) for c in cards if c.evaluation is not None),
    )


def _card(view: BoardView) -> ModelCard | None:
    """Return what describes the board's model, unless that is another one by now."""
    serving = None if view.state is None else view.state.serving
    return (
        view.model if view.model is not None and serving is not None and serving.digest == view.model.digest else None
    )


def _boards(scene: Scene) -> Iterable[Family]:
    """Yield what stays true whether or not anybody listens."""
    views = sorted(scene.boards.items())
    yield _family(catalogue.ENROLLED, (((board,), 1) for board in scene.enrolled))
    yield Family(
        metric=catalogue.LABELS,
        figures=tuple(
            Figure(labels=(board,), value=1, more=_label_names(labels))
            for board, labels in sorted(scene.enrolled.items())
            if labels
        ),
    )
    states = [(board, view.state) for board, view in views if view.state is not None]
    yield _family(
        catalogue.BOARD,
        (
            ((board, word(state.agent_version), word(state.facts.arch), word(state.facts.model or "")), 1)
            for board, state in states
        ),
    )
    yield _family(catalogue.LAST_SEEN, (((board,), view.seen) for board, view in views))
    yield _family(catalogue.MESSAGES, (((board,), view.messages) for board, view in views))
    yield _family(catalogue.MISSING, (((board,), view.missing) for board, view in views))
    yield _family(catalogue.DUPLICATES, (((board,), view.duplicates) for board, view in views))


def _present(scene: Scene) -> Iterable[Family]:
    """Yield what is true of a board now, as far as it can be known."""
    views = sorted(scene.boards.items()) if scene.connected else []
    yield _family(
        catalogue.ONLINE,
        (((board,), view.availability == "online") for board, view in views if view.availability is not None),
    )
    there = [(board, view) for board, view in views if view.availability != "offline"]
    states = [(board, view.state) for board, view in there if view.state is not None]
    yield _family(
        catalogue.SERVING,
        (
            (
                (
                    board,
                    word(state.serving.name),
                    word(state.serving.version),
                    word(state.serving.digest)[:12],
                    "" if state.runtime is None else word(f"{state.runtime.name} {state.runtime.version}"),
                    str(state.num_threads)[:20],
                    word(state.delegate.requested or ""),
                    word(state.delegate.active or ""),
                ),
                1,
            )
            for board, state in states
            if state.serving is not None
        ),
    )
    yield _family(catalogue.FAILING, (((board,), state.worker == "failing") for board, state in states))
    yield _family(
        catalogue.FALLBACK,
        (
            ((board,), state.delegate.active != state.delegate.requested)
            for board, state in states
            if state.delegate.requested is not None and state.worker == "running"
        ),
    )
    yield _family(catalogue.OUTBOX, (((board,), _finite(state.outbox_rows)) for board, state in states))
    yield _family(catalogue.OUTBOX_DROPPED, (((board,), _finite(state.outbox_dropped)) for board, state in states))
    windows = [
        (board, view.metrics) for board, view in there if view.metrics is not None and _fresh(scene, board, view)
    ]
    yield _family(catalogue.TEMPERATURE, (((board,), window.temperature_c) for board, window in windows))
    yield _family(catalogue.THROTTLED, (((board,), window.throttled) for board, window in windows))
    yield _family(catalogue.MEMORY, (((board,), _finite(window.rss_bytes)) for board, window in windows))


def _bridge(scene: Scene, sums: Sums) -> Iterable[Family]:
    yield _family(
        catalogue.DEPLOYMENTS,
        (
            ((board, outcome), count)
            for board, outcomes in sorted(sums.deployments.items())
            for outcome, count in outcomes.items()
        ),
    )
    yield _family(catalogue.BRIDGE, [((scene.fleet,), 1)])
    yield _family(catalogue.CONNECTED, [((), scene.connected)])
    yield _family(catalogue.CONNECTIONS, [((), scene.connections)])
    yield _family(catalogue.LISTENING_SINCE, [((), scene.since)])
    yield _family(catalogue.GARBAGE, [((), scene.garbage)])
    yield _family(catalogue.FOREIGN, [((), scene.foreign)])
    yield _family(catalogue.IMPLAUSIBLE, [((), sums.implausible)])


def _family(metric: Metric, figures: Iterable[tuple[tuple[str, ...], float | None]]) -> Family:
    """Leave out what isn't known, and what stands there already: Prometheus refuses all for one that is there twice."""
    once: dict[tuple[str, ...], float] = {}
    for labels, value in figures:
        if value is not None:
            once.setdefault(labels, float(value))
    return Family(metric=metric, figures=tuple(Figure(labels=labels, value=value) for labels, value in once.items()))


def _distribution(labels: tuple[str, ...], bounds: tuple[float, ...], histogram: Histogram) -> Distribution:
    return Distribution(labels=labels, bounds=bounds, counts=tuple(histogram.counts), total=histogram.total)


def _fresh(scene: Scene, board: str, view: BoardView) -> Metrics | None:
    """Return the board's newest window while it says what is, not what was."""
    arrived = scene.windows.get(board)
    if arrived is None or view.metrics is None:
        return None
    patience_s = max(_LEAST_PATIENCE_S, _WINDOWS_OF_PATIENCE * view.metrics.window_s)
    return view.metrics if scene.now - arrived <= patience_s else None


def _finite(count: int) -> float | None:
    """Return a count that a board gave, unless it is beyond all numbers."""
    return float(count) if abs(count) < 1 << 63 else None


def _label_names(labels: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """Return labels under names that Prometheus allows; of two that become one, the first in order of the alphabet."""
    named: dict[str, str] = {}
    for key, text in sorted(labels.items()):
        named.setdefault("label_" + re.sub(r"[^a-zA-Z0-9_]", "_", key), word(text))
    return tuple(named.items())
