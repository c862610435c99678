"""Whether the model that is timed answers as it should: a figure of speed is never quoted without that.

Golden vectors are reproduced in every cell, with the cell's own batch; what the timed inputs give is searched for NaN;
labelled samples are counted. What it does NOT do: decide how close is close enough (the bundle's policy does).
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tflotilla.device.benchmark import inputs
from tflotilla.shared.inference import goldens
from tflotilla.shared.inference.postprocessing import best

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from tflotilla.shared.contract.manifest import GoldenPolicy
    from tflotilla.shared.contract.tensors import TensorSpec
    from tflotilla.shared.inference.goldens import GoldenVectors
    from tflotilla.shared.inference.runtime import LoadedModel, Tensor

    Tensors = tuple[Tensor, ...]


class WrongAnswersError(Exception):
    """The model computes something else than on the host; the message says what."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reproduced:
    """Golden vectors that came out right, and how long the very first inference took, copies included."""

    count: int
    worst_lsb: int | None
    first_inference_ns: int


def reproduce(
    model: LoadedModel,
    vectors: GoldenVectors,
    policy: GoldenPolicy,
    *,
    batch: int,
    specs: tuple[TensorSpec, ...],
    begins: Callable[[], None] = lambda: None,
    clock: Callable[[], int] = time.perf_counter_ns,
) -> Reproduced:
    """Run every golden vector through the freshly loaded model, repeated `batch` times, and compare each repetition.

    `begins` hears of each vector before it is run.

    Raises:
        WrongAnswersError: one of them differs by more than the policy allows, or there are fewer than promised.
        ModelError: the model fails.
        ValueError: a tensor doesn't fit.

    """
    if len(vectors) < max(1, policy.count):
        message = f"{len(vectors)} golden vectors, the manifest promises {policy.count}"
        raise WrongAnswersError(message)
    first_ns = 0
    worst: list[int] = []
    for number, (row, expected) in enumerate(zip(vectors.inputs, vectors.outputs, strict=True)):
        tensors = inputs.stack([row] * batch)
        begins()
        begin = clock()
        model.set_inputs(tensors)
        model.invoke()
        found = model.get_outputs()
        first_ns = first_ns or clock() - begin
        for repetition in range(batch):
            verdict = goldens.compare(expected, _part(found, expected, repetition, batch), specs, policy)
            if verdict.worst_lsb is not None:
                worst.append(verdict.worst_lsb)
            if not verdict.ok:
                where = f"golden vector {number}" + (f" (place {repetition} of the batch)" if batch > 1 else "")
                message = f"{where}: {verdict.reason}"
                raise WrongAnswersError(message)
    return Reproduced(count=len(vectors), worst_lsb=max(worst, default=None), first_inference_ns=max(1, first_ns))


def check_finite(model: LoadedModel, rows: Sequence[Tensors]) -> None:
    """Run every input of the rotation once. Raises WrongAnswersError where an output holds NaN."""
    for number, tensors in enumerate(rows):
        model.set_inputs(tensors)
        model.invoke()
        for spec, output in zip(model.outputs, model.get_outputs(), strict=True):
            if output.dtype.kind == "f" and np.isnan(output).any():
                message = f"output {spec.name!r} holds NaN for input {number + 1} of the {len(rows)} that are timed"
                raise WrongAnswersError(message)


def count_right(
    model: LoadedModel, sample: Callable[[int], Tensors], labels: Sequence[int], *, batch: int
) -> tuple[int, int]:
    """Return how many samples' best class is their label, and of how many; a class that several share is the first."""
    right = 0
    for begin in range(0, len(labels), batch):
        numbers = [min(begin + i, len(labels) - 1) for i in range(batch)]
        model.set_inputs(inputs.stack([sample(number) for number in numbers]))
        model.invoke()
        scores = model.get_outputs()[0]
        rows = scores.reshape(batch, -1)
        for number, row in zip(range(begin, min(begin + batch, len(labels))), rows, strict=False):
            right += best(row, 1)[0][0] == labels[number]
    return right, len(labels)


def _part(found: Tensors, expected: Tensors, repetition: int, batch: int) -> Tensors:
    """Return one sample's share of the outputs of a batch; what has no share stays whole, and will not compare."""
    return found if batch == 1 else tuple(_share(f, e, repetition) for f, e in zip(found, expected, strict=False))


def _share(found: NDArray[Any], expected: NDArray[Any], repetition: int) -> NDArray[Any]:
    size = expected.shape[0] if expected.ndim else 0
    return found[repetition * size : (repetition + 1) * size] if size and found.ndim else found
