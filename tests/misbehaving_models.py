"""Models that a board must survive: one that never answers, one that wants more memory than there is.

`models_made.read(name)` returns the committed file; the functions below build the same bytes anew from the tiny
classifier, with the schema's objects (the host's package). `python -m tests.misbehaving_models` writes the files.
Both take the classifier's image and promise its scores, so that they fit into its bundle.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from tests import models_made
from tflotilla.host.models import flatbuffer
from tflotilla.host.models.flatbuffer import SCHEMA

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

#: 64 GB of float32: more than any board has.
_HUGE = (16_000, 1_000_000)


def hangs() -> bytes:
    """Build a classifier behind a loop without an end: WHILE i < 1 DO i + 0."""
    model = _classifier()
    graph = model.subgraphs[0]
    start, end = _tensor(model, graph, "i", np.zeros(1, np.int32)), _tensor(model, graph, "i_end", None)
    loop = _operator(model, SCHEMA.BuiltinOperator.WHILE, [start], [end])
    loop.builtinOptionsType, loop.builtinOptions = SCHEMA.BuiltinOptions.WhileOptions, SCHEMA.WhileOptionsT()
    loop.builtinOptions.condSubgraphIndex, loop.builtinOptions.bodySubgraphIndex = 1, 2
    graph.operators.insert(0, loop)
    model.subgraphs += [
        _binary(model, "cond", SCHEMA.BuiltinOperator.LESS, 1, SCHEMA.TensorType.BOOL),
        _binary(model, "body", SCHEMA.BuiltinOperator.ADD, 0, SCHEMA.TensorType.INT32),
    ]
    return flatbuffer.write(model)


def hungry() -> bytes:
    """Build a classifier that fills 64 GB with a number before it answers."""
    model = _classifier()
    graph = model.subgraphs[0]
    dims = _tensor(model, graph, "dims", np.array(_HUGE, np.int32))
    value = _tensor(model, graph, "value", np.ones((), np.float32))
    filled = _tensor(model, graph, "filled", None, shape=(-1, -1), kind=SCHEMA.TensorType.FLOAT32)
    graph.operators.insert(0, _operator(model, SCHEMA.BuiltinOperator.FILL, [dims, value], [filled]))
    return flatbuffer.write(model)


#: Name of a committed file → what builds it.
MISBEHAVING: Mapping[str, Callable[[], bytes]] = {"hangs": hangs, "hungry": hungry}


def _classifier() -> Any:  # noqa: ANN401 - generated code without types
    return flatbuffer.read(models_made.read("tiny_classifier"))


def _tensor(
    model: Any,  # noqa: ANN401 - generated code without types
    graph: Any,  # noqa: ANN401
    name: str,
    values: Any,  # noqa: ANN401
    *,
    shape: tuple[int, ...] = (1,),
    kind: int = SCHEMA.TensorType.INT32,
) -> int:
    """Add a tensor, constant where there are values; return its number."""
    tensor = SCHEMA.TensorT()
    tensor.name, tensor.type, tensor.shape, tensor.buffer = name, kind, [abs(size) for size in shape], 0
    if min(shape, default=0) < 0:
        tensor.shapeSignature = list(shape)
    if values is not None:
        buffer = SCHEMA.BufferT()
        buffer.data = np.frombuffer(values.tobytes(), np.uint8)
        model.buffers.append(buffer)
        tensor.buffer, tensor.shape = len(model.buffers) - 1, list(values.shape)
        tensor.type = SCHEMA.TensorType.FLOAT32 if values.dtype == np.float32 else SCHEMA.TensorType.INT32
    graph.tensors.append(tensor)
    return len(graph.tensors) - 1


def _operator(model: Any, builtin: int, inputs: list[int], outputs: list[int]) -> Any:  # noqa: ANN401 - as above
    code = SCHEMA.OperatorCodeT()
    code.builtinCode, code.deprecatedBuiltinCode, code.version = builtin, min(builtin, 127), 1
    model.operatorCodes.append(code)
    operator = SCHEMA.OperatorT()
    operator.opcodeIndex, operator.inputs, operator.outputs = len(model.operatorCodes) - 1, inputs, outputs
    return operator


def _binary(model: Any, name: str, builtin: int, constant: int, kind: int) -> Any:  # noqa: ANN401 - as above
    """Build a graph of one number, one operator and one constant."""
    graph = SCHEMA.SubGraphT()
    graph.name, graph.tensors = name, []
    number = _tensor(model, graph, f"{name}_i", None)
    other = _tensor(model, graph, f"{name}_constant", np.full(1, constant, np.int32))
    result = _tensor(model, graph, f"{name}_result", None, kind=kind)
    operator = _operator(model, builtin, [number, other], [result])
    if builtin == SCHEMA.BuiltinOperator.ADD:
        operator.builtinOptionsType, operator.builtinOptions = SCHEMA.BuiltinOptions.AddOptions, SCHEMA.AddOptionsT()
    graph.inputs, graph.outputs, graph.operators = [number], [result], [operator]
    return graph


if __name__ == "__main__":
    for made, build in MISBEHAVING.items():
        (models_made.DATA / f"{made}.tflite").write_bytes(build())
