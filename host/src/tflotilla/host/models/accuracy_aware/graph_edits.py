"""Small steps that change a TFLite graph: a new tensor, a new operator. What it does NOT do: know what they are for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from tflotilla.host.models import flatbuffer

if TYPE_CHECKING:
    from collections.abc import Sequence


def opcode(model: Any, name: str, version: int) -> int:  # noqa: ANN401 - generated code without types
    """Return the index of an operator code, added where the model doesn't have it."""
    number = getattr(flatbuffer.SCHEMA.BuiltinOperator, name)
    for index, code in enumerate(model.operatorCodes):
        if max(code.builtinCode, code.deprecatedBuiltinCode) == number and code.version == version:
            return index
    code = flatbuffer.SCHEMA.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = number
    code.version = version
    model.operatorCodes.append(code)
    return len(model.operatorCodes) - 1


def operator(code: int, inputs: Sequence[int], outputs: Sequence[int]) -> Any:  # noqa: ANN401 - as above
    """Return an operator without options."""
    made = flatbuffer.SCHEMA.OperatorT()
    made.opcodeIndex = code
    made.inputs, made.outputs = _indices(inputs), _indices(outputs)
    return made


def add_tensor(graph: Any, like: Any, name: str) -> int:  # noqa: ANN401 - as above
    """Append an activation of the shape and type of another tensor, without quantization; return its index."""
    made = flatbuffer.SCHEMA.TensorT()
    made.name, made.shape, made.shapeSignature, made.type = name.encode(), like.shape, like.shapeSignature, like.type
    made.buffer = 0
    graph.tensors.append(made)
    return len(graph.tensors) - 1


def rewire_inputs(user: Any, old: int, new: int) -> None:  # noqa: ANN401 - as above
    """Let an operator read another tensor."""
    user.inputs = _indices([new if index == old else index for index in user.inputs])


def rewire_outputs(maker: Any, old: int, new: int) -> None:  # noqa: ANN401 - as above
    """Let an operator write another tensor."""
    maker.outputs = _indices([new if index == old else index for index in maker.outputs])


def _indices(values: Sequence[int]) -> Any:  # noqa: ANN401 - as above
    return np.array(values, dtype=np.int32)
