"""A SavedModel folder, of TensorFlow 1 or 2. Its entry points are signatures; `--signature` picks one by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tflotilla.host.models.sources import frozen_graph, graph_code, shapes
from tflotilla.shared.contract.errors import ConversionError, ModelError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tflotilla.host.models.sources import SourceModel, SourceOptions

_FILE, _TEXT_FILE = "saved_model.pb", "saved_model.pbtxt"
_DEFAULT = "serving_default"
_INTERNAL = "__saved_model"


def recognizes(path: Path, head: bytes) -> bool:
    """Whether it is such a folder, or the main file of one."""
    del head
    return path.name == _FILE or (path / _FILE).is_file() or (path / _TEXT_FILE).is_file()


def load(path: Path, options: SourceOptions) -> SourceModel:
    """Read one signature. Raises ModelError, ConversionError, UsageError."""
    folder = path.parent if path.name == _FILE else path
    meta_graph = _parse(folder)
    nodes = list(meta_graph.graph_def.node)
    nodes += [node for function in meta_graph.graph_def.library.function for node in function.node_def]
    if not options.allow_code:
        graph_code.refuse_code((node.op for node in nodes), str(path))
    key = _choose({k: v for k, v in meta_graph.signature_def.items() if not k.startswith(_INTERNAL)}, options, path)
    # TensorFlow 2 describes its objects beside the graph; without that the variables are TensorFlow 1's.
    read = _load_2 if meta_graph.HasField("object_graph_def") else _load_1
    return read(folder, meta_graph, key, options)


def _parse(folder: Path) -> Any:  # noqa: ANN401 - TensorFlow has no types
    from google.protobuf import message, text_format  # type: ignore[import-untyped]
    from tensorflow.core.protobuf import saved_model_pb2

    document = saved_model_pb2.SavedModel()
    try:
        if (folder / _FILE).is_file():
            document.ParseFromString((folder / _FILE).read_bytes())
        else:
            text_format.Parse((folder / _TEXT_FILE).read_text(), document)
    except (message.DecodeError, text_format.ParseError, UnicodeDecodeError) as error:
        raise ModelError(f"{folder}: corrupt or truncated SavedModel ({error})") from error
    if not document.meta_graphs:
        raise ModelError(f"{folder}: the SavedModel holds no graph")
    serving = [graph for graph in document.meta_graphs if "serve" in graph.meta_info_def.tags]
    return (serving or list(document.meta_graphs))[0]


def _choose(signatures: Mapping[str, Any], options: SourceOptions, path: Path) -> str:
    known = sorted(signatures)
    if options.signature is not None:
        if options.signature not in signatures:
            raise UsageError(
                f"--signature: {path} has no {options.signature!r}; {shapes.propose(options.signature, known)}"
            )
        return options.signature
    if _DEFAULT in signatures:
        return _DEFAULT
    if len(known) == 1:
        return known[0]
    if not known:
        raise ModelError(f"{path}: the SavedModel has no signature, so its inputs and outputs have no names")
    raise UsageError(f"{path} has several signatures; choose one with --signature: {', '.join(known)}")


def _load_2(folder: Path, meta_graph: Any, key: str, options: SourceOptions) -> SourceModel:  # noqa: ANN401
    import tensorflow as tf

    from tflotilla.host.models.sources.traced import FrozenFunction

    del meta_graph
    if options.output_arrays:
        raise UsageError("--output-arrays is for graphs of TensorFlow 1; this SavedModel has signatures")
    loaded = _loaded(folder)
    function = loaded.signatures[key]
    wanted = function.structured_input_signature[1]
    names = list(options.input_arrays) or sorted(wanted)
    if sorted(names) != sorted(wanted):
        raise UsageError(f"--input-arrays: signature {key!r} takes {', '.join(sorted(wanted))}")
    shapes.check_names(options.input_shapes, names)
    specs = [
        tf.TensorSpec(
            shapes.fix_shape(
                name,
                None if wanted[name].shape.rank is None else wanted[name].shape.as_list(),
                options.input_shapes,
                names,
            ),
            wanted[name].dtype,
            name=name,
        )
        for name in names
    ]
    output_names = sorted(function.structured_outputs)

    def infer(*tensors: Any) -> Any:  # noqa: ANN401 - TensorFlow has no types
        answers = function(**dict(zip(names, tensors, strict=True)))
        return [answers[name] for name in output_names]

    try:
        traced = tf.function(infer).get_concrete_function(*specs)
    except (ValueError, TypeError, tf.errors.OpError) as error:
        raise ConversionError(f"signature {key!r} can't be traced: {str(error).splitlines()[0][:240]}") from error
    return FrozenFunction(traced, notes=[f"signature {key!r}"], output_names=output_names)


def _loaded(folder: Path) -> Any:  # noqa: ANN401 - TensorFlow has no types
    import tensorflow as tf

    try:
        return tf.saved_model.load(str(folder))
    except Exception as error:  # TensorFlow raises whatever its parts raise
        raise ModelError(f"{folder}: TensorFlow can't load it: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    """Return the first line that says something: "Graph execution error:" only announces one."""
    lines = [line.strip() for line in str(error).splitlines()]
    return next((line for line in lines if line and not line.endswith(":")), type(error).__name__)[:240]


def _load_1(folder: Path, meta_graph: Any, key: str, options: SourceOptions) -> SourceModel:  # noqa: ANN401
    import tensorflow as tf

    signature = meta_graph.signature_def[key]
    inputs = {name: signature.inputs[name].name for name in sorted(signature.inputs)}
    outputs = {name: signature.outputs[name].name for name in sorted(signature.outputs)}
    tags = list(meta_graph.meta_info_def.tags)
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        try:
            tf.compat.v1.saved_model.load(session, tags, str(folder))
            frozen = tf.compat.v1.graph_util.convert_variables_to_constants(
                session, session.graph_def, [name.split(":")[0] for name in outputs.values()]
            )
        except Exception as error:  # TensorFlow raises whatever its parts raise
            raise ModelError(f"{folder}: TensorFlow can't load and freeze it: {_reason(error)}") from error
    return frozen_graph.cut(frozen, str(folder), options, inputs=inputs, outputs=outputs)
