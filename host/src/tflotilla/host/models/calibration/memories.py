"""What a TensorFlow graph remembers of the data it was trained on, and what it sees of other data.

Batch normalization keeps the mean and variance that each channel had during training (Ioffe & Szegedy 2015, section
3.1); Keras's `Normalization` layer those of the input itself. Read from the graph, with its variables frozen, they
say what the preprocessing of the training was. Forms known: FusedBatchNorm*, `tf.nn.batch_normalization` spelled
out (TensorFlow 1, Keras 3), `Normalization`.

Rule: only the part of the graph before the nearest such layers is run, in one batch. What this module does NOT do:
judge; find what is folded into weights (some frozen graphs, every TFLite file).
"""

from __future__ import annotations

import collections
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from tflotilla.host.models.calibration import graph_part
from tflotilla.host.models.calibration.graph_part import node_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_ADD = frozenset({"Add", "AddV2"})
_ALIASES = frozenset({"Identity", "Reshape", "Squeeze", "ExpandDims", "Cast", "StopGradient"})
_IMAGE_DIMENSIONS = 4
_MOST_MEMORIES = 2


@runtime_checkable
class SupportsGraph(Protocol):
    """A source model may be more: one with a TensorFlow graph."""

    def graph(self) -> tuple[Any, tuple[str, ...], tuple[str, ...]]:
        """Return a GraphDef, the names of its input tensors and of its output tensors."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Moments:
    """Mean and variance per channel, (channels,) float64."""

    mean: NDArray[np.float64]
    variance: NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """One tensor of a graph with the moments that it had in training."""

    layer: str
    tensor: str
    moments: Moments


def nearest(graph_def: Any, source: str) -> tuple[Memory, ...]:  # noqa: ANN401 - TensorFlow has no types
    """Return the memories nearest to the input tensor `source`, at most two, nearest first; () when there are none."""
    nodes = {node.name: node for node in graph_def.node}
    steps = _steps(nodes, node_of(source))
    known = [memory for memory in _find(nodes) if node_of(memory.tensor) in steps]
    return tuple(sorted(known, key=lambda memory: steps[node_of(memory.tensor)])[:_MOST_MEMORIES])


def _steps(nodes: Mapping[str, Any], source: str) -> dict[str, int]:
    """Return how many nodes lie between the input and each node that depends on it."""
    consumers = _consumers(nodes)
    found = {source: 0}
    queue = collections.deque([source])
    while queue:
        name = queue.popleft()
        for node in consumers.get(name, ()):
            if node.name not in found:
                found[node.name] = found[name] + 1
                queue.append(node.name)
    return found


def _consumers(nodes: Mapping[str, Any]) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = collections.defaultdict(list)
    for node in nodes.values():
        for entry in node.input:
            found[node_of(entry)].append(node)
    return found


def seen(
    graph_def: Any,  # noqa: ANN401 - TensorFlow has no types
    source: str,
    memories: Sequence[Memory],
    batches: Sequence[NDArray[np.float32]],
) -> list[tuple[Moments, ...]]:
    """Run the graph up to the memories; return, per batch of inputs (samples, …), the moments at each memory.

    Raises:
        ValueError, tf.errors.OpError: the part of the graph can't be run by itself.

    """
    runs = graph_part.run(
        graph_def,
        source,
        [memory.tensor for memory in memories],
        batches,
        reduced=lambda i, tensor: _reduced(tensor, len(memories[i].moments.mean)),
    )
    return [tuple(_combined(parts) for parts in zip(*answers, strict=True)) for answers in runs]


def _find(nodes: Mapping[str, Any]) -> Iterator[Memory]:
    consumers = _consumers(nodes)
    for node in nodes.values():
        if node.op.startswith("FusedBatchNorm") and not node.attr["is_training"].b:
            yield from _memory(node.name, node.input[0], _value(nodes, node.input[3]), _value(nodes, node.input[4]))
        elif node.op == "Rsqrt":
            yield from _spelled_out(node, nodes, consumers)
        elif node.op == "Sqrt":
            yield from _normalization(node, nodes, consumers)


def _memory(
    layer: str, tensor: str, mean: NDArray[np.float64] | None, variance: NDArray[np.float64] | None
) -> Iterator[Memory]:
    if mean is None or variance is None or mean.size != variance.size or not mean.size:
        return
    untrained = bool((mean == 0.0).all() and (variance == 1.0).all())
    if np.isfinite(mean).all() and np.isfinite(variance).all() and (variance > 0.0).any() and not untrained:
        yield Memory(layer=_layer(layer), tensor=tensor, moments=Moments(mean=mean.ravel(), variance=variance.ravel()))


def _layer(node: str) -> str:
    """Return the layer's own name: a node's, without what it is made of."""
    parts = node.split("/")
    while len(parts) > 1 and (parts[-1] in ("Rsqrt", "Sqrt", "batchnorm") or parts[-1].startswith("FusedBatchNorm")):
        parts.pop()
    return "/".join(parts)


def _spelled_out(node: Any, nodes: Mapping[str, Any], consumers: Mapping[str, list[Any]]) -> Iterator[Memory]:  # noqa: ANN401
    """Find x * inv + (beta - mean * inv) with inv = gamma * rsqrt(variance + epsilon)."""
    total = nodes.get(node_of(node.input[0]))
    if total is None or total.op not in _ADD:
        return
    terms = [_value(nodes, entry) for entry in total.input]
    if any(term is None for term in terms):
        return
    variance = max((term for term in terms if term is not None), key=lambda term: term.size)
    scaled = [user for user in consumers[node.name] if user.op == "Mul"]
    for inverse in (node, *scaled):
        products = [user for user in consumers[inverse.name] if user.op == "Mul"]
        others = [_other(user, inverse.name) for user in products]
        means = [value for other in others if (value := _value(nodes, other)) is not None]
        inputs = [other for other in others if _value(nodes, other) is None]
        if len(inputs) == 1 and len(means) == 1:
            yield from _memory(node.name, inputs[0], means[0], variance)
            return


def _normalization(node: Any, nodes: Mapping[str, Any], consumers: Mapping[str, list[Any]]) -> Iterator[Memory]:  # noqa: ANN401
    """Find (x - mean) / max(sqrt(variance), epsilon)."""
    variance = _value(nodes, node.input[0])
    for limited in (node, *(user for user in consumers[node.name] if user.op == "Maximum")):
        for quotient in consumers[limited.name]:
            if quotient.op not in ("RealDiv", "Div") or node_of(quotient.input[1]) != limited.name:
                continue
            difference = nodes.get(node_of(quotient.input[0]))
            if difference is not None and difference.op == "Sub":
                yield from _memory(node.name, difference.input[0], _value(nodes, difference.input[1]), variance)


def _other(node: Any, name: str) -> str:  # noqa: ANN401 - TensorFlow has no types
    """Return the factor of a product that is not `name`."""
    return str(next((entry for entry in node.input if node_of(entry) != name), node.input[0]))


def _value(nodes: Mapping[str, Any], name: str) -> NDArray[np.float64] | None:
    """Return the value of a constant, None when it is none."""
    import tensorflow as tf

    node = nodes.get(node_of(name))
    while node is not None and node.op in _ALIASES:
        node = nodes.get(node_of(node.input[0]))
    if node is None or node.op != "Const":
        return None
    value = tf.make_ndarray(node.attr["value"].tensor)
    return value.astype(np.float64) if value.dtype.kind == "f" else None


def _reduced(tensor: Any, channels: int) -> tuple[Any, Any]:  # noqa: ANN401 - TensorFlow has no types
    import tensorflow as tf

    wide = tf.cast(tensor, tf.float64)
    rank = tensor.shape.rank or 1
    axis = rank - 1
    if rank == _IMAGE_DIMENSIONS and tensor.shape[-1] != channels and tensor.shape[1] == channels:
        axis = 1
    others = [i for i in range(rank) if i != axis]
    if channels == 1 and tensor.shape[axis] != 1:
        # One mean for all: a scalar `Normalization`.
        others = list(range(rank))
    mean, square = tf.reduce_mean(wide, axis=others), tf.reduce_mean(wide**2, axis=others)
    return tf.reshape(mean, [-1]), tf.reshape(square, [-1])


def _combined(parts: Sequence[tuple[NDArray[Any], NDArray[Any]]]) -> Moments:
    mean = np.mean([part[0] for part in parts], axis=0)
    square = np.mean([part[1] for part in parts], axis=0)
    return Moments(mean=mean, variance=np.maximum(square - mean**2, 0.0))
