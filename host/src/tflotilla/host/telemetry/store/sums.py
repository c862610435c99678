"""What a board did with a bundle in a span of time, as sums: windows go in, sums are added up, percentiles come out.

    total = Sums()
    total.add(first, second)             # what `window(payload)` read
    total.merge(Sums.unpack(packed))
    total.percentile("total", 99)      # nanoseconds, within the sketch's relative error of the samples'

Laws: packing and unpacking changes nothing; in whatever order and grouping windows are added and sums merged, counts
and sketches are equal. Percentiles are never added up or averaged.
Rules it keeps: memory is bounded whatever boards say: figures beyond reason make a window unreadable, and of labels and
stages only so many have a row of their own. What it does NOT do: touch a database.
"""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Annotated

import msgspec

from tflotilla.host.telemetry.totals import MOST_LABELS, OTHER_LABELS
from tflotilla.shared import sketches
from tflotilla.shared.contract.messages import LatencySketch

if TYPE_CHECKING:
    from collections.abc import Iterator

_SCORE_BINS = 10
#: The contract has five.
_MOST_STAGES = 16
#: Beyond any board; so many windows of it can be added up in 63 bits.
_Count = Annotated[int, msgspec.Meta(ge=0, le=1 << 40)]
_Figure = Annotated[float, msgspec.Meta(ge=-1e15, le=1e15)]
_Index = Annotated[int, msgspec.Meta(ge=-50_000, le=50_000)]


class _Sketch(msgspec.Struct, gc=False):
    relative_error: Annotated[float, msgspec.Meta(gt=0, lt=1)]
    indices: list[_Index]
    counts: list[_Count]
    zeros: _Count = 0


class _Stage(msgspec.Struct, gc=False):
    sketch: _Sketch | None = None


class _Label(msgspec.Struct, gc=False):
    label: str
    count: _Count
    mean_score: _Figure
    std_score: _Figure | None = None


class Window(msgspec.Struct, gc=False):
    """Of a Metrics message what can be added up."""

    window_s: _Figure
    count: _Count
    errors: _Count
    dropped: _Count
    stages: dict[str, _Stage]
    labels: list[_Label]
    rss_bytes: _Count
    temperature_c: _Figure | None = None
    unreadable: _Count = 0
    scores: list[_Count] = []
    low_confidence: _Count | None = None
    throttled: bool | None = None


class _Card(msgspec.Struct):
    digest: str
    name: str
    version: str


class _Serving(msgspec.Struct):
    digest: str | None = None
    name: str | None = None
    version: str | None = None
    serving: _Card | None = None
    previous: _Card | None = None


class Scalars(msgspec.Struct, array_like=True):
    """The sums that are plain numbers."""

    windows: int = 0
    seconds: float = 0.0
    #: Inferences.
    count: int = 0
    errors: int = 0
    unreadable: int = 0
    dropped: int = 0
    #: Winners of windows that say how many were unsure, and how many were.
    judged: int = 0
    low_confidence: int = 0
    rss_max: int = 0
    rss_sum: int = 0
    temperatures: int = 0
    temperature_sum: float = 0.0
    temperature_max: float = -math.inf
    #: Windows that say whether the board was throttled, and how often it was.
    throttle_known: int = 0
    throttled: int = 0


class _Packed(msgspec.Struct, array_like=True):
    scalars: Scalars
    scores: list[int]
    #: Label → how often it won, and the sums of its scores and of their squares.
    labels: dict[str, tuple[int, float, float]]
    #: Stage, relative error, zeros, steps from one index to the next, counts.
    stages: list[tuple[str, float, int, list[int], list[int]]]


_WINDOWS = msgspec.json.Decoder(Window)
_SERVING = msgspec.json.Decoder(_Serving)
_PACKER = msgspec.msgpack.Encoder()
_UNPACKER = msgspec.msgpack.Decoder(_Packed)


def window(payload: bytes) -> Window | None:
    """Read what can be added up of a metrics message; None when it can't be."""
    try:
        found = _WINDOWS.decode(payload)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
    for stage in found.stages.values():
        if stage.sketch is not None and len(stage.sketch.indices) != len(stage.sketch.counts):
            return None
    return found


def cards(payload: bytes) -> Iterator[_Card]:
    """Return what a `state` or `model` message says bundles are called."""
    try:
        said = _SERVING.decode(payload)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return
    if said.digest and said.name and said.version:
        yield _Card(said.digest, said.name, said.version)
    yield from (card for card in (said.serving, said.previous) if card is not None)


class Sums:
    """The sums of a span, a board and a bundle; or of many."""

    __slots__ = ("_buckets", "_zeros", "labels", "scalars", "scores")

    def __init__(self) -> None:
        self.scalars = Scalars()
        #: How many winners had a score in [0, 0.1), [0.1, 0.2), … [0.9, 1].
        self.scores = [0] * _SCORE_BINS
        #: Label → how often it won, and the sums of its scores and of their squares.
        self.labels: dict[str, tuple[int, float, float]] = {}
        # By stage and relative error: sketches of different ones can't be added up.
        self._buckets: dict[tuple[str, float], dict[int, int]] = {}
        self._zeros: dict[tuple[str, float], int] = {}

    def add(self, *windows: Window) -> None:
        """Add windows; stages without a sketch (older agents) add nothing to latencies."""
        scalars = self.scalars
        scalars.windows += len(windows)
        scalars.seconds += sum([each.window_s for each in windows])
        scalars.count += sum([each.count for each in windows])
        scalars.errors += sum([each.errors for each in windows])
        scalars.unreadable += sum([each.unreadable for each in windows])
        scalars.dropped += sum([each.dropped for each in windows])
        memory = [each.rss_bytes for each in windows]
        scalars.rss_sum += sum(memory)
        scalars.rss_max = max(scalars.rss_max, *memory)
        if warm := [each.temperature_c for each in windows if each.temperature_c is not None]:
            scalars.temperatures += len(warm)
            scalars.temperature_sum += sum(warm)
            scalars.temperature_max = max(scalars.temperature_max, *warm)
        known = [each.throttled for each in windows if each.throttled is not None]
        scalars.throttle_known += len(known)
        scalars.throttled += sum(known)
        binned = [each.scores for each in windows if len(each.scores) == _SCORE_BINS]
        self.scores = [sum(counts) for counts in zip(self.scores, *binned, strict=True)]
        for each in windows:
            if each.low_confidence is not None:
                scalars.judged += sum([label.count for label in each.labels])
                scalars.low_confidence += each.low_confidence
            for label in each.labels:
                count, mean = label.count, label.mean_score
                # Without a deviation only what lies between windows is known of it.
                square = mean * mean + (label.std_score or 0.0) ** 2
                self._add_label(label.label, count, count * mean, count * square)
            for name, stage in each.stages.items():
                sketch = stage.sketch
                if sketch is not None:
                    self._add_buckets((name, sketch.relative_error), sketch.zeros, sketch.indices, sketch.counts)

    def merge(self, other: Sums) -> None:
        """Add another one's sums."""
        ours, theirs = self.scalars, other.scalars
        for name in Scalars.__struct_fields__:
            if name in ("rss_max", "temperature_max"):
                setattr(ours, name, max(getattr(ours, name), getattr(theirs, name)))
            else:
                setattr(ours, name, getattr(ours, name) + getattr(theirs, name))
        self.scores = [a + b for a, b in zip(self.scores, other.scores, strict=True)]
        for label, (count, total, squares) in other.labels.items():
            self._add_label(label, count, total, squares)
        for (stage, error), buckets in other._buckets.items():
            zeros = other._zeros[stage, error]
            self._add_buckets((stage, error), zeros, list(buckets), list(buckets.values()))

    def merge_packed(self, packed: bytes) -> None:
        """Add sums as `pack` wrote them. Raises ValueError for anything else."""
        found = _UNPACKER.decode(packed)
        other = Sums()
        other.scalars, other.scores, other.labels = found.scalars, found.scores, found.labels
        self.merge(other)
        for stage, error, zeros, steps, counts in found.stages:
            self._add_buckets((stage, error), zeros, list(itertools.accumulate(steps)), counts)

    def pack(self) -> bytes:
        """Write it as bytes; equal sums give equal bytes."""
        stages = []
        for (stage, error), buckets in sorted(self._buckets.items()):
            indices = sorted(buckets)
            steps = indices[:1] + [b - a for a, b in itertools.pairwise(indices)]
            stages.append((stage, error, self._zeros[stage, error], steps, [buckets[index] for index in indices]))
        labels = dict(sorted(self.labels.items()))
        return _PACKER.encode(_Packed(self.scalars, self.scores, labels, stages))

    @classmethod
    def unpack(cls, packed: bytes) -> Sums:
        """Read what `pack` wrote. Raises ValueError for anything else."""
        sums = cls()
        sums.merge_packed(packed)
        return sums

    @property
    def stages(self) -> dict[str, LatencySketch]:
        """Stage → its latencies; of several precisions that with the most values."""
        found: dict[str, LatencySketch] = {}
        for (stage, error), buckets in sorted(self._buckets.items()):
            indices = sorted(index for index, count in buckets.items() if count)
            sketch = LatencySketch(
                relative_error=error,
                indices=tuple(indices),
                counts=tuple(buckets[index] for index in indices),
                zeros=self._zeros[stage, error],
            )
            if stage not in found or sketches.count(sketch) > sketches.count(found[stage]):
                found[stage] = sketch
        return found

    def percentile(self, stage: str, percent: float) -> float | None:
        """Return a percentile in nanoseconds; None where nothing is known. Raises ValueError."""
        sketch = self.stages.get(stage)
        return None if sketch is None else sketches.percentile(sketch, percent)

    def _add_label(self, label: str, count: int, total: float, squares: float) -> None:
        if label not in self.labels and len(self.labels) >= MOST_LABELS:
            label = OTHER_LABELS
        before = self.labels.get(label)
        if before is not None:
            count, total, squares = before[0] + count, before[1] + total, before[2] + squares
        self.labels[label] = (count, total, squares)

    def _add_buckets(self, key: tuple[str, float], zeros: int, indices: list[int], counts: list[int]) -> None:
        buckets = self._buckets.get(key)
        if buckets is None:
            if len(self._buckets) < _MOST_STAGES:
                self._buckets[key] = dict(zip(indices, counts, strict=True))
                self._zeros[key] = zeros
            return
        if zeros:
            self._zeros[key] += zeros
        get = buckets.get
        # They are as many, see `window`; asking again costs a tenth of it all.
        for index, count in zip(indices, counts):  # noqa: B905
            buckets[index] = get(index, 0) + count
