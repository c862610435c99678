"""Fix the shapes of a TFLite file, and fold what they decide: a model made for batches of any size computes its shapes.

    inputs fixed → every tensor whose shape follows gets it → integers that were computed from shapes become constants

Rules it keeps: what depends on the inputs' values stays as it is; the values are TensorFlow's own interpreter's, from
one run on zeros. Imported inside a child process only. What it does NOT do: choose the shapes (`shapes` does).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from tflotilla.host.models import flatbuffer
from tflotilla.host.models.sources import shapes
from tflotilla.shared.contract.errors import ConversionError

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Their outputs' shapes depend on values, or on what other subgraphs do.
_SURPRISING = frozenset(
    {
        "WHERE",
        "UNIQUE",
        "NON_MAX_SUPPRESSION_V4",
        "NON_MAX_SUPPRESSION_V5",
        "WHILE",
        "IF",
        "CALL_ONCE",
        "CALL",
        "READ_VARIABLE",
        "VAR_HANDLE",
        "HASHTABLE_FIND",
        "STABLEHLO_WHILE",
    }
)
#: Integers that such an operator reads are numbers or places, not sizes.
_SIZE_FREE = frozenset(
    {"GATHER", "GATHER_ND", "EMBEDDING_LOOKUP", "SELECT", "SELECT_V2", "ADD", "SUB", "MUL", "DIV", "FLOOR_DIV"}
    | {"MAXIMUM", "MINIMUM", "EQUAL", "NOT_EQUAL", "LESS", "LESS_EQUAL", "GREATER", "GREATER_EQUAL"}
)
#: Everything they read is a size.
_SIZES_ONLY = frozenset({"RANGE", "FILL"})
_LOOP = "WHILE"
_INTEGERS = ("int32", "int64")


def fix(model: Any, wanted: Sequence[tuple[int, ...]], where: str) -> bool:  # noqa: ANN401 - generated code without types
    """Fix the main subgraph's inputs, and what follows from them; return whether anything changed.

    Raises:
        ConversionError: the operators don't fit together at these shapes.

    """
    graph = model.subgraphs[0]
    inputs = [int(index) for index in (graph.inputs if graph.inputs is not None else ())]
    unknown = any(
        t.shapeSignature is not None and -1 in t.shapeSignature for g in model.subgraphs for t in g.tensors or ()
    )
    if not unknown and all(flatbuffer.shape(graph.tensors[i]) == s for i, s in zip(inputs, wanted, strict=True)):
        return False
    for index, shape in zip(inputs, wanted, strict=True):
        _set_shape(graph.tensors[index], shape)
    # A loop may wait for a value that zeros never give; what wasn't run has no values.
    ran = not any(flatbuffer.op_name(model, operator) == _LOOP for operator in graph.operators or ())
    engine = _interpreter(flatbuffer.write(model), wanted, where, run=ran)
    decided, known = _follow(model, graph, inputs, folds=ran)
    details = {int(detail["index"]): detail for detail in engine.get_tensor_details()}
    for index in sorted(decided):
        if index in details:
            _set_shape(graph.tensors[index], tuple(int(size) for size in details[index]["shape"]))
    for index in sorted(known):
        flatbuffer.set_constant(model, graph.tensors[index], np.array(engine.get_tensor(index)))
    graph.operators = [o for o in graph.operators if not all(int(i) in known for i in o.outputs)]
    return True


def _set_shape(tensor: Any, shape: tuple[int, ...]) -> None:  # noqa: ANN401 - generated code without types
    tensor.shape, tensor.shapeSignature = np.array(shape, dtype=np.int32), None


def _interpreter(data: bytes, wanted: Sequence[tuple[int, ...]], where: str, *, run: bool) -> Any:  # noqa: ANN401
    import tensorflow as tf

    try:
        engine = tf.lite.Interpreter(
            model_content=data,
            experimental_op_resolver_type=tf.lite.experimental.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
            experimental_preserve_all_tensors=True,
        )
        for detail, shape in zip(engine.get_input_details(), wanted, strict=True):
            engine.resize_tensor_input(detail["index"], shape)
        engine.allocate_tensors()
        for detail in engine.get_input_details():
            engine.set_tensor(detail["index"], np.zeros(detail["shape"], dtype=detail["dtype"]))
        if run:
            engine.invoke()
    except (ValueError, RuntimeError) as error:
        spelled = "; ".join(map(shapes.spell, wanted))
        raise ConversionError(f"{where} can't run at {spelled}: {' '.join(str(error).split())[:240]}") from error
    return engine


def _follow(
    model: Any,  # noqa: ANN401 - generated code without types
    graph: Any,  # noqa: ANN401
    inputs: Sequence[int],
    *,
    folds: bool,
) -> tuple[set[int], set[int]]:
    """Return the tensors whose shapes the inputs' shapes decide, and those (no constants yet) whose values they do."""
    decided: set[int] = set(inputs)
    values: set[int] = set()
    known: set[int] = set()
    for index, tensor in enumerate(graph.tensors):
        # The bytes, not the values: those of types that NumPy hasn't are decided as well.
        if model.buffers[tensor.buffer].data is not None:
            decided.add(index)
            values.add(index)
    constants = set(values)
    for operator in graph.operators or ():
        name = flatbuffer.op_name(model, operator)
        sources = [int(i) for i in operator.inputs if i >= 0]
        outputs = [int(i) for i in operator.outputs]
        integers = [i for i in sources[1:] if flatbuffer.dtype(graph.tensors[i]) in _INTEGERS]
        if name in _SIZES_ONLY:
            integers = sources
        sized = name in _SIZE_FREE or values.issuperset(integers)
        if name in _SURPRISING or not decided.issuperset(sources) or not sized:
            continue
        decided.update(outputs)
        computed = values.issuperset(sources) or name in ("SHAPE", "RANK")
        if folds and computed and all(flatbuffer.dtype(graph.tensors[i]) in _INTEGERS for i in outputs):
            values.update(outputs)
            known.update(outputs)
    return decided - constants, known - set(inputs)
