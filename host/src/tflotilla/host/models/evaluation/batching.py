"""The same model for many samples at once. Pure: bytes in, bytes out.

Converters write a batch of 1 into the file, and constants that repeat it: a RESHAPE to (1, 1600) refuses more. Here
the inputs' first dimension and those constants become the batch. Rules it keeps: nothing but shapes is changed; only
graphs of operators that treat the samples of a batch one by one, for sure, are touched: a wrong shape can crash a
runtime. What it does NOT do: promise that a kernel gives the same bits for many as for one: `answering` tries that.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from tflotilla.host.models import flatbuffer
from tflotilla.shared.contract.errors import ModelError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tflotilla.host.models.inspect import ModelInspection

#: Activations of a batch beside each other in a core's own cache: more is slower than fewer at a time.
_CACHE_BYTES = 2 << 20
_LEAST, MOST = 4, 128
_WIDEST_BYTES = 4
#: Operators whose answer for a sample depends on that sample alone, whatever their options.
_BY_SAMPLE = frozenset(
    {
        *(
            "CONV_2D",
            "DEPTHWISE_CONV_2D",
            "FULLY_CONNECTED",
            "MAX_POOL_2D",
            "AVERAGE_POOL_2D",
            "SOFTMAX",
            "LOG_SOFTMAX",
        ),
        *("LOGISTIC", "TANH", "RELU", "RELU6", "RELU_N1_TO_1", "LEAKY_RELU", "PRELU", "ELU", "GELU", "HARD_SWISH"),
        *("QUANTIZE", "DEQUANTIZE", "CAST", "ABS", "NEG", "EXP", "LOG", "SQRT", "RSQRT", "SQUARE", "POW"),
        *("ADD", "SUB", "MUL", "DIV", "MAXIMUM", "MINIMUM", "SQUARED_DIFFERENCE", "L2_NORMALIZATION"),
        *(
            "RESIZE_BILINEAR",
            "RESIZE_NEAREST_NEIGHBOR",
            "SPACE_TO_DEPTH",
            "DEPTH_TO_SPACE",
            "LOCAL_RESPONSE_NORMALIZATION",
        ),
    }
)
_BINARY = frozenset({"ADD", "SUB", "MUL", "DIV", "MAXIMUM", "MINIMUM", "SQUARED_DIFFERENCE", "PRELU", "POW"})
_REDUCING = frozenset({"MEAN", "SUM", "REDUCE_MAX", "REDUCE_MIN"})
_PADDING = frozenset({"PAD", "PADV2", "MIRROR_PAD"})
#: Those whose second operand says what happens to which dimension.
_GUIDED = _REDUCING | _PADDING | {"TRANSPOSE"}
_OPERANDS = 2


def size(inspection: ModelInspection) -> int:
    """Return how many samples to run at once; 1 where a batch can't pay: one sample fills the cache already."""
    one = _sample_bytes(inspection)
    if one is None:
        return 1
    fitting = min(MOST, _CACHE_BYTES // max(1, one))
    return fitting if fitting >= _LEAST else 1


def _sample_bytes(inspection: ModelInspection) -> int | None:
    """Return what one sample needs in activations: an operator's input and output, at the widest place."""
    if inspection.requirements.arena_bytes is not None:
        return inspection.requirements.arena_bytes
    sizes = []
    for tensor in inspection.tensors:
        if tensor.subgraph == 0 and not tensor.constant_bytes and tensor.dtype != "string":
            if -1 in tensor.shape[1:]:
                return None
            sizes.append(math.prod(abs(length) for length in tensor.shape) * _WIDEST_BYTES)
    return sum(sorted(sizes)[-2:])


def remembers(inspection: ModelInspection) -> bool:
    """Whether a sample's answer may depend on the samples before: then order matters, and nothing runs beside it."""
    return any(tensor.variable for tensor in inspection.tensors) or any(
        op.name in ("VAR_HANDLE", "READ_VARIABLE", "ASSIGN_VARIABLE", "RANDOM_UNIFORM", "RANDOM_STANDARD_NORMAL")
        for op in inspection.ops
    )


def rebatched(data: bytes, batch: int) -> bytes | None:
    """Return the model with `batch` as its inputs' first dimension instead of 1; None where that isn't safe."""
    model = flatbuffer.read(data)
    if len(model.subgraphs) != 1:
        return None
    graph = model.subgraphs[0]
    tensors = graph.tensors
    edges = [tensors[index] for index in (*graph.inputs, *graph.outputs)]
    if any(not flatbuffer.shape(tensor) or flatbuffer.shape(tensor)[0] != 1 for tensor in edges):
        return None
    try:
        for operator in graph.operators:
            if not _widen(model, tensors, operator, batch):
                return None
    except ModelError:
        return None  # a constant that can't be read: sparse, or damaged
    for index in graph.inputs:
        shape = np.array(flatbuffer.shape(tensors[index]), dtype=np.int32)
        shape[0] = batch
        tensors[index].shape = shape
        tensors[index].shapeSignature = None
    return flatbuffer.write(model)


def _widen(model: Any, tensors: Any, operator: Any, batch: int) -> bool:  # noqa: ANN401 - generated code without types
    """Prepare one operator; False where it can't be known to work."""
    name = flatbuffer.op_name(model, operator)
    operands = [tensors[index] for index in operator.inputs if index >= 0]
    if not operands:
        return False
    shape = flatbuffer.shape(operands[0])
    results = [flatbuffer.shape(tensors[index]) for index in operator.outputs]
    if any(each[:1] != (1,) for each in (shape, *results)):
        return False
    if name == "RESHAPE":
        return _reshape(model, operands, operator, batch)
    if name in _BINARY:
        return _stays_in_its_sample(model, operands)
    if name in _GUIDED:
        values = flatbuffer.constant(model, operands[1]) if len(operands) >= _OPERANDS else None
        return values is not None and _spares_the_batch(name, values.reshape(-1), len(shape))
    return _treats_samples_alike(model, name, operator, operands)


def _treats_samples_alike(model: Any, name: str, operator: Any, operands: list[Any]) -> bool:  # noqa: ANN401 - generated code without types
    shape = flatbuffer.shape(operands[0])
    if name == "CONCATENATION":
        # Beside each other, never behind each other; a constant would have to be repeated.
        own = [flatbuffer.constant(model, each) is None and flatbuffer.shape(each)[:1] == (1,) for each in operands]
        return bool(operator.builtinOptions.axis % len(shape)) and all(own)
    if name == "FULLY_CONNECTED":
        # Rows are whatever the weights leave: one per sample, or the samples' parts in order.
        weights = flatbuffer.constant(model, operands[1])
        return weights is not None and math.prod(shape[1:]) % weights.shape[-1] == 0
    return name in _BY_SAMPLE and flatbuffer.constant(model, operands[0]) is None


def _spares_the_batch(name: str, values: NDArray[Any], rank: int) -> bool:
    """Whether axes, paddings or a permutation leave the first dimension as it is."""
    if name in _REDUCING:
        return 0 not in [int(axis) % rank for axis in values]
    return values[0] == 0 and (name == "TRANSPOSE" or values[1] == 0)


def _stays_in_its_sample(model: Any, operands: list[Any]) -> bool:  # noqa: ANN401 - generated code without types
    """Whether no operand but a sample's own has a first dimension that a batch could be mistaken for."""
    rank = max(len(flatbuffer.shape(each)) for each in operands)
    for each in operands:
        shape = flatbuffer.shape(each)
        if flatbuffer.constant(model, each) is None:
            if len(shape) != rank or shape[0] != 1:
                return False
        elif len(shape) == rank and shape[0] != 1:
            return False
    return True


def _reshape(model: Any, operands: list[Any], operator: Any, batch: int) -> bool:  # noqa: ANN401 - generated code without types
    options = operator.builtinOptions
    if len(operands) < _OPERANDS:
        wanted = None if options is None or options.newShape is None else np.array(options.newShape, dtype=np.int32)
        if wanted is None or not len(wanted):
            return False
    else:
        constant = flatbuffer.constant(model, operands[1])
        if constant is None or constant.ndim != 1:
            return False
        wanted = constant.copy()
    if wanted[0] == 1:
        wanted[0] = batch
    elif wanted[0] != -1:
        return False
    if len(operands) >= _OPERANDS:
        # A buffer of its own: others may share the old one.
        flatbuffer.set_constant(model, operands[1], wanted)
    if options is not None and options.newShape is not None:
        options.newShape = wanted
    return True
