"""Operators that TFLite's quantizer or integer kernels lack, written as ones they have, in a float file. Pure.

    NEG                  MUL by -1               the quantizer knows no NEG: it stays float, and so do the edges
    SQUARED_DIFFERENCE   SUB, MUL by itself      only for 16 bits: no runtime has that kernel

What it does NOT do: change what the file computes, or touch a file that has none of them.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import numpy as np

from tflotilla.host.models import flatbuffer

if TYPE_CHECKING:
    from numpy.typing import NDArray


def prepared(data: bytes, *, bits: int) -> bytes:
    """Return the float file with such operators replaced, for activations of 8 or 16 bits; the same bytes without any.

    The operators that take their place keep the names of their outputs.
    """
    model = flatbuffer.read(data)
    changed = False
    for graph in model.subgraphs:
        operators = []
        for operator in graph.operators or ():
            name = flatbuffer.op_name(model, operator)
            real = len(operator.inputs) and flatbuffer.dtype(graph.tensors[operator.inputs[0]]) == "float32"
            if name == "NEG" and real:
                minus = _constant(model, graph, operator.outputs[0], np.array(-1.0, np.float32))
                operators.append(_arithmetic(model, "MUL", [operator.inputs[0], minus], operator.outputs[0]))
            elif name == "SQUARED_DIFFERENCE" and real and bits == 16:  # noqa: PLR2004 - the number of bits
                difference = _like(graph, operator.outputs[0], "difference")
                operators.append(_arithmetic(model, "SUB", list(operator.inputs), difference))
                operators.append(_arithmetic(model, "MUL", [difference, difference], operator.outputs[0]))
            else:
                operators.append(operator)
                continue
            changed = True
        graph.operators = operators
    if not changed:
        return data
    _drop_unused_codes(model)
    return flatbuffer.write(model)


def _arithmetic(model: Any, name: str, inputs: list[int], output: int) -> Any:  # noqa: ANN401 - generated code
    """Return an operator of two inputs and no activation."""
    schema = flatbuffer.SCHEMA
    operator = schema.OperatorT()
    operator.opcodeIndex = _code(model, name)
    operator.inputs = np.array(inputs, np.int32)
    operator.outputs = np.array([output], np.int32)
    kind = f"{name.title()}Options"
    operator.builtinOptionsType = getattr(schema.BuiltinOptions, kind)
    operator.builtinOptions = getattr(schema, f"{kind}T")()
    return operator


def _code(model: Any, name: str) -> int:  # noqa: ANN401 - generated code
    """Return the index of an operator's first version among the model's codes, which gets it when it has none."""
    schema = flatbuffer.SCHEMA
    number = getattr(schema.BuiltinOperator, name)
    for index, code in enumerate(model.operatorCodes):
        if max(code.builtinCode, code.deprecatedBuiltinCode) == number and code.version == 1:
            return index
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = number
    code.version = 1
    model.operatorCodes.append(code)
    return len(model.operatorCodes) - 1


def _drop_unused_codes(model: Any) -> None:  # noqa: ANN401 - generated code
    """Let a model name only the operators it has: the calibrator knows no others."""
    operators = [operator for graph in model.subgraphs for operator in graph.operators or ()]
    used = sorted({operator.opcodeIndex for operator in operators})
    moved = {old: new for new, old in enumerate(used)}
    for operator in operators:
        operator.opcodeIndex = moved[operator.opcodeIndex]
    model.operatorCodes = [model.operatorCodes[index] for index in used]


def _like(graph: Any, index: int, what: str) -> int:  # noqa: ANN401 - generated code
    """Add a tensor like another, named after it; return its index."""
    tensor = copy.copy(graph.tensors[index])
    tensor.name = f"{flatbuffer.tensor_name(tensor)}/{what}".encode()
    tensor.buffer = 0  # that of all that is computed
    graph.tensors.append(tensor)
    return len(graph.tensors) - 1


def _constant(model: Any, graph: Any, near: int, value: NDArray[np.float32]) -> int:  # noqa: ANN401 - generated code
    """Add a constant named after a tensor; return its index."""
    buffer = flatbuffer.SCHEMA.BufferT()
    buffer.data = np.frombuffer(value.tobytes(), np.uint8)
    model.buffers.append(buffer)
    index = _like(graph, near, "factor")
    tensor = graph.tensors[index]
    tensor.shape, tensor.shapeSignature = np.array(value.shape, np.int32), None
    tensor.buffer = len(model.buffers) - 1
    return index
