"""real = scale * (quantized - zero_point), rounded half to even, saturated."""

from __future__ import annotations

import random

import numpy as np
import pytest

from tflotilla.shared.contract.tensors import DType, Quantization, TensorSpec
from tflotilla.shared.inference.quantization import dequantize, quantize


def _spec(dtype: DType, scale: float | None = None, zero_point: int = 0) -> TensorSpec:
    quantization = None if scale is None else Quantization(scales=(scale,), zero_points=(zero_point,))
    return TensorSpec(name="x", shape=(-1,), dtype=dtype, quantization=quantization)


def test_every_quantized_number_survives_the_way_to_real_and_back() -> None:
    rng = random.Random(20)  # noqa: S311 - a test wants the same numbers each time
    for _ in range(200):
        dtype: DType = rng.choice(["uint8", "int8", "int16"])
        limits = np.iinfo(dtype)
        zero_point = 0 if dtype == "int16" else rng.randint(limits.min, limits.max)
        spec = _spec(dtype, float(np.float32(10 ** rng.uniform(-6, 2))), zero_point)
        every = np.arange(limits.min, limits.max + 1).astype(dtype)

        assert (quantize(dequantize(every, spec), spec) == every).all(), spec


def test_halves_round_to_even() -> None:
    reals = np.array([0.5, 1.5, 2.5, -0.5, -1.5])

    assert quantize(reals, _spec("int8", 1.0)).tolist() == [0, 2, 2, 0, -2]


def test_what_is_out_of_range_saturates() -> None:
    reals = np.array([-1e30, 1e30, -np.inf, np.inf])

    assert quantize(reals, _spec("uint8", 0.1, 7)).tolist() == [0, 255, 0, 255]


@pytest.mark.parametrize("dtype", ["int32", "int64", "uint32"])
def test_wide_integers_saturate_without_wrapping(dtype: DType) -> None:
    low, high = quantize(np.array([-1e30, 1e30]), _spec(dtype)).tolist()

    assert low == np.iinfo(dtype).min
    assert high > np.iinfo(dtype).max * 0.999


def test_an_integer_without_quantization_holds_the_number_itself() -> None:
    assert quantize(np.array([0.0, 3.4, 254.6]), _spec("uint8")).tolist() == [0, 3, 255]
    assert dequantize(np.array([0, 3, 255], np.uint8), _spec("uint8")).tolist() == [0, 3, 255]


def test_a_float_tensor_is_only_cast() -> None:
    tensor = quantize(np.array([0.1, np.nan]), _spec("float32"))

    assert tensor.dtype == np.float32
    assert np.isnan(tensor[1])


def test_nan_is_refused_where_it_would_become_an_integer() -> None:
    with pytest.raises(ValueError, match="NaN can't be quantized"):
        quantize(np.array([np.nan]), _spec("int8", 1.0))


def test_texts_are_refused() -> None:
    with pytest.raises(ValueError, match="holds texts"):
        dequantize(np.array([b"x"]), _spec("string"))


def test_scales_per_channel_apply_along_their_axis() -> None:
    quantization = Quantization(scales=(1.0, 0.5), zero_points=(0, 10), axis=1)
    spec = TensorSpec(name="w", shape=(2, 2), dtype="int8", quantization=quantization)
    real = dequantize(np.array([[1, 12], [2, 14]], np.int8), spec)

    assert real.tolist() == [[1, 1], [2, 2]]
    assert quantize(real, spec).tolist() == [[1, 12], [2, 14]]
