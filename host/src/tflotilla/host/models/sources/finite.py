"""Refuse models whose weights hold NaN or infinity, naming which: quantized, they would become plausible nonsense.

Not every infinity is a fault: the mask of an attention layer holds it on purpose, beside one or two other values, and a
single number may be a limit. What a layer multiplies or adds may hold none. Imported inside a child process only.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

import numpy as np

from tflotilla.host.models import flatbuffer
from tflotilla.shared.contract.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import NDArray

_FLOATS = ("float16", "float32", "float64")
#: A mask has no more finite values than these.
_MASK_VALUES = 2
#: Operators that compute with weights, in the words of TFLite and of TensorFlow.
_WEIGHTED = frozenset(
    {"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV", "CONV_3D", "BATCH_MATMUL", "SVDF", "LSTM"}
    | {"UNIDIRECTIONAL_SEQUENCE_LSTM", "UNIDIRECTIONAL_SEQUENCE_RNN", "BIDIRECTIONAL_SEQUENCE_LSTM", "RNN"}
    | {"Conv2D", "DepthwiseConv2dNative", "MatMul", "BatchMatMul", "BatchMatMulV2", "Conv2DBackpropInput", "Conv3D"}
    | {"BiasAdd", "FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3", "_FusedConv2D", "_FusedMatMul", "Einsum"}
)
#: What stands between a constant of TensorFlow and its user.
_PASSED_THROUGH = frozenset({"Identity", "ReadVariableOp", "Cast", "Reshape", "Transpose", "ExpandDims", "Squeeze"})


def check_variables(variables: Iterable[Any]) -> None:
    """Check TensorFlow's variables: these are weights, whoever uses them. Raises ModelError."""
    for variable in variables:
        if variable.dtype.base_dtype.name in _FLOATS:
            _check(getattr(variable, "path", None) or variable.name.split(":")[0], variable.numpy(), is_weight=True)


def check_graph(graph_def: Any) -> None:  # noqa: ANN401 - TensorFlow has no types
    """Check the constants of a GraphDef. Raises ModelError."""
    import tensorflow as tf

    for nodes in (graph_def.node, *(function.node_def for function in graph_def.library.function)):
        users: dict[str, list[Any]] = defaultdict(list)
        for node in nodes:
            for name in node.input:
                users[name.split(":")[0].lstrip("^")].append(node)
        for node in nodes:
            if node.op == "Const" and tf.as_dtype(node.attr["dtype"].type).name in _FLOATS:
                values = tf.make_ndarray(node.attr["value"].tensor)
                if not np.isfinite(values).all():
                    _check(node.name, values, is_weight=_weighs(node, users))


def check_flatbuffer(model: Any, where: str) -> None:  # noqa: ANN401 - generated code without types
    """Check the constants of a TFLite file. Raises ModelError."""
    for graph in model.subgraphs:
        weighing = {
            int(index)
            for operator in graph.operators or ()
            if flatbuffer.op_name(model, operator) in _WEIGHTED
            for index in operator.inputs
        }
        for index, tensor in enumerate(graph.tensors or ()):
            values = flatbuffer.constant(model, tensor) if flatbuffer.dtype(tensor) in _FLOATS else None
            if values is not None:
                _check(flatbuffer.tensor_name(tensor), values, is_weight=index in weighing, where=f"{where}: ")


def _weighs(node: Any, users: Mapping[str, list[Any]]) -> bool:  # noqa: ANN401 - TensorFlow has no types
    queue, seen = [node.name], {node.name}
    while queue:
        for user in users.get(queue.pop(), ()):
            if user.op in _WEIGHTED:
                return True
            if user.op in _PASSED_THROUGH and user.name not in seen:
                seen.add(user.name)
                queue.append(user.name)
    return False


def _check(name: str, values: NDArray[Any], *, is_weight: bool, where: str = "") -> None:
    finite = np.isfinite(values)
    if finite.all():
        return
    strange = int(finite.size - finite.sum())
    kind = "NaN" if np.isnan(values).any() else "infinity"
    if not is_weight:
        if values.size == 1:
            return
        if kind == "infinity" and len(np.unique(values[finite])) <= _MASK_VALUES:
            return
    raise ModelError(
        f"{where}weights {name!r} hold {kind} ({strange:,} of {finite.size:,} values); "
        "no scheme can be right, so save the model from before that, or train it again"
    )
