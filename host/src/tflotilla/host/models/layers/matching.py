"""Which operator of a float model an operator of its quantized file was. Pure.

TFLite's quantizer keeps most tensor names and the order of operators, and adds QUANTIZE and DEQUANTIZE. So: names that
are the same and stand once in each file are anchors where the operator agrees; what lies between two anchors is paired
by the sequence of operators and output shapes. What it does NOT do: guess; what has no partner stays without.
"""

from __future__ import annotations

import difflib
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tflotilla.host.models import flatbuffer
from tflotilla.host.models.layers.twin import REWRITERS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@dataclass(frozen=True, slots=True, kw_only=True)
class _Step:
    """One operator, by what can be compared."""

    number: int
    op: str
    name: str
    #: Without the batch, which is often unknown in one of the two files.
    shape: tuple[int, ...]

    @property
    def kind(self) -> tuple[str, tuple[int, ...]]:
        return self.op, self.shape


def pair(quantized: Any, reference: Any) -> Mapping[int, int]:  # noqa: ANN401 - generated code without types
    """Return operator of the quantized file's main subgraph → operator of the reference's."""
    ours, theirs = _steps(quantized), _steps(reference)
    anchors = _anchors(ours, theirs)
    pairs: dict[int, int] = {}
    start = (0, 0)
    for end in (*anchors, (len(ours), len(theirs))):
        left, right = ours[start[0] : end[0]], theirs[start[1] : end[1]]
        matcher = difflib.SequenceMatcher(None, [s.kind for s in left], [s.kind for s in right], autojunk=False)
        for block in matcher.get_matching_blocks():
            for offset in range(block.size):
                pairs[left[block.a + offset].number] = right[block.b + offset].number
        if end != (len(ours), len(theirs)):
            pairs[ours[end[0]].number] = theirs[end[1]].number
        start = (end[0] + 1, end[1] + 1)
    return pairs


def _steps(model: Any) -> list[_Step]:  # noqa: ANN401
    graph = model.subgraphs[0]
    steps = []
    for number, operator in enumerate(graph.operators or ()):
        op = flatbuffer.op_name(model, operator)
        if op in REWRITERS or operator.outputs is None or not len(operator.outputs):
            continue
        tensor = graph.tensors[int(operator.outputs[0])]
        shape = flatbuffer.shape(tensor)
        steps.append(_Step(number=number, op=op, name=flatbuffer.tensor_name(tensor), shape=shape[1:]))
    return steps


def _anchors(ours: Sequence[_Step], theirs: Sequence[_Step]) -> list[tuple[int, int]]:
    """Return positions of steps of the same unique name and kind, those in the same order in both files only."""
    counts = [Counter(step.name for step in steps) for steps in (ours, theirs)]
    places = {step.name: i for i, step in enumerate(theirs)}
    anchors: list[tuple[int, int]] = []
    for i, step in enumerate(ours):
        if not step.name or counts[0][step.name] != 1 or counts[1][step.name] != 1:
            continue
        j = places[step.name]
        if theirs[j].kind == step.kind and (not anchors or j > anchors[-1][1]):
            anchors.append((i, j))
    return anchors
