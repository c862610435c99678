"""What a layer-wise report says: values only, nothing is measured here.

Two errors of every operator's output, both in real numbers:

    accumulated   the quantized file against its reference, both run from the model's input
    local         what this operator alone adds: the reference's operator, fed with what the quantized one was fed with

The reference is the file's float twin (the same weights in exact arithmetic), or the float model it was made from.

    RMSE        sqrt(mean((quantized - reference)^2))
    RMSE/scale  the same in steps of the tensor; uniform rounding alone gives 1/sqrt(12) = 0.289
                (TensorFlow's guide to its QuantizationDebugger, "Inspecting Quantization Errors")
    SQNR        10 log10(mean(reference^2) / mean((quantized - reference)^2)) in dB, from -200 to 200

What it does NOT do: say how much accuracy a layer costs. It says where numbers are lost.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tflotilla.shared.contract.tensors import QuantizationScheme

if TYPE_CHECKING:
    from collections.abc import Sequence

#: What an exact result is given, and its opposite.
BEST_DB = 200.0


class Sort(enum.StrEnum):
    """By what the worst layer is the worst."""

    LOCAL = "local"
    ACCUMULATED = "accumulated"
    RMSE = "rmse"
    OPERATOR = "operator"


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerError:
    """One output tensor of one operator of the main subgraph (or one quantized input: operator -1, op "INPUT")."""

    #: Position in the quantized file's list of operators.
    operator: int
    op: str
    #: Name and index of the output tensor in the quantized file.
    tensor: str
    tensor_index: int
    #: Name of the same tensor in the float model: what TFLite's converter takes in `denylisted_nodes`. None without it.
    reference_tensor: str | None
    dtype: str
    shape: tuple[int, ...]
    #: None for a tensor that is not quantized (a layer in float, hybrid kernels).
    scale: float | None
    zero_point: int | None
    representable_minimum: float | None
    representable_maximum: float | None
    #: Seen in the quantized run.
    minimum: float
    maximum: float
    #: What exact arithmetic gives for the same operator and inputs; beyond the representable range it is lost.
    reference_minimum: float | None
    reference_maximum: float | None
    #: Accumulated; None where the reference has no such tensor.
    rmse: float | None
    rmse_over_scale: float | None
    sqnr_db: float | None
    #: This operator's alone; None where it can't be run by itself.
    local_rmse: float | None
    local_rmse_over_scale: float | None
    local_sqnr_db: float | None
    #: Share of the exact values that lie more than one step outside of the representable range.
    saturated_share: float | None
    #: Share of the representable range that no value of the quantized run came into.
    unused_share: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightError:
    """One constant that is stored quantized."""

    #: First operator that takes it.
    operator: int
    op: str
    tensor: str
    dtype: str
    shape: tuple[int, ...]
    #: How many: 1 is per tensor, 0 is float16, which has none.
    scales: int
    smallest_scale: float | None
    largest_scale: float | None
    minimum: float
    maximum: float
    #: Bits that the channel with the smallest weights makes use of: log2 of its largest stored number, plus the sign.
    #: 8 is all of int8; None without channels.
    worst_channel_bits: float | None
    #: Against the float model's weights; None without it.
    rmse: float | None
    rmse_over_scale: float | None
    sqnr_db: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputError:
    """One output of the model, end to end; None where it can't be compared."""

    tensor: str
    sqnr_db: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Unmeasured:
    """An operator's output that has no figures, or no local ones, and why."""

    operator: int
    op: str
    tensor: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerReport:
    """Everything about one file; `layers` begins with the worst (by `Sort.LOCAL`)."""

    model: Path
    #: The float model that was the reference; None when it was the file's own float twin.
    against: Path | None
    scheme: QuantizationScheme
    #: Name and version: `ai-edge-litert==2.1.0`.
    runtime: str
    samples: int
    layers: tuple[LayerError, ...]
    #: Smallest SQNR, or fewest used bits, first.
    weights: tuple[WeightError, ...]
    outputs: tuple[OutputError, ...]
    unmeasured: tuple[Unmeasured, ...]
    #: Sentences for people: noise instead of data, activations that the ranges imply, ...
    notes: tuple[str, ...]


def ranked(layers: Sequence[LayerError], by: Sort = Sort.LOCAL) -> tuple[LayerError, ...]:
    """Return layers with the worst first; those without the figure asked for come last. Pure."""
    return tuple(sorted(layers, key=lambda layer: (*_badness(layer, by), layer.operator, layer.tensor_index)))


def _badness(layer: LayerError, by: Sort) -> tuple[bool, float]:
    figure: float | None
    if by is Sort.LOCAL:
        figure = layer.local_sqnr_db if layer.local_sqnr_db is not None else layer.sqnr_db
    elif by is Sort.ACCUMULATED:
        figure = layer.sqnr_db
    elif by is Sort.RMSE:
        steps = layer.local_rmse_over_scale if layer.local_rmse_over_scale is not None else layer.rmse_over_scale
        figure = None if steps is None else -steps
    else:
        return False, 0.0
    return figure is None, 0.0 if figure is None else figure
