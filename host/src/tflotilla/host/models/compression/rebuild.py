"""A Keras 3 model of common layers as one of Keras 2, which tfmot needs; and Keras 2 models without nesting.

Rules it keeps: layers are made anew from their settings and given the same weights, and the result is only handed over
when it computes what its source computes. A setting or layer that Keras 2 has not is a refusal that names it.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import numpy as np

from tflotilla.host.models.compression.keras_files import KERAS_2, KERAS_3, KerasModel, prepare_keras_2
from tflotilla.shared.contract.errors import ConversionError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

#: Settings of Keras 3 that say how a layer is stored or computed, not what it computes.
_DROPPED = {"dtype", "module", "registered_name", "build_config", "quantization_config", "batch_shape", "ragged"}
_MADE_BY_NAME = ("_regularizer", "_constraint")
_TOLERANCE = 1e-3
_TRIED = 4
_SEED = 20240229


def to_keras_2(made: KerasModel) -> KerasModel:
    """Return the model as one of Keras 2; one of Keras 2 is itself.

    Raises:
        ConversionError: it has something that Keras 2 has not; says what, and what to do.

    """
    prepare_keras_2()
    if made.library != KERAS_3:
        return made
    try:
        built = _Builder().model(made.model)
    except ConversionError:
        raise
    except Exception as error:  # Keras raises whatever its layers raise
        raise ConversionError(_refusal(" ".join(str(error).split())[:200])) from error
    _compare(made.model, built)
    note = "read by Keras 3 and rebuilt in Keras 2, since tfmot knows no Keras 3; both answer the same"
    return KerasModel(model=built, library=KERAS_2, notes=(*made.notes, note))


def flatten(model: Any) -> Any:  # noqa: ANN401 - Keras has no types
    """Return a Keras 2 model with the layers of its nested models as its own; the layers are the same objects.

    Raises:
        ConversionError: a nested model has several inputs or outputs, or nests in a graph of its own.

    """
    import tf_keras

    if not any(isinstance(layer, tf_keras.Model) for layer in model.layers):
        return model
    names: dict[str, int] = {}
    begin = tf_keras.Input(model.input_shape[1:], name=model.input_names[0])
    names[model.input_names[0]] = 1
    try:
        return tf_keras.Model(begin, _apply(model, begin, names), name=model.name)
    except (ValueError, TypeError, AttributeError) as error:
        raise ConversionError(
            f"tfmot quantizes no model inside a model, and {model.name!r} can't be flattened: "
            f"{' '.join(str(error).split())[:160]}"
        ) from error


def _apply(model: Any, tensor: Any, names: dict[str, int]) -> Any:  # noqa: ANN401 - Keras has no types
    import tf_keras

    if isinstance(model, tf_keras.Sequential):
        for layer in model.layers:
            if isinstance(layer, tf_keras.layers.InputLayer):
                continue
            if isinstance(layer, tf_keras.Model):
                tensor = _apply(layer, tensor, names)
            else:
                _rename(layer, names)
                tensor = layer(tensor)
        return tensor
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise ConversionError(f"nested model {model.name!r} has several inputs or outputs; tfmot can't quantize it")
    for layer in model.layers:
        if isinstance(layer, tf_keras.Model):
            raise ConversionError(f"nested model {layer.name!r} lies in a graph of its own; tfmot can't quantize it")
        if not isinstance(layer, tf_keras.layers.InputLayer):
            _rename(layer, names)
    return tf_keras.models.clone_model(model, input_tensors=[tensor], clone_function=_same).outputs[0]


def _same(layer: Any) -> Any:  # noqa: ANN401 - Keras has no types
    return layer


def _rename(layer: Any, names: dict[str, int]) -> None:  # noqa: ANN401 - Keras has no types
    count = names.get(layer.name, 0)
    names[layer.name] = count + 1
    if count:
        layer._name = f"{layer.name}_{count}"  # noqa: SLF001 - Keras 2 has no other way


class _Builder:
    """Builds Keras 2 layers and tensors once each, so that what is shared stays shared."""

    def __init__(self) -> None:
        self._layers: dict[int, Any] = {}

    def model(self, source: Any) -> Any:  # noqa: ANN401 - Keras has no types
        """Rebuild a model, nested ones too."""
        import tf_keras

        if type(source).__name__ == "Sequential":
            built = tf_keras.Sequential([self._input(source.inputs[0])], name=source.name)
            for layer in source.layers:
                built.add(self._layer(layer))
        else:
            tensors: dict[int, Any] = {id(tensor): self._input(tensor) for tensor in source.inputs}
            inputs = [tensors[id(tensor)] for tensor in source.inputs]
            outputs = [self._tensor(tensor, tensors) for tensor in source.outputs]
            built = tf_keras.Model(inputs, outputs if len(outputs) > 1 else outputs[0], name=source.name)
        for ours, theirs in self._pairs(source):
            ours.set_weights(theirs.get_weights())
        return built

    def _pairs(self, source: Any) -> Iterator[tuple[Any, Any]]:  # noqa: ANN401 - Keras has no types
        for layer in source.layers:
            if id(layer) in self._layers and not hasattr(layer, "layers"):
                yield self._layers[id(layer)], layer

    def _input(self, tensor: Any) -> Any:  # noqa: ANN401 - Keras has no types
        import tf_keras

        return tf_keras.Input(tuple(tensor.shape)[1:], dtype=str(tensor.dtype), name=_plain(tensor.name))

    def _tensor(self, tensor: Any, tensors: dict[int, Any]) -> Any:  # noqa: ANN401 - Keras has no types
        if id(tensor) in tensors:
            return tensors[id(tensor)]
        history = tensor._keras_history  # noqa: SLF001 - how a functional model knows itself
        node = history.operation._inbound_nodes[history.node_index]  # noqa: SLF001
        arguments = [self._argument(value, tensors) for value in node.arguments.args]
        named = {
            key: self._argument(value, tensors)
            for key, value in node.arguments.kwargs.items()
            if value is not None and key != "training"
        }
        answers = self._layer(history.operation)(*arguments, **named)
        several = isinstance(answers, list | tuple)
        for ours, theirs in zip(answers if several else [answers], node.outputs, strict=True):
            tensors[id(theirs)] = ours
        return tensors[id(tensor)]

    def _argument(self, value: Any, tensors: dict[int, Any]) -> Any:  # noqa: ANN401 - Keras has no types
        if isinstance(value, list | tuple):
            return [self._argument(entry, tensors) for entry in value]
        return self._tensor(value, tensors) if hasattr(value, "_keras_history") else value

    def _layer(self, layer: Any) -> Any:  # noqa: ANN401 - Keras has no types
        if id(layer) not in self._layers:
            nested = type(layer).__name__ in ("Sequential", "Functional", "Model")
            self._layers[id(layer)] = self.model(layer) if nested else _make(layer)
        return self._layers[id(layer)]


def _make(layer: Any) -> Any:  # noqa: ANN401 - Keras has no types
    import tf_keras

    kind = type(layer).__name__
    theirs = type(layer).__module__.split(".")[0] == "keras"
    twin = getattr(tf_keras.layers, kind, None) if theirs and hasattr(layer, "get_weights") else None
    if twin is None:
        raise ConversionError(_refusal(f"it has {layer.name!r} ({kind}), which Keras 2 has not"))
    settings = layer.get_config()
    policy = settings.get("dtype")
    named = policy.get("config", {}).get("name") if isinstance(policy, dict) else policy
    if named not in (None, "float32"):
        raise ConversionError(_refusal(f"layer {layer.name!r} computes in {named}"))
    known = {*inspect.signature(twin.__init__).parameters, "name", "trainable"}
    usual = {key: entry.default for key, entry in inspect.signature(type(layer).__init__).parameters.items()}
    unknown = [
        key for key, value in settings.items() if key not in known | _DROPPED and value and value != usual.get(key)
    ]
    if unknown:
        raise ConversionError(_refusal(f"layer {layer.name!r} ({kind}) sets {', '.join(unknown)}"))
    return twin(**{key: _setting(key, value) for key, value in settings.items() if _taken(key, known)})


def _taken(key: str, known: set[str]) -> bool:
    # What weights began with says nothing about what they are.
    return key in known and key not in _DROPPED and not key.endswith("_initializer")


def _setting(key: str, value: Any) -> Any:  # noqa: ANN401 - JSON
    import tf_keras

    if not isinstance(value, dict):
        return value
    if key.endswith(_MADE_BY_NAME):
        family = tf_keras.regularizers if key.endswith("_regularizer") else tf_keras.constraints
        return family.get({"class_name": value["class_name"], "config": value.get("config", {})})
    if key.endswith("activation"):
        return _activation(value)
    raise ConversionError(_refusal(f"a layer's setting {key!r} is an object, {value.get('class_name')}"))


def _activation(value: Mapping[str, Any]) -> Any:  # noqa: ANN401 - Keras has no types
    import tf_keras

    name = value.get("config") if isinstance(value.get("config"), str) else value.get("class_name")
    return tf_keras.activations.get(str(name).lower())


def _compare(source: Any, built: Any) -> None:  # noqa: ANN401 - Keras has no types
    """Refuse a model that answers something else. Raises ConversionError."""
    generator = np.random.Generator(np.random.PCG64(_SEED))
    shapes = [tuple(1 if size is None else size for size in tensor.shape[1:]) for tensor in source.inputs]
    inputs = [generator.random((_TRIED, *shape)).astype(np.float32) for shape in shapes]
    given = inputs if len(inputs) > 1 else inputs[0]
    for theirs, ours in zip(_outputs(source, given), _outputs(built, given), strict=True):
        spread = max(1.0, float(np.max(np.abs(theirs))))
        if theirs.shape != ours.shape or not np.allclose(theirs, ours, atol=_TOLERANCE * spread):
            raise ConversionError(_refusal("rebuilt, it does not answer the same"))


def _outputs(model: Any, given: Any) -> list[Any]:  # noqa: ANN401 - Keras has no types
    found = model(given, training=False)
    return [np.asarray(entry) for entry in (found if isinstance(found, list | tuple) else [found])]


def _plain(name: str) -> str:
    return str(name).split(":", maxsplit=1)[0]


def _refusal(reason: str) -> str:
    return (
        f"tfmot works on Keras 2 alone, and this Keras 3 model can't be rebuilt there: {reason}; make it with tf_keras "
        "(`pip install tf-keras`, TF_USE_LEGACY_KERAS=1), or use prune, which takes Keras 3"
    )
