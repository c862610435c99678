"""The same samples for a quantized file and for its reference.

A file of integer inputs gets the user's data quantized, as on a board; its reference gets the real numbers that this
quantization means, so that both start from the same. What it does NOT do: read data itself, `samples` does.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np

from tflotilla.host.models import datasets, samples
from tflotilla.shared.contract.errors import ModelError
from tflotilla.shared.inference import preprocessing
from tflotilla.shared.inference.quantization import dequantize

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from tflotilla.shared.contract.processing import Preprocessing
    from tflotilla.shared.contract.tensors import TensorSpec

    Tensors = tuple[NDArray[Any], ...]

_IMAGE_DIMENSIONS = 4


def parse(chosen: str | Preprocessing | None, specs: Sequence[TensorSpec]) -> Preprocessing | None:
    """Return the preprocessing that is meant. Raises UsageError when it is unknown or can't be meant for this input."""
    if isinstance(chosen, str):
        shape = specs[0].shape if specs else ()
        chosen = preprocessing.parse(chosen, channels=shape[-1] if len(shape) == _IMAGE_DIMENSIONS else None)
    if chosen is not None and specs:
        datasets.refuse_foreign_range(chosen, specs[0])
    return chosen


def load(
    data: Path | None, specs: Sequence[TensorSpec], chosen: Preprocessing | None, *, limit: int
) -> tuple[tuple[Tensors, ...], tuple[Tensors, ...] | None]:
    """Return up to `limit` samples as the file takes them, and the same as real numbers before quantization.

    The second is None where there are no real numbers: noise, or arrays that are quantized already.

    Raises:
        DatasetError: the data can't be read, or don't fit.
        ModelError: an input takes texts, or there is no input.

    """
    if not specs:
        raise ModelError("the model has no input, so there is nothing to run it on")
    specs = [_one_at_a_time(spec) for spec in specs]
    quantized = samples.load(data, specs, chosen, limit=limit)
    if data is None or all(spec.quantization is None for spec in specs):
        return quantized, None
    plain = [spec if spec.quantization is None else _float(spec) for spec in specs]
    real = samples.load(data, plain, chosen, limit=limit)
    # Integers in the input's own type pass as they are; as real numbers they would mean something else.
    own = any(
        spec.quantization is not None and r.dtype == np.float32 and np.array_equal(q.astype(np.float32), r)
        for qs, rs in zip(quantized, real, strict=True)
        for spec, q, r in zip(specs, qs, rs, strict=True)
    )
    return quantized, None if own and not _identity(specs) else real


def meaning(tensors: Tensors, specs: Sequence[TensorSpec]) -> Tensors:
    """Return the real numbers that a file's inputs mean; what isn't quantized stays."""
    return tuple(
        dequantize(tensor, spec) if spec.quantization is not None else tensor
        for tensor, spec in zip(tensors, specs, strict=True)
    )


def _one_at_a_time(spec: TensorSpec) -> TensorSpec:
    """Return the spec with a batch of 1 where the batch is open."""
    return dataclasses.replace(spec, shape=(1, *spec.shape[1:])) if spec.shape[:1] == (-1,) else spec


def _float(spec: TensorSpec) -> TensorSpec:
    return dataclasses.replace(spec, dtype="float32", quantization=None)


def _identity(specs: Sequence[TensorSpec]) -> bool:
    return all(s.quantization is None or s.quantization.scales == (1.0,) for s in specs)
