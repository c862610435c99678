"""What a detector found, and whether two runs of it found the same.

Reads the four outputs of TFLite_Detection_PostProcess: boxes (1, N, 4) as ymin, xmin, ymax, xmax, classes (1, N),
scores (1, N), count (1); what stands behind `count`, or scores nothing, is no detection.

Two kernels list boxes of nearly equal score in another order, so detections are compared as sets. Rules it keeps:
- the order of the detections on either side changes nothing;
- every detection of either side from the floor up needs a partner of its own on the other, of the same class, at
  about the same place and with about the same score; the partner itself may lie below the floor;
- only what a full list had no more room for is missing for a good reason, and never everything;
- nothing that is not finite is a detection.

What it does NOT do: non-maximum suppression, or turn detections into answers (`postprocessing`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tflotilla.shared.contract.errors import ModelError
from tflotilla.shared.inference.quantization import dequantize

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tflotilla.shared.contract.tensors import TensorSpec
    from tflotilla.shared.inference.runtime import Tensor

_NAMES = ("boxes", "classes", "scores", "count")
_EDGES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Detection:
    """One box: edges as shares of the image (ymin, xmin, ymax, xmax), the class's number, and its score."""

    index: int
    score: float
    box: tuple[float, ...]

    def __str__(self) -> str:
        """`class 16 of score 0.73`."""
        return f"class {self.index} of score {self.score:.3g}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Detections:
    """What one run found, best first."""

    found: tuple[Detection, ...]
    #: Whether the list had no room for more.
    full: bool

    @property
    def best(self) -> float:
        """The highest score, 0 where nothing was found."""
        return self.found[0].score if self.found else 0.0

    @property
    def least(self) -> float:
        """The score that a further detection would have needed to be listed."""
        return self.found[-1].score if self.full and self.found else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Matching:
    """Which detections have a partner."""

    #: Detections of the expected side that the other one lacks, best first.
    lost: tuple[Detection, ...]
    #: Detections that were not expected, best first.
    extra: tuple[Detection, ...]
    #: The greatest difference of two partners' scores; None where there are no partners.
    worst_score: float | None
    #: The least intersection over union of two partners' boxes.
    worst_iou: float | None


def read(outputs: Sequence[Tensor], specs: Sequence[TensorSpec]) -> Detections:
    """Read the outputs of one run.

    Raises:
        ModelError: they are not the outputs of a detector, or not finite.

    """
    check_form(outputs)
    boxes, classes, scores, count = (
        dequantize(tensor, spec).astype(np.float64).reshape(-1)
        for tensor, spec in zip(outputs, specs)  # noqa: B905 - four each
    )
    for name, values in zip(_NAMES, (boxes, classes, scores, count)):  # noqa: B905 - four each
        if not np.isfinite(values).all():
            message = f"the detector's {name} hold NaN or an infinity"
            raise ModelError(message)
    listed = int(count[0])
    if not 0 <= listed <= scores.size:
        message = f"the detector counts {listed} detections of at most {scores.size}"
        raise ModelError(message)
    found = [
        Detection(
            index=int(classes[i]), score=float(scores[i]), box=tuple(boxes[_EDGES * i : _EDGES * (i + 1)].tolist())
        )
        for i in range(listed)
        if scores[i] > 0
    ]
    # By all of its values: where scores are equal, the order of the outputs must not matter either.
    found.sort(key=lambda each: (-each.score, each.index, each.box))
    return Detections(found=tuple(found), full=len(found) == scores.size)


def check_form(outputs: Sequence[Tensor]) -> None:
    """Refuse outputs that can't be a detector's, whatever they hold. Raises ModelError."""
    if len(outputs) != len(_NAMES):
        message = f"a detector has 4 outputs ({', '.join(_NAMES)}), this one has {len(outputs)}"
        raise ModelError(message)
    boxes, classes, scores, count = outputs
    if not (boxes.size == _EDGES * scores.size and classes.size == scores.size and count.size == 1):
        message = "outputs of shapes " + ", ".join(str(tuple(tensor.shape)) for tensor in outputs)
        message += " are no boxes (1, N, 4), classes (1, N), scores (1, N) and count (1)"
        raise ModelError(message)


def iou(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    """Return the intersection over union of two boxes, 0..1; equal boxes have 1, even those without an area."""
    if one == other:
        return 1.0
    shared = _area((max(one[0], other[0]), max(one[1], other[1]), min(one[2], other[2]), min(one[3], other[3])))
    united = _area(one) + _area(other) - shared
    return shared / united if united > 0 else 0.0


def match(
    expected: Detections, actual: Detections, *, floor: float, score_tolerance: float, min_iou: float
) -> Matching:
    """Find a partner for every detection of either side that scores `floor` or more.

    Where nothing expected scores that much, the best of what is expected is the floor: every run that found something
    proves something.
    """
    floor = min(floor, expected.best) if expected.found else floor
    ious = {
        (e, a): overlap
        for e, one in enumerate(expected.found)
        for a, other in enumerate(actual.found)
        if one.index == other.index
        and abs(one.score - other.score) <= score_tolerance
        and (overlap := iou(one.box, other.box)) >= min_iou
    }
    partners = _pair(ious, _from(floor, expected), _from(floor, actual))
    taken = set(partners.values())
    lost = [each for e, each in enumerate(expected.found) if each.score >= floor and e not in partners]
    extra = [each for a, each in enumerate(actual.found) if each.score >= floor and a not in taken]
    if partners:
        lost = [each for each in lost if each.score > actual.least + score_tolerance or not actual.full]
        extra = [each for each in extra if each.score > expected.least + score_tolerance or not expected.full]
    differences = [abs(expected.found[e].score - actual.found[a].score) for e, a in partners.items()]
    return Matching(
        lost=tuple(lost),
        extra=tuple(extra),
        worst_score=max(differences, default=None),
        worst_iou=min((ious[pair] for pair in partners.items()), default=None),
    )


def _from(floor: float, detections: Detections) -> list[int]:
    return [i for i, each in enumerate(detections.found) if each.score >= floor]


def _pair(ious: Mapping[tuple[int, int], float], wanted: Sequence[int], wanted_too: Sequence[int]) -> dict[int, int]:
    """Pair expected with actual detections so that as many of the wanted ones of both sides as can have a partner.

    Best first, each with the nearest; where that one is taken, its owner moves aside, or goes without when nobody wants
    it (augmenting paths; that one pairing serves both sides is the theorem of Mendelsohn and Dulmage, 1958).
    """
    forward: dict[int, list[int]] = {}
    backward: dict[int, list[int]] = {}
    for e, a in sorted(ious, key=lambda pair: (-ious[pair], pair)):
        forward.setdefault(e, []).append(a)
        backward.setdefault(a, []).append(e)
    by_expected: dict[int, int] = {}
    by_actual: dict[int, int] = {}
    for e in wanted:
        _augment(e, forward, (by_expected, by_actual), frozenset(wanted), set())
    for a in wanted_too:
        if a not in by_actual:
            _augment(a, backward, (by_actual, by_expected), frozenset(wanted_too), set())
    return by_expected


def _augment(
    one: int,
    options: Mapping[int, Sequence[int]],
    partners: tuple[dict[int, int], dict[int, int]],
    wanted: frozenset[int],
    tried: set[int],
) -> bool:
    mine, theirs = partners
    for other in options.get(one, ()):
        if other in tried:
            continue
        tried.add(other)
        owner = theirs.get(other)
        if owner is not None and owner not in wanted:
            del mine[owner]
        elif owner is not None and not _augment(owner, options, partners, wanted, tried):
            continue
        mine[one], theirs[other] = other, one
        return True
    return False


def _area(box: tuple[float, ...]) -> float:
    return max(0.0, box[2] - box[0]) * max(0.0, box[3] - box[1])
