"""The one door to the TFLite schema as objects that can be changed, and back to bytes. No TensorFlow.

`ai_edge_litert.schema_py_generated` is the same generated code as TensorFlow's, and imports in half a second instead of
ten. Rules it keeps: only files that `inspect` has read come here (it checks what this trusts); the same model gives the
same bytes. What it does NOT do: decide what to change.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tflotilla.host.models.inspect import IDENTIFIER
from tflotilla.shared.contract.errors import ModelError

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: The generated schema: enumerations (`schema.TensorType.INT8`) and objects that are named like its tables plus T.
SCHEMA: Any = schema
_DTYPES = {
    schema.TensorType.FLOAT32: "float32",
    schema.TensorType.FLOAT16: "float16",
    schema.TensorType.FLOAT64: "float64",
    schema.TensorType.INT8: "int8",
    schema.TensorType.UINT8: "uint8",
    schema.TensorType.INT16: "int16",
    schema.TensorType.INT32: "int32",
    schema.TensorType.INT64: "int64",
    schema.TensorType.BOOL: "bool",
}
_TYPES = {name: number for number, name in _DTYPES.items()}
_OPS = {number: name for name, number in vars(schema.BuiltinOperator).items() if not name.startswith("_")}
_FIRST_BYTES = 1024
#: What the generated code raises when an offset or a length is wrong.
_BROKEN = (struct.error, ValueError, IndexError, TypeError, OverflowError, KeyError, AttributeError)


def read(data: bytes) -> Any:  # noqa: ANN401 - generated code without types
    """Return a `ModelT` of a TFLite file that `inspect` accepts.

    Raises:
        ModelError: corrupt in a part that `inspect` has no need of, as an operator's options.

    """
    try:
        return schema.ModelT.InitFromPackedBuf(data, 0)
    except _BROKEN as error:
        raise ModelError("corrupt TFLite file: a part of it lies outside of the file") from error


def write(model: Any) -> bytes:  # noqa: ANN401 - generated code without types
    """Return the bytes of a `ModelT`."""
    builder = flatbuffers.Builder(_FIRST_BYTES)
    builder.Finish(model.Pack(builder), file_identifier=IDENTIFIER)
    return bytes(builder.Output())


def op_name(model: Any, operator: Any) -> str:  # noqa: ANN401 - generated code without types
    """Return the operator's name: that of the schema, or a custom operator's own."""
    code = model.operatorCodes[operator.opcodeIndex]
    number = max(code.builtinCode, code.deprecatedBuiltinCode)
    if number == schema.BuiltinOperator.CUSTOM:
        return text(code.customCode)
    return str(_OPS.get(number, number))


def tensor_name(tensor: Any) -> str:  # noqa: ANN401 - generated code without types
    """Return a tensor's name as text."""
    return text(tensor.name)


def dtype(tensor: Any) -> str:  # noqa: ANN401 - generated code without types
    """Return NumPy's name of a tensor's type; "" for types that NumPy has not (strings, int4, resources)."""
    return _DTYPES.get(tensor.type, "")


def set_dtype(tensor: Any, name: str) -> None:  # noqa: ANN401 - generated code without types
    """Set a tensor's type by NumPy's name of it."""
    tensor.type = _TYPES[name]


def shape(tensor: Any) -> tuple[int, ...]:  # noqa: ANN401 - generated code without types
    """Return a tensor's shape; () is a single number."""
    return () if tensor.shape is None else tuple(int(size) for size in tensor.shape)


def constant(model: Any, tensor: Any) -> NDArray[Any] | None:  # noqa: ANN401 - generated code without types
    """Return a constant tensor's values, of its shape and type; None for activations and for types NumPy has not.

    Raises:
        ModelError: sparse, or its bytes don't fill its shape.

    """
    data = model.buffers[tensor.buffer].data
    if data is None or not len(data) or not dtype(tensor):
        return None
    if tensor.sparsity is not None:
        raise ModelError(f"tensor {tensor_name(tensor)!r} is stored sparse")
    values = np.frombuffer(bytes(bytearray(data)), dtype=dtype(tensor))
    try:
        return values.reshape(shape(tensor))
    except ValueError as error:
        raise ModelError(f"tensor {tensor_name(tensor)!r}: {values.size} values for shape {shape(tensor)}") from error


def set_constant(model: Any, tensor: Any, values: NDArray[Any]) -> None:  # noqa: ANN401 - generated code without types
    """Give a tensor values of its own, and their type and shape; other users of its old buffer keep theirs."""
    buffer = schema.BufferT()
    buffer.data = np.frombuffer(np.ascontiguousarray(values).tobytes(), dtype=np.uint8)
    model.buffers.append(buffer)
    tensor.buffer = len(model.buffers) - 1
    set_dtype(tensor, values.dtype.name)
    tensor.shape = np.array(values.shape, dtype=np.int32)


def text(value: Any) -> str:  # noqa: ANN401 - generated code without types
    """Return a name of the schema, bytes or absent, as text."""
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value or "")
