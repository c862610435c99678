"""Average precision by hand, and against scikit-learn where both mean the same."""

from __future__ import annotations

import numpy as np
import pytest

from tflotilla.host.models import average_precision
from tflotilla.host.models.average_precision import LabelledBox, Ranked
from tflotilla.shared.inference.detections import Detection

WHOLE = (0.0, 0.0, 1.0, 1.0)
LEFT, RIGHT = (0.0, 0.0, 1.0, 0.4), (0.0, 0.6, 1.0, 1.0)


def found(score: float, box: tuple[float, ...] = LEFT, index: int = 0) -> Detection:
    return Detection(index=index, score=score, box=box)


def ranked(*right: bool) -> list[Ranked]:
    return [Ranked(score=1.0 - 0.01 * place, right=each) for place, each in enumerate(right)]


@pytest.mark.parametrize(
    ("right", "boxes", "expected"),
    [
        ((True,), 1, 1.0),
        ((), 3, 0.0),
        ((False, False), 1, 0.0),
        ((True,), 2, 0.5),  # one found, one missed
        ((False, True), 1, 0.5),  # precision 1/2 at recall 1
        # Precision 1, 1/2, 2/3 at recalls 1/3, 1/3, 2/3; the envelope is 1 and 2/3.
        ((True, False, True), 3, (1 + 2 / 3) / 3),
        # A dip in precision is bridged: the second hit counts with the third's 3/4.
        ((True, False, True, True), 3, (1 + 3 / 4 + 3 / 4) / 3),
    ],
)
def test_the_area_under_the_interpolated_curve(right: tuple[bool, ...], boxes: int, expected: float) -> None:
    assert average_precision.average_precision(ranked(*right), boxes) == pytest.approx(expected)


def test_it_is_scikit_learns_where_interpolation_changes_nothing() -> None:
    """scikit-learn does not interpolate: with every box found and precision never rising again both are one number."""
    from sklearn.metrics import average_precision_score

    for hits, misses in ((1, 0), (3, 5), (10, 90)):
        ordered = ranked(*[True] * hits, *[False] * misses)
        expected = average_precision_score([each.right for each in ordered], [each.score for each in ordered])
        assert average_precision.average_precision(ordered, hits) == pytest.approx(expected)


def test_interpolation_never_gives_less_than_scikit_learn() -> None:
    from sklearn.metrics import average_precision_score

    random = np.random.default_rng(5)
    for _ in range(20):
        right = random.random(30) < 0.4
        ordered = ranked(*right.tolist())
        plain = average_precision_score(right, [each.score for each in ordered])
        ours = average_precision.average_precision(ordered, int(right.sum()))
        assert plain - 1e-9 <= ours <= 1.0


def test_a_box_is_found_once_and_the_best_score_finds_it() -> None:
    matched = average_precision.match([found(0.6), found(0.9)], [LabelledBox(index=0, box=LEFT)])

    assert matched == [Ranked(score=0.9, right=True), Ranked(score=0.6, right=False)]


def test_half_of_the_union_is_enough_and_less_is_not() -> None:
    labelled = [LabelledBox(index=0, box=WHOLE)]

    for width, right in ((0.5, True), (0.49, False)):
        matched = average_precision.match([found(0.9, (0.0, 0.0, 1.0, width))], labelled)
        assert [each.right for each in matched] == [right]


def test_difficult_boxes_and_crowds_make_nothing_right_or_wrong() -> None:
    difficult = LabelledBox(index=0, box=LEFT, ignored=True)
    crowd = LabelledBox(index=0, box=RIGHT, crowd=True)
    small = (0.1, 0.7, 0.2, 0.8)

    assert average_precision.match([found(0.9), found(0.8, small)], [difficult, crowd]) == []
    assert average_precision.per_class([[found(0.9)]], [[difficult, crowd]]) == {}


def test_classes_are_judged_apart_and_over_all_pictures() -> None:
    labelled = [
        [LabelledBox(index=0, box=LEFT), LabelledBox(index=1, box=RIGHT)],
        [LabelledBox(index=0, box=LEFT)],
        [],
    ]
    detections = [
        [found(0.9), found(0.8, RIGHT, index=1)],
        [found(0.3)],
        [found(0.5), found(0.9, index=7)],  # wrong before the second is right; a class that nobody labelled
    ]

    values = average_precision.per_class(detections, labelled)

    assert values == {0: pytest.approx((1 + 2 / 3) / 2), 1: 1.0}
    assert average_precision.mean(values) == pytest.approx((5 / 6 + 1) / 2)
    assert average_precision.box_counts(labelled) == {0: 2, 1: 1}
    assert average_precision.mean({}) == 0.0
