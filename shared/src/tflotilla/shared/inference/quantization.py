"""Real numbers to quantized ones and back: real = scale * (quantized - zero_point).

Source: the TFLite 8-bit quantization specification. Rounds half to even and saturates; computes in float64, so that
every machine gives the same bytes. What it does NOT do: choose scales. That is calibration, and the converter's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tflotilla.shared.contract.tensors import TensorSpec


def quantize(real: NDArray[Any], spec: TensorSpec) -> NDArray[Any]:
    """Turn real numbers into the dtype of `spec`.

    An integer tensor without quantization holds its numbers as they are, rounded. A float tensor is only cast.

    Raises:
        ValueError: a NaN can't become an integer; or the spec is of strings.

    """
    dtype = _number_dtype(spec)
    if dtype.kind == "f":
        return np.asarray(real).astype(dtype)
    values = np.asarray(real, dtype=np.float64)
    if np.isnan(values).any():
        message = f"input {spec.name!r}: NaN can't be quantized"
        raise ValueError(message)
    if dtype.kind == "b":
        return np.asarray(values != 0)
    if spec.quantization is not None:
        scale, zero_point = _per_axis(spec, values.ndim)
        values = values / scale + zero_point
    limits = np.iinfo(dtype)
    # int64's largest number is no float64; the next one below is.
    highest = np.nextafter(float(limits.max), 0) if limits.bits > np.finfo(np.float64).nmant else float(limits.max)
    quantized: NDArray[Any] = np.clip(np.rint(values), float(limits.min), highest).astype(dtype)
    return quantized


def dequantize(tensor: NDArray[Any], spec: TensorSpec) -> NDArray[np.float32]:
    """Turn a tensor of `spec` into real numbers, float32; an unquantized one is only cast.

    Raises:
        ValueError: the spec is of strings.

    """
    _number_dtype(spec)
    if spec.quantization is None:
        return np.asarray(tensor).astype(np.float32)
    scale, zero_point = _per_axis(spec, np.ndim(tensor))
    return (scale * (np.asarray(tensor, dtype=np.float64) - zero_point)).astype(np.float32)


def _number_dtype(spec: TensorSpec) -> np.dtype[Any]:
    if spec.dtype == "string":
        message = f"tensor {spec.name!r} holds texts, not numbers"
        raise ValueError(message)
    return np.dtype(spec.dtype)


def _per_axis(spec: TensorSpec, ndim: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    assert spec.quantization is not None  # noqa: S101 - both callers have looked
    scales = np.asarray(spec.quantization.scales, dtype=np.float64)
    zero_points = np.asarray(spec.quantization.zero_points, dtype=np.float64)
    if len(scales) == 1:
        return scales[0], zero_points[0]
    shape = [1] * ndim
    shape[spec.quantization.axis] = len(scales)
    zero_points = np.broadcast_to(zero_points, scales.shape)
    return scales.reshape(shape), zero_points.reshape(shape)
