"""What goes into a model and what comes out: names, shapes, dtypes, quantization.

Words and formula are those of the TFLite quantization specification: real = scale * (quantized - zero_point).
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Literal

DType = Literal["float32", "float16", "float64", "uint8", "int8", "int16", "int32", "int64", "uint32", "bool", "string"]


class QuantizationScheme(str, enum.Enum):
    """How a model's weights and activations are stored (DESIGN: TFLite converter's words)."""

    FLOAT32 = "float32"
    FLOAT16 = "float16"
    DYNAMIC_RANGE = "dynamic_range"
    INT8 = "int8"
    INT8_IO_UINT8 = "int8_io_uint8"
    INT8_IO_INT8 = "int8_io_int8"
    INT16X8 = "int16x8"

    @property
    def needs_calibration(self) -> bool:
        """Whether activations are quantized ahead of time, which takes a representative dataset."""
        return self in (self.INT8, self.INT8_IO_UINT8, self.INT8_IO_INT8, self.INT16X8)


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantization:
    """Affine quantization of one tensor; more than one scale means per channel along `axis`."""

    scales: tuple[float, ...]
    zero_points: tuple[int, ...]
    axis: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorSpec:
    """One input or output; a dimension of -1 is dynamic."""

    name: str
    shape: tuple[int, ...]
    dtype: DType
    quantization: Quantization | None = None
