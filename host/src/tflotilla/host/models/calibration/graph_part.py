"""Runs the part of a TensorFlow graph that some tensors need, in batches where the graph allows it.

What it does NOT do: choose the tensors, or read what comes out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from numpy.typing import NDArray


def node_of(tensor: str) -> str:
    """Return the name of the node that makes a tensor."""
    return tensor.split(":")[0].lstrip("^")


def ancestors(nodes: Mapping[str, Any], tensors: Iterable[str]) -> set[str]:
    """Return the names of the nodes that tensors are computed from, their own included."""
    found: set[str] = set()
    stack = [node_of(tensor) for tensor in tensors]
    while stack:
        name = stack.pop()
        if name not in found and name in nodes:
            found.add(name)
            stack.extend(node_of(entry) for entry in nodes[name].input)
    return found


def run(
    graph_def: Any,  # noqa: ANN401 - TensorFlow has no types
    source: str,
    tensors: Sequence[str],
    batches: Sequence[NDArray[Any]],
    *,
    reduced: Callable[[int, Any], Any] = lambda _, tensor: tensor,
) -> list[list[list[Any]]]:
    """Compute tensors on batches of the input `source`, (samples, …).

    Args:
        graph_def: a GraphDef without variables; its input is a placeholder of a batch of one.
        source: the input tensor's name.
        tensors: names.
        batches: each is fed as a whole, or sample by sample where the graph has its batch of one written down.
        reduced: adds to the graph what is wanted of a tensor (by place, tensor).

    Returns:
        Per batch, per run (one, or one per sample), what is wanted of each tensor.

    Raises:
        ValueError, tf.errors.OpError: this part of the graph can't be run by itself.

    """
    import tensorflow as tf

    part = _part(graph_def, source, tensors)
    with tf.Graph().as_default() as graph:
        tf.import_graph_def(part, name="")
        wanted = [reduced(i, graph.get_tensor_by_name(_full(name))) for i, name in enumerate(tensors)]
        with tf.compat.v1.Session(graph=graph) as session:

            def compute(batch: NDArray[Any]) -> list[Any]:
                found: list[Any] = session.run(wanted, {_full(source): batch})
                return found

            try:
                return [[compute(batch)] for batch in batches]
            except (tf.errors.OpError, ValueError):
                return [[compute(batch[i : i + 1]) for i in range(len(batch))] for batch in batches]


def _part(graph_def: Any, source: str, tensors: Sequence[str]) -> Any:  # noqa: ANN401 - TensorFlow has no types
    """Copy what the tensors are computed from, with a batch of any size."""
    import tensorflow as tf

    needed = ancestors({node.name: node for node in graph_def.node}, tensors)
    part = tf.compat.v1.GraphDef()
    part.versions.CopyFrom(graph_def.versions)
    part.library.CopyFrom(graph_def.library)
    for node in graph_def.node:
        if node.name in needed:
            copy = part.node.add()
            copy.CopyFrom(node)
            if node.name == node_of(source) and copy.attr["shape"].shape.dim:
                copy.attr["shape"].shape.dim[0].size = -1
    return part


def _full(tensor: str) -> str:
    return tensor if ":" in tensor else f"{tensor}:0"
