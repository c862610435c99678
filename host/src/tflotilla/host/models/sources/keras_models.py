"""From a Keras model, of Keras 2 or 3, to a frozen function. Imported inside the conversion's child process only.

What it does NOT do: read files other than through Keras, or decide which Keras reads one.
"""

from __future__ import annotations

import importlib
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tflotilla.host.models.sources import shapes
from tflotilla.shared.contract.errors import ConversionError, ModelError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tflotilla.host.models.sources import SourceOptions
    from tflotilla.host.models.sources.traced import FrozenFunction

KERAS_2, KERAS_3 = "tf_keras", "keras"
#: Longer loops stay loops: unrolled, they'd make a file of thousands of operators.
_UNROLLED_STEPS = 64
_REASON_LENGTH = 240
_UNKNOWN_CLASS = ("Could not locate class", "Unknown layer", "could not be deserialized properly")
#: Keras 2 chooses between a loop and a kernel of its own when the layer is made, and then asks `unroll` no more.
_KERNEL_CHOICE = "_could_use_gpu_kernel"


def load_with(path: Path, libraries: Sequence[str], options: SourceOptions, *, suffix: str) -> FrozenFunction:
    """Load a Keras file with the first of `libraries` that can, and freeze it.

    Keras believes the name; `suffix` is the one that the content has.

    Raises:
        ModelError: none can; the message has the first one's reason.
        UsageError: the input shapes don't fit.

    """
    model, notes = read_with(path, libraries, options, suffix=suffix)
    return _freeze(model, notes, options)


def read_with(path: Path, libraries: Sequence[str], options: SourceOptions, *, suffix: str) -> tuple[Any, list[str]]:
    """Load a Keras file with the first of `libraries` that can; return the Keras model and what was decided.

    Raises:
        ModelError: none can; the message has the first one's reason.

    """
    file = path
    if path.suffix != suffix:
        # In the child's own folder for temporary files, which goes with the child.
        file = Path(tempfile.mkdtemp()) / f"model{suffix}"
        file.symlink_to(path.absolute())
    return _load(path, file, libraries, options)


def _load(path: Path, file: Path, libraries: Sequence[str], options: SourceOptions) -> tuple[Any, list[str]]:
    failures: list[str] = []
    for name in libraries:
        library = importlib.import_module(name)
        try:
            model = library.models.load_model(file, compile=False, safe_mode=not options.allow_code)
        except Exception as error:  # noqa: BLE001 - Keras raises whatever its layers raise
            failures.append(_reason(error))
            continue
        notes = [f"read by {name} {library.__version__}"]
        if failures:
            notes.append(f"{libraries[0]} could not: {failures[0]}")
        return model, notes
    raise ModelError(f"{path}: {explain(failures[0])}")


def explain(reason: str) -> str:
    """Say what to do about Keras's reason for not loading a file. Pure."""
    if any(words in reason for words in _UNKNOWN_CLASS):
        return (
            "it needs a class that the file does not hold; save it as a SavedModel where that class is known "
            f"(`model.export(folder)`) and convert that: {reason}"
        )
    return f"Keras can't load it, damaged or of another version: {reason}"


def _freeze(model: Any, notes: list[str], options: SourceOptions) -> FrozenFunction:  # noqa: ANN401 - Keras has no types
    import tensorflow as tf

    from tflotilla.host.models.sources.traced import FrozenFunction

    specs = _input_specs(model, options)
    if _make_traceable(model):
        notes.append(f"recurrent layers of up to {_UNROLLED_STEPS} steps are unrolled, so that they can be quantized")

    def infer(*tensors: Any) -> Any:  # noqa: ANN401 - TensorFlow has no types
        return model(list(tensors) if len(tensors) > 1 else tensors[0], training=False)

    try:
        function = tf.function(infer).get_concrete_function(*specs)
    except Exception as error:  # a layer's own complaint about the shape
        raise ConversionError(f"the model can't be traced with these inputs: {_reason(error)}") from error
    # A Sequential has no names for its outputs but that of its last layer.
    names = tuple(getattr(model, "output_names", None) or (layer.name for layer in model.layers[-1:]))
    # A recurrent layer makes as many steps as its input has.
    return FrozenFunction(function, notes=notes, output_names=names, bounded=True)


def _input_specs(model: Any, options: SourceOptions) -> list[Any]:  # noqa: ANN401 - Keras has no types
    import tensorflow as tf

    if options.input_arrays or options.output_arrays:
        raise UsageError("--input-arrays and --output-arrays are for graphs of TensorFlow 1; a Keras model has its own")
    inputs = getattr(model, "inputs", None)
    if not inputs:
        if not options.input_shapes:
            raise UsageError("the model was saved before it knew its input; give --input-shapes, like 1,224,224,3")
        if set(options.input_shapes) != {""}:
            raise UsageError("the model doesn't name its inputs; give one shape without a name")
        return [tf.TensorSpec(options.input_shapes[""], tf.float32, name="input")]
    names = [tensor.name.split(":")[0] for tensor in inputs]
    shapes.check_names(options.input_shapes, names)
    return [
        tf.TensorSpec(
            shapes.fix_shape(name, list(tensor.shape), options.input_shapes, names),
            tensor.dtype,
            name=_graph_name(name),
        )
        for name, tensor in zip(names, inputs, strict=True)
    ]


def _graph_name(name: str) -> str:
    """Return a name that TensorFlow accepts for an argument."""
    return "".join(c if c.isalnum() or c == "_" else "_" for c in name)


def _make_traceable(model: Any) -> bool:  # noqa: ANN401 - Keras has no types
    """Take out of inference what can't be frozen or quantized; return whether a recurrent layer was unrolled.

    Dropout inside a recurrent cell advances a random state even when it drops nothing, and a variable that changes
    can't become a constant. A `while` loop can't be quantized (the converter crashes on it).
    """
    unrolled = False
    layers = list(model._flatten_layers())  # noqa: SLF001 - the one way to reach cells and nested models alike
    # The halves of a Bidirectional see what it sees, and know no input of their own.
    whole = {
        id(half): layer
        for layer in layers
        for half in (getattr(layer, "forward_layer", None), getattr(layer, "backward_layer", None))
    }
    for layer in layers:
        for attribute in ("dropout", "recurrent_dropout"):
            if hasattr(layer, "state_size") and isinstance(getattr(layer, attribute, None), float):
                _set(layer, attribute, 0.0)
        if hasattr(layer, "unroll") and not layer.unroll and _steps(whole.get(id(layer), layer)) <= _UNROLLED_STEPS:
            layer.unroll = unrolled = True
            if hasattr(layer, _KERNEL_CHOICE):
                setattr(layer, _KERNEL_CHOICE, False)
    return unrolled


def _steps(layer: Any) -> int:  # noqa: ANN401 - Keras has no types
    shape = getattr(getattr(layer, "input", None), "shape", None)
    return shape[1] if shape is not None and len(shape) > 1 and shape[1] is not None else _UNROLLED_STEPS + 1


def _set(layer: Any, attribute: str, value: float) -> None:  # noqa: ANN401 - Keras has no types
    try:
        setattr(layer, attribute, value)
    except AttributeError:
        # A view of the cell's own attribute; the cell is visited too.
        return


def _reason(error: Exception) -> str:
    words = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    text = " ".join(words.split()) or type(error).__name__
    return text if len(text) <= _REASON_LENGTH else text[: _REASON_LENGTH - 1] + "…"
