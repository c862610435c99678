"""Constants that enter a loop or a condition become constants of its inside.

A weight that reaches its convolution as an argument is no weight to the converter: it stays float, and is prepared
anew by each kernel at each run. What it does NOT do: move what a loop's condition needs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import tensorflow as tf

from tflotilla.host.models.sources.rewrites.graph import copied, new_node, output_index, producer

if TYPE_CHECKING:
    from tflotilla.host.models.sources.rewrites.graph import Graph, Node

OPS = frozenset({"Enter", "Switch"})


def apply(graph: Graph) -> str | None:
    """Put a copy of every such constant where it is used."""
    pivots = _Pivots(graph)
    moved: set[str] = set()
    for carrier in graph.of_ops(OPS):
        value = graph.source(carrier.name)
        if value.op != "Const" or (carrier.op == "Enter" and not carrier.attr["is_constant"].b):
            continue
        for consumer, i in graph.consumers(carrier.name):
            if consumer.op == "Merge" or consumer.name in pivots.conditions:
                continue
            pivot = pivots.of(carrier, output_index(consumer.input[i]))
            if pivot is None:
                continue
            copy = copied(value, f"{carrier.name}/constant_{output_index(consumer.input[i])}")
            del copy.input[:]
            copy.input.append(f"^{pivot}")
            graph.nodes[copy.name] = copy
            consumer.input[i] = copy.name
            moved.add(value.name)
    return f"{len(moved)} constants moved into the loops and conditions that use them" if moved else None


class _Pivots:
    """Nodes that run when, and only when, a loop's body or one side of a condition does."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._frames: dict[str, str] = {}
        self.conditions: set[str] = set()
        for switch in graph.of_ops(frozenset({"Switch"})):
            merge, test = (graph.nodes[producer(source)] for source in switch.input)
            if merge.op != "Merge" or test.op != "LoopCond":
                continue
            begins = [graph.nodes[producer(source)] for source in merge.input]
            for begin in begins:
                if begin.op == "Enter":
                    self._frames.setdefault(begin.attr["frame_name"].s.decode(), switch.name)
            self.conditions |= _ancestors(graph, test.name)

    def of(self, carrier: Node, output: int) -> str | None:
        """Return the node that stands for the place to which `carrier` carries its output; None when there is none."""
        if carrier.op == "Enter":
            switch = self._frames.get(carrier.attr["frame_name"].s.decode())
            return None if switch is None else self._identity(switch, 1)
        test = carrier.input[1]
        if self._graph.nodes[producer(test)].op == "LoopCond":
            return None
        name = f"{producer(test)}/sides_{output_index(test)}"
        if name not in self._graph.nodes:
            self._graph.nodes[name] = new_node(name, "Switch", [test, test], tf.bool)
        return self._identity(name, output)

    def _identity(self, source: str, output: int) -> str:
        pivot = f"{source}/side_{output}"
        if pivot not in self._graph.nodes:
            dtype = self._graph.nodes[source].attr["T"].type
            self._graph.nodes[pivot] = new_node(pivot, "Identity", [f"{source}:{output}"], dtype)
        return pivot


def _ancestors(graph: Graph, name: str) -> set[str]:
    """Return what computes a node within its loop."""
    found: set[str] = set()
    stack = [name]
    while stack:
        node = graph.nodes[stack.pop()]
        if node.name not in found and node.op != "NextIteration":
            found.add(node.name)
            stack += [producer(source) for source in node.input]
    return found
