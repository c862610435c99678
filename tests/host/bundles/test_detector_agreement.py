"""Whom to believe about a detector, which photos to keep, and how closely boards must find the same boxes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tflotilla.host.bundles.agreement import Agreement, Variant, judge
from tflotilla.host.bundles.detector_agreement import LEAST_FLOOR, DetectorMeasure
from tflotilla.shared.contract.board import RuntimeOffer
from tflotilla.shared.contract.errors import ModelError
from tflotilla.shared.contract.tensors import TensorSpec

if TYPE_CHECKING:
    from numpy.typing import NDArray

NEW = RuntimeOffer(name="ai-edge-litert", version="2.3.0")
OLD = RuntimeOffer(name="tflite-runtime", version="2.14.0")
FAST, PLAIN = Variant(runtime=NEW, xnnpack=True), Variant(runtime=NEW, xnnpack=False)
OLD_PLAIN = Variant(runtime=OLD, xnnpack=False)
SPECS = tuple(TensorSpec(name=name, shape=(), dtype="float32") for name in ("boxes", "classes", "scores", "count"))
ROOM = 4


def _photo(*found: tuple[int, float, float]) -> tuple[NDArray[Any], ...]:
    """Give boxes of (class, score, left edge), a quarter of the image wide."""
    boxes, classes, scores = np.zeros((1, ROOM, 4), "f4"), np.zeros((1, ROOM), "f4"), np.zeros((1, ROOM), "f4")
    for i, (index, score, left) in enumerate(found):
        boxes[0, i], classes[0, i], scores[0, i] = (0.0, left, 1.0, left + 0.25), index, score
    return boxes, classes, scores, np.array([len(found)], "f4")


def _judge(
    *runs: tuple[Variant, list[tuple[NDArray[Any], ...]]], count: int = 8, measure: DetectorMeasure | None = None
) -> Agreement:
    return judge(dict(runs), count=count, measure=measure or DetectorMeasure(SPECS, 0.5))


PHOTOS = [_photo((i, 0.8, 0.0), (9, 0.7, 0.5)) for i in range(6)]
SWAPPED = [_photo((9, 0.71, 0.51), (i, 0.8, 0.0)) for i in range(6)]


def test_another_order_is_no_disagreement() -> None:
    found = _judge((FAST, PHOTOS), (PLAIN, SWAPPED), (OLD_PLAIN, SWAPPED))

    assert {} == found.refused
    assert pytest.approx(0.01, abs=1e-6) == found.spread.absolute
    assert pytest.approx(0.24 / 0.26, abs=1e-6) == found.spread.iou


def test_what_runtimes_differ_by_is_doubled_within_bounds() -> None:
    measure = DetectorMeasure(SPECS, 0.5)
    apart = [_photo((i, 0.76, 0.02), (9, 0.7, 0.5)) for i in range(6)]
    far = [_photo((i, 0.68, 0.06), (9, 0.7, 0.5)) for i in range(6)]

    near, some, most = (_judge((FAST, PHOTOS), (PLAIN, other)) for other in (PHOTOS, apart, far))

    assert [0.02, 0.08, 0.15] == [found.tolerance_absolute for found in (near, some, most)]
    assert [0.75, pytest.approx(1 - 2 * 0.04 / 0.27, abs=1e-4), 0.5] == [
        measure.min_iou(found.spread) for found in (near, some, most)
    ]


def test_a_photo_with_a_box_that_only_one_runtime_keeps_is_left_out() -> None:
    other = [*SWAPPED[:2], _photo((2, 0.8, 0.0), (9, 0.7, 0.5), (9, 0.55, 0.1)), *SWAPPED[3:]]

    found = _judge((FAST, PHOTOS), (PLAIN, other))

    assert (0, 1, 3, 4, 5) == found.chosen
    assert {} == found.refused


def test_where_later_photos_depend_on_earlier_ones_none_is_left_out() -> None:
    other = [*SWAPPED[:2], _photo((2, 0.8, 0.0)), *SWAPPED[3:]]

    found = _judge((FAST, PHOTOS), (PLAIN, other), measure=DetectorMeasure(SPECS, 0.5, may_skip=False))

    assert (0, 1, 2, 3, 4, 5) == found.chosen
    assert [PLAIN] == list(found.refused)


def test_photos_on_which_something_is_seen_come_first() -> None:
    faint = [_photo((i, 0.2, 0.0)) for i in range(6)]

    found = _judge((FAST, [*faint, *PHOTOS]), (PLAIN, [*faint, *SWAPPED]), count=4)

    assert all(i >= len(faint) for i in found.chosen)


@pytest.mark.parametrize(
    "wrong",
    [
        [_photo()] * 6,
        [_photo((0, 0.0, 0.0))] * 6,
        [_photo((i + 1, 0.8, 0.0), (9, 0.7, 0.5)) for i in range(6)],
        [_photo((i, 0.8, 0.0), (9, float("nan"), 0.5)) for i in range(6)],
        [(*_photo((i, 0.8, 0.0), (9, 0.7, 0.5))[:3], np.array([99], "f4")) for i in range(6)],
    ],
    ids=["nothing", "zeros", "classes", "nan", "count"],
)
def test_a_runtime_that_sees_something_else_is_not_believed(wrong: list[tuple[NDArray[Any], ...]]) -> None:
    found = _judge((OLD_PLAIN, wrong), (FAST, PHOTOS), (PLAIN, SWAPPED))

    assert FAST == found.reference
    assert (OLD,) == found.not_reproduced_by


def test_a_detector_that_sees_nothing_anywhere_gets_a_warning() -> None:
    found = _judge((FAST, [_photo()] * 6), (PLAIN, [_photo()] * 6))

    assert found.warning is not None
    assert "detects nothing on any input, in every runtime" in found.warning


def test_outputs_of_another_order_are_no_detectors() -> None:
    """Such a model can be served raw; as a detector its answers would be wrong."""
    scores_first = [tuple(photo[i] for i in (2, 0, 3, 1)) for photo in PHOTOS]

    with pytest.raises(ModelError, match="are no boxes"):
        _judge((FAST, scores_first))


def test_faint_boxes_are_not_held_whatever_is_reported() -> None:
    assert LEAST_FLOOR == DetectorMeasure(SPECS, 0.0).min_score
    assert 0.45 == DetectorMeasure(SPECS, 0.5).min_score
