"""What stays float when a model that finds things is quantized: detectors with their boxes and loops inside. Pure.

Eight bits are enough for a picture's features and far too few for where a box lies: 256 steps across a photo, and the
same again for its size. So in a graph that suppresses boxes only the operators that do the heavy work are quantized.
What it does NOT do: look at values; `accuracy_aware` measures.
"""

from __future__ import annotations

from tflotilla.host.models import flatbuffer

#: What tells such a graph.
_FINDERS = frozenset({"NON_MAX_SUPPRESSION_V4", "NON_MAX_SUPPRESSION_V5"})
#: What can't be an integer's in it, of all that stays float.
OBSTACLES = _FINDERS | {"IF", "WHERE", "WHILE"}
#: What is worth eight bits in it.
_HEAVY = frozenset({"CONV_2D", "CONV_3D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "MAX_POOL_2D", "TRANSPOSE_CONV"})


def kept(data: bytes) -> frozenset[str]:
    """Return the operators of a float file that are to stay float, each by the name of its first output tensor.

    None of a graph without such parts, and none of one without heavy work: there is nothing to be gained.
    """
    model = flatbuffer.read(data)
    operators = [(graph, operator) for graph in model.subgraphs for operator in graph.operators or ()]
    names = {flatbuffer.op_name(model, operator) for _, operator in operators}
    if _FINDERS.isdisjoint(names) or _HEAVY.isdisjoint(names):
        return frozenset()
    return frozenset(
        flatbuffer.tensor_name(graph.tensors[operator.outputs[0]])
        for graph, operator in operators
        if flatbuffer.op_name(model, operator) not in _HEAVY and len(operator.outputs)
    )
