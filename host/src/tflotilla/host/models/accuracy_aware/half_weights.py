"""Store the float weights of a TFLite file as float16, each restored by a DEQUANTIZE operator. Pure.

It is what TensorFlow's float16 scheme does to a whole model, done to the layers that a mixed model keeps in float: half
of what they add to the file's size, a relative error of 2^-11 per weight, the same speed (runtimes restore constants
once, when they load).

What it does NOT do: touch activations, small constants, or weights that float16 can't hold.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tflotilla.host.models import flatbuffer
from tflotilla.host.models.accuracy_aware import graph_edits

_LEAST_NUMBERS = 64
_HIGHEST = float(np.finfo(np.float16).max)
#: The first version of DEQUANTIZE that takes float16.
_VERSION = 3


def halve(data: bytes) -> bytes:
    """Return the file with its float32 weights stored as float16; the same bytes when there are none."""
    model = flatbuffer.read(data)
    graph = model.subgraphs[0]
    restored: dict[int, int] = {}
    for user in graph.operators or ():
        for index in map(int, user.inputs):
            if index not in restored and index >= 0 and _is_weight(model, graph.tensors[index]):
                restored[index] = _store(model, graph, index)
            if index in restored:
                graph_edits.rewire_inputs(user, index, restored[index])
    if not restored:
        return data
    code = graph_edits.opcode(model, "DEQUANTIZE", _VERSION)
    restoring = [graph_edits.operator(code, [stored], [index]) for stored, index in restored.items()]
    graph.operators = restoring + list(graph.operators)
    return flatbuffer.write(model)


def _is_weight(model: Any, tensor: Any) -> bool:  # noqa: ANN401 - generated code without types
    if flatbuffer.dtype(tensor) != "float32" or tensor.sparsity is not None:
        return False
    values = flatbuffer.constant(model, tensor)
    return values is not None and values.size >= _LEAST_NUMBERS and bool(np.abs(values).max(initial=0) <= _HIGHEST)


def _store(model: Any, graph: Any, index: int) -> int:  # noqa: ANN401 - generated code without types
    """Make the tensor float16; return the index of the one that is restored from it."""
    stored = graph.tensors[index]
    values = flatbuffer.constant(model, stored)
    assert values is not None  # noqa: S101 - it is a weight
    name = flatbuffer.tensor_name(stored)
    restored = graph_edits.add_tensor(graph, stored, name)
    stored.name = f"{name}/float16".encode()
    old = stored.buffer
    flatbuffer.set_constant(model, stored, values.astype(np.float16))
    if not any(tensor.buffer == old for subgraph in model.subgraphs for tensor in subgraph.tensors):
        model.buffers[old].data = None
    return restored
