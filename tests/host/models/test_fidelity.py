"""Whether a file follows its source: the judgement, and real runtimes that compute it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests import models_made
from tflotilla.host.models import fidelity
from tflotilla.shared.contract.tensors import QuantizationScheme
from tflotilla.shared.inference import goldens

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

FLOAT32, DYNAMIC, INT8 = QuantizationScheme.FLOAT32, QuantizationScheme.DYNAMIC_RANGE, QuantizationScheme.INT8
SOURCE = [np.array([[0.1, 0.7, 0.2]]), np.array([[0.8, 0.1, 0.1]])]


def judge(
    scheme: QuantizationScheme, actual: list[NDArray[np.float64]], expected: list[NDArray[np.float64]] | None = None
) -> tuple[float | None, str | None]:
    return fidelity.judge(scheme, [(e,) for e in expected or SOURCE], [(a,) for a in actual])


def test_the_same_numbers_follow_perfectly() -> None:
    assert judge(FLOAT32, SOURCE) == (200.0, None)


def test_the_ratio_is_that_of_signal_to_noise_in_decibels() -> None:
    deviation = float(np.concatenate(SOURCE).std())

    sqnr_db, reason = judge(INT8, [e + deviation / 10 for e in SOURCE])

    assert sqnr_db == pytest.approx(20.0)
    assert reason is None


def test_outputs_of_all_zeros_are_caught() -> None:
    sqnr_db, reason = judge(DYNAMIC, [np.zeros((1, 3)), np.zeros((1, 3))])

    assert sqnr_db == pytest.approx(0, abs=6)
    assert reason == "all numbers of output 0 are 0, the source's are not"


def test_a_large_offset_does_not_hide_that_nothing_is_computed() -> None:
    source = [np.array([1000.0, 1001.0, 1002.0])]

    assert judge(DYNAMIC, [np.full(3, 1001.0)], source)[1] is not None


def test_numbers_that_are_none_are_caught() -> None:
    assert judge(FLOAT32, [np.full((1, 3), np.nan), SOURCE[1]])[1] == (
        "output 0 is not a finite number where the source's is"
    )


def test_float_files_must_follow_closer_than_quantized_ones() -> None:
    coarse = [np.round(e * 10) / 10 + 0.03 for e in SOURCE]

    assert judge(INT8, coarse)[1] is None
    assert "does not follow the source's" in str(judge(FLOAT32, coarse)[1])


def test_outputs_whose_shape_depends_on_values_are_left_out() -> None:
    assert judge(FLOAT32, [np.zeros((0, 4))], [np.zeros((2, 4))]) == (None, None)


BOXES = np.array([[10, 10, 50, 50], [80, 20, 120, 90], [30, 60, 70, 99]], np.float32)
SCORES = np.array([0.999, 0.998, 0.997], np.float32)


def judge_found(boxes: NDArray[np.float32], scores: NDArray[np.float32]) -> tuple[float | None, str | None]:
    """Judge an int8 file that finds these where its source finds `BOXES` and `SCORES`."""
    return fidelity.judge(INT8, [(BOXES, SCORES)], [(boxes, scores)], (True, True))


def test_what_is_found_follows_in_whatever_order() -> None:
    turned = [2, 0, 1]

    assert judge_found(BOXES[turned], SCORES[turned]) == (200.0, None)
    sqnr_db, reason = judge_found(BOXES[turned] + 1, SCORES[turned] - np.float32(0.01))
    assert reason is None
    assert sqnr_db is not None
    assert 25 < sqnr_db < 45


def test_what_is_missed_or_invented_is_counted() -> None:
    assert judge_found(BOXES[:1], SCORES[:1])[1] == "it finds 1 of the 3 rows that the source finds, and 0 others"
    assert judge_found(BOXES + 60, SCORES)[1] == "it finds 0 of the 3 rows that the source finds, and 3 others"
    assert judge_found(BOXES[:2], SCORES[:2])[1] is None, "two of three are found"
    nothing = (BOXES[:0], SCORES[:0])
    assert fidelity.judge(INT8, [nothing], [nothing], (True, True)) == (None, None)
    assert fidelity.judge(INT8, [nothing], [(BOXES, SCORES)], (True, True)) == (
        None,
        "it finds 3 rows where the source finds none",
    )


def test_another_number_of_outputs_is_caught() -> None:
    found = fidelity.judge(FLOAT32, [(SOURCE[0], SOURCE[0])], [(SOURCE[0],)])

    assert found == (None, "it gives 1 outputs, the source 2")


def _reference(folder: Path) -> Path:
    """What the tiny classifier computes, from its own definition: the softmax of correlations with its patterns."""
    images = [models_made.pattern(label) / 255.0 for label in range(models_made.CLASSES)]
    signs = np.stack([np.where(image > 0, 1.0, -1.0).reshape(-1) for image in images])
    answers = []
    for image in images:
        logits = signs @ image.reshape(-1) / 4
        exponents = np.exp(logits - logits.max())
        answers.append((exponents / exponents.sum())[np.newaxis].astype(np.float32))
    inputs = tuple((image.reshape(1, 8, 8, 1).astype(np.float32),) for image in images)
    path = folder / "reference.npz"
    path.write_bytes(goldens.save(goldens.GoldenVectors(inputs=inputs, outputs=tuple((a,) for a in answers))))
    return path


@pytest.mark.parametrize("runtime", ["ai-edge-litert", "tflite-runtime"])
def test_a_real_runtime_says_which_file_follows_and_why_another_does_not(tmp_path: Path, runtime: str) -> None:
    pytest.importorskip(runtime.replace("-", "_"))
    files = {}
    for scheme, name in (
        (INT8, "tiny_classifier"),
        (DYNAMIC, "tiny_classifier_shifted"),
        (FLOAT32, "op_version_too_high"),
    ):
        files[scheme] = tmp_path / f"{name}.tflite"
        files[scheme].write_bytes(models_made.read(name))

    found = fidelity.measure(files, _reference(tmp_path), runtime)

    assert found[INT8].reason is None
    assert (found[INT8].sqnr_db or 0) > 30
    assert "does not follow" in str(found[DYNAMIC].reason)
    assert "FULLY_CONNECTED" in str(found[FLOAT32].reason)
    assert "\n" not in str(found[FLOAT32].reason)


def test_a_file_that_does_not_end_is_given_up_and_named(tmp_path: Path) -> None:
    files = {INT8: tmp_path / "tiny_classifier.tflite"}
    files[INT8].write_bytes(models_made.read("tiny_classifier"))

    # Nothing starts in so short a time: whatever the file is, it is not done.
    found = fidelity.measure(files, _reference(tmp_path), "ai-edge-litert", timeout_s=0.001)

    assert found[INT8].reason == "ai-edge-litert on the converted file: gave up after 0.001 s"
    assert found[INT8].runtime is None


def test_a_source_that_varies_less_than_a_step_is_neither_followed_nor_contradicted() -> None:
    """An untrained classifier says 0.001 for each of 1000 classes; int8 has steps of 1/256."""
    source = [(np.full((1, 1000), 0.001) + np.random.default_rng(0).random((1, 1000)) * 1e-4,)]
    zeros = [(np.zeros((1, 1000)),)]
    wrong = [(np.full((1, 1000), 0.5),)]
    scheme = QuantizationScheme.INT8

    assert (None, None) == fidelity.judge(scheme, source, zeros, steps=(1 / 256,))
    assert fidelity.judge(scheme, source, wrong, steps=(1 / 256,))[1] is not None, "0.5 is no blur of 0.001"
    assert fidelity.judge(scheme, source, zeros, steps=(1e-5,))[1] is not None, "there were steps enough"
    assert fidelity.judge(scheme, source, zeros)[1] is not None
