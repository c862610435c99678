"""Operators cut out of a file compute what they computed in it; damaged files are refused in one sentence."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests import catalogue, models_made
from tests.device import children
from tflotilla.device.benchmark import graph_windows
from tflotilla.shared.contract.errors import ModelError
from tflotilla.shared.inference import runtime
from tflotilla.shared.inference.runtime import LoadOptions

if TYPE_CHECKING:
    from tflotilla.shared.inference.runtime import Tensor

_RUNTIME = children.RUNTIMES[-1]
#: Residual branches, loops, memory, shapes that are computed, a zip behind the model.
_CATALOGUE = (
    "models/mlperf_tiny/resnet8_cifar10/pretrainedResnet_quant.tflite",
    "models/mlperf_tiny/kws_dscnn/kws_ref_model_float32.tflite",
    "models/troublesome_tflite/nested_while.tflite",
    "models/troublesome_tflite/keras_lstm_mnist_ptq.tflite",
    "models/troublesome_tflite/lstm_quantized.tflite",
    "models/troublesome_tflite/multi_signatures.tflite",
    "models/imagenet/mobilenet_v1_0.25_224_1_metadata_1.tflite",
)


def _run(data: bytes, tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    model = runtime.find(_RUNTIME).load(data, LoadOptions(xnnpack=False))
    model.set_inputs(tensors)
    model.invoke()
    return model.get_outputs()


def _inputs(data: bytes) -> tuple[Tensor, ...]:
    draw = np.random.default_rng(5)
    specs = runtime.find(_RUNTIME).load(data, LoadOptions()).inputs
    return tuple(draw.uniform(0, 3, [max(1, size) for size in spec.shape]).astype(spec.dtype) for spec in specs)


def _chained(data: bytes, *, context: int) -> tuple[Tensor, ...]:
    """Run the model operator by operator, each after `context` others, and return its outputs."""
    graph = graph_windows.read(data)
    values = dict(zip(graph.inputs, _inputs(data), strict=True))
    for end in range(1, len(graph.operators) + 1):
        window = graph_windows.cut(data, graph, max(0, end - 1 - context), end)
        answers = _run(window.data, tuple(values[tensor] for tensor in window.inputs))
        values |= dict(zip(window.outputs, answers, strict=True))
    return tuple(values[tensor] for tensor in graph.outputs)


@pytest.mark.parametrize("name", ["tiny_classifier", "tiny_classifier_float", "tiny_classifier_float_dynamic"])
@pytest.mark.parametrize("context", [0, 1, 9])
def test_operators_one_by_one_answer_as_the_whole_model_does(name: str, context: int) -> None:
    data = models_made.read(name)

    answers = _chained(data, context=context)

    for expected, actual in zip(_run(data, _inputs(data)), answers, strict=True):
        np.testing.assert_array_equal(expected, actual)


@pytest.mark.catalogue
@pytest.mark.parametrize("relative", _CATALOGUE)
def test_operators_of_real_models_do_too(relative: str) -> None:
    data = catalogue.path(relative).read_bytes()

    answers = _chained(data, context=1)

    for expected, actual in zip(_run(data, _inputs(data)), answers, strict=True):
        np.testing.assert_array_equal(expected, actual)


def test_operators_are_named_after_what_they_make() -> None:
    graph = graph_windows.read(models_made.read("tiny_classifier"))

    assert ["image_int8", "logits", "scores_int8", "scores"] == [operator.name for operator in graph.operators]
    assert ((0,), (6,)) == (graph.inputs, graph.outputs)
    assert not any(operator.constant for operator in graph.operators)


def test_a_window_without_operators_gives_its_inputs_back() -> None:
    data = models_made.read("tiny_classifier")
    graph = graph_windows.read(data)

    window = graph_windows.cut(data, graph, 0, 0)

    image = _inputs(data)
    np.testing.assert_array_equal(image[0], _run(window.data, image)[0])


def test_bytes_behind_the_flatbuffer_do_no_harm() -> None:
    """TFLite's metadata puts a zip there."""
    data = models_made.read("tiny_classifier") + b"PK\x05\x06" + bytes(19)

    assert _chained(data, context=1)[0].shape == (1, 10)


def test_the_file_it_was_cut_from_is_left_as_it_was() -> None:
    data = models_made.read("tiny_classifier")
    before = bytes(bytearray(data))

    graph_windows.cut(data, graph_windows.read(data), 1, 2)

    assert before == data


@pytest.mark.parametrize(("begin", "end"), [(-1, 2), (2, 1), (0, 5)])
def test_operators_that_are_not_there_can_not_be_cut_out(begin: int, end: int) -> None:
    data = models_made.read("tiny_classifier")

    with pytest.raises(ValueError, match="has 4 operators"):
        graph_windows.cut(data, graph_windows.read(data), begin, end)


@pytest.mark.parametrize("data", [b"", b"TFL3", b"\x08\0\0\0TFL3", bytes(64), b"\xff" * 64])
def test_what_is_no_model_is_refused(data: bytes) -> None:
    with pytest.raises(ModelError):
        graph_windows.read(data)


def test_damaged_models_are_read_or_refused_and_nothing_else() -> None:
    whole = models_made.read("tiny_classifier")
    draw = random.Random(11)  # noqa: S311 - the same damage every time
    refused = 0
    for _ in range(3000):
        data = bytearray(whole[: draw.choice([len(whole), draw.randrange(len(whole))])])
        for _ in range(draw.randrange(1, 8)):
            if data:
                data[draw.randrange(len(data))] = draw.randrange(256)
        try:
            graph = graph_windows.read(bytes(data))
            graph_windows.cut(bytes(data), graph, len(graph.operators) // 2, len(graph.operators))
        except ModelError:
            refused += 1

    assert refused > 300


@pytest.mark.catalogue
@pytest.mark.parametrize(("name", "reason"), [("no_subgraphs", "no graph"), ("empty_model", "no operators")])
def test_a_model_without_operators_is_refused_with_the_reason(name: str, reason: str) -> None:
    with pytest.raises(ModelError, match=reason):
        graph_windows.read(catalogue.path(f"models/troublesome_tflite/{name}.tflite").read_bytes())
