"""Dropout that was left in a frozen graph: it belongs to training, answers by chance, and wants an input of its own.

Two forms are known, those of `tf.nn.dropout` before and since TensorFlow 1.13:

    (x / keep) · floor(keep + uniform)          (x · scale) · cast(uniform >= rate)

What it does NOT do: touch other randomness, or a dropout whose probability the user names as an input.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tensorflow.core.framework import graph_pb2

from tflotilla.host.models.sources.rewrites.graph import GraphDef, Node, copied, new_node, producer

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

_RANDOM = "RandomUniform"
_SUMS = frozenset({"Add", "AddV2", "Sub", "Mul"})
_QUOTIENTS = frozenset({"RealDiv", "Div"})


def without(graph_def: GraphDef, fed: Collection[str]) -> tuple[GraphDef, str | None]:
    """Return the graph without dropout, and what was done; the same graph when it has none.

    `fed` are the inputs that the user names.
    """
    if all(node.op != _RANDOM for node in graph_def.node):
        return graph_def, None
    nodes = {node.name: copied(node) for node in graph_def.node}
    if any(producer(source) not in nodes for node in nodes.values() for source in node.input):
        return graph_def, None  # whoever imports it will say what is missing
    found = 0
    for node in [*nodes.values()]:
        kept = _kept(nodes, node)
        if kept is None or not _placeholders(nodes, kept[1]).isdisjoint(map(producer, fed)):
            continue
        node.CopyFrom(new_node(node.name, "Identity", [kept[0]], node.attr["T"].type))
        found += 1
    if not found:
        return graph_def, None
    made = graph_pb2.GraphDef(versions=graph_def.versions, library=graph_def.library)
    made.node.extend(nodes[name] for name in _needed(nodes, graph_def))
    return made, f"dropout ({found}) left out: it is for training"


def _kept(nodes: Mapping[str, Node], node: Node) -> tuple[str, str] | None:
    """Return (what a dropout drops from, the tensor of its probability) of the node that ends one; None of another."""
    if node.op != "Mul":
        return None
    for scaled, mask in (tuple(node.input), tuple(reversed(node.input))):
        scale, gate = nodes[producer(scaled)], nodes[producer(mask)]
        if gate.op == "Floor" and scale.op in _QUOTIENTS:
            total = nodes[producer(gate.input[0])]
            if total.op in _SUMS and scale.input[1] in total.input and _is_random(nodes, total):
                return scale.input[0], scale.input[1]
        if gate.op == "Cast" and scale.op == "Mul":
            test = nodes[producer(gate.input[0])]
            if test.op == "GreaterEqual" and _is_random(nodes, nodes[producer(test.input[0])]):
                factors = sorted(scale.input, key=lambda name: nodes[producer(name)].op in {"Const", *_QUOTIENTS})
                return factors[0], test.input[1]
    return None


def _is_random(nodes: Mapping[str, Node], node: Node) -> bool:
    """Whether it is a random number, or a sum with one in it."""
    while node.op in _SUMS:
        arms = [nodes[producer(source)] for source in node.input]
        following = [arm for arm in arms if arm.op in _SUMS or arm.op == _RANDOM]
        if not following:
            return False
        node = next((arm for arm in following if arm.op == _RANDOM), following[0])
    return bool(node.op == _RANDOM)


def _placeholders(nodes: Mapping[str, Node], tensor_name: str) -> set[str]:
    """Return everything that computes a tensor, its placeholders among it."""
    found: set[str] = set()
    stack = [producer(tensor_name)]
    while stack:
        name = stack.pop()
        if name not in found:
            found.add(name)
            stack += [producer(source) for source in nodes[name].input]
    return found


def _needed(nodes: Mapping[str, Node], original: GraphDef) -> list[str]:
    """Return the nodes that are still consumed, or never were: an output stays one, and nothing new becomes one."""
    consumed = {producer(source) for node in original.node for source in node.input}
    needed: set[str] = set()
    stack = [name for name in nodes if name not in consumed]
    while stack:
        name = stack.pop()
        if name not in needed:
            needed.add(name)
            stack += [producer(source) for source in nodes[name].input]
    return [name for name in nodes if name in needed]
