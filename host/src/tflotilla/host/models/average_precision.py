"""Average precision of a detector, as Pascal VOC has counted it since 2010. Pure: boxes in, numbers out.

A class's detections of all pictures are ranked by score. Each takes the labelled box of its class that it overlaps
most; it is right when the intersection over union reaches 0.5 and no better detection has taken that box, else wrong.
Boxes that are to be ignored (VOC's `difficult`) make what takes them neither, and so does a crowd (COCO's `iscrowd`)
for whatever lies half within it. Average precision is the area
under the curve of precision over recall, precision at each recall being the highest at that recall or beyond
(all-point interpolation); mAP is its mean over the classes that have labelled boxes.

Source: Everingham et al., "The Pascal Visual Object Classes Challenge: A Retrospective", IJCV 111 (2015), sections 2.2
and 4.2, and the VOC 2010 development kit. What it does NOT do: average over thresholds as COCO's mAP@[.5:.95] does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tflotilla.shared.inference.detections import iou

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from tflotilla.shared.inference.detections import Detection

MIN_IOU = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledBox:
    """One object that is in a picture; `box` is ymin, xmin, ymax, xmax in the unit of the detections."""

    index: int
    box: tuple[float, ...]
    #: Neither to be found nor wrong to find.
    ignored: bool = False
    #: Ignored too, and not one object but many: overlap counts as a share of the detection.
    crowd: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranked:
    """One detection when it was matched: its score, and whether it was right."""

    score: float
    right: bool


def average_precision(ranked: Iterable[Ranked], boxes: int) -> float:
    """Return the area under the interpolated curve of precision over recall, 0..1.

    Args:
        ranked: what `match` made of each detection, in any order; equal scores keep their order.
        boxes: labelled boxes that could be found; at least 1.

    """
    ordered = sorted(ranked, key=lambda each: -each.score)
    right = np.array([each.right for each in ordered], dtype=np.float64)
    if not right.any():
        return 0.0
    hits = np.cumsum(right)
    precision = hits / np.arange(1, len(right) + 1)
    # From the right: the highest precision at this recall or beyond. Recall moves by 1 / boxes at each hit.
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float(envelope[right > 0].sum() / boxes)


def match(found: Sequence[Detection], labelled: Sequence[LabelledBox], *, min_iou: float = MIN_IOU) -> list[Ranked]:
    """Judge one picture's detections of one class, best score first; those that took an ignored box are left out."""
    taken: set[int] = set()
    ranked: list[Ranked] = []
    for detection in sorted(found, key=lambda each: -each.score):
        overlaps = [0.0 if each.crowd else iou(detection.box, each.box) for each in labelled]
        nearest = max(range(len(overlaps)), key=overlaps.__getitem__, default=None)
        if nearest is None or overlaps[nearest] < min_iou:
            if not any(each.crowd and _within(detection.box, each.box) >= min_iou for each in labelled):
                ranked.append(Ranked(score=detection.score, right=False))
        elif labelled[nearest].ignored:
            continue
        else:
            ranked.append(Ranked(score=detection.score, right=nearest not in taken))
            taken.add(nearest)
    return ranked


def per_class(
    found: Sequence[Sequence[Detection]], labelled: Sequence[Sequence[LabelledBox]], *, min_iou: float = MIN_IOU
) -> dict[int, float]:
    """Return the average precision of each class that has labelled boxes, by class; one entry per picture in both.

    A class whose boxes are all to be ignored has none.
    """
    counts = box_counts(labelled)
    ranked: dict[int, list[Ranked]] = {index: [] for index in counts}
    for detections, boxes in zip(found, labelled, strict=True):
        for index in sorted({each.index for each in detections} & counts.keys()):
            ranked[index] += match(
                [each for each in detections if each.index == index],
                [each for each in boxes if each.index == index],
                min_iou=min_iou,
            )
    return {index: average_precision(ranked[index], count) for index, count in sorted(counts.items())}


def box_counts(labelled: Iterable[Sequence[LabelledBox]]) -> dict[int, int]:
    """Count the boxes of each class that are to be found."""
    counts: dict[int, int] = {}
    for boxes in labelled:
        for each in boxes:
            if not each.ignored and not each.crowd:
                counts[each.index] = counts.get(each.index, 0) + 1
    return dict(sorted(counts.items()))


def mean(per_class_values: Mapping[int, float]) -> float:
    """Return mAP: the mean over the classes; 0 without any."""
    return float(np.mean(list(per_class_values.values()))) if per_class_values else 0.0


def _within(box: tuple[float, ...], region: tuple[float, ...]) -> float:
    """Return the share of a box that lies in a region; 0 for a box without area."""
    height = min(box[2], region[2]) - max(box[0], region[0])
    width = min(box[3], region[3]) - max(box[1], region[1])
    area = max(0.0, box[2] - box[0]) * max(0.0, box[3] - box[1])
    return max(0.0, height) * max(0.0, width) / area if area else 0.0
