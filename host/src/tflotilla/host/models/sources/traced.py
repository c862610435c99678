"""The two shapes a source takes in TensorFlow's memory: a frozen function (TensorFlow 2) or a frozen graph (1).

Only the modules of this package import this one, and only inside the conversion's child process.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, cast, get_args

import numpy as np
import tensorflow as tf
from tensorflow.python.eager.wrap_function import function_from_graph_def
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from tflotilla.host.models.sources import finite, shapes
from tflotilla.shared.contract.errors import ConversionError, ModelError
from tflotilla.shared.contract.tensors import DType, TensorSpec

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray


_LOOPS = frozenset({"While", "StatelessWhile", "Enter"})
_NODE_NAME = re.compile(r"[A-Za-z0-9.][A-Za-z0-9_./>-]*")
_SIZES = frozenset({"Shape", "ShapeN", "Size", "Rank", "TensorArraySizeV3"})


class FrozenFunction:
    """A concrete function whose variables have become constants."""

    def __init__(
        self,
        function: Any,  # noqa: ANN401 - TensorFlow has no types
        *,
        notes: Sequence[str] = (),
        output_names: Sequence[str] = (),
        bounded: bool = False,
    ) -> None:
        """Freeze; `bounded` says that loops end after a number of steps that the input's shape fixes."""
        finite.check_variables(function.variables)
        try:
            self._function = convert_variables_to_constants_v2(function, lower_control_flow=False)
        except (ValueError, tf.errors.OpError) as error:
            reason = _first_line(error)
            if "AssignVariableOp" in reason or "AssignAddVariableOp" in reason:
                reason = "inferring changes them (a stateful layer, a counter); make the state an input and an output"
            raise ConversionError(f"its variables can't be frozen: {reason}") from error
        # An unfrozen function converts to a file without weights that loads and runs (and answers nonsense).
        if any(tensor.dtype == tf.resource for tensor in self._function.inputs):
            raise ConversionError("some of its variables can't be frozen into the model")
        self.inputs = tuple(_spec(tensor) for tensor in self._function.inputs)
        if len(output_names) == len(self._function.outputs):
            self._function = _with_output_names(self._function, output_names)
        self.output_names = tuple(tensor.name.split(":")[0] for tensor in self._function.outputs)
        self.notes = tuple(notes)
        graph_def = self._function.graph.as_graph_def()
        finite.check_graph(graph_def)
        self.loops = not bounded and _has_loops(graph_def)

    def converter(self) -> Any:  # noqa: ANN401 - TensorFlow has no types
        """Return a fresh converter of TensorFlow 2."""
        return tf.lite.TFLiteConverter.from_concrete_functions([self._function])

    def run(self, inputs: tuple[NDArray[Any], ...]) -> tuple[NDArray[Any], ...]:
        """Compute in TensorFlow. Raises ModelError."""
        try:
            outputs = self._function(*(tf.constant(value) for value in inputs))
        except (tf.errors.OpError, ValueError, TypeError) as error:
            raise ModelError(f"TensorFlow can't run the source: {_first_line(error)}") from error
        return tuple(np.asarray(output) for output in tf.nest.flatten(outputs))

    def graph(self) -> tuple[Any, tuple[str, ...], tuple[str, ...]]:
        """Return what `run` computes: a GraphDef, the names of its input tensors and of its output tensors."""
        ends = (self._function.inputs, self._function.outputs)
        inputs, outputs = (tuple(tensor.name for tensor in tensors) for tensors in ends)
        return self._function.graph.as_graph_def(), inputs, outputs


class FrozenGraph:
    """A GraphDef of TensorFlow 1 with its placeholders at fixed shapes."""

    def __init__(
        self,
        graph_def: Any,  # noqa: ANN401 - TensorFlow has no types
        inputs: Mapping[str, tuple[int, ...]],
        outputs: Sequence[str],
        *,
        notes: Sequence[str] = (),
        converted: Any = None,  # noqa: ANN401 - TensorFlow has no types
    ) -> None:
        """Keep the graph as it is to run it, and `converted`, which computes the same, to convert it."""
        finite.check_graph(graph_def)
        self._ends = dict(inputs), list(outputs)
        self._graph, self._inputs, self._outputs = _imported(graph_def, *self._ends)
        self._converted = graph_def if converted is None else converted
        self.inputs = tuple(_spec(tensor) for tensor in self._inputs)
        self.output_names = tuple(outputs)
        self.notes = tuple(notes)
        self.loops = _has_loops(graph_def) and _ends_by_value(graph_def)

    def converter(self) -> Any:  # noqa: ANN401 - TensorFlow has no types
        """Return a fresh converter of TensorFlow 1: it alone understands the control flow of old graphs."""
        _, inputs, outputs = _imported(self._converted, *self._ends)
        return tf.compat.v1.lite.TFLiteConverter(self._converted, inputs, outputs)

    def run(self, inputs: tuple[NDArray[Any], ...]) -> tuple[NDArray[Any], ...]:
        """Compute in TensorFlow. Raises ModelError."""
        with tf.compat.v1.Session(graph=self._graph) as session:
            try:
                outputs = session.run(self._outputs, dict(zip(self._inputs, inputs, strict=True)))
            except (tf.errors.OpError, ValueError, TypeError) as error:
                raise ModelError(f"TensorFlow can't run the source: {_first_line(error)}") from error
        return tuple(np.asarray(output) for output in outputs)

    def graph(self) -> tuple[Any, tuple[str, ...], tuple[str, ...]]:
        """Return what `run` computes: a GraphDef, the names of its input tensors and of its output tensors."""
        inputs, outputs = (tuple(tensor.name for tensor in tensors) for tensors in (self._inputs, self._outputs))
        return self._graph.as_graph_def(), inputs, outputs


def _imported(graph_def: Any, inputs: Mapping[str, tuple[int, ...]], outputs: Sequence[str]) -> Any:  # noqa: ANN401
    """Return (graph, input tensors, output tensors)."""
    graph = tf.Graph()
    with graph.as_default():
        tf.import_graph_def(graph_def, name="")
    begins = [graph.get_tensor_by_name(_tensor_name(name)) for name in inputs]
    for tensor, shape in zip(begins, inputs.values(), strict=True):
        # Old graphs can't write "a single number" into the placeholder: there it means "unknown".
        tensor.set_shape([None if dimension == shapes.OPEN else dimension for dimension in shape])
    return graph, begins, [graph.get_tensor_by_name(_tensor_name(name)) for name in outputs]


def _with_output_names(function: Any, names: Sequence[str]) -> Any:  # noqa: ANN401 - TensorFlow has no types
    """Let a function's outputs be called as the user calls them; TensorFlow calls every one of them Identity.

    A name that isn't free, or that no node can have, is left.
    """
    graph_def = function.graph.as_graph_def()
    taken = {node.name for node in graph_def.node}
    outputs: list[str] = []
    for name, tensor in zip(names, function.outputs, strict=True):
        if name in taken or _NODE_NAME.fullmatch(name) is None:
            outputs.append(tensor.name)
            continue
        taken.add(name)
        node = graph_def.node.add(name=name, op="Identity", input=[tensor.name])
        node.attr["T"].type = tensor.dtype.as_datatype_enum
        outputs.append(f"{name}:0")
    return function_from_graph_def(graph_def, [tensor.name for tensor in function.inputs], outputs)


def _has_loops(graph_def: Any) -> bool:  # noqa: ANN401 - TensorFlow has no types
    nodes = [*graph_def.node, *(node for function in graph_def.library.function for node in function.node_def)]
    return any(node.op in _LOOPS for node in nodes)


def _ends_by_value(graph_def: Any) -> bool:  # noqa: ANN401 - TensorFlow has no types
    """Whether the end of a loop of TensorFlow 1 depends on what is fed, not only on shapes and constants."""
    nodes = {node.name: node for node in graph_def.node}
    stack = [node for node in graph_def.node if node.op == "LoopCond"]
    if any(node.op in _LOOPS - {"Enter"} for node in graph_def.node) or not stack:
        return True
    seen: set[str] = set()
    while stack:
        node = stack.pop()
        if node.op == "Placeholder":
            return True
        if node.name not in seen and node.op not in _SIZES:
            seen.add(node.name)
            stack += [nodes[name.split(":")[0]] for name in node.input if not name.startswith("^")]
    return False


def _tensor_name(name: str) -> str:
    return name if ":" in name else f"{name}:0"


def _spec(tensor: Any) -> TensorSpec:  # noqa: ANN401 - TensorFlow has no types
    name, dtype = tensor.name.removesuffix(":0"), tensor.dtype.base_dtype.name
    if dtype not in get_args(DType):
        raise ConversionError(f"input {name!r} is of type {dtype}, which TFLite can't take")
    shape = tuple(shapes.OPEN if dimension is None else dimension for dimension in tensor.shape.as_list())
    return TensorSpec(name=name, shape=shape, dtype=cast("DType", dtype))


def _first_line(error: Exception) -> str:
    text = getattr(error, "message", None) or str(error)
    lines = [line.strip() for line in text.splitlines()]
    # "Graph execution error:" only announces one.
    return next((line for line in lines if line and not line.endswith(":")), type(error).__name__)[:300]
