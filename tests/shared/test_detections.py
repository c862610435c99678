"""Detections are compared as sets: order is nothing, and what is lost, invented or not a number never passes."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tflotilla.shared.contract import codec
from tflotilla.shared.contract.errors import ModelError
from tflotilla.shared.contract.manifest import GoldenPolicy
from tflotilla.shared.contract.tensors import Quantization, TensorSpec
from tflotilla.shared.inference import detections
from tflotilla.shared.inference.goldens import GoldenVerdict, compare

if TYPE_CHECKING:
    from tflotilla.shared.inference.runtime import Tensor

POLICY = GoldenPolicy(
    count=1,
    runtime="any",
    tolerance_absolute=0.03,
    tolerance_relative=0.0,
    comparison="detections",
    min_iou=0.7,
    min_score=0.5,
)
SPECS = tuple(TensorSpec(name=name, shape=(), dtype="float32") for name in ("boxes", "classes", "scores", "count"))
Found = tuple[int, float, tuple[float, float, float, float]]

CAT: Found = (16, 0.9, (0.1, 0.1, 0.6, 0.6))
DOG: Found = (17, 0.7, (0.2, 0.4, 0.9, 0.9))
SHADE: Found = (17, 0.3, (0.0, 0.0, 0.2, 0.2))
SCENE = (CAT, DOG, SHADE)


def _outputs(*found: Found, room: int = 6, count: float | None = None) -> tuple[Tensor, ...]:
    boxes = np.zeros((1, room, 4), np.float32)
    classes, scores = np.zeros((1, room), np.float32), np.zeros((1, room), np.float32)
    for i, (index, score, box) in enumerate(found):
        boxes[0, i], classes[0, i], scores[0, i] = box, index, score
    return boxes, classes, scores, np.array([len(found) if count is None else count], np.float32)


def _compare(expected: tuple[Tensor, ...], actual: tuple[Tensor, ...], policy: GoldenPolicy = POLICY) -> GoldenVerdict:
    return compare(expected, actual, SPECS, policy)


def test_boxes_that_swap_places_pass_and_fail_element_by_element() -> None:
    expected, actual = _outputs(CAT, DOG, SHADE), _outputs(DOG, SHADE, CAT)

    assert _compare(expected, actual).ok
    assert not _compare(expected, actual, replace(POLICY, comparison="elementwise")).ok


@pytest.mark.parametrize(
    ("actual", "words"),
    [
        ((CAT, SHADE), "a detection of class 17 of score 0.7 is not there"),
        ((CAT, (18, *DOG[1:]), SHADE), "a detection of class 17 of score 0.7 is not there"),
        ((CAT, (17, 0.66, DOG[2])), "a detection of class 17 of score 0.7 is not there"),
        ((CAT, (17, 0.7, (0.5, 0.4, 0.9, 0.9))), "a detection of class 17 of score 0.7 is not there"),
        ((CAT, (17, 0.7, (0.9, 0.9, 0.2, 0.4))), "a detection of class 17 of score 0.7 is not there"),
        ((CAT, CAT, DOG), "a detection of class 16 of score 0.9 was not expected"),
        ((CAT, DOG, (3, 0.51, CAT[2])), "a detection of class 3 of score 0.51 was not expected"),
        ((CAT, DOG, (17, 0.5, SHADE[2])), "a detection of class 17 of score 0.5 was not expected"),
        ((), "a detection of class 16 of score 0.9 is not there"),
    ],
    ids=["lost", "class", "score", "moved", "inverted", "twice", "invented", "grown", "empty"],
)
def test_what_is_lost_or_invented_is_named(actual: tuple[Found, ...], words: str) -> None:
    verdict = _compare(_outputs(*SCENE), _outputs(*actual))

    assert not verdict.ok
    assert verdict.reason is not None
    assert verdict.reason.startswith(words)


def test_what_nobody_would_be_shown_may_come_and_go() -> None:
    assert _compare(_outputs(*SCENE), _outputs(CAT, DOG)).ok
    assert _compare(_outputs(CAT, DOG), _outputs(*SCENE)).ok


def test_a_detection_at_the_floor_may_fall_below_it() -> None:
    """Or rise above it: the partner counts, not the side of the floor it is on."""
    above, below = (17, 0.51, DOG[2]), (17, 0.49, DOG[2])

    assert _compare(_outputs(CAT, above), _outputs(CAT, below)).ok
    assert _compare(_outputs(CAT, below), _outputs(CAT, above)).ok


def test_the_greatest_difference_of_scores_is_told() -> None:
    verdict = _compare(_outputs(CAT, DOG), _outputs((16, 0.89, CAT[2]), (17, 0.72, DOG[2])))

    assert verdict.ok
    assert pytest.approx(0.02, abs=1e-6) == verdict.worst_absolute
    assert verdict.worst_lsb is None


def test_nothing_in_place_of_something_never_passes_however_low_it_scores() -> None:
    faint = _outputs((6, 0.09, (0.0, 0.0, 1.0, 1.0)))
    zeros = tuple(np.zeros_like(tensor) for tensor in faint)
    counted_zeros = _outputs(count=6)
    lax = replace(POLICY, tolerance_absolute=1.0, min_iou=0.0)

    for policy in (POLICY, lax):
        assert not _compare(faint, zeros, policy).ok
        assert not _compare(faint, counted_zeros, policy).ok


def test_nothing_where_nothing_was_expected_passes_and_something_does_not() -> None:
    assert _compare(_outputs(), _outputs(count=6)).ok
    assert _compare(_outputs(count=6), _outputs()).ok
    assert not _compare(_outputs(), _outputs(CAT)).ok


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("output", range(4))
@pytest.mark.parametrize("place", [0, -1])
def test_no_number_that_is_not_finite_passes(value: float, output: int, place: int) -> None:
    """Not even behind the count, and not even where the golden holds the same."""
    good, bad = _outputs(*SCENE), _outputs(*SCENE)
    bad[output].reshape(-1)[place] = value

    for expected, actual in ((good, bad), (bad, good), (bad, bad)):
        verdict = _compare(expected, actual)
        assert not verdict.ok
        assert verdict.reason is not None
        assert "NaN or an infinity" in verdict.reason


@pytest.mark.parametrize("count", [-1, 7, 1e30])
def test_a_count_that_can_not_be_is_refused(count: float) -> None:
    assert not _compare(_outputs(*SCENE), _outputs(*SCENE, count=count)).ok


def test_outputs_of_another_form_are_refused() -> None:
    good = _outputs(*SCENE)
    boxes, classes, scores, count = good

    assert "output 'boxes' is" in str(_compare(good, _outputs(*SCENE, room=7)).reason)
    assert "output 'scores' is float64" in str(_compare(good, (boxes, classes, scores.astype("f8"), count)).reason)
    swapped = (scores, boxes, count, classes)
    assert "are no boxes (1, N, 4)" in str(_compare(swapped, swapped).reason)
    with pytest.raises(ModelError, match="a detector has 4 outputs"):
        detections.read(good[:2], SPECS[:2])


def test_a_full_list_may_lack_what_it_had_no_room_for() -> None:
    third, fourth = (1, 0.61, (0.0, 0.0, 0.1, 0.1)), (2, 0.6, (0.5, 0.0, 0.6, 0.1))
    expected, actual = _outputs(CAT, DOG, third, room=3), _outputs(CAT, DOG, fourth, room=3)

    assert _compare(expected, actual).ok
    assert not _compare(_outputs(CAT, DOG, third), _outputs(CAT, DOG, fourth)).ok
    assert not _compare(_outputs(CAT, third, room=2), _outputs(CAT, (2, 0.5, DOG[2]), room=2)).ok


def test_a_full_list_is_no_excuse_for_having_nothing_right() -> None:
    expected, actual = _outputs((1, 0.6, CAT[2]), room=1), _outputs((2, 0.6, CAT[2]), room=1)

    assert not _compare(expected, actual).ok


def test_neighbours_of_one_class_are_not_robbed_of_their_partners() -> None:
    """Each of two near boxes fits a third; who takes it first must not decide."""
    left, middle, right = ((0.0, x, 1.0, x + 1.0) for x in (0.0, 0.12, 0.24))
    expected = _outputs((1, 0.81, middle), (1, 0.8, left))

    for actual in (_outputs((1, 0.8, left), (1, 0.8, right)), _outputs((1, 0.8, right), (1, 0.8, left))):
        assert _compare(expected, actual).ok
        assert _compare(actual, expected).ok


def test_someone_above_the_floor_takes_the_partner_of_someone_below_it() -> None:
    """The one below the floor fits better, and can be left alone."""
    box, beside = (0.0, 0.0, 1.0, 1.0), (0.0, 0.1, 1.0, 1.1)
    one, two = _outputs((1, 0.51, box)), _outputs((1, 0.51, beside), (1, 0.49, box))

    assert _compare(one, two).ok
    assert _compare(two, one).ok


def test_quantized_outputs_are_compared_as_the_real_numbers_they_are() -> None:
    step = Quantization(scales=(1 / 256,), zero_points=(0,))
    specs = (*SPECS[:2], TensorSpec(name="scores", shape=(), dtype="uint8", quantization=step), SPECS[3])
    boxes, classes, _, count = _outputs(CAT, DOG, room=2)

    def scores(*values: int) -> Tensor:
        return np.array([values], np.uint8)

    expected = (boxes, classes, scores(230, 180), count)
    assert compare(expected, (boxes, classes, scores(226, 184), count), specs, POLICY).ok
    assert not compare(expected, (boxes, classes, scores(230, 170), count), specs, POLICY).ok


def test_overlap_is_what_the_pascal_challenge_says() -> None:
    assert detections.iou((0, 0, 1, 1), (0, 0, 1, 1)) == 1.0
    assert pytest.approx(1 / 3) == detections.iou((0, 0, 1, 1), (0, 0.5, 1, 1.5))
    assert detections.iou((0, 0, 1, 1), (0, 1, 1, 2)) == 0.0
    assert detections.iou((0, 0, 0, 0), (0, 0, 0, 0)) == 1.0
    assert detections.iou((0, 0, 0, 0), (0, 0, 1, 1)) == 0.0


def test_a_manifest_from_before_is_compared_element_by_element() -> None:
    policy = codec.decode(GoldenPolicy, {"count": 1, "runtime": "x"}, "goldens")

    assert policy.comparison == "elementwise"


def _scene(rng: random.Random) -> list[Found]:
    """Boxes on a grid, so that none overlaps another; some above and some below the floor, none near it."""
    cells = rng.sample([(y, x) for y in range(4) for x in range(4)], rng.randint(1, 10))
    return [
        (
            rng.randint(0, 5),
            rng.choice([rng.uniform(0.6, 1.0), rng.uniform(0.05, 0.4)]),
            (y / 4, x / 4, (y + 1) / 4, (x + 1) / 4),
        )
        for y, x in cells
    ]


def _jittered(scene: list[Found], rng: random.Random) -> list[Found]:
    return [
        (index, score + rng.uniform(-0.025, 0.025), tuple(edge + rng.uniform(-0.01, 0.01) for edge in box))  # type: ignore[misc]
        for index, score, box in scene
    ]


@pytest.mark.parametrize("seed", range(60))
def test_any_order_and_little_noise_pass_and_any_one_change_does_not(seed: int) -> None:
    rng = random.Random(seed)  # noqa: S311 - a test wants the same scenes each time
    scene = _scene(rng)
    other = _jittered(scene, rng)
    rng.shuffle(other)
    expected, room = _outputs(*scene, room=12), 12

    assert _compare(expected, _outputs(*other, room=room)).ok
    assert _compare(_outputs(*other, room=room), expected).ok

    best = max(range(len(other)), key=lambda i: other[i][1])
    index, score, box = other[best]
    changed: dict[str, list[Found]] = {
        "lost": [*other[:best], *other[best + 1 :]],
        "class": [*other[:best], (index + 9, score, box), *other[best + 1 :]],
        "score": [*other[:best], (index, score - 0.06, box), *other[best + 1 :]],
        "place": [*other[:best], (index, score, (2.0, 2.0, 3.0, 3.0)), *other[best + 1 :]],
        "more": [*other, (rng.randint(0, 5), 0.95, (2.0, 2.0, 3.0, 3.0))],
    }
    for what, found in changed.items():
        assert not _compare(expected, _outputs(*found, room=room)).ok, what


@pytest.mark.parametrize("seed", range(80))
def test_pairing_is_as_good_as_trying_every_pairing(seed: int) -> None:
    """Crowded boxes of one class, where greed goes wrong, against brute force over all pairings."""
    rng = random.Random(seed)  # noqa: S311 - a test wants the same crowds each time
    # Shifted by at most one place, in most cases: pairings exist, but not every partner that fits leaves one for all.
    places = [rng.randint(0, 5) / 10 for _ in range(rng.randint(1, 5))]
    shifted = [x + rng.choice([-0.1, 0.0, 0.1]) for x in places]
    shifted[0] += rng.choice([0.0, 0.0, 0.1])
    crowds = [[(1, rng.choice([0.49, 0.5, 0.51]), (0.0, x, 1.0, x + 1.0)) for x in xs] for xs in (places, shifted)]
    one, other = (detections.read(_outputs(*crowd), SPECS) for crowd in crowds)
    matching = detections.match(one, other, floor=0.5, score_tolerance=0.03, min_iou=0.7)

    assert (not matching.lost and not matching.extra) == _some_pairing_serves(one, other)


def _some_pairing_serves(one: detections.Detections, other: detections.Detections) -> bool:
    floor = min(0.5, one.best)

    def pairings(left: int, free: frozenset[int]) -> bool:
        if left == len(one.found):
            return all(other.found[i].score < floor for i in free)
        mine = one.found[left]
        partners = [
            i
            for i in free
            if abs(mine.score - other.found[i].score) <= 0.03 and detections.iou(mine.box, other.found[i].box) >= 0.7
        ]
        return any(pairings(left + 1, free - {i}) for i in partners) or (
            mine.score < floor and pairings(left + 1, free)
        )

    return pairings(0, frozenset(range(len(other.found))))
