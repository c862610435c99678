"""TensorArrays of TensorFlow 1: a list becomes a tensor that the loop carries.

A TensorArray is a resource, and its `flow`, a meaningless number, is what loops carry to keep writes in order. Here the
flow becomes the content:

    only written, and read at once by Concat     what was written, one after the other      write = ConcatV2
    everything else                              [elements, …]: all elements stacked        write = a slice replaced

Rules it keeps: an order of writing that can't be seen to be 0, 1, 2, … is never guessed at in the first form.
What it does NOT do: gradients (TensorArrayGrad), arrays of text, of one array in several loops at once.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import tensorflow as tf
from tensorflow.compiler.tf2xla.ops.gen_xla_ops import xla_dynamic_update_slice

from tflotilla.host.models.sources.rewrites.graph import CARRIERS, DataType, Node, Shape, Tensor, output_index, producer
from tflotilla.shared.contract.errors import ConversionError

if TYPE_CHECKING:
    from tflotilla.host.models.sources.rewrites.graph import Graph

_MAKE = "TensorArrayV3"
#: What makes a new flow from an old one, and at which input the old one comes in.
_CHANGES = {"TensorArrayWriteV3": 3, "TensorArrayScatterV3": 3}
_READS = frozenset({"TensorArrayReadV3", "TensorArrayGatherV3", "TensorArrayConcatV3", "TensorArraySizeV3"})
_CLOSE = "TensorArrayCloseV3"
OPS = frozenset({_MAKE})
_ADDS = frozenset({"Add", "AddV2"})


@dataclass(slots=True, kw_only=True)
class _Array:
    """One TensorArray and what is done with it."""

    node: Node
    dtype: DataType
    #: Of one element, as far as it is known.
    element: Tensor
    changes: list[Node] = field(default_factory=list)
    reads: list[Node] = field(default_factory=list)

    @property
    def concatenates(self) -> bool:
        """Whether its content is only ever wanted as a whole."""
        return bool(self.reads) and all(read.op == "TensorArrayConcatV3" for read in self.reads)

    @property
    def known(self) -> bool:
        """Whether the shape of its elements is: of those that are concatenated, but for the first dimension."""
        shape = self.element[1:] if self.concatenates and self.element.rank else self.element
        return bool(shape.is_fully_defined())


def apply(graph: Graph) -> str | None:
    """Replace every TensorArray. Raises ConversionError naming one that is used in a way that has no such form."""
    count = len(graph.of_ops(OPS))
    while makers := graph.of_ops(OPS):
        # What one array holds may be known only when another has become a tensor: what it is read from.
        arrays = [_understand(graph, maker) for maker in makers]
        ready = [array for array in arrays if array.known]
        for array in ready or arrays[:1]:
            _retype(graph, array.node, array.dtype)
            if array.concatenates:
                _concatenate(graph, array)
            else:
                _stack(graph, array)
        graph.learn_shapes()
    return f"TensorArrays ({count}) became tensors that the loops carry"


def _understand(graph: Graph, maker: Node) -> _Array:
    dtype = tf.as_dtype(maker.attr["dtype"].type)
    array = _Array(node=maker, dtype=dtype, element=tf.TensorShape(maker.attr["element_shape"].shape))
    if dtype == tf.string:
        raise ConversionError(f"{maker.name}: a TensorArray of text; TFLite has no operator for it")
    for user in _users(graph, maker.name, 0):
        if user.op in _CHANGES:
            array.changes.append(user)
            written = graph.shape(user.input[2])
            if user.op == "TensorArrayScatterV3" and written.rank is not None:
                written = written[1:]
            array.element = _merged(array.element, written)
        elif user.op in _READS:
            array.reads.append(user)
        elif user.op != _CLOSE:
            raise ConversionError(f"{user.name}: {user.op} of a TensorArray can't be computed with TFLite's ops")
    return array


def _merged(a: Shape, b: Shape) -> Shape:
    try:
        return a.merge_with(b)
    except ValueError:
        return a


def _users(graph: Graph, name: str, index: int) -> list[Node]:
    """Return the nodes that use output `index` of a node, through loops and conditions."""
    found: dict[str, Node] = {}
    seen = {name}
    stack = [node for node, i in graph.consumers(name) if output_index(node.input[i]) == index]
    while stack:
        node = stack.pop()
        if node.op not in CARRIERS:
            found[node.name] = node
        elif node.name not in seen:
            seen.add(node.name)
            stack += [consumer for consumer, _ in graph.consumers(node.name)]
    return list(found.values())


def _retype(graph: Graph, maker: Node, dtype: DataType) -> None:
    """Give the elements' type to everything that carries the flow."""
    seen: set[str] = set()
    stack = [node for node, i in graph.consumers(maker.name) if output_index(node.input[i]) == 1]
    while stack:
        node = stack.pop()
        if node.name in seen:
            continue
        seen.add(node.name)
        if node.op in CARRIERS:
            node.attr["T"].type = dtype.as_datatype_enum
            node.attr.pop("_output_shapes", None)
        elif node.op not in _CHANGES:
            continue
        stack += [consumer for consumer, _ in graph.consumers(node.name)]


def _concatenate(graph: Graph, array: _Array) -> None:
    if not array.known or not array.element.rank:
        raise ConversionError(f"{array.node.name}: the shape of what this TensorArray concatenates is unknown")
    rest = array.element[1:].as_list()
    for change in array.changes:
        if change.op != "TensorArrayWriteV3" or not _counts(graph, array, change):
            raise ConversionError(
                f"{change.name}: {change.op} of an array that is concatenated, "
                "in an order that can't be seen to be 0, 1, 2, …"
            )
    shape = tf.TensorShape([None, *rest])
    for change in array.changes:
        graph.replace(
            change,
            lambda flow, index, value: tf.concat([_kept(flow, index), value], 0),
            [change.input[3], change.input[1], change.input[2]],
            [array.dtype, tf.int32, array.dtype],
            [shape, tf.TensorShape([]), shape],
        )
    for read in array.reads:
        graph.replace(read, lambda flow: flow, [read.input[1]], [array.dtype], [shape])
    _begin(graph, array, rest)


def _stack(graph: Graph, array: _Array) -> None:
    if not array.known:
        raise ConversionError(f"{array.node.name}: the shape of what this TensorArray holds is unknown, or varies")
    element = array.element.as_list()
    grows = array.node.attr["dynamic_size"].b
    size = None if grows else graph.constant(array.node.input[0])
    shape = tf.TensorShape([None if size is None else int(size), *element])
    for change in array.changes:
        if change.op == "TensorArrayScatterV3":
            _scatter(graph, array, change, shape)
            continue
        write = _append if grows and _counts(graph, array, change) else _grow if grows else _write
        graph.replace(
            change,
            write,
            [change.input[3], change.input[1], change.input[2]],
            [array.dtype, tf.int32, array.dtype],
            [shape, tf.TensorShape([]), array.element],
        )
    for read in array.reads:
        _read(graph, array, read, shape)
    if grows:
        _begin(graph, array, element)
    else:

        def begin(length: Tensor) -> tuple[Tensor, Tensor]:
            zeros = tf.zeros(shape if shape[0] is not None else tf.concat([[length], element], 0), array.dtype)
            return zeros, zeros

        graph.replace(array.node, begin, [array.node.input[0]], [tf.int32], [tf.TensorShape([])])


def _kept(flow: Tensor, index: Tensor) -> Tensor:
    """Return all of it, in a way that TFLite can't see through.

    Its WHILE takes a tensor that grows from no element to one in the first step for a number that stays one, and then
    fails; unless something in the loop is of a size that only its run decides.
    """
    return flow[tf.minimum(index, 0) :]


def _append(flow: Tensor, index: Tensor, value: Tensor) -> Tensor:
    return tf.concat([_kept(flow, index), value[tf.newaxis]], 0)


def _grow(flow: Tensor, index: Tensor, value: Tensor) -> Tensor:
    missing = tf.maximum(index - tf.shape(flow)[0], 0)
    padding = tf.zeros(tf.concat([[missing], value.shape.as_list()], 0), value.dtype)
    return tf.concat([flow[:index], padding, value[tf.newaxis], flow[index + 1 :]], 0)


def _write(flow: Tensor, index: Tensor, value: Tensor) -> Tensor:
    begin = tf.concat([[index], np.zeros(value.shape.rank, np.int32)], 0)
    return xla_dynamic_update_slice(input=flow, update=value[tf.newaxis], indices=begin)


def _scatter(graph: Graph, array: _Array, change: Node, shape: Shape) -> None:
    indices = graph.source(change.input[1])
    if indices.op == "Range":
        begin, step = graph.constant(indices.input[0]), graph.constant(indices.input[2])
        whole = begin is not None and step is not None and int(begin) == 0 and int(step) == 1
    else:
        known = graph.constant(change.input[1])
        whole = known is not None and np.array_equal(known, np.arange(len(known)))
    if not whole:
        raise ConversionError(f"{change.name}: {change.op} in an order that can't be seen to be 0, 1, 2, …")
    graph.replace(change, lambda value: value, [change.input[2]], [array.dtype], [shape])


def _read(graph: Graph, array: _Array, read: Node, shape: Shape) -> None:
    flow = read.input[-1]
    if read.op == "TensorArraySizeV3":
        graph.replace(read, lambda flow: tf.shape(flow)[0], [flow], [array.dtype], [shape])
    elif read.op == "TensorArrayConcatV3":
        rest = shape.as_list()[2:]
        graph.replace(read, lambda flow: tf.reshape(flow, [-1, *rest]), [flow], [array.dtype], [shape])
    elif read.op == "TensorArrayGatherV3" and _is_all(graph, read):
        graph.replace(read, lambda flow: flow, [flow], [array.dtype], [shape])
    else:
        graph.replace(read, tf.gather, [flow, read.input[1]], [array.dtype, tf.int32], [shape, None])


def _is_all(graph: Graph, read: Node) -> bool:
    """Whether a Gather takes range(0, size): what `stack()` does."""
    indices = graph.source(read.input[1])
    if indices.op != "Range":
        return False
    begin, step, end = (graph.constant(indices.input[i]) for i in (0, 2, 1))
    if begin is None or step is None or int(begin) != 0 or int(step) != 1:
        return False
    limit = graph.source(indices.input[1])
    size = graph.constant(graph.source(read.input[0]).input[0])
    return limit.op == "TensorArraySizeV3" or (end is not None and size is not None and int(end) == int(size))


def _counts(graph: Graph, array: _Array, change: Node) -> bool:
    """Whether a write, the only one or one of several in a row, goes to 0, 1, 2, … in turn."""
    index = graph.constant(change.input[1])
    if index is not None:
        before = graph.source(change.input[3])
        earlier = -1
        if before.op == change.op:
            known = graph.constant(before.input[1])
            earlier = -2 if known is None else int(known)
        elif before is not array.node:
            return False
        return int(index) == earlier + 1
    merge = graph.nodes[producer(change.input[1])]
    while merge.op in {"Identity", "Switch"}:
        merge = graph.nodes[producer(merge.input[0])]
    if merge.op != "Merge" or len(array.changes) != 1:
        return False
    begin, following = _arms(graph, merge)
    if begin is None or following is None or following.op not in _ADDS:
        return False
    first = graph.constant(begin.input[0])
    steps = [graph.constant(source) for source in following.input]
    same = [graph.nodes[producer(source)] for source in following.input]
    back = [_loop_variable(graph, node) is merge for node in same]
    return (
        first is not None
        and int(first) == 0
        and any(step is not None and int(step) == 1 and back[1 - i] for i, step in enumerate(steps))
    )


def _arms(graph: Graph, merge: Node) -> tuple[Node, Node]:
    """Return a loop variable's (Enter, what computes its next value)."""
    begin = following = None
    for source in merge.input:
        node = graph.nodes[producer(source)]
        if node.op == "Enter":
            begin = node
        elif node.op == "NextIteration":
            following = graph.nodes[producer(node.input[0])]
    return begin, following


def _loop_variable(graph: Graph, node: Node) -> Node:
    while node.op in {"Identity", "Switch"}:
        node = graph.nodes[producer(node.input[0])]
    return node


def _begin(graph: Graph, array: _Array, rest: list[int]) -> None:
    """Let an array begin empty, with a length that no converter can know: it would believe that it stays so."""
    somewhere = next(node for node in graph.nodes.values() if node.op == "Placeholder")
    dtype = tf.as_dtype(somewhere.attr["dtype"].type)
    zeros = np.zeros((1, *rest), array.dtype.as_numpy_dtype)

    def build(value: Tensor) -> tuple[Tensor, Tensor]:
        first = tf.cast(tf.reshape(value, [-1])[:1], tf.float32)
        # Never true, not even of a number that is none.
        length = tf.cast(tf.less(tf.abs(first), 0.0), tf.int32)
        empty = tf.strided_slice(zeros, [0], length, [1])
        return empty, empty

    graph.replace(array.node, build, [somewhere.name], [dtype], [tf.TensorShape(somewhere.attr["shape"].shape)])
