"""Profiles by differences of real models: they add up or say so, and the operators that must take longest do."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests import catalogue
from tests.device import children
from tflotilla.device.benchmark import operators
from tflotilla.shared.contract import codec
from tflotilla.shared.contract.agent_config import InferenceConfig
from tflotilla.shared.inference import runtime
from tflotilla.shared.inference.runtime import LoadOptions

if TYPE_CHECKING:
    from tflotilla.shared.contract.benchmark import OperatorProfile

_MODELS = {
    "DS-CNN int8": "models/mlperf_tiny/kws_dscnn/kws_ref_model.tflite",
    "DS-CNN float": "models/mlperf_tiny/kws_dscnn/kws_ref_model_float32.tflite",
    "ResNet-8 int8": "models/mlperf_tiny/resnet8_cifar10/pretrainedResnet_quant.tflite",
    "ResNet-8 float": "models/mlperf_tiny/resnet8_cifar10/pretrainedResnet.tflite",
    "MobileNetV2 int8": "models/imagenet/coral/mobilenet_v2_1.0_224_quant.tflite",
}
#: The note speaks from 0.1 on, and counts what a call without operators takes as well.
_ADDS_UP_WITHIN = 0.25
_AUTOENCODER = "models/mlperf_tiny/ad01_autoencoder/ad01_fp32.tflite"

pytestmark = [pytest.mark.slow, pytest.mark.catalogue]


def _profile(relative: str, name: str, *, xnnpack: bool, seconds: float) -> OperatorProfile:
    path = catalogue.path(relative)
    draw = np.random.default_rng(2)
    specs = runtime.find(name).load(path, LoadOptions()).inputs
    tensors = [draw.uniform(0, 100, [max(1, size) for size in spec.shape]).astype(spec.dtype) for spec in specs]
    inference = codec.decode(InferenceConfig, {"runtime": name, "xnnpack": xnnpack}, "test")
    return operators.profile(path, inference, tensors, seconds=seconds)


@pytest.mark.parametrize("xnnpack", [True, False], ids=["XNNPACK", "built-in kernels"])
@pytest.mark.parametrize("name", children.RUNTIMES)
@pytest.mark.parametrize("model", _MODELS)
def test_the_operators_add_up_to_the_whole_or_the_note_says_that_they_do_not(
    model: str, name: str, *, xnnpack: bool
) -> None:
    found = _profile(_MODELS[model], name, xnnpack=xnnpack, seconds=10)

    share = sum(row.avg_ms for row in found.operators) / found.whole_ms
    assert len(found.operators) > 1
    assert all(row.avg_ms >= 0 for row in found.operators)
    assert abs(share - 1) <= _ADDS_UP_WITHIN or "does not add up" in found.note


@pytest.mark.parametrize("xnnpack", [True, False], ids=["XNNPACK", "built-in kernels"])
@pytest.mark.parametrize("name", children.RUNTIMES)
def test_the_operators_with_most_to_do_take_longest(name: str, *, xnnpack: bool) -> None:
    """The autoencoder's first and last layers hold 640 x 128 weights, those between 128 x 128 and fewer."""
    found = _profile(_AUTOENCODER, name, xnnpack=xnnpack, seconds=10)

    order = sorted(range(len(found.operators)), key=lambda number: -found.operators[number].avg_ms)
    assert {0, len(order) - 1} == set(order[:2])
    assert "FULLY_CONNECTED" == found.operators[order[0]].node_type
