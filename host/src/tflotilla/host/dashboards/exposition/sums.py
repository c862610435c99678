"""What windows add up to, for counters that never go back: per board and bundle, and per model over the fleet.

Rules it keeps: nothing here ever decreases while it is kept; memory is bounded by the boards that are shown, times
three bundles each; one board's nonsense is not added up, and can't push out what others say.
What it does NOT do: recognize repetitions (`telemetry.live` does), decide which boards are shown, or look at a clock.
"""

from __future__ import annotations

import bisect
import functools
import math
from typing import TYPE_CHECKING, get_args

from tflotilla.host.pages.words import printable
from tflotilla.shared.contract.deployment import DeploymentState, DeploymentStatus
from tflotilla.shared.contract.messages import Metrics, ModelCard, Stage, State

if TYPE_CHECKING:
    from collections.abc import Collection
    from typing import Any

    from tflotilla.shared.contract.messages import LatencySketch, Message, StageLatency

STAGES: tuple[str, ...] = get_args(Stage)
OUTCOMES = tuple(state.value for state in DeploymentState if state.final)
OTHER_LABELS = "(other)"
#: From 10 µs to 10 s; neighbours are less than a factor of 1.7 apart, so a quantile that is interpolated between two
#: is off by less than that.
BOUNDS_S: tuple[float, ...] = (
    *(round(step * 10.0**decade, 9) for decade in range(-5, 1) for step in (1, 1.5, 2, 3, 5, 7)),
    10.0,
)
SCORE_BOUNDS: tuple[float, ...] = tuple(tenth / 10 for tenth in range(1, 10))
_NANOSECONDS = 1e9
_BUNDLES_PER_BOARD = 3
_NAMES_PER_BOARD = 8
_LONGEST_WORD = 64
#: Beyond what a float counts exactly; nobody infers that often.
_MOST = 1 << 53

Bundle = tuple[str, str]


class Histogram:
    """Values counted between fixed bounds; the last bucket has none."""

    __slots__ = ("counts", "total")

    def __init__(self, buckets: int) -> None:
        self.counts = [0] * buckets
        self.total = 0.0

    def add_latency(self, latency: StageLatency, sketch: LatencySketch) -> None:
        """Add a window's latencies; a sketch's bucket that lies over a bound counts above it."""
        lasts = _last_indices(sketch.relative_error)
        counts = self.counts
        counts[0] += sketch.zeros
        added = sketch.zeros
        for index, count in zip(sketch.indices, sketch.counts, strict=True):
            counts[bisect.bisect_left(lasts, index)] += count
            added += count
        self.total += latency.mean_ns * added / _NANOSECONDS


class BundleSums:
    """What one bundle did on one board."""

    __slots__ = ("dropped", "errors", "inferences", "low_confidence", "stages", "unreadable")

    def __init__(self) -> None:
        self.inferences = 0
        self.errors = 0
        self.unreadable = 0
        self.dropped = 0
        #: None until an agent tells.
        self.low_confidence: int | None = None
        self.stages: dict[str, Histogram] = {}


class ModelSums:
    """What one version of a model answered, over all boards."""

    __slots__ = ("labels", "scores")

    def __init__(self) -> None:
        #: A label that got a place keeps it: what went from "(other)" to a name and back would count backwards.
        self.labels: dict[str, int] = {}
        self.scores = Histogram(len(SCORE_BOUNDS) + 1)


class Sums:
    """Listens; one thread."""

    def __init__(self, *, stages: Collection[str] = STAGES, most_labels: int = 20) -> None:
        """`stages`: those whose latencies are added up; `most_labels`: so many of each model are told apart."""
        self._stages = frozenset(stages)
        self._most_labels = most_labels
        self._names: dict[str, dict[str, Bundle]] = {}
        self.bundles: dict[str, dict[Bundle, BundleSums]] = {}
        self.models: dict[Bundle, ModelSums] = {}
        #: Board → outcome → how many deployments ended so.
        self.deployments: dict[str, dict[str, int]] = {}
        self.implausible = 0

    def add(self, message: Message[Any]) -> None:
        """Add what one message says; each message once."""
        body = message.body
        match body:
            case State():
                for served in (body.previous, body.serving):
                    if served is not None:
                        self._remember(message.board, served.digest, (served.name, served.version))
            case ModelCard():
                self._remember(message.board, body.digest, (body.name, body.version))
            case DeploymentStatus():
                outcomes = self.deployments.setdefault(message.board, dict.fromkeys(OUTCOMES, 0))
                if body.state.final:
                    outcomes[body.state.value] += 1
            case Metrics():
                self._add_window(message.board, message.bundle, body)

    def keep(self, boards: Collection[str]) -> None:
        """Forget all boards but these."""
        for of_board in (self._names, self.bundles, self.deployments):
            for gone in [board for board in of_board if board not in boards]:
                del of_board[gone]
        self._forget_models()

    def _remember(self, board: str, digest: str, bundle: Bundle) -> None:
        names = self._names.setdefault(board, {})
        names.pop(digest, None)
        names[digest] = (word(bundle[0]), word(bundle[1]))
        while len(names) > _NAMES_PER_BOARD:
            del names[next(iter(names))]

    def _add_window(self, board: str, digest: str | None, window: Metrics) -> None:
        if not _plausible(window):
            self.implausible += 1
            return
        # A window of a bundle that nobody named, before the state came: its digest stands for the version.
        bundle = self._names.get(board, {}).get(digest or "") or ("", word(digest or "")[:12])
        of_board = self.bundles.setdefault(board, {})
        sums = of_board.pop(bundle, None) or BundleSums()
        of_board[bundle] = sums
        sums.inferences += window.count
        sums.errors += window.errors
        sums.unreadable += window.unreadable
        sums.dropped += window.dropped
        if window.low_confidence is not None:
            sums.low_confidence = (sums.low_confidence or 0) + window.low_confidence
        for stage in self._stages & window.stages.keys():
            latency = window.stages[stage]
            if latency.sketch is not None:
                histogram = sums.stages.setdefault(stage, Histogram(len(BOUNDS_S) + 1))
                histogram.add_latency(latency, latency.sketch)
        if window.labels or any(window.scores):
            self._add_answers(bundle, window)
        if len(of_board) > _BUNDLES_PER_BOARD:
            while len(of_board) > _BUNDLES_PER_BOARD:
                # The one that was heard of longest ago.
                del of_board[next(iter(of_board))]
            self._forget_models()

    def _add_answers(self, bundle: Bundle, window: Metrics) -> None:
        model = self.models.setdefault(bundle, ModelSums())
        for label in window.labels:
            name = word(label.label)
            if name not in model.labels and len(model.labels) >= self._most_labels:
                name = OTHER_LABELS
            model.labels[name] = model.labels.get(name, 0) + label.count
        if len(window.scores) == len(model.scores.counts):
            model.scores.counts = [a + b for a, b in zip(model.scores.counts, window.scores, strict=True)]
            model.scores.total += sum(label.count * label.mean_score for label in window.labels)

    def _forget_models(self) -> None:
        served = {bundle for of_board in self.bundles.values() for bundle in of_board}
        for gone in [bundle for bundle in self.models if bundle not in served]:
            del self.models[gone]


def word(text: str) -> str:
    """Return foreign text as a label's value: short, and of characters that can be written."""
    return printable(text, _LONGEST_WORD)


def _plausible(window: Metrics) -> bool:
    """Whether a window can be added up: the contract's form allows counts below 0 and beyond all numbers."""
    counts = [
        window.count,
        window.errors,
        window.unreadable,
        window.dropped,
        window.low_confidence or 0,
        *window.scores,
    ]
    counts += [label.count for label in window.labels]
    if not all(0 <= count < _MOST for count in counts):
        return False
    if not all(0 <= label.mean_score <= 1 for label in window.labels):
        return False
    return all(_plausible_latency(latency) for latency in window.stages.values())


def _plausible_latency(latency: StageLatency) -> bool:
    sketch = latency.sketch
    # Which buckets a sketch may have is the contract's business.
    return sketch is None or (sketch.zeros + sum(sketch.counts) < _MOST and 0 <= latency.mean_ns < _MOST)


@functools.lru_cache(maxsize=16)
def _last_indices(relative_error: float) -> tuple[int, ...]:
    """Return, for each bound, the last bucket of such a sketch that lies below it altogether."""
    log_gamma = math.log((1 + relative_error) / (1 - relative_error))
    return tuple(math.floor(math.log(bound * _NANOSECONDS) / log_gamma + 1e-9) for bound in BOUNDS_S)
