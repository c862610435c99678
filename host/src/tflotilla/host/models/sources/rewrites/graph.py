"""A GraphDef of TensorFlow 1 under the knife: who consumes what, and nodes replaced by graphs that compute the same.

Rules it keeps: a replaced node keeps its name, so whoever consumes it needs no change; what replaces it stands in the
same loop, on the same side of a condition, as it did. What it does NOT do: know any op but those of control flow.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import tensorflow as tf
from tensorflow.core.framework import graph_pb2

from tflotilla.shared.contract.errors import ConversionError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

# TensorFlow has no types; these names say what is meant.
GraphDef = Any
Node = Any
Tensor = Any
Shape = Any
DataType = Any
#: The ops of a TensorFlow 1 loop or condition that hand on what they are given.
CARRIERS = frozenset({"Enter", "RefEnter", "Merge", "Switch", "NextIteration", "Exit", "Identity"})
_ENTERS = frozenset({"Enter", "RefEnter"})


def producer(tensor_name: str) -> str:
    """Return the node that makes a tensor: `a/b:1` → `a/b`, `^c` → `c`."""
    return tensor_name.split(":")[0].removeprefix("^")


def output_index(tensor_name: str) -> int:
    """Return which of its node's outputs a tensor is: `a/b:1` → 1, `a/b` → 0."""
    return int(tensor_name.partition(":")[2] or 0)


def _full(tensor_name: str) -> str:
    return tensor_name if ":" in tensor_name else f"{tensor_name}:0"


def new_node(name: str, op: str, inputs: Sequence[str], dtype: DataType) -> Node:
    """Return a node of an op whose only attribute is T."""
    node = graph_pb2.GraphDef().node.add(name=name, op=op, input=inputs)
    node.attr["T"].type = tf.as_dtype(dtype).as_datatype_enum
    return node


def copied(node: Node, name: str = "") -> Node:
    """Return a copy, under another name where one is given."""
    copy = graph_pb2.GraphDef().node.add()
    copy.CopyFrom(node)
    copy.name = name or node.name
    return copy


class Graph:
    """A copy of a GraphDef that can be changed."""

    def __init__(self, graph_def: GraphDef, outputs: Sequence[str]) -> None:
        """Copy, and learn the shapes; what `outputs` don't need goes as soon as it isn't needed any more."""
        self._outputs = tuple(outputs)
        self._library = graph_def.library
        self._versions = graph_def.versions
        self.nodes: dict[str, Node] = {node.name: copied(node) for node in graph_def.node}
        self._branches = any(node.op in _ENTERS | {"Switch"} for node in graph_def.node)
        self._known = _with_shapes(graph_def)

    def learn_shapes(self) -> None:
        """Learn the shapes of everything anew, also of what has been changed."""
        self._known = _with_shapes(self.graph_def())

    def of_ops(self, ops: frozenset[str]) -> list[Node]:
        """Return the nodes of these ops, in the order of the graph."""
        return [node for node in self.nodes.values() if node.op in ops]

    def consumers(self, name: str) -> list[tuple[Node, int]]:
        """Return (node, index of its input) for everything that takes an output of the node `name`."""
        return [
            (node, i)
            for node in self.nodes.values()
            for i, source in enumerate(node.input)
            if not source.startswith("^") and producer(source) == name
        ]

    def shape(self, tensor_name: str) -> Shape:
        """Return what is known of a tensor's shape; nothing of what is newer than the last `learn_shapes`."""
        try:
            return self._known.get_tensor_by_name(_full(tensor_name)).shape
        except KeyError:
            return tf.TensorShape(None)

    def constant(self, tensor_name: str) -> Any | None:  # noqa: ANN401 - an array of any type
        """Return the value of a tensor that is a constant, seen through the loops it enters; None for any other."""
        node = self.source(tensor_name)
        return tf.make_ndarray(node.attr["value"].tensor) if node.op == "Const" else None

    def source(self, tensor_name: str) -> Node:
        """Return the node whose value a tensor is, seen through whatever enters loops and conditions."""
        node = self.nodes[producer(tensor_name)]
        while node.op in _ENTERS | {"Switch", "Identity"}:
            node = self.nodes[producer(node.input[0])]
        return node

    def replace(
        self,
        node: Node,
        build: Callable[..., Tensor],
        inputs: Sequence[str],
        dtypes: Sequence[DataType],
        shapes: Sequence[Shape] = (),
    ) -> None:
        """Put in a node's place what `build` makes of symbolic tensors: one tensor, or a tuple of several outputs.

        Args:
            node: what goes.
            build: called in a graph of its own with one placeholder per input; returns as many tensors as are used.
            inputs: the names of the tensors that it is given.
            dtypes: their types.
            shapes: what is known of their shapes; without them, what the graph knows.

        Raises:
            ConversionError: an output of the node is used that `build` doesn't make.

        """
        template = tf.Graph()
        with template.as_default():
            placeholders = [
                tf.compat.v1.placeholder(dtype, shape, name=f"input_{i}")
                for i, (dtype, shape) in enumerate(
                    zip(dtypes, shapes or [self.shape(name) for name in inputs], strict=True)
                )
            ]
            made = build(*placeholders)
        results = made if isinstance(made, tuple) else (made,)
        prefix = f"{node.name}/builtin"
        renamed = {p.op.name: name for p, name in zip(placeholders, inputs, strict=True)}
        self._add(template.as_graph_def(), prefix, renamed, self._anchor(prefix, inputs[0], dtypes[0]))
        outputs = [renamed.get(tensor.op.name, f"{prefix}/{tensor.name.removesuffix(':0')}") for tensor in results]
        for consumer, i in self.consumers(node.name):
            number = output_index(consumer.input[i])
            if number >= len(outputs):
                raise ConversionError(f"{node.name}: output {number} of {node.op} can't be computed with TFLite's ops")
            if number:
                consumer.input[i] = outputs[number]
        node.CopyFrom(new_node(node.name, "Identity", outputs[:1], results[0].dtype))

    def graph_def(self) -> GraphDef:
        """Return the changed graph, without what the outputs don't need; placeholders stay."""
        needed: set[str] = {name for name, node in self.nodes.items() if node.op == "Placeholder"}
        stack = [producer(name) for name in self._outputs]
        while stack:
            name = stack.pop()
            if name not in needed:
                needed.add(name)
                stack += [producer(source) for source in self.nodes[name].input]
        self.nodes = {name: node for name, node in self.nodes.items() if name in needed}
        made = graph_pb2.GraphDef()
        made.versions.CopyFrom(self._versions)
        made.library.CopyFrom(self._library)
        made.node.extend(self.nodes.values())
        return made

    def _add(self, template: GraphDef, prefix: str, renamed: dict[str, str], anchor: str | None) -> None:
        for part in template.node:
            if part.name in renamed:
                continue
            copy = copied(part, f"{prefix}/{part.name}")
            del copy.input[:]
            for source in part.input:
                mapped = renamed.get(producer(source)) or f"{prefix}/{source.removeprefix('^')}"
                copy.input.append(f"^{producer(mapped)}" if source.startswith("^") else mapped)
            if not part.input and anchor is not None:
                copy.input.append(anchor)
            self.nodes[copy.name] = copy

    def _anchor(self, prefix: str, tensor_name: str, dtype: DataType) -> str | None:
        """Return what holds a constant in the loop or branch where it is used; a Switch itself stands before both."""
        if not self._branches:
            return None
        node = new_node(f"{prefix}/here", "Identity", [tensor_name], dtype)
        self.nodes[node.name] = node
        return f"^{node.name}"


def _with_shapes(graph_def: GraphDef) -> tf.Graph:
    """Import a graph so that the shapes in its loops are known: TensorFlow gives up at every loop variable.

    A loop variable is believed to keep the shape with which it enters, until what comes back says otherwise.
    """
    loops = _loop_variables(graph_def)
    believed: dict[str, Shape] = {}
    while True:
        graph = tf.Graph()
        with graph.as_default():
            tf.import_graph_def(_opened(graph_def, dict.fromkeys(loops) | believed), name="")
        begins, ends = ({name: graph.get_tensor_by_name(arm[i]).shape for name, arm in loops.items()} for i in (0, 1))
        fresh = {name: shape for name, shape in begins.items() if name not in believed and shape.rank is not None}
        if fresh:
            believed |= fresh
            continue
        relaxed = {name: _common(_common(shape, begins[name]), ends[name]) for name, shape in believed.items()}
        if all(relaxed[name].as_proto() == shape.as_proto() for name, shape in believed.items()):
            return graph
        believed = relaxed


def _loop_variables(graph_def: GraphDef) -> dict[str, tuple[str, str]]:
    """Return Merge → (the tensor that enters the loop, the tensor that comes back)."""
    nodes = {node.name: node for node in graph_def.node}
    found: dict[str, tuple[str, str]] = {}
    for node in graph_def.node:
        arms = {nodes[producer(source)].op: producer(source) for source in node.input} if node.op == "Merge" else {}
        begin = arms.get("Enter", arms.get("RefEnter"))
        if begin is not None and "NextIteration" in arms:
            # Of an Enter TensorFlow knows no shape; of what enters, it does.
            first, again = (nodes[name].input[0] for name in (begin, arms["NextIteration"]))
            found[node.name] = (_full(first), _full(again))
    return found


def _opened(graph_def: GraphDef, shapes: Mapping[str, Shape | None]) -> GraphDef:
    """Return a copy in which loop variables are placeholders, so that nothing goes round."""
    opened = graph_pb2.GraphDef()
    opened.versions.CopyFrom(graph_def.versions)
    opened.library.CopyFrom(graph_def.library)
    for node in graph_def.node:
        if node.name not in shapes:
            opened.node.add().CopyFrom(node)
            continue
        variable = opened.node.add(name=node.name, op="Placeholder")
        variable.attr["dtype"].CopyFrom(node.attr["T"])
        variable.attr["shape"].shape.CopyFrom(tf.TensorShape(shapes[node.name]).as_proto())
    return opened


def _common(a: Shape, b: Shape) -> Shape:
    """Return the most that two shapes have in common."""
    if a.rank is None or a.rank != b.rank:
        return tf.TensorShape(None)
    return tf.TensorShape([x if x == y else None for x, y in zip(a.as_list(), b.as_list(), strict=True)])
