"""Keras models as trainable objects: read, looked through, saved. Runs in the training child only.

Rules it keeps: the checks of `sources` stand before every load (code in a file is refused); a model is saved by the
Keras that read it, without its optimizer. What it does NOT do: train.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tflotilla.host.models import sources
from tflotilla.host.models.sources import hdf5, keras_archive, keras_models
from tflotilla.shared.contract.errors import InputError, ModelError
from tflotilla.shared.contract.tensors import TensorSpec

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from tflotilla.host.models.sources import SourceOptions

KERAS_2, KERAS_3 = keras_models.KERAS_2, keras_models.KERAS_3
_READERS = {"Keras .keras": (keras_archive.readers, ".keras"), "Keras .h5": (hdf5.readers, ".h5")}
#: Class of a layer → the names of its weights that are pruned, as in tfmot. Depthwise kernels are few and sensitive.
_KERNELS: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(
        (
            "Dense",
            "EinsumDense",
            "Conv1D",
            "Conv2D",
            "Conv3D",
            "Conv1DTranspose",
            "Conv2DTranspose",
            "Conv3DTranspose",
            "LocallyConnected1D",
            "LocallyConnected2D",
        ),
        ("kernel",),
    ),
    "SeparableConv1D": ("pointwise_kernel",),
    "SeparableConv2D": ("pointwise_kernel",),
    "Embedding": ("embeddings",),
}
_SEEDS = 2**32
_RECURRENT = ("LSTM", "GRU", "SimpleRNN")
_RECURRENT_KERNELS = ("kernel", "recurrent_kernel")


@dataclass(frozen=True, slots=True, kw_only=True)
class KerasModel:
    """A model with the library that it is an object of, `keras` or `tf_keras`."""

    model: Any
    library: str
    notes: tuple[str, ...]

    @property
    def keras(self) -> Any:  # noqa: ANN401 - Keras has no types
        """The library as a module."""
        return importlib.import_module(self.library)


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    """One tensor of weights that can be pruned."""

    #: Of the layer: "backbone/conv".
    path: str
    name: str
    layer: Any
    variable: Any

    @property
    def axis(self) -> int | None:
        """The axis along which products are summed up, where N:M groups lie; None where there is none."""
        kind = type(self.layer).__name__
        if kind == "Embedding" or kind.startswith("LocallyConnected"):
            return None
        if kind == "EinsumDense":
            return 0
        return -1 if kind.endswith("Transpose") else -2

    def values(self) -> NDArray[Any]:
        """Return a copy of the weights."""
        return np.array(self.variable.numpy())


def check_trainable(path: Path) -> str:
    """Return the format of a file that holds a Keras model; no TensorFlow.

    Raises:
        ModelError: another format, which holds a graph and no layers.

    """
    found = sources.detect(path)
    if found not in _READERS:
        raise ModelError(
            f"{path}: a file of {found} holds a graph, which can't be trained; give the Keras model (.keras, .h5)"
        )
    return found


def read(path: Path, options: SourceOptions) -> KerasModel:
    """Load a Keras model with the Keras that wrote it.

    Raises:
        ModelError: corrupt, of another format, carries code that nobody allowed, or needs unknown classes.

    """
    readers, suffix = _READERS[check_trainable(path)]
    libraries = readers(path, options)
    if libraries[0] == KERAS_2:
        prepare_keras_2()
    model, notes = keras_models.read_with(path, libraries, options, suffix=suffix)
    library = KERAS_2 if notes[0].startswith(f"read by {KERAS_2} ") else KERAS_3
    if library == KERAS_2:
        prepare_keras_2()
    return KerasModel(model=model, library=library, notes=tuple(notes))


def prepare_keras_2() -> None:
    """Let TensorFlow's own `tf.keras` be tf_keras, which tfmot needs, and dropout's random numbers be a state.

    Such a state can be saved: without it a training that is taken up again would drop other units.
    """
    os.environ["TF_USE_LEGACY_KERAS"] = "1"
    import tf_keras

    tf_keras.backend.experimental.enable_tf_random_generator()
    # Keras 2 has seeds of its own; they follow from Python's, which the trainer set.
    tf_keras.utils.set_random_seed(random.randrange(_SEEDS))  # noqa: S311 - to repeat, not to hide


def save(made: KerasModel, target: Path) -> None:
    """Save a model without its optimizer, in the format that the suffix asks for. Raises InputError."""
    model, choice = made.model, {"include_optimizer": False}
    if target.suffix == ".keras":
        # This format knows no such choice: what is saved never had one.
        choice = {}
        with contextlib.suppress(Exception):  # a layer that can't be rebuilt; then the optimizer goes along
            # Not `clone_model`: in Keras 3 it takes the optimizer along.
            clone = type(made.model).from_config(made.model.get_config())
            clone.set_weights(made.model.get_weights())
            if getattr(clone, "compiled", False):  # Keras 3 clones the optimizer as well
                clone.optimizer, clone.compiled = None, False
            model = clone
    try:
        model.save(target, **choice)
    except OSError as error:
        raise InputError(f"{target} can't be written: {error.strerror or error}") from error


def input_spec(model: Any, where: str) -> TensorSpec:  # noqa: ANN401 - Keras has no types
    """Return the only input, with a batch of 1. Raises ModelError when there are several, or sizes are open."""
    inputs, outputs = getattr(model, "inputs", None), getattr(model, "outputs", None)
    if not inputs or not outputs:
        raise ModelError(f"{where}: was saved before it knew its input; call it once on data and save it again")
    if len(inputs) != 1 or len(outputs) != 1:
        raise ModelError(
            f"{where}: has {len(inputs)} inputs and {len(outputs)} outputs; models of one input and one output can be "
            "trained here"
        )
    shape = tuple(inputs[0].shape)[1:]
    if any(size is None for size in shape):
        raise ModelError(f"{where}: the size of its input is open, {(None, *shape)}; save it with a fixed one")
    return TensorSpec(name=str(inputs[0].name).split(":")[0], shape=(1, *map(int, shape)), dtype="float32")


def layers(model: Any) -> Iterator[tuple[str, Any]]:  # noqa: ANN401 - Keras has no types
    """Yield (path, layer) of every layer, nested ones after what holds them; recurrent cells belong to their layer."""
    yield from _walk(model, "", set())


def kernels(model: Any) -> tuple[Kernel, ...]:  # noqa: ANN401 - Keras has no types
    """Return all weights that can be pruned, in the model's order."""
    found = []
    for path, layer in layers(model):
        kind = type(layer).__name__
        holder = layer.cell if kind in _RECURRENT else layer
        names = _RECURRENT_KERNELS if kind in _RECURRENT else _KERNELS.get(kind, ())
        found += [
            Kernel(path=path, name=name, layer=layer, variable=variable)
            for name in names
            if (variable := _variable(holder, name)) is not None
        ]
    return tuple(found)


def last_activation(model: Any) -> str | None:  # noqa: ANN401 - Keras has no types
    """Return the name of the activation that the model ends in; None where no layer says."""
    inner = model
    while getattr(inner, "layers", None):
        inner = inner.layers[-1]
    if type(inner).__name__ == "Softmax":
        return "softmax"
    activation = getattr(inner, "activation", None)
    return None if activation is None else str(getattr(activation, "__name__", type(activation).__name__)).lower()


def random_states(model: Any) -> list[Any]:  # noqa: ANN401 - Keras has no types
    """Return Keras 2's states of random numbers, which are no weights; those of Keras 3 are."""
    found = []
    for layer in model._flatten_layers():  # noqa: SLF001 - reaches nested layers and cells alike
        generator = getattr(getattr(layer, "_random_generator", None), "_generator", None)
        state = getattr(generator, "state", None)
        if state is not None and hasattr(state, "assign"):
            found.append(state)
    return found


def raw(variable: Any) -> Any:  # noqa: ANN401 - Keras has no types
    """Return TensorFlow's variable behind one of Keras 3; one of Keras 2 is itself."""
    return getattr(variable, "_value", None) if hasattr(variable, "_value") else variable


def copy_weights(source: Any, target: Any) -> None:  # noqa: ANN401 - Keras has no types
    """Give a model the weights of one of the same layers, found by path and name, in whatever order they lie.

    Raises:
        ModelError: a weight has no twin.

    """
    twins = dict(layers(source))
    for path, layer in layers(target):
        if any(True for _ in _walk(layer, "", set())):
            continue  # its layers come by themselves
        known = {_leaf(variable): variable for variable in twins[path].weights} if path in twins else {}
        for variable in layer.weights:
            twin = known.get(_leaf(variable))
            if twin is None or tuple(twin.shape) != tuple(variable.shape):
                raise ModelError(f"layer {path!r} lost its {_leaf(variable)}")
            variable.assign(twin.numpy())


def _leaf(variable: Any) -> str:  # noqa: ANN401 - Keras has no types
    return str(variable.name).split(":", maxsplit=1)[0].rsplit("/", 1)[-1]


def _walk(holder: Any, prefix: str, seen: set[int]) -> Iterator[tuple[str, Any]]:  # noqa: ANN401 - Keras has no types
    for layer in holder._flatten_layers(recursive=False, include_self=False):  # noqa: SLF001 - both Keras have it
        if id(layer) in seen:
            continue
        seen.add(id(layer))
        path = f"{prefix}{layer.name}"
        yield path, layer
        if type(layer).__name__ not in _RECURRENT:
            yield from _walk(layer, f"{path}/", seen)


def _variable(holder: Any, name: str) -> Any:  # noqa: ANN401 - Keras has no types
    # Keras 3 computes `kernel` (quantized, with LoRA); the variable is behind it.
    found = getattr(holder, f"_{name}", None)
    if found is None:
        with contextlib.suppress(AttributeError):
            found = getattr(holder, name)
    return found if hasattr(found, "assign") else None
