"""Outputs to scores, by numbers that can be checked by eye; no model runs here."""

from __future__ import annotations

import math

import numpy as np
import pytest
from PIL import Image

from tflotilla.host.models.average_precision import LabelledBox
from tflotilla.host.models.evaluation import judges
from tflotilla.shared.contract.errors import ModelError
from tflotilla.shared.contract.tensors import Quantization, TensorSpec
from tflotilla.shared.inference import postprocessing, preprocessing

ROWS = np.arange(2)


def spec(*shape: int, dtype: str = "float32", quantization: Quantization | None = None) -> TensorSpec:
    return TensorSpec(name="scores", shape=shape, dtype=dtype, quantization=quantization)  # type: ignore[arg-type]


def test_the_best_five_are_those_of_the_boards_own_code() -> None:
    """Ties go to the lower class, as `postprocessing.best` has it."""
    scores = np.random.default_rng(2).integers(0, 6, (200, 1, 12)).astype(np.uint8)
    for label in range(12):
        wanted = np.full(200, label)
        read = judges.read_classes(scores, spec(1, 12, dtype="uint8"), wanted)
        ranked = [[index for index, _ in postprocessing.best(each, 5)] for each in scores]
        assert read.among is not None
        assert read.best.tolist() == [each[0] for each in ranked]
        assert read.among.tolist() == [label in each for each in ranked]


def test_one_output_says_no_or_yes() -> None:
    quantization = Quantization(scales=(1 / 256,), zero_points=(-128,))
    scores = np.array([[[-128]], [[0]], [[1]], [[127]]], np.int8)

    read = judges.read_classes(scores, spec(1, 1, dtype="int8", quantization=quantization), np.array([0, 1, 1, 1]))

    assert read.best.tolist() == [0, 0, 1, 1]
    assert read.among is not None
    assert read.among.tolist() == [True, False, True, True]


def test_a_score_that_is_no_number_is_an_error_of_the_model() -> None:
    with pytest.raises(ModelError, match="gave class 1 the score nan"):
        judges.read_classes(np.array([[[0.1, math.nan]]]), spec(1, 2), None)


@pytest.mark.parametrize("resize", ["stretch", "crop", "pad"])
@pytest.mark.parametrize("size", [(200, 100), (60, 180), (64, 64)])
def test_boxes_come_back_to_where_the_object_is_in_the_picture(resize: str, size: tuple[int, int]) -> None:
    """A white rectangle around the centre, found again in the preprocessed picture, lies where it was painted."""
    width, height = size
    side = 48
    painted = (width // 2 - 20, height // 2 - 20, width // 2 + 20, height // 2 + 20)
    picture = Image.new("L", size)
    picture.paste(255, painted)
    chosen = preprocessing.parse(f"raw,colour=gray,resize={resize},interpolation=nearest")
    seen = preprocessing.to_real(picture, chosen, height=side, width=side)[..., 0] > 127
    rows, columns = np.nonzero(seen)
    box = (rows.min() / side, columns.min() / side, (rows.max() + 1) / side, (columns.max() + 1) / side)

    back = judges.frame(chosen, spec(1, side, side, 1)).to_picture(box, size)

    expected = (painted[1] / height, painted[0] / width, painted[3] / height, painted[2] / width)
    assert back == pytest.approx(expected, abs=2.5 * max(1 / side, 1 / min(size)))


def test_a_detectors_outputs_are_read_in_the_order_its_op_gives_them() -> None:
    boxes = np.array([[[[0.0, 0.0, 0.5, 0.5], [0.5, 0.5, 1.0, 1.0]]]] * 2, np.float32)
    classes, scores, count = np.array([[[0.0, 1.0]]] * 2), np.array([[[0.9, 0.4]]] * 2), np.array([[2.0], [1.0]])
    labelled = [[LabelledBox(index=0, box=(0.0, 0.0, 0.5, 0.5)), LabelledBox(index=1, box=(0.5, 0.5, 1.0, 1.0))]] * 2
    frame = judges.Frame(resize="stretch", height=300, width=300)
    specs = {"b": spec(1, 2, 4), "c": spec(1, 2), "s": spec(1, 2), "n": spec(1)}
    arrays = {"b": boxes, "c": classes, "s": scores, "n": count}

    for names, order in (("bcsn", (0, 1, 2, 3)), ("snbc", (2, 3, 0, 1))):
        judge = judges.BoxJudge(labelled, [(1, 1)] * 2, [[specs[name] for name in names]], [order], [frame])
        judge.add(judge.look(ROWS, [tuple(arrays[name] for name in names)]))
        verdict = judge.verdict()
        # The second picture counts one detection only: class 1 is missed there.
        assert verdict["map"] == pytest.approx((1.0 + 0.5) / 2)
        assert [(each["index"], each["boxes"]) for each in verdict["classes"]] == [(0, 2), (1, 2)]


def test_likeness_is_the_same_whatever_the_chunks() -> None:
    random = np.random.default_rng(4)
    expected = random.normal(size=(6, 1, 5))
    actual = expected + 0.01 * random.normal(size=expected.shape)
    specs = [[spec(1, 5)], [spec(1, 5)]]
    whole, parts = judges.LikenessJudge(specs, [(0, 0)]), judges.LikenessJudge(specs, [(0, 0)])

    whole.add(whole.look(np.arange(6), [(actual,), (expected,)]))
    for chunk in (slice(4, 6), slice(0, 4)):
        parts.add(parts.look(np.arange(6)[chunk], [(actual[chunk],), (expected[chunk],)]))

    (one,), (other,) = whole.verdict()["outputs"], parts.verdict()["outputs"]
    noise = float(((actual - expected).astype(np.float32) ** 2).sum())
    assert one["sqnr_db"] == pytest.approx(10 * math.log10((expected**2).sum() / noise), abs=0.01)
    assert one == pytest.approx(other)
    assert one["samples"] == 6


def test_lists_of_another_length_are_left_out_and_nothing_to_compare_is_said() -> None:
    specs = [[spec(-1, 4)], [spec(-1, 4)]]
    judge = judges.LikenessJudge(specs, [(0, 0)])
    judge.add(judge.look(ROWS, [([np.ones((1, 4)), np.ones((3, 4))],), ([np.ones((1, 4)), np.ones((2, 4))],)]))
    assert judge.verdict()["outputs"][0]["samples"] == 1

    judge = judges.LikenessJudge(specs, [(0, 0)])
    judge.add(judge.look(ROWS[:1], [([np.ones((3, 4))],), ([np.ones((2, 4))],)]))
    with pytest.raises(ModelError, match="nothing can be compared"):
        judge.verdict()
