"""Which operators of a float TFLite file can be kept in float, what that costs, and which are kept along. Pure.

Rules it keeps: an operator is named by its first output tensor, as TensorFlow's quantizer names it; an operator without
weights whose neighbours are all kept is kept too (numbers would be quantized and back around it for nothing); one that
only rearranges numbers is never chosen, only kept along.

What it does NOT do: measure how much an operator loses.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tflotilla.host.models import flatbuffer

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

#: They rearrange numbers and leave them as they are: what is lost around them, their neighbours lose.
_MOVERS = frozenset(
    {
        "RESHAPE", "SQUEEZE", "EXPAND_DIMS", "TRANSPOSE", "PACK", "UNPACK", "SPLIT", "SPLIT_V", "SLICE",
        "STRIDED_SLICE", "GATHER", "GATHER_ND", "TILE", "REVERSE_V2", "SPACE_TO_DEPTH", "DEPTH_TO_SPACE", "SHAPE",
        "SPACE_TO_BATCH_ND", "BATCH_TO_SPACE_ND", "BROADCAST_TO", "QUANTIZE", "DEQUANTIZE", "CAST",
    }
)  # fmt: skip
#: A float16 weight takes two bytes (`half_weights`), an int8 one takes one.
_GROWTH_PER_WEIGHT = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Operator:
    """An operator of the main graph that computes with float numbers."""

    #: Of its first output tensor.
    name: str
    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    #: Numbers in its constant float matrices; biases are not quantized to fewer bits.
    weights: int

    @property
    def extra_bytes(self) -> int:
        """By how much the file grows when it stays float."""
        return self.weights * _GROWTH_PER_WEIGHT

    @property
    def is_chosen(self) -> bool:
        """Whether keeping it in float can gain anything by itself."""
        return bool(self.weights) or self.op not in _MOVERS


def of(model: Any) -> tuple[Operator, ...]:  # noqa: ANN401 - generated code without types
    """Return the operators of a `ModelT`'s main graph that give float numbers, in the order of execution."""
    graph = model.subgraphs[0]
    found = []
    for operator in graph.operators or ():
        tensors = [graph.tensors[index] for index in operator.inputs if index >= 0]
        outputs = [graph.tensors[index] for index in operator.outputs]
        if not outputs or flatbuffer.dtype(outputs[0]) != "float32":
            continue
        floats = [tensor for tensor in tensors if flatbuffer.dtype(tensor) == "float32"]
        constant = [tensor for tensor in floats if _is_constant(model, tensor)]
        found.append(
            Operator(
                name=flatbuffer.tensor_name(outputs[0]),
                op=flatbuffer.op_name(model, operator),
                inputs=tuple(flatbuffer.tensor_name(t) for t in floats if not _is_constant(model, t)),
                outputs=tuple(map(flatbuffer.tensor_name, outputs)),
                weights=sum(int(np.prod(s)) for s in map(flatbuffer.shape, constant) if len(s) > 1),
            )
        )
    return tuple(found)


def quantized_among(operators: Sequence[Operator], int8: Any) -> tuple[Operator, ...]:  # noqa: ANN401 - see above
    """Return the operators that can be kept: those that did not stay float in the int8 file anyhow."""
    graph = int8.subgraphs[0]
    floats = {
        flatbuffer.tensor_name(graph.tensors[operator.outputs[0]])
        for operator in graph.operators or ()
        if len(operator.outputs)
        and flatbuffer.op_name(int8, operator) not in ("QUANTIZE", "DEQUANTIZE")
        and flatbuffer.dtype(graph.tensors[operator.outputs[0]]) == "float32"
    }
    return tuple(operator for operator in operators if operator.is_chosen and operator.name not in floats)


def with_neighbours(operators: Iterable[Operator], kept: Collection[str]) -> frozenset[str]:
    """Return `kept` and the operators without weights between them, or between them and the edges of the model."""
    known = tuple(operators)
    makers = {output: operator.name for operator in known for output in operator.outputs}
    users: dict[str, set[str]] = {}
    for operator in known:
        for name in operator.inputs:
            users.setdefault(name, set()).add(operator.name)
    found = set(kept)
    while added := {
        o.name for o in known if o.name not in found and not o.weights and _between(o, makers, users, found)
    }:
        found |= added
    return frozenset(found)


def _between(
    operator: Operator, makers: Mapping[str, str], users: Mapping[str, set[str]], found: Collection[str]
) -> bool:
    before = {makers[name] for name in operator.inputs if name in makers}
    after = {user for name in operator.outputs for user in users.get(name, ())}
    neighbours = before | after
    return bool(neighbours) and all(name in found for name in neighbours)


def _is_constant(model: Any, tensor: Any) -> bool:  # noqa: ANN401 - generated code without types
    data = model.buffers[tensor.buffer].data
    return data is not None and len(data) > 0
