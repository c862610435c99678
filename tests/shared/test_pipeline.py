"""The hot loop: answers at once or together, and stamps that add up."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from tests import models_made
from tests.echo_model import EchoModel
from tflotilla.shared.contract.errors import ModelError
from tflotilla.shared.contract.processing import Postprocessing, Preprocessing
from tflotilla.shared.inference import runtime as port
from tflotilla.shared.inference.pipeline import Pipeline
from tflotilla.shared.inference.postprocessing import Answerer
from tflotilla.shared.inference.preprocessing import Preprocessor
from tflotilla.shared.inference.runtime import LoadedModel, LoadOptions

if TYPE_CHECKING:
    from tflotilla.shared.inference.runtime import Tensor


def _classifier(name: str = "tiny_classifier") -> LoadedModel:
    return port.present()[0].load(models_made.read(name), LoadOptions())


def _pipeline(loaded: LoadedModel, preprocessor: Preprocessor | None = None) -> Pipeline:
    return Pipeline(loaded, preprocessor, Answerer(Postprocessing(top_k=1), loaded.outputs, models_made.LABELS))


def _scores(*values: float) -> tuple[Tensor]:
    return (np.array([values], np.float32),)


def _tensor(label: int) -> tuple[Tensor]:
    return (models_made.noisy(label, seed=label).reshape(1, 8, 8, 1),)


def test_tensors_become_an_answer() -> None:
    pipeline = _pipeline(_classifier())

    assert [pipeline.infer(_tensor(k)).top[0].label for k in range(10)] == list(models_made.LABELS)


def test_an_image_becomes_an_answer() -> None:
    loaded = _classifier()
    preprocessor = Preprocessor(Preprocessing(colour="gray", std=(255.0,)), loaded.inputs[0])
    pipeline = _pipeline(loaded, preprocessor)
    image = Image.fromarray(models_made.pattern(8)).resize((64, 64), Image.Resampling.NEAREST)

    assert pipeline.infer_image(image).top[0].label == "eight"
    pipeline.submit_image(image, tag="8.png")
    (collected,) = pipeline.collect()
    assert collected.tag == "8.png"
    assert collected.result is not None
    assert collected.result.top[0].label == "eight"


def test_a_model_without_preprocessing_takes_no_image() -> None:
    with pytest.raises(ModelError, match="takes tensors, not images"):
        _pipeline(_classifier()).infer_image(Image.new("L", (8, 8)))


@pytest.mark.parametrize("direct", [True, False])
def test_what_was_submitted_is_collected_once_in_order_with_its_tags(*, direct: bool) -> None:
    pipeline = _pipeline(_classifier()) if direct else _pipeline(EchoModel())
    answers = [3, 1, 4, 1, 5] if direct else [2, 0, 1, 0, 2]
    for number, answer in enumerate(answers):
        pipeline.submit(_tensor(answer) if direct else _scores(*np.eye(3)[answer]), f"item {number}")
    pending = pipeline.pending
    collected = pipeline.collect()

    assert pending == 5
    assert [one.tag for one in collected] == [f"item {number}" for number in range(5)]
    assert [one.result.top[0].index for one in collected if one.result is not None] == answers
    assert pipeline.pending == 0
    assert pipeline.collect() == []


def test_inferring_at_once_leaves_what_is_pending_alone() -> None:
    pipeline = _pipeline(_classifier())
    pipeline.submit(_tensor(3))

    assert pipeline.infer(_tensor(7)).top[0].index == 7
    (collected,) = pipeline.collect()
    assert collected.result is not None
    assert collected.result.top[0].index == 3


def test_answers_at_once_and_together_are_the_same() -> None:
    pipeline = _pipeline(_classifier())
    for label in range(10):
        pipeline.submit(_tensor(label))
    together = [one.result.top for one in pipeline.collect() if one.result is not None]

    assert together == [pipeline.infer(_tensor(label)).top for label in range(10)]


def test_outputs_too_large_to_keep_are_answered_at_once_and_come_out_the_same() -> None:
    large = np.zeros((1, 100_000), np.float32)
    large[0, 77_777] = 1
    pipeline = _pipeline(EchoModel(width=100_000))
    pipeline.submit((large,))
    (collected,) = pipeline.collect()

    assert collected.result is not None
    assert collected.result.top[0].index == 77_777


def test_one_broken_answer_does_not_lose_the_others() -> None:
    pipeline = _pipeline(EchoModel())
    for scores in ((0.0, 1.0, 0.0), (0.0, np.nan, 0.0), (1.0, 0.0, 0.0)):
        pipeline.submit(_scores(*scores))
    one, two, three = pipeline.collect()

    assert (one.error, three.error, two.result) == (None, None, None)
    assert "the score nan" in str(two.error)


def test_a_failing_kernel_is_told_at_once_and_leaves_nothing_pending() -> None:
    model = EchoModel()
    pipeline = _pipeline(model)
    model.failing = True

    with pytest.raises(ModelError, match="a kernel failed"):
        pipeline.submit(_scores(1, 0, 0))
    with pytest.raises(ModelError, match="a kernel failed"):
        pipeline.infer(_scores(1, 0, 0))
    assert pipeline.pending == 0


@pytest.mark.parametrize("shape", [(8, 8), (1, 9, 8, 1)])
def test_a_tensor_that_does_not_fit_is_refused_by_both_ways(shape: tuple[int, ...]) -> None:
    pipeline = _pipeline(_classifier())

    with pytest.raises(ValueError, match=r"."):
        pipeline.submit((np.zeros(shape, np.uint8),))
    with pytest.raises(ValueError, match=r"."):
        pipeline.submit(_tensor(1) * 2)
    with pytest.raises(ValueError, match=r"."):
        pipeline.infer((np.zeros(shape, np.uint8),))


def test_a_dynamic_batch_may_change_between_submissions() -> None:
    pipeline = _pipeline(_classifier("tiny_classifier_float_dynamic"))
    for labels in ([2], [5, 5, 5], [8]):
        batch = np.concatenate([models_made.pattern(label).reshape(1, 8, 8, 1) for label in labels])
        pipeline.submit(((batch / 255).astype(np.float32),))

    # The answer reads a batch as one vector: the first of equal winners counts.
    assert [one.result.top[0].index for one in pipeline.collect() if one.result is not None] == [2, 5, 8]


def test_stages_add_up_and_lie_within_the_time_that_passed() -> None:
    pipeline = _pipeline(_classifier())
    begin = time.perf_counter_ns()
    at_once = pipeline.infer(_tensor(1), started_ns=begin)
    pipeline.submit(_tensor(1), None, begin)
    (collected,) = pipeline.collect()
    passed = time.perf_counter_ns() - begin

    assert collected.result is not None
    for result in (at_once, collected.result):
        stages = result.stages_ns(decode_ns=5)
        assert stages["total"] == sum(stages.values()) - stages["total"]
        assert min(stages["preprocess"], stages["invoke"], stages["postprocess"]) > 0
        assert stages["total"] - 5 <= passed
    assert begin < collected.ended_ns < begin + passed
