"""Give a TFLite file with float edges integer ones, whatever is kept in float inside. Pure.

    an input that is quantized first    loses that step (int8), or takes bytes there (uint8)
    an input that a float layer reads   is restored by a DEQUANTIZE before it
    outputs                             the same the other way round

Scales and zero points are those of the file in which everything is int8, so that all variants of a model take and give
the same numbers. Tensors keep their names and places. What it does NOT do: quantize an edge that the int8 file leaves
in float, or one that holds no float numbers.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Any

import numpy as np

from tflotilla.host.models import flatbuffer
from tflotilla.host.models.accuracy_aware import graph_edits

if TYPE_CHECKING:
    from collections.abc import Sequence


class Edges(StrEnum):
    """The type of a variant's inputs and outputs."""

    UINT8 = "uint8"
    INT8 = "int8"
    FLOAT = "float"


_UINT8_SHIFT = 128
_REQUANTIZE_VERSION = 1
_DEQUANTIZE_VERSIONS = {Edges.INT8: 2, Edges.UINT8: 1}


def with_edges(data: bytes, edges: Edges, int8: bytes) -> bytes:
    """Return the file with edges of that type.

    Args:
        data: a variant with float edges.
        edges: what they become.
        int8: the variant with nothing kept in float, with float edges.

    """
    if edges is Edges.FLOAT:
        return data
    model, pattern = flatbuffer.read(data), flatbuffer.read(int8)
    graph, like = model.subgraphs[0], pattern.subgraphs[0]
    for index, ours in zip(map(int, graph.inputs), map(int, like.inputs), strict=True):
        steps = [o for o in like.operators if flatbuffer.op_name(pattern, o) == "QUANTIZE" and ours in o.inputs]
        if steps and flatbuffer.dtype(graph.tensors[index]) == "float32":
            _change_input(model, graph, index, like.tensors[steps[0].outputs[0]].quantization, edges)
    for index, ours in zip(map(int, graph.outputs), map(int, like.outputs), strict=True):
        steps = [o for o in like.operators if flatbuffer.op_name(pattern, o) == "DEQUANTIZE" and ours in o.outputs]
        if steps and flatbuffer.dtype(graph.tensors[index]) == "float32":
            _change_output(model, graph, index, like.tensors[steps[0].inputs[0]].quantization, edges)
    return flatbuffer.write(model)


def _change_input(model: Any, graph: Any, index: int, quantization: Any, edges: Edges) -> None:  # noqa: ANN401
    users = [user for user in graph.operators if index in user.inputs]
    floats = [user for user in users if flatbuffer.op_name(model, user) != "QUANTIZE"]
    edge = graph.tensors[index]
    if floats:
        restored = graph_edits.add_tensor(graph, edge, f"{flatbuffer.tensor_name(edge)}/restored")
        for user in floats:
            graph_edits.rewire_inputs(user, index, restored)
        code = graph_edits.opcode(model, "DEQUANTIZE", _DEQUANTIZE_VERSIONS[edges])
        graph.operators = [graph_edits.operator(code, [index], [restored]), *graph.operators]
    _retype(edge, quantization, edges)
    for user in users:
        if user not in floats and _same(graph, index, int(user.outputs[0])):
            # What it would make is what it is given.
            _drop(graph, user, replaced=int(user.outputs[0]), by=index)


def _change_output(model: Any, graph: Any, index: int, quantization: Any, edges: Edges) -> None:  # noqa: ANN401
    maker = next((maker for maker in graph.operators if index in maker.outputs), None)
    if maker is None or index in graph.inputs:
        return
    used_inside = any(index in user.inputs for user in graph.operators)
    edge = graph.tensors[index]
    if flatbuffer.op_name(model, maker) == "DEQUANTIZE" and not used_inside:
        source = int(maker.inputs[0])
        _retype(edge, quantization, edges)
        if _same(graph, index, source) and not _is_edge(graph, source):
            _drop(graph, maker, replaced=source, by=index)
            return
        maker.opcodeIndex = graph_edits.opcode(model, "QUANTIZE", _REQUANTIZE_VERSION)
        maker.builtinOptionsType, maker.builtinOptions = 0, None
        return
    real = graph_edits.add_tensor(graph, edge, f"{flatbuffer.tensor_name(edge)}/real")
    for user in graph.operators:
        graph_edits.rewire_inputs(user, index, real)
    graph_edits.rewire_outputs(maker, index, real)
    _retype(edge, quantization, edges)
    code = graph_edits.opcode(model, "QUANTIZE", _REQUANTIZE_VERSION)
    graph.operators = [*graph.operators, graph_edits.operator(code, [real], [index])]


def _retype(tensor: Any, quantization: Any, edges: Edges) -> None:  # noqa: ANN401 - generated code without types
    flatbuffer.set_dtype(tensor, edges.value)
    made = flatbuffer.SCHEMA.QuantizationParametersT()
    made.scale = np.array(quantization.scale, dtype=np.float32)
    made.zeroPoint = np.array(quantization.zeroPoint, dtype=np.int64) + (_UINT8_SHIFT if edges is Edges.UINT8 else 0)
    tensor.quantization = made


def _same(graph: Any, one: int, other: int) -> bool:  # noqa: ANN401 - generated code without types
    """Whether two tensors mean the same numbers by the same bytes."""
    first, second = graph.tensors[one], graph.tensors[other]
    if first.type != second.type or second.quantization is None or second.quantization.scale is None:
        return False
    return all(
        np.array_equal(a, b)
        for a, b in (
            (first.quantization.scale, second.quantization.scale),
            (first.quantization.zeroPoint, second.quantization.zeroPoint),
        )
    )


def _is_edge(graph: Any, index: int) -> bool:  # noqa: ANN401 - generated code without types
    return index in graph.inputs or index in graph.outputs


def _drop(graph: Any, step: Any, *, replaced: int, by: int) -> None:  # noqa: ANN401 - generated code without types
    graph.operators = [operator for operator in graph.operators if operator is not step]
    for operator in graph.operators:
        graph_edits.rewire_inputs(operator, replaced, by)
        graph_edits.rewire_outputs(operator, replaced, by)


def left_in_float(data: bytes) -> Sequence[str]:
    """Return the names of the edges that hold float32."""
    graph = flatbuffer.read(data).subgraphs[0]
    tensors = [graph.tensors[index] for index in (*graph.inputs, *graph.outputs)]
    return tuple(flatbuffer.tensor_name(t) for t in tensors if flatbuffer.dtype(t) == "float32")
