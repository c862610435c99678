"""`.pb`, `.pbtxt`: a GraphDef of TensorFlow 1 whose variables have become constants.

Such a file doesn't say where it begins and ends: without `--input-arrays` and `--output-arrays` the placeholders and
the nodes that nobody consumes are taken, and said. An input may be any node inside: what lies before it is cut away.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tflotilla.host.models.sources import graph_code, rewrites, shapes
from tflotilla.shared.contract.errors import ConversionError, ModelError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from tflotilla.host.models.sources import SourceModel, SourceOptions

_NODE_FIELD = 0x0A
_VARIABLES = frozenset({"Variable", "VariableV2", "VarHandleOp"})
_NO_RESULT = frozenset({"Const", "NoOp", "Assert", "Placeholder", "PlaceholderWithDefault", "SaveV2", "RestoreV2"})
#: What turns files and sound into numbers, before the part that a board's runtime can run.
_DECODERS = frozenset(
    {"DecodeWav", "AudioSpectrogram", "Mfcc", "DecodeJpeg", "DecodePng", "DecodeImage", "DecodeRaw", "ParseExample"}
)


def recognizes(path: Path, head: bytes) -> bool:
    """Whether it begins with a node that begins with its name, in binary or in text."""
    if head.lstrip().startswith(b"node {"):
        return True
    if path.name == "saved_model.pb":
        return False
    # Field 1 (node), its length as a varint, and in it again field 1 (name).
    length = next((i for i, byte in enumerate(head[1:11], 1) if byte < 0x80), 0)  # noqa: PLR2004 - varint's last byte
    return head[:1] == bytes([_NODE_FIELD]) and head[length + 1 : length + 2] == bytes([_NODE_FIELD])


def load(path: Path, options: SourceOptions) -> SourceModel:
    """Read a frozen graph. Raises ModelError, ConversionError, UsageError."""
    graph_def = _parse(path)
    variables = sorted({node.name for node in graph_def.node if node.op in _VARIABLES})
    if variables:
        raise ModelError(
            f"{path}: not frozen, it has variables ({variables[0]} …); freeze it, or give its SavedModel folder"
        )
    return cut(graph_def, str(path), options)


def cut(
    graph_def: Any,  # noqa: ANN401 - TensorFlow has no types
    where: str,
    options: SourceOptions,
    *,
    inputs: Mapping[str, str] | None = None,
    outputs: Mapping[str, str] | None = None,
) -> SourceModel:
    """Take the part of a frozen graph between its inputs and its outputs, with fixed shapes.

    `inputs` and `outputs` (name → tensor name) are those of a signature; without them the options or proposals count.
    Raises ModelError, ConversionError, UsageError.
    """
    import tensorflow as tf

    from tflotilla.host.models.sources.rewrites import dropout
    from tflotilla.host.models.sources.traced import FrozenGraph

    ops = {node.op for node in graph_def.node} | {n.op for f in graph_def.library.function for n in f.node_def}
    if not options.allow_code:
        graph_code.refuse_code(ops, where)
    graph_def, left_out = dropout.without(
        graph_def, inputs.values() if inputs else {*options.input_arrays, *options.input_shapes}
    )
    graph = tf.Graph()
    try:
        with graph.as_default():
            tf.import_graph_def(graph_def, name="")
    except (ValueError, tf.errors.OpError) as error:
        raise ModelError(f"{where}: TensorFlow can't read the graph: {str(error).splitlines()[0][:240]}") from error
    nodes = {node.name: node for node in graph_def.node}
    notes: list[str] = [] if left_out is None else [left_out]
    wanted_outputs = list(outputs.values()) if outputs else list(options.output_arrays)
    if not wanted_outputs:
        wanted_outputs = _propose_outputs(graph_def, where)
        notes.append(f"--output-arrays {','.join(wanted_outputs)} was taken: nothing consumes it")
    _check_nodes(wanted_outputs, nodes, "--output-arrays")
    wanted_inputs = list(inputs.values()) if inputs else list(options.input_arrays)
    if not wanted_inputs:
        wanted_inputs = _propose_inputs(nodes, wanted_outputs, where)
        notes.append(f"--input-arrays {','.join(wanted_inputs)} was taken: the graph's placeholders")
    _check_nodes(wanted_inputs, nodes, "--input-arrays")
    tensors = {name: graph.get_tensor_by_name(name if ":" in name else f"{name}:0") for name in wanted_inputs}
    _refuse_text(tensors, nodes, graph_def)
    names = list(inputs) if inputs else wanted_inputs
    shapes.check_names(options.input_shapes, names)
    fixed = {
        tensor_name: shapes.fix_shape(
            name,
            _dimensions(tensors[tensor_name], nodes[_node(tensor_name)]),
            options.input_shapes,
            names,
            may_stay_open=True,
        )
        for name, tensor_name in zip(names, wanted_inputs, strict=True)
    }
    stored = _stored_small(graph, nodes, wanted_outputs)
    if stored:
        notes.append(f"{len(stored)} weights that were stored as integers are float again")
    part = _between(graph_def, nodes, tensors, wanted_outputs, fixed, stored)
    placed = {_node(name): shape for name, shape in fixed.items()}
    rewritten, done = rewrites.rewrite(part, wanted_outputs)
    return FrozenGraph(part, placed, wanted_outputs, notes=[*notes, *done], converted=rewritten)


def _parse(path: Path) -> Any:  # noqa: ANN401 - TensorFlow has no types
    from google.protobuf import message, text_format  # type: ignore[import-untyped]
    from tensorflow.core.framework import graph_pb2

    data = path.read_bytes()
    graph_def = graph_pb2.GraphDef()
    try:
        if data.lstrip().startswith(b"node {"):
            text_format.Parse(data.decode(), graph_def)
        else:
            graph_def.ParseFromString(data)
    except (message.DecodeError, text_format.ParseError, UnicodeDecodeError) as error:
        raise ModelError(f"{path}: corrupt or truncated graph ({error})") from error
    if not graph_def.node:
        raise ModelError(f"{path}: the graph has no nodes")
    return graph_def


def _node(tensor_name: str) -> str:
    return tensor_name.split(":")[0].lstrip("^")


def _check_nodes(names: Iterable[str], nodes: Mapping[str, Any], option: str) -> None:
    for name in names:
        if _node(name) not in nodes:
            raise UsageError(
                f"{option}: the graph has no node {_node(name)!r}; {shapes.propose(_node(name), list(nodes))}"
            )


def _propose_outputs(graph_def: Any, where: str) -> list[str]:  # noqa: ANN401 - TensorFlow has no types
    consumed = {_node(name) for node in graph_def.node for name in node.input}
    found = [node.name for node in graph_def.node if node.name not in consumed and node.op not in _NO_RESULT]
    if not found:
        raise UsageError(f"{where}: every node is consumed by another; say with --output-arrays where the model ends")
    return found


def _propose_inputs(nodes: Mapping[str, Any], outputs: Sequence[str], where: str) -> list[str]:
    needed = _ancestors(nodes, outputs, stop=())
    found = [name for name, node in nodes.items() if name in needed and node.op == "Placeholder"]
    if not found:
        candidates = [name for name in nodes if name in needed][:6]
        raise UsageError(
            f"{where}: the graph has no placeholder; say with --input-arrays where the model begins "
            f"(it has {', '.join(candidates)} …)"
        )
    return found


def _refuse_text(tensors: Mapping[str, Any], nodes: Mapping[str, Any], graph_def: Any) -> None:  # noqa: ANN401
    for name, tensor in tensors.items():
        if tensor.dtype.name != "string":
            continue
        reached, last = {_node(name)}, _node(name)
        for node in graph_def.node:  # a GraphDef lists producers before consumers, if its writer was kind
            if node.op in _DECODERS and any(_node(source) in reached for source in node.input):
                reached.add(node.name)
                last = node.name
        hint = f"begin after the decoding: --input-arrays {last}" if last != _node(name) else "begin at a later node"
        ops = ", ".join(nodes[node].op for node in nodes if node in reached and nodes[node].op in _DECODERS)
        raise ConversionError(
            f"input {name!r} is text{f' for {ops}' if ops else ''}, which no board's runtime has; {hint}"
        )


def _dimensions(tensor: Any, node: Any) -> list[int | None] | None:  # noqa: ANN401 - TensorFlow has no types
    if tensor.shape.rank is not None:
        dimensions: list[int | None] = tensor.shape.as_list()
        return dimensions
    # In graphs of before 2017 "no dimensions" may mean "unknown"; whoever wrote it down as a shape meant a number.
    written = "shape" in node.attr and not node.attr["shape"].shape.unknown_rank
    return [] if written and node.op == "Placeholder" else None


def _open(shape: Sequence[int]) -> Any:  # noqa: ANN401 - tf.TensorShape
    import tensorflow as tf

    return tf.TensorShape([None if dimension == shapes.OPEN else dimension for dimension in shape])


def _stored_small(graph: Any, nodes: Mapping[str, Any], outputs: Sequence[str]) -> dict[str, Any]:  # noqa: ANN401
    """Return the values of Dequantize nodes that depend on constants only: weights of `quantize_weights`."""
    import tensorflow as tf

    found = [
        name
        for name in _ancestors(nodes, outputs, stop=())
        if nodes[name].op == "Dequantize"
        and not any(nodes[n].op.startswith("Placeholder") for n in _ancestors(nodes, [name], stop=()))
    ]
    with tf.compat.v1.Session(graph=graph) as session:
        values: dict[str, Any] = session.run({name: f"{name}:0" for name in found})
    return values


def _ancestors(nodes: Mapping[str, Any], outputs: Iterable[str], stop: Iterable[str]) -> set[str]:
    """Return the nodes that `outputs` need, not looking behind the nodes `stop`."""
    ends = set(stop)
    found: set[str] = set()
    stack = [_node(name) for name in outputs]
    while stack:
        name = stack.pop()
        if name in found or name not in nodes:
            continue
        found.add(name)
        if name not in ends:
            stack.extend(_node(source) for source in nodes[name].input)
    return found


def _between(
    graph_def: Any,  # noqa: ANN401 - TensorFlow has no types
    nodes: Mapping[str, Any],
    inputs: Mapping[str, Any],
    outputs: Sequence[str],
    fixed: Mapping[str, tuple[int, ...]],
    stored: Mapping[str, Any],
) -> Any:  # noqa: ANN401
    """Copy the nodes between inputs and outputs; inputs become placeholders of fixed shapes, `stored` constants."""
    import tensorflow as tf
    from tensorflow.core.framework import graph_pb2

    begins = {_node(name): name for name in inputs}
    needed = _ancestors(nodes, outputs, stop=(*begins, *stored))
    for name in begins:
        if name not in needed:
            raise UsageError(f"--input-arrays: no output depends on {name!r}")
    part = graph_pb2.GraphDef()
    part.versions.CopyFrom(graph_def.versions)
    part.library.CopyFrom(graph_def.library)
    for node in graph_def.node:
        if node.name not in needed:
            continue
        if node.name in begins:
            name = begins[node.name]
            placeholder = part.node.add(name=node.name, op="Placeholder")
            placeholder.attr["dtype"].type = inputs[name].dtype.base_dtype.as_datatype_enum
            placeholder.attr["shape"].shape.CopyFrom(_open(fixed[name]).as_proto())
        elif node.name in stored:
            constant = part.node.add(name=node.name, op="Const")
            constant.attr["dtype"].type = tf.float32.as_datatype_enum
            constant.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(stored[node.name], tf.float32))
        elif node.op == "Placeholder":
            raise UsageError(f"the outputs also need {node.name!r}, which is not among --input-arrays")
        else:
            part.node.add().CopyFrom(node)
    return part
