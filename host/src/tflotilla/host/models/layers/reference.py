"""What a quantized file is compared with: its float twin, or the float model it was made from. Pure.

What it does NOT do: run either.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tflotilla.host.models import flatbuffer
from tflotilla.host.models.layers import constants, matching, severed
from tflotilla.host.models.layers.twin import REWRITERS, Twin, check, twin_of
from tflotilla.shared.contract.errors import ModelError


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """A float network, and what in it belongs to what in the quantized file (main subgraphs)."""

    model: Any
    #: Operators and tensors of the quantized file → those of the reference.
    operators: Mapping[int, int]
    tensors: Mapping[int, int]
    #: Names are worth telling: it is another file than the quantized one.
    is_other_file: bool


def of_twin(twin: Twin) -> Reference:
    """Return the reference that a file's own twin is."""
    count = len(twin.model.subgraphs[0].tensors)
    tensors = {index: twin.same.get(index, index) for index in range(count)}
    return Reference(model=twin.model, operators=twin.operators, tensors=tensors, is_other_file=False)


def of_float_model(quantized: Any, data: bytes) -> Reference:  # noqa: ANN401 - generated code without types
    """Return the reference that a float model is; float16 weights count as what they are.

    Raises:
        ModelError: it is quantized itself, takes other inputs, or shares no operator with the quantized file.

    """
    check(quantized)
    given = flatbuffer.read(data)
    graph = given.subgraphs[0]
    makes_integers = (o for op in graph.operators or () for o in _indexes(op.outputs) if o >= 0)
    if any(constants.is_quantized(graph.tensors[o]) for o in makes_integers):
        raise ModelError("is quantized itself; give the float32 model that the other was made from")
    twin = twin_of(data)
    model = twin.model
    ours, theirs = _indexes(quantized.subgraphs[0].inputs), _indexes(model.subgraphs[0].inputs)
    if len(ours) != len(theirs):
        raise ModelError(f"takes {len(theirs)} inputs, the quantized model {len(ours)}: they are not the same network")
    operators = matching.pair(quantized, model)
    if not operators:
        raise ModelError("has no operator in common with the quantized model: they are not the same network")
    return Reference(
        model=model,
        operators=operators,
        tensors=_tensors(quantized, model, operators),
        is_other_file=True,
    )


def _tensors(quantized: Any, model: Any, operators: Mapping[int, int]) -> Mapping[int, int]:  # noqa: ANN401
    ours, theirs = quantized.subgraphs[0], model.subgraphs[0]
    tensors = dict(zip(_indexes(ours.inputs), _indexes(theirs.inputs), strict=True))
    for number, operator in enumerate(ours.operators or ()):
        made = _indexes(operator.outputs)
        if flatbuffer.op_name(quantized, operator) in REWRITERS:
            given = int(operator.inputs[0])
            if given in tensors:
                tensors[made[0]] = tensors[given]
        elif number in operators:
            tensors.update(zip(made, _indexes(theirs.operators[operators[number]].outputs), strict=False))
    return tensors


def cell(quantized: Any, reference: Reference, number: int) -> severed.Cell | str:  # noqa: ANN401
    """Return how the reference's operator is fed with what the quantized one gets, or why it can't be."""
    if number not in reference.operators:
        return "the float model has no such operator"
    place = reference.operators[number]
    operator = reference.model.subgraphs[0].operators[place]
    reason = severed.why_not_alone(reference.model, operator)
    if reason is not None:
        return reason
    given = _indexes(quantized.subgraphs[0].operators[number].inputs)
    feeds = []
    for position, index in enumerate(_indexes(operator.inputs)):
        own = index < 0 or severed.keeps_its_own(reference.model, index)
        feed = given[position] if position < len(given) else -1
        if not own and feed < 0:
            return "the float model's operator takes more inputs"
        feeds.append(-1 if own else feed)
    return severed.Cell(operator=place, feeds=tuple(feeds))


def _indexes(vector: Any) -> list[int]:  # noqa: ANN401 - an array, or None when empty
    return [] if vector is None else [int(i) for i in vector]
