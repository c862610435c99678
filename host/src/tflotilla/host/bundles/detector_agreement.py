"""How far two runs of a detector differ, for `agreement`: as sets of boxes, by the code that boards compare with. Pure.

Kernels that were right differed by up to 0.07 in the score of a box and overlapped by 0.75 at least (SSD MobileNet v1,
uint8, on photos), and listed boxes in another order; one found a second box of the same thing, which the other's
non-maximum suppression had dropped. Photos with such a box are left out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tflotilla.host.bundles import agreement
from tflotilla.host.bundles.agreement import Spread
from tflotilla.shared.contract.errors import ModelError
from tflotilla.shared.inference import detections

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tflotilla.host.bundles.agreement import Outputs, Runs
    from tflotilla.shared.contract.tensors import TensorSpec
    from tflotilla.shared.inference.detections import Detections

#: How far below the score from which boxes are reported they must still be reproduced: another processor may lift them
#: over it.
SCORE_MARGIN = 0.05
#: Fainter boxes come and go with the least noise, whatever the bundle reports.
LEAST_FLOOR = 0.3
#: Boxes that overlap less are never the same (PASCAL VOC's figure), those that overlap this much always.
LEAST_IOU = 0.5
_ENOUGH_IOU = 0.75
#: A kernel not seen here may differ by this much: nearly two steps of a score in the detector above.
_LEAST_TOLERANCE = 0.02
_MARGIN = 2.0
_DIGITS = 4


class DetectorMeasure:
    """Compares what was found; spreads are differences of scores, and one box that is lost is a contradiction."""

    def __init__(self, specs: Sequence[TensorSpec], score_threshold: float, *, may_skip: bool = True) -> None:
        """Take the model's four outputs, and the score from which the bundle reports boxes.

        `may_skip` must be False where later outputs depend on earlier inputs.
        """
        self._specs = tuple(specs)
        self.may_skip = may_skip
        self.min_score = round(max(LEAST_FLOOR, score_threshold - SCORE_MARGIN), _DIGITS)

    def flaw(self, runs: Runs) -> str | None:
        """Outputs that are no detections, or none at all. Raises ModelError when they are not a detector's."""
        for outputs in runs:
            detections.check_form(outputs)
        try:
            # All of them are read: one that can't be must not hide behind one that can.
            found = [self._read(outputs).found for outputs in runs]
        except ModelError as error:
            return f"{agreement.NOT_COMPUTED} detections: {error}"
        return None if any(found) else "it detects nothing on any input"

    def spread(self, expected: Outputs, actual: Outputs, runs: Runs) -> Spread:  # noqa: ARG002 - a Measure's signature
        """Return the greatest difference of two scores, or the score of a detection that has no partner."""
        try:
            one, other = self._read(expected), self._read(actual)
        except ModelError:
            return Spread(absolute=float("inf"), share=1.0)
        matching = detections.match(
            one, other, floor=self.min_score, score_tolerance=agreement.AGREEMENT_SHARE, min_iou=LEAST_IOU
        )
        alone = [each.score for each in (*matching.lost, *matching.extra)]
        if alone:
            return Spread(absolute=max(alone), share=1.0)
        difference = matching.worst_score or 0.0
        return Spread(
            absolute=difference, share=difference, iou=1.0 if matching.worst_iou is None else matching.worst_iou
        )

    def tolerance(self, spread: Spread, runs: Runs) -> float:  # noqa: ARG002 - a Measure's signature
        """Return what scores may differ by."""
        wanted = max(_LEAST_TOLERANCE, _MARGIN * spread.absolute)
        return round(min(wanted, agreement.AGREEMENT_SHARE), _DIGITS)

    def min_iou(self, spread: Spread) -> float:
        """Return how much boxes must overlap, where the overlap here was `spread.iou` at least."""
        return round(min(_ENOUGH_IOU, max(LEAST_IOU, 1 - _MARGIN * (1 - spread.iou))), _DIGITS)

    def tells(self, outputs: Outputs) -> bool:
        """Whether there is a box that people would be shown."""
        return self._read(outputs).best >= self.min_score

    def _read(self, outputs: Outputs) -> Detections:
        return detections.read(outputs, self._specs)
