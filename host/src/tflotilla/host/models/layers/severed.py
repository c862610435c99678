"""Networks with every activation in view, and networks cut into single operators. Pure.

`exposed` makes every activation an output: runtimes keep outputs to the end, so one run shows all. `sever` builds one
network in which each operator stands alone, fed by inputs of its own: one run of it gives what every operator makes of
what *another* network fed to it. What it does NOT do: run anything.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tflotilla.host.models import flatbuffer
from tflotilla.host.models.flatbuffer import SCHEMA
from tflotilla.host.models.layers import constants

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

_READABLE = ("float32", "float64", "int8", "uint8", "int16", "int32", "int64", "bool")
#: Custom operators that both runtimes bring along.
KNOWN_CUSTOM = ("TFLite_Detection_PostProcess",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Exposed:
    """A file with all activations as outputs."""

    data: bytes
    #: Tensor index of every output.
    tensors: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One operator to stand alone."""

    #: Its number in the network that is cut.
    operator: int
    #: Per input, the tensor of the other network that feeds it; constants and states keep their own.
    feeds: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Severed:
    """A file of single operators."""

    data: bytes
    #: Per model input, the tensor of the other network that feeds it.
    feeds: tuple[int, ...]
    #: Per model output, which cell made it and which of its outputs it is.
    outputs: tuple[tuple[int, int], ...]
    #: Per operator of the file, its cell: what a runtime's complaint about "node number N" means.
    cells: tuple[int, ...]


def stopped_at(model: Any) -> dict[int, str]:  # noqa: ANN401 - generated code without types
    """Return operators of the main subgraph that no plain runtime has, or that depend on such; and that op's name."""
    graph = model.subgraphs[0]
    behind: dict[int, str] = {}
    stopped: dict[int, str] = {}
    for number, operator in enumerate(graph.operators or ()):
        code = model.operatorCodes[operator.opcodeIndex]
        name = flatbuffer.op_name(model, operator)
        custom = max(code.builtinCode, code.deprecatedBuiltinCode) == SCHEMA.BuiltinOperator.CUSTOM
        causes = [behind[i] for i in _indexes(operator.inputs) if i in behind]
        if custom and name not in KNOWN_CUSTOM:
            causes.insert(0, name)
        if causes:
            stopped[number] = causes[0]
            behind.update(dict.fromkeys(_indexes(operator.outputs), causes[0]))
    return stopped


def exposed(model: Any, leave_out: Collection[int] = ()) -> Exposed:  # noqa: ANN401 - generated code without types
    """Return a network without the operators of `leave_out`, whose outputs are all its activations."""
    whole = copy.copy(model)
    graph = copy.copy(model.subgraphs[0])
    whole.subgraphs = [graph, *model.subgraphs[1:]]
    whole.signatureDefs = None
    graph.operators = [op for i, op in enumerate(graph.operators or ()) if i not in leave_out]
    made = dict.fromkeys(i for operator in graph.operators for i in _indexes(operator.outputs) if i >= 0)
    seen = tuple(i for i in made if flatbuffer.dtype(graph.tensors[i]) in _READABLE and not graph.tensors[i].isVariable)
    graph.outputs = np.array(seen, dtype=np.int32)
    graph.tensors = [_repaired(tensor) for tensor in graph.tensors]
    _keep_used_codes(whole)
    return Exposed(data=flatbuffer.write(whole), tensors=seen)


def why_not_alone(model: Any, operator: Any) -> str | None:  # noqa: ANN401 - generated code without types
    """Return why an operator can't be run by itself, None when it can be tried."""
    tensors = model.subgraphs[0].tensors
    for index in (*_indexes(operator.inputs), *_indexes(operator.outputs)):
        if index >= 0 and flatbuffer.dtype(tensors[index]) not in _READABLE and not tensors[index].isVariable:
            return "it reads or writes a state or texts, and means nothing by itself"
    return None


def sever(model: Any, cells: Sequence[Cell], shapes: Mapping[int, tuple[int, ...]]) -> Severed:  # noqa: ANN401
    """Cut a network into the operators of `cells`.

    Args:
        model: a ModelT; stays as it is.
        cells: which operators, and by which tensors of another network each is fed.
        shapes: of those tensors, at the moment.

    """
    whole = copy.copy(model)
    graph = copy.copy(model.subgraphs[0])
    whole.subgraphs = [graph, *model.subgraphs[1:]]
    whole.signatureDefs = None
    graph.tensors = list(graph.tensors)
    inputs: dict[tuple[int, int], int] = {}
    outputs: list[tuple[int, int]] = []
    out_tensors: list[int] = []
    operators = []
    for number, cell in enumerate(cells):
        operator = copy.copy(model.subgraphs[0].operators[cell.operator])
        taken = []
        for index, feed in zip(_indexes(operator.inputs), cell.feeds, strict=True):
            if index < 0 or keeps_its_own(model, index):
                taken.append(index)
                continue
            tensor = graph.tensors[index]
            if (feed, tensor.type) not in inputs:
                inputs[feed, tensor.type] = _add(graph, tensor, f"fed_{feed}", shapes.get(feed))
            taken.append(inputs[feed, tensor.type])
        made = []
        for position, index in enumerate(_indexes(operator.outputs)):
            made.append(_add(graph, graph.tensors[index], f"made_{number}_{position}", None))
            outputs.append((number, position))
        operator.inputs, operator.outputs = np.array(taken, np.int32), np.array(made, np.int32)
        out_tensors += made
        operators.append(operator)
    graph.operators = operators
    graph.inputs = np.array(list(inputs.values()), np.int32)
    graph.outputs = np.array(out_tensors, np.int32)
    _keep_used_codes(whole)
    return Severed(
        data=flatbuffer.write(whole),
        feeds=tuple(feed for feed, _ in inputs),
        outputs=tuple(outputs),
        cells=tuple(range(len(operators))),
    )


def keeps_its_own(model: Any, index: int) -> bool:  # noqa: ANN401 - generated code without types
    """Whether a tensor's values come from the file (constants) or from the operator's own past (states)."""
    tensor = model.subgraphs[0].tensors[index]
    return bool(tensor.isVariable) or constants.is_constant(model, tensor)


def _add(graph: Any, like: Any, name: str, shape: tuple[int, ...] | None) -> int:  # noqa: ANN401
    tensor = copy.copy(like)
    tensor.name = name
    tensor.buffer = 0
    if shape is not None:
        tensor.shape, tensor.shapeSignature = np.array(shape, np.int32), None
    graph.tensors.append(tensor)
    return len(graph.tensors) - 1


def _repaired(tensor: Any) -> Any:  # noqa: ANN401
    """Return the tensor with its channels on an axis that it has.

    Some converters repeat the weight's axis at the bias, a vector. Older runtimes never looked, newer ones refuse.
    """
    parameters = tensor.quantization
    if parameters is None or parameters.scale is None or len(flatbuffer.shape(tensor)) != 1:
        return tensor
    if parameters.quantizedDimension == 0:
        return tensor
    changed = copy.copy(tensor)
    changed.quantization = copy.copy(parameters)
    changed.quantization.quantizedDimension = 0
    return changed


def _keep_used_codes(model: Any) -> None:  # noqa: ANN401
    """Drop operator codes that nothing uses: a loader refuses a file for any it does not know."""
    used = sorted({int(op.opcodeIndex) for graph in model.subgraphs for op in graph.operators or ()})
    model.operatorCodes = [model.operatorCodes[i] for i in used]
    place = {old: new for new, old in enumerate(used)}
    for position, graph in enumerate(model.subgraphs):
        changed = copy.copy(graph)
        changed.operators = [copy.copy(op) for op in graph.operators or ()]
        for operator in changed.operators:
            operator.opcodeIndex = place[int(operator.opcodeIndex)]
        model.subgraphs[position] = changed


def _indexes(vector: Any) -> list[int]:  # noqa: ANN401 - an array, or None when empty
    return [] if vector is None else [int(i) for i in vector]
