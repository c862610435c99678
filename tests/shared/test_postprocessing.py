"""From outputs to answers: ranked on raw numbers, ties to the lower index, broken scores noticed."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

from tflotilla.shared.contract.errors import ModelError
from tflotilla.shared.contract.messages import Candidate
from tflotilla.shared.contract.processing import Postprocessing
from tflotilla.shared.contract.tensors import DType, Quantization, TensorSpec
from tflotilla.shared.inference.postprocessing import Answerer, best


def _spec(dtype: DType, scale: float | None = None, zero_point: int = 0) -> TensorSpec:
    quantization = None if scale is None else Quantization(scales=(scale,), zero_points=(zero_point,))
    return TensorSpec(name="scores", shape=(1, -1), dtype=dtype, quantization=quantization)


def _expected(scores: list[float], count: int) -> list[int]:
    return sorted(range(len(scores)), key=lambda index: (-scores[index], index))[:count]


@pytest.mark.parametrize("seed", range(150))
def test_the_best_are_those_that_sorting_would_find_first(seed: int) -> None:
    rng = random.Random(seed)  # noqa: S311 - a test wants the same numbers each time
    dtype = rng.choice(["uint8", "int8", "int16", "int32", "float32"])
    low, high = {"uint8": (0, 255), "int8": (-128, 127)}.get(dtype, (-300, 300))
    # Few different values, often the lowest there is: ties are where rankings differ.
    values = [rng.randint(low, high) for _ in range(rng.randint(1, 4))] + [low] * rng.randint(0, 2)
    scores = np.array([rng.choice(values) for _ in range(rng.choice([1, 2, 10, 24, 25, 300]))], dtype)
    if dtype == "float32" and rng.random() < 0.3:
        scores[rng.randrange(len(scores))] = -np.inf
    count = rng.randint(1, 12)
    before = scores.copy()

    ranked = best(scores.reshape(1, -1), count)

    assert [index for index, _ in ranked] == _expected(scores.tolist(), count)
    assert [value for _, value in ranked] == [scores[index] for index, _ in ranked]
    assert (scores == before).all()


@pytest.mark.parametrize("seed", range(100))
@pytest.mark.parametrize("dtype", ["uint8", "int8"])
def test_quantized_answers_agree_with_ranking_the_real_scores(seed: int, dtype: DType) -> None:
    rng = random.Random(seed)  # noqa: S311 - a test wants the same numbers each time
    limits = np.iinfo(dtype)
    zero_point, scale = rng.randint(limits.min, limits.max), rng.uniform(1e-4, 1)
    size, top_k = rng.choice([1, 2, 10, 200]), rng.randint(1, 10)
    scores = np.array([rng.choice([limits.min, rng.randint(limits.min, limits.max)]) for _ in range(size)], dtype)
    answerer = Answerer(Postprocessing(top_k=top_k), (_spec(dtype, scale, zero_point),), ())
    before = scores.copy()

    for _ in range(2):  # the second answer comes from what was kept
        top = answerer.answer((scores.reshape(rng.choice([(1, size), (size,), (1, 1, 1, size)])),))

        real = [scale * (int(score) - zero_point) for score in scores]
        assert [candidate.index for candidate in top] == _expected(real, top_k)
        assert [candidate.score for candidate in top] == pytest.approx([real[c.index] for c in top], abs=1e-6)
    assert (scores == before).all()


def test_an_answer_has_labels_and_numbers_where_labels_are_missing() -> None:
    answerer = Answerer(Postprocessing(top_k=2), (_spec("uint8", 1 / 256),), ("cat",))

    assert answerer.answer((np.array([[64, 128]], np.uint8),)) == (
        Candidate(label="1", index=1, score=0.5),
        Candidate(label="cat", index=0, score=0.25),
    )


def test_there_are_never_more_candidates_than_classes() -> None:
    answerer = Answerer(Postprocessing(top_k=5), (_spec("float32"),), ())

    assert [candidate.index for candidate in answerer.answer((np.array([[0.25, 0.75]], np.float32),))] == [1, 0]


def test_logits_become_scores_that_sum_to_one() -> None:
    answerer = Answerer(Postprocessing(top_k=3, softmax=True), (_spec("int8", 0.5, 3),), ())
    top = answerer.answer((np.array([[3, 5, 1]], np.int8),))

    assert [candidate.index for candidate in top] == [1, 0, 2]
    assert sum(candidate.score for candidate in top) == pytest.approx(1, abs=1e-5)
    assert top[0].score == pytest.approx(np.e / (np.e + 1 + 1 / np.e), abs=1e-6)


def test_huge_logits_do_not_overflow() -> None:
    answerer = Answerer(Postprocessing(top_k=1, softmax=True), (_spec("float32"),), ())

    assert answerer.answer((np.array([[1e30, -1e30]], np.float32),))[0].score == 1.0


@pytest.mark.parametrize("softmax", [True, False])
@pytest.mark.parametrize("size", [3, 100])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_score_that_is_no_number_is_an_error_wherever_it_stands(size: int, place: int, *, softmax: bool) -> None:
    scores = np.linspace(0, 1, size, dtype=np.float32)
    scores[place] = np.nan
    answerer = Answerer(Postprocessing(top_k=1, softmax=softmax), (_spec("float32"),), ())

    with pytest.raises(ModelError, match="the score nan"):
        answerer.answer((scores.reshape(1, -1),))


def test_what_is_kept_ready_stays_bounded() -> None:
    answerer = Answerer(Postprocessing(top_k=1), (_spec("uint8", 1 / 256),), ())
    for index in range(100):
        for value in range(1, 255):
            scores = np.zeros((1, 100), np.uint8)
            scores[0, index] = value
            assert answerer.answer((scores,))[0].index == index

    assert len(answerer._kept) <= 4096


@pytest.mark.parametrize("dtype", ["uint8", "int8"])
@pytest.mark.parametrize("width", [3, 10, 1001])
def test_many_answers_are_those_of_each(dtype: DType, width: int) -> None:
    """Ties, winners as low as the dtype goes, confident and hesitant outputs: all rank alike."""
    kind: np.dtype[np.integer[Any]] = np.dtype(dtype)
    limits = np.iinfo(kind)
    generator = np.random.default_rng(width)
    spec = _spec(dtype)
    rows = [
        np.full((1, width), limits.min, kind),
        np.full((1, width), limits.max, kind),
        np.eye(1, width, width - 1).astype(kind) * kind.type(limits.max),
        *(generator.integers(limits.min, limits.max, (1, width)).astype(kind) for _ in range(20)),
        *(generator.integers(limits.min, limits.min + 2, (1, width)).astype(kind) for _ in range(20)),
    ]
    many = [(row,) for row in rows]
    before = [row.copy() for row in rows]
    answerer = Answerer(Postprocessing(top_k=3), (spec,), ())

    answers = answerer.answer_many(many)

    assert answers == [Answerer(Postprocessing(top_k=3), (spec,), ()).answer(one) for one in many]
    assert all(np.array_equal(row, copy) for row, copy in zip(rows, before, strict=True))
    assert answerer.answer_many([*many, (np.zeros((1, width + 1), kind),)]) is None
    assert Answerer(Postprocessing(), (_spec("float32"),), ()).answer_many(many) is None


def _detections(
    boxes: list[list[float]], classes: list[float], scores: list[float], count: float
) -> tuple[np.ndarray[tuple[int, ...], np.dtype[np.float32]], ...]:
    return tuple(np.array(part, np.float32) for part in ([boxes], [classes], [scores], [count]))


@pytest.mark.parametrize(("classes", "count"), [([np.nan], 1), ([0], np.nan), ([0], np.inf)])
def test_boxes_that_are_no_number_are_a_broken_model(classes: list[float], count: float) -> None:
    with pytest.raises(ModelError, match="belongs"):
        _detector().answer(_detections([[0, 0, 1, 1]], classes, [0.9], count))


def _detector(**policy: float) -> Answerer:
    post = Postprocessing(kind="detection", top_k=int(policy.get("top_k", 10)), score_threshold=0.5)
    return Answerer(post, (_spec("float32"),) * 4, ("person", "cat"))


def test_a_detector_reports_boxes_above_the_threshold_best_first() -> None:
    outputs = _detections([[0, 0, 1, 1], [-0.1, 0.2, 0.3, 1.4], [0, 0, 0, 0]], [1, 0, 1], [0.6, 0.9, 0.4], 3)

    assert _detector().answer(outputs) == (
        Candidate(label="person", index=0, score=0.9, box=(0.0, 0.2, 0.3, 1.0)),
        Candidate(label="cat", index=1, score=0.6, box=(0.0, 0.0, 1.0, 1.0)),
    )


def test_a_detector_reports_no_more_than_its_count_and_top_k() -> None:
    boxes = [[0.0, 0.0, 1.0, 1.0]] * 4
    outputs = _detections(boxes, [0, 0, 0, 0], [0.6, 0.7, 0.8, 0.9], 3)

    assert [c.score for c in _detector().answer(outputs)] == [0.8, 0.7, 0.6]
    assert [c.score for c in _detector(top_k=2).answer(outputs)] == [0.8, 0.7]
    assert _detector().answer(_detections(boxes, [0] * 4, [0.9] * 4, 0)) == ()


def test_raw_reports_nothing() -> None:
    assert Answerer(Postprocessing(kind="raw"), (_spec("string"),), ()).answer((np.array([b"x"]),)) == ()


@pytest.mark.parametrize(
    ("post", "specs", "said"),
    [
        (Postprocessing(), (_spec("string"),), "needs numbers"),
        (Postprocessing(), (), "needs numbers"),
        (Postprocessing(kind="detection"), (_spec("float32"),), "reads 4 outputs"),
    ],
)
def test_outputs_of_another_kind_of_model_are_refused(
    post: Postprocessing, specs: tuple[TensorSpec, ...], said: str
) -> None:
    with pytest.raises(ModelError, match=said):
        Answerer(post, specs, ())
