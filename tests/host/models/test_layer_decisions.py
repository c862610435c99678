"""What the layer-wise report decides without running anything: constants, partners, sums of errors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests import models_made
from tflotilla.host.models import flatbuffer
from tflotilla.host.models.flatbuffer import SCHEMA
from tflotilla.host.models.layers import constants, matching, severed, twin
from tflotilla.host.models.layers.statistics import Difference, Extent
from tflotilla.shared.contract.errors import ModelError


def holder(values: np.ndarray[Any, Any], shape: tuple[int, ...], kind: str) -> tuple[Any, Any]:
    """Return a model of one constant, and the constant."""
    tensor, graph, model = SCHEMA.TensorT(), SCHEMA.SubGraphT(), SCHEMA.ModelT()
    tensor.name, tensor.shape, tensor.buffer = "constant", np.array(shape, np.int32), 1
    tensor.type = getattr(SCHEMA.TensorType, kind)
    tensor.quantization = SCHEMA.QuantizationParametersT()
    empty, full = SCHEMA.BufferT(), SCHEMA.BufferT()
    full.data = np.frombuffer(values.tobytes(), np.uint8)
    model.buffers, model.subgraphs, graph.tensors = [empty, full], [graph], [tensor]
    return model, tensor


def steps(tensor: Any, scales: list[float], zero_points: list[int], axis: int = 0) -> None:  # noqa: ANN401
    tensor.quantization.scale = np.array(scales, np.float32)
    tensor.quantization.zeroPoint = np.array(zero_points, np.int64)
    tensor.quantization.quantizedDimension = axis


def test_a_constant_of_one_scale_means_its_distance_from_the_zero_point() -> None:
    model, tensor = holder(np.array([0, 128, 255], np.uint8), (3,), "UINT8")
    steps(tensor, [0.5], [128])

    assert constants.real(model, tensor).tolist() == [-64.0, 0.0, 63.5]


def test_a_constant_of_many_scales_has_them_along_its_axis() -> None:
    model, tensor = holder(np.array([[1, 1], [2, 2]], np.int8), (2, 2), "INT8")
    steps(tensor, [1.0, 10.0], [0, 0], axis=1)

    assert constants.real(model, tensor).tolist() == [[1.0, 10.0], [2.0, 20.0]]


def test_scales_that_fit_no_axis_are_refused() -> None:
    model, tensor = holder(np.zeros((2, 2), np.int8), (2, 2), "INT8")
    steps(tensor, [1.0, 2.0, 3.0], [0, 0, 0])

    with pytest.raises(ModelError, match="3 scales along axis 0"):
        constants.real(model, tensor)


def test_the_channels_of_a_vector_lie_on_its_only_axis() -> None:
    model, tensor = holder(np.array([1, 1], np.int32), (2,), "INT32")
    steps(tensor, [1.0, 10.0], [0, 0], axis=3)

    assert constants.real(model, tensor).tolist() == [1.0, 10.0]


def test_four_bit_numbers_are_two_to_a_byte_the_low_one_first() -> None:
    model, tensor = holder(np.array([0x8F, 0x07], np.uint8), (3,), "INT4")
    steps(tensor, [2.0], [0])

    assert constants.real(model, tensor).tolist() == [-2.0, -16.0, 14.0]


def test_a_sparse_constant_is_spread_out() -> None:
    """Two rows of three, stored by rows: the second of the first row, and the first and third of the second."""
    model, tensor = holder(np.array([5, 6, 7], np.int8), (2, 3), "INT8")
    steps(tensor, [1.0], [0])
    rows, columns = SCHEMA.DimensionMetadataT(), SCHEMA.DimensionMetadataT()
    rows.format, rows.denseSize = SCHEMA.DimensionType.DENSE, 2
    columns.format = SCHEMA.DimensionType.SPARSE_CSR
    columns.arraySegments, columns.arrayIndices = SCHEMA.Int32VectorT(), SCHEMA.Int32VectorT()
    columns.arraySegments.values, columns.arrayIndices.values = [0, 1, 3], [1, 0, 2]
    tensor.sparsity = SCHEMA.SparsityParametersT()
    tensor.sparsity.traversalOrder, tensor.sparsity.dimMetadata = [0, 1], [rows, columns]

    assert constants.real(model, tensor).tolist() == [[0, 5, 0], [6, 0, 7]]


def test_a_sparse_constant_that_points_outside_is_refused() -> None:
    model, tensor = holder(np.array([5], np.int8), (1, 2), "INT8")
    steps(tensor, [1.0], [0])
    rows, columns = SCHEMA.DimensionMetadataT(), SCHEMA.DimensionMetadataT()
    rows.format, rows.denseSize = SCHEMA.DimensionType.DENSE, 1
    columns.format = SCHEMA.DimensionType.SPARSE_CSR
    columns.arraySegments, columns.arrayIndices = SCHEMA.Int32VectorT(), SCHEMA.Int32VectorT()
    columns.arraySegments.values, columns.arrayIndices.values = [0, 1], [7]
    tensor.sparsity = SCHEMA.SparsityParametersT()
    tensor.sparsity.traversalOrder, tensor.sparsity.dimMetadata = [0, 1], [rows, columns]

    with pytest.raises(ModelError, match="sparse encoding is broken"):
        constants.real(model, tensor)


def test_numbers_without_scales_are_not_quantized() -> None:
    _, tensor = holder(np.array([1], np.int32), (1,), "INT32")

    assert not constants.is_quantized(tensor)


def test_a_twin_is_float_throughout_and_has_no_operator_that_only_rewrites() -> None:
    made = twin.twin_of(models_made.read("tiny_classifier"))

    graph = made.model.subgraphs[0]
    assert {flatbuffer.dtype(tensor) for tensor in graph.tensors} == {"float32"}
    assert [flatbuffer.op_name(made.model, op) for op in graph.operators] == ["FULLY_CONNECTED", "SOFTMAX"]
    assert made.operators == {1: 0, 2: 1}
    assert made.same == {1: 0, 6: 5}
    assert graph.outputs.tolist() == [5]


def test_a_bias_without_steps_gets_those_of_the_specification() -> None:
    model = flatbuffer.read(models_made.read("tiny_classifier"))
    bias = model.subgraphs[0].tensors[3]
    flatbuffer.set_constant(model, bias, np.full(models_made.CLASSES, 1000, np.int32))
    whole = twin.twin_of(flatbuffer.write(model)).model
    bias.quantization.scale = None
    bias.quantization.zeroPoint = None

    without = twin.twin_of(flatbuffer.write(model)).model

    expected = flatbuffer.constant(whole, whole.subgraphs[0].tensors[3])
    actual = flatbuffer.constant(without, without.subgraphs[0].tensors[3])
    assert expected is not None
    assert actual is not None
    np.testing.assert_allclose(actual, expected, rtol=1e-6)


def test_a_range_from_zero_to_six_stands_for_a_relu6_in_files_of_the_first_converter() -> None:
    model = flatbuffer.read(models_made.read("tiny_classifier"))
    logits = model.subgraphs[0].tensors[4]
    flatbuffer.set_dtype(logits, "uint8")
    logits.quantization.scale, logits.quantization.zeroPoint = np.array([6 / 255], np.float32), np.array([0])

    made = twin.twin_of(flatbuffer.write(model))

    options = made.model.subgraphs[0].operators[0].builtinOptions
    assert made.clamped == (1,)
    assert options.fusedActivationFunction == SCHEMA.ActivationFunctionType.RELU6


def test_a_linear_layer_of_a_newer_file_stays_linear() -> None:
    made = twin.twin_of(models_made.read("tiny_classifier"))

    assert made.clamped == ()


def test_partners_are_found_by_order_where_names_say_nothing() -> None:
    quantized = flatbuffer.read(models_made.read("tiny_classifier"))
    reference = flatbuffer.read(models_made.read("tiny_classifier_float"))
    for number, tensor in enumerate(reference.subgraphs[0].tensors):
        tensor.name = f"other_{number}"

    assert matching.pair(quantized, reference) == {1: 0, 2: 1}


def test_an_operator_that_one_file_lacks_costs_no_other_its_partner() -> None:
    quantized = flatbuffer.read(models_made.read("tiny_classifier"))
    reference = flatbuffer.read(models_made.read("tiny_classifier_float"))
    graph = reference.subgraphs[0]
    graph.operators = [graph.operators[1]]

    assert matching.pair(quantized, reference) == {2: 0}


def test_a_name_does_not_make_partners_of_different_operators() -> None:
    quantized = flatbuffer.read(models_made.read("tiny_classifier"))
    reference = flatbuffer.read(models_made.read("tiny_classifier_float"))
    tensors = reference.subgraphs[0].tensors
    tensors[3].name, tensors[4].name = "scores_int8", "logits"

    assert matching.pair(quantized, reference) == {1: 0, 2: 1}


def test_whatever_comes_after_a_foreign_operator_stops_there() -> None:
    model = flatbuffer.read(models_made.read("custom_op"))

    assert severed.stopped_at(model) == {4: "TflotillaUnknown"}


def test_uniform_rounding_is_off_by_a_step_over_the_root_of_twelve() -> None:
    exact = np.random.default_rng(1).uniform(-100, 100, 200_000)
    difference = Difference()

    difference.add(np.rint(exact), exact)

    assert difference.rmse == pytest.approx(12**-0.5, rel=0.01)


def test_noise_of_a_tenth_is_twenty_decibels_however_it_is_split() -> None:
    signal = np.array([1.0, -1.0, 1.0, -1.0])
    together, apart = Difference(), Difference()

    together.add(signal * 1.1, signal)
    for value in signal:
        apart.add(np.array([value * 1.1]), np.array([value]))

    assert together.sqnr_db == pytest.approx(20.0)
    assert apart.sqnr_db == pytest.approx(20.0)


@pytest.mark.parametrize(
    ("actual", "expected", "sqnr_db"),
    [
        ([1.0, 2.0], [1.0, 2.0], 200.0),
        ([1.0], [0.0], -200.0),
        ([np.nan], [1.0], -200.0),
        ([3.0, 1.0], [np.inf, 1.0], 200.0),
        ([], [], None),
    ],
    ids=["the same", "noise alone", "not a number", "the reference has no number", "nothing"],
)
def test_the_ends_of_the_scale_are_numbers(actual: list[float], expected: list[float], sqnr_db: float | None) -> None:
    difference = Difference()

    difference.add(np.array(actual), np.array(expected))

    assert difference.sqnr_db == sqnr_db


def test_an_extent_counts_what_lies_outside() -> None:
    extent = Extent(-1.0, 1.0)

    extent.add(np.array([0.0, 0.5, 2.0]))
    extent.add(np.array([-3.0]))

    assert (extent.minimum, extent.maximum, extent.outside_share) == (-3.0, 2.0, 0.5)
