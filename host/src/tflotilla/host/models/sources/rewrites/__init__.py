"""Graphs of TensorFlow 1 rewritten until TFLite has an operator for each of their ops: one file per family of ops.

Each module of `FAMILIES` has:

    OPS: frozenset[str]      the ops that it removes
    apply(graph: Graph) -> str | None     change the graph; what was done, in a sentence

Rules it keeps: what is rewritten computes what the original does, for every input, or there is a ConversionError that
names the node; a graph without such ops stays as it is. What it does NOT do: optimize.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

#: In the order in which they are applied.
FAMILIES = ("tensor_arrays", "crop_and_resize", "non_max_suppression", "constants")


def rewrite(graph_def: Any, outputs: Sequence[str]) -> tuple[Any, list[str]]:  # noqa: ANN401 - TensorFlow has no types
    """Return the graph with the known ops replaced, and what was done; the same graph when there was nothing to do.

    Raises:
        ConversionError: an op is used in a way that TFLite's operators can't express; it names the node.

    """
    from tflotilla.host.models.sources.rewrites.graph import Graph

    ops = {node.op for node in graph_def.node}
    notes: list[str] = []
    for name in FAMILIES:
        family = importlib.import_module(f"{__name__}.{name}")
        if family.OPS.isdisjoint(ops):
            continue
        graph = Graph(graph_def, outputs)
        note = family.apply(graph)
        if note is not None:
            notes.append(note)
            graph_def = graph.graph_def()
    return graph_def, notes
