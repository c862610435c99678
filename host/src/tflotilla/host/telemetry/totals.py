"""What boards did since we listen, added up per bundle: counts, labels, scores, and latencies that add up.

Rules it keeps: only sketches are added up, never percentiles; memory is bounded by boards times a few bundles.
What it does NOT do: recognize repetitions (`live` does), keep anything (`telemetry.store` does).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tflotilla.shared import sketches

if TYPE_CHECKING:
    from collections.abc import Collection

    from tflotilla.shared.contract.messages import Metrics

_SCORE_BINS = 10
#: Labels beyond that many are counted together under this name: a fleet's memory is not a label file's.
MOST_LABELS = 1000
OTHER_LABELS = "(other)"
#: Whoever may speak as a board may make up names without an end, and new ones in each window.
_LONGEST_LABEL = 1000
_MOST_STAGES = 64


class Totals:
    """The sums of one bundle on one board, or of many: `add` windows, or `merge` others."""

    __slots__ = ("count", "dropped", "errors", "labels", "low_confidence", "scores", "seconds", "stages", "unreadable")

    def __init__(self) -> None:
        self.seconds = 0.0
        self.count = 0
        self.errors = 0
        self.unreadable = 0
        self.dropped = 0
        self.low_confidence = 0
        #: Label → how often it won, and the sum of its scores.
        self.labels: dict[str, tuple[int, float]] = {}
        self.scores = [0] * _SCORE_BINS
        self.stages: dict[str, sketches.Sum] = {}

    def add(self, window: Metrics, *, stages: Collection[str] | None = None, labels: bool = True) -> None:
        """Add one window; stages without a sketch (older agents) add nothing to latencies.

        `stages` and `labels` say what is wanted of it beside the counts.
        """
        self.seconds += window.window_s
        self.count += window.count
        self.errors += window.errors
        self.unreadable += window.unreadable
        self.dropped += window.dropped
        self.low_confidence += window.low_confidence or 0
        for label in window.labels if labels else ():
            self._add_label(label.label, label.count, label.count * label.mean_score)
        if len(window.scores) == _SCORE_BINS:
            self.scores = [a + b for a, b in zip(self.scores, window.scores, strict=True)]
        for stage, latency in window.stages.items():
            if latency.sketch is not None and (stages is None or stage in stages):
                summed = self._stage(stage, latency.sketch.relative_error)
                if summed is not None:
                    summed.add(latency.sketch)

    def merge(self, other: Totals) -> None:
        """Add another one's sums."""
        self.seconds += other.seconds
        self.count += other.count
        self.errors += other.errors
        self.unreadable += other.unreadable
        self.dropped += other.dropped
        self.low_confidence += other.low_confidence
        for label, (count, total) in other.labels.items():
            self._add_label(label, count, total)
        self.scores = [a + b for a, b in zip(self.scores, other.scores, strict=True)]
        for stage, summed in other.stages.items():
            mine = self._stage(stage, summed.relative_error)
            if mine is not None:
                mine.merge(summed)

    def _add_label(self, label: str, count: int, score: float) -> None:
        label = label[:_LONGEST_LABEL]
        if label not in self.labels and len(self.labels) >= MOST_LABELS:
            label = OTHER_LABELS
        before = self.labels.get(label, (0, 0.0))
        self.labels[label] = before[0] + count, before[1] + score

    def _stage(self, stage: str, relative_error: float) -> sketches.Sum | None:
        found = self.stages.get(stage)
        if found is None and len(self.stages) >= _MOST_STAGES:
            return None
        if found is None or found.relative_error != relative_error:
            # An agent of another precision: what it says from now on is kept, the two can't be added up.
            found = self.stages[stage] = sketches.Sum(relative_error)
        return found
