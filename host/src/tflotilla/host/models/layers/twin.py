"""The float twin of a quantized file: the same network with the same weights, in exact arithmetic. Pure.

Every quantized tensor becomes float32 under its old index: constants by their scales, activations by their type.
QUANTIZE and DEQUANTIZE are then nothing but names for their input, and go. So each activation of the file can be
compared with what it would be if nothing were ever rounded: for files of whatever origin, without TensorFlow.

What it does NOT do: restore weights as they were before rounding; only the float model knows those. Nor does it change
op versions: kernels go by the types of their tensors, and a runtime that takes the file takes its versions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from tflotilla.host.models import flatbuffer
from tflotilla.host.models.flatbuffer import SCHEMA
from tflotilla.host.models.layers import constants
from tflotilla.shared.contract.errors import ModelError

#: Operators that only change how numbers are written down.
REWRITERS = ("QUANTIZE", "DEQUANTIZE")
_DENSIFY = "DENSIFY"
#: Operators whose third input is a bias in steps of input scale * weight scale.
_BIASED = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")
#: Where the first converter left out a RELU that the range of the output implies.
_CLAMPING = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "ADD", "MUL", "SUB")
_BIAS = 2
_SIX = 6.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Twin:
    """A float network and how it belongs to the quantized one."""

    #: A ModelT of the schema.
    model: Any
    #: Operator of the quantized file's main subgraph → operator of the twin's; rewriters have none.
    operators: Mapping[int, int]
    #: Tensor of the main subgraph → the tensor that holds its values in the twin; itself where nothing is said.
    same: Mapping[int, int]
    #: Operators whose RELU the range of their output implied.
    clamped: tuple[int, ...]


def twin_of(data: bytes) -> Twin:
    """Make the float twin of a file that `inspect` accepts.

    Raises:
        ModelError: a constant is broken, or stored in a way that only one kernel understands.

    """
    model = flatbuffer.read(data)
    check(model)
    # Names of tensors by index stay right, but nobody asks this network by signature.
    model.signatureDefs = None
    main: tuple[dict[int, int], dict[int, int], tuple[int, ...]] | None = None
    for graph in model.subgraphs:
        done = _convert(model, graph)
        main = main or done
    if main is None:
        raise ModelError("it has no subgraph")
    operators, same, clamped = main
    return Twin(model=model, operators=operators, same=same, clamped=clamped)


def check(model: Any) -> None:  # noqa: ANN401 - generated code without types
    """Find out whether what is to be left out can be: one tensor in, one out. Raises ModelError."""
    for graph in model.subgraphs:
        for number, operator in enumerate(graph.operators or ()):
            name = flatbuffer.op_name(model, operator)
            ends = (operator.inputs, operator.outputs)
            if name in (*REWRITERS, _DENSIFY) and any(end is None or len(end) != 1 or end[0] < 0 for end in ends):
                raise ModelError(f"corrupt: operator {number}, {name}, does not take one tensor and give one")


def is_quantized(data: bytes) -> bool:
    """Whether any tensor of the file, or its float16 weights, differ from float32."""
    model = flatbuffer.read(data)
    return any(
        constants.is_quantized(tensor) or flatbuffer.dtype(tensor) == "float16"
        for graph in model.subgraphs
        for tensor in graph.tensors or ()
    )


def _convert(model: Any, graph: Any) -> tuple[dict[int, int], dict[int, int], tuple[int, ...]]:  # noqa: ANN401
    operators = list(graph.operators or ())
    clamped = tuple(i for i, operator in enumerate(operators) if _clamp(model, graph, operator))
    for operator in operators:
        _complete_bias(model, graph, operator)
    for tensor in graph.tensors or ():
        _to_float(model, tensor)
    same: dict[int, int] = {}
    kept: dict[int, int] = {}
    for number, operator in enumerate(operators):
        taken = [_root(same, int(i)) for i in (() if operator.inputs is None else operator.inputs)]
        operator.inputs = np.array(taken, dtype=np.int32)
        if _is_name_only(model, graph, operator):
            same[int(operator.outputs[0])] = taken[0]
            continue
        _adjust(operator)
        kept[number] = len(kept)
    graph.operators = [operators[number] for number in kept]
    graph.outputs = np.array([_root(same, int(i)) for i in _indexes(graph.outputs)], dtype=np.int32)
    return kept, same, clamped


def _root(same: Mapping[int, int], index: int) -> int:
    # Inputs come before their users, so every entry is a root already.
    return same.get(index, index)


def _indexes(vector: Any) -> list[int]:  # noqa: ANN401 - an array, or None when empty
    return [] if vector is None else [int(i) for i in vector]


def _is_name_only(model: Any, graph: Any, operator: Any) -> bool:  # noqa: ANN401
    name = flatbuffer.op_name(model, operator)
    if name not in (*REWRITERS, _DENSIFY):
        return False
    given, made = graph.tensors[int(operator.inputs[0])], graph.tensors[int(operator.outputs[0])]
    return flatbuffer.dtype(given) == flatbuffer.dtype(made) == "float32" and given.sparsity is None


def _to_float(model: Any, tensor: Any) -> None:  # noqa: ANN401
    half = flatbuffer.dtype(tensor) == "float16"
    if not half and not constants.is_quantized(tensor):
        return
    if constants.is_constant(model, tensor):
        values = constants.real(model, tensor)
        # A copy of its own: other tensors may share the buffer, in other steps.
        flatbuffer.set_constant(model, tensor, values)
        tensor.sparsity = None
    flatbuffer.set_dtype(tensor, "float32")
    tensor.quantization = None


def _complete_bias(model: Any, graph: Any, operator: Any) -> None:  # noqa: ANN401
    """Give a bias without steps those that the specification demands: input scale * weight scale."""
    taken = _indexes(operator.inputs)
    if flatbuffer.op_name(model, operator) not in _BIASED or len(taken) <= _BIAS or taken[_BIAS] < 0:
        return
    given, weights, bias = (graph.tensors[i] for i in taken[: _BIAS + 1])
    input_steps, weight_steps = constants.steps(given), constants.steps(weights)
    if constants.dtype(bias) not in ("int32", "int64") or constants.steps(bias) is not None:
        return
    if input_steps is None or weight_steps is None:
        return
    bias.quantization = SCHEMA.QuantizationParametersT()
    bias.quantization.scale = (input_steps[0] * weight_steps[0]).astype(np.float32)
    bias.quantization.zeroPoint = np.zeros(len(weight_steps[0]), dtype=np.int64)
    bias.quantization.quantizedDimension = 0


def _clamp(model: Any, graph: Any, operator: Any) -> bool:  # noqa: ANN401
    """Say the RELU that the first converter (uint8) dropped because the output's range does its work."""
    options = operator.builtinOptions
    if flatbuffer.op_name(model, operator) not in _CLAMPING or options is None or not len(operator.outputs):
        return False
    kinds = SCHEMA.ActivationFunctionType
    made = graph.tensors[int(operator.outputs[0])]
    found = constants.steps(made)
    if options.fusedActivationFunction != kinds.NONE or constants.dtype(made) != "uint8" or found is None:
        return False
    scale, zero_point = float(found[0][0]), float(found[1][0])
    if zero_point != 0:
        return False
    ends_at_six = abs(scale * constants.limits("uint8")[1] - _SIX) < scale
    options.fusedActivationFunction = kinds.RELU6 if ends_at_six else kinds.RELU
    return True


def _adjust(operator: Any) -> None:  # noqa: ANN401
    options = operator.builtinOptions
    if getattr(options, "asymmetricQuantizeInputs", False):
        options.asymmetricQuantizeInputs = False
    if getattr(options, "weightsFormat", 0):
        raise ModelError("its weights are shuffled for one kernel, and mean nothing to others")
    # Only integer LSTM kernels have them, and float ones take their presence for an integer model.
    operator.intermediates = None
