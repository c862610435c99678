"""How a file's weights are stored: ranges, steps, channels that get few of them, and what rounding cost. Pure.

What it does NOT do: look at biases; theirs are 32 bits or more.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from tflotilla.host.models import flatbuffer
from tflotilla.host.models.layers import constants
from tflotilla.host.models.layers.report import WeightError
from tflotilla.host.models.layers.statistics import Difference
from tflotilla.host.models.layers.twin import REWRITERS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

    from tflotilla.host.models.layers.reference import Reference

_WEIGHT_TYPES = ("int8", "uint8", "int16", "int4")
#: Where the output channels of a per-tensor weight lie; 0 for every other operator.
_CHANNELS = {"DEPTHWISE_CONV_2D": 3}


def measure(model: Any, reference: Reference) -> tuple[WeightError, ...]:  # noqa: ANN401 - generated code without types
    """Return every quantized weight of the main subgraph, the worst first.

    Raises:
        ModelError: a constant is broken.

    """
    found = [_weight(model, reference, *use) for use in _uses(model)]
    return tuple(sorted(found, key=_goodness))


def _goodness(weight: WeightError) -> tuple[float, float, int]:
    bits = math.inf if weight.worst_channel_bits is None else weight.worst_channel_bits
    return math.inf if weight.sqnr_db is None else weight.sqnr_db, bits, weight.operator


def _uses(model: Any) -> Iterator[tuple[int, int, int]]:  # noqa: ANN401
    """Yield constant, first operator that computes with it, and its position among that operator's inputs."""
    graph = model.subgraphs[0]
    stands_for: dict[int, int] = {}
    seen: set[int] = set()
    for number, operator in enumerate(graph.operators or ()):
        taken = [] if operator.inputs is None else [stands_for.get(int(i), int(i)) for i in operator.inputs]
        if flatbuffer.op_name(model, operator) in (*REWRITERS, "DENSIFY"):
            stands_for[int(operator.outputs[0])] = taken[0]
            continue
        for position, index in enumerate(taken):
            if index < 0 or index in seen or not _is_weight(model, graph.tensors[index]):
                continue
            seen.add(index)
            yield index, number, position


def _is_weight(model: Any, tensor: Any) -> bool:  # noqa: ANN401
    if not constants.is_constant(model, tensor):
        return False
    quantized = constants.is_quantized(tensor) and constants.dtype(tensor) in _WEIGHT_TYPES
    return quantized or flatbuffer.dtype(tensor) == "float16"


def _weight(model: Any, reference: Reference, index: int, number: int, position: int) -> WeightError:  # noqa: ANN401
    graph = model.subgraphs[0]
    tensor, op = graph.tensors[index], flatbuffer.op_name(model, graph.operators[number])
    values = constants.real(model, tensor) if constants.is_quantized(tensor) else constants.stored(model, tensor)
    values = values.astype(np.float32)
    scales = _scales(model, tensor)
    error, in_steps = _errors(values, _original(reference, number, position), scales, tensor)
    return WeightError(
        operator=number,
        op=op,
        tensor=flatbuffer.tensor_name(tensor),
        dtype=constants.dtype(tensor) or flatbuffer.dtype(tensor),
        shape=flatbuffer.shape(tensor),
        scales=scales.size,
        smallest_scale=float(scales.min()) if scales.size else None,
        largest_scale=float(scales.max()) if scales.size else None,
        minimum=float(values.min()),
        maximum=float(values.max()),
        worst_channel_bits=_worst_channel_bits(model, tensor, op),
        rmse=error.rmse,
        rmse_over_scale=in_steps.rmse,
        sqnr_db=error.sqnr_db,
    )


def _scales(model: Any, tensor: Any) -> NDArray[np.float64]:  # noqa: ANN401
    blocks = constants.block_scales(model, tensor)
    if blocks is not None:
        return blocks.reshape(-1)
    found = constants.steps(tensor)
    return np.zeros(0) if found is None else found[0]


def _original(reference: Reference, number: int, position: int) -> NDArray[Any] | None:
    """Return the float model's weight at the same place; None without a float model."""
    if not reference.is_other_file or number not in reference.operators:
        return None
    model = reference.model
    taken = model.subgraphs[0].operators[reference.operators[number]].inputs
    if taken is None or position >= len(taken) or int(taken[position]) < 0:
        return None
    return flatbuffer.constant(model, model.subgraphs[0].tensors[int(taken[position])])


def _errors(
    values: NDArray[Any],
    original: NDArray[Any] | None,
    scales: NDArray[np.float64],
    tensor: Any,  # noqa: ANN401
) -> tuple[Difference, Difference]:
    plain, in_steps = Difference(), Difference()
    if original is None or original.shape != values.shape:
        return plain, in_steps
    plain.add(values, original)
    if scales.size == 1:
        in_steps.add(values / scales[0], original / scales[0])
    elif scales.size and values.shape[constants.along(tensor)] == scales.size:
        wide = [1] * values.ndim
        wide[constants.along(tensor)] = scales.size
        in_steps.add(values / scales.reshape(wide), original / scales.reshape(wide))
    return plain, in_steps


def _worst_channel_bits(model: Any, tensor: Any, op: str) -> float | None:  # noqa: ANN401
    shape: Mapping[int, int] = dict(enumerate(flatbuffer.shape(tensor)))
    found = constants.steps(tensor)
    if found is None or len(shape) < 2:  # noqa: PLR2004 - a vector has no channels
        return None
    across = constants.along(tensor) if len(found[0]) > 1 else _CHANNELS.get(op, 0)
    if across not in shape:
        return None
    wide = [1] * len(shape)
    wide[across] = -1
    zero_points = found[1].reshape(wide) if len(found[1]) > 1 else found[1][0]
    distance = np.abs(constants.stored(model, tensor).astype(np.float64) - zero_points)
    largest = distance.max(axis=tuple(i for i in shape if i != across))
    # Channels of nothing but zeros are pruned, not badly stored.
    used = largest[largest > 0]
    return float(np.log2(used.min() + 1) + 1) if used.size else None
