"""Quantization-aware training by tfmot: the model is trained with the rounding of int8 in its forward pass.

Runs in the training child. The learned ranges are in the trained graph, so the TFLite file is made here, from it.
What it does NOT do: Keras 3 (`rebuild` makes Keras 2 of it), judge the file (`variants` runs it).
"""

from __future__ import annotations

import contextlib
import inspect
import re
from typing import TYPE_CHECKING, Any

import numpy as np

from tflotilla.host.models import compatibility
from tflotilla.host.models.child import report_progress
from tflotilla.host.models.compression import keras_files, rebuild, selection, tfmot_pruning, training, training_data
from tflotilla.host.models.compression.keras_files import KERAS_2, KerasModel
from tflotilla.host.models.compression.procedures import AFTER, BEFORE, CALIBRATION, Procedure
from tflotilla.host.models.inspect import inspect_bytes
from tflotilla.shared.contract import codec
from tflotilla.shared.contract.board import RuntimeOffer
from tflotilla.shared.contract.errors import ConversionError, ModelError
from tflotilla.shared.contract.tensors import QuantizationScheme

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

QUANTIZED = "quantized.tflite"
_UNSUPPORTED = re.compile(r"Layer (\S+?):<class")
_SETTINGS: tuple[tuple[str, ...], ...] = ((), ("_experimental_disable_per_channel_quantization_for_dense_layers",))
_SETTLING_ROUNDS, _SETTLING_BATCHES, _SETTLING_SIZE = 3, 8, 32
_EDGES = {QuantizationScheme.INT8_IO_UINT8: "uint8", QuantizationScheme.INT8_IO_INT8: "int8"}


class TfmotQuantization:
    """An engine of `training`; `left` are the layers that tfmot can't train quantized."""

    def __init__(self, model: Any, names: Sequence[str]) -> None:  # noqa: ANN401 - Keras has no types
        """Wrap the layers `names`.

        Raises:
            ConversionError: tfmot can't wrap any of them.

        """
        import tensorflow_model_optimization as tfmot
        import tf_keras

        self._quantization = tfmot.quantization.keras
        self.left: list[str] = []
        config = model.get_config()
        weights = model.get_weights()
        wanted = list(names)
        while wanted:
            fresh = type(model).from_config(config)
            fresh.set_weights(weights)
            chosen = set(wanted)

            def annotate(layer: Any, chosen: set[str] = chosen) -> Any:  # noqa: ANN401 - Keras has no types
                return self._quantization.quantize_annotate_layer(layer) if layer.name in chosen else layer

            try:
                annotated = tf_keras.models.clone_model(fresh, clone_function=annotate)
                self.model = self._quantization.quantize_apply(annotated)
            except (RuntimeError, ValueError, TypeError, AttributeError) as error:
                found = _UNSUPPORTED.search(str(error))
                if found is None or found[1] not in chosen:
                    raise ConversionError(f"tfmot can't quantize it: {' '.join(str(error).split())[:200]}") from error
                self.left.append(found[1])
                wanted.remove(found[1])
            else:
                return
        raise ConversionError(f"tfmot can train none of its layers quantized ({', '.join(self.left)})")

    def before_batch(self, step: int) -> None:
        """Do nothing: the wrappers round in every forward pass."""

    def after_batch(self) -> None:
        """Do nothing."""

    def end_epoch(self) -> None:
        """Do nothing."""

    def variables(self) -> Sequence[Any]:
        """Return nothing: ranges are the wrapped model's own variables."""
        return ()

    def scalars(self, step: int) -> Mapping[str, float]:
        """Return nothing beside loss and accuracy."""
        del step
        return {}

    def finish(self) -> Any:  # noqa: ANN401 - Keras has no types
        """Return the model with its wrappers, which the converter reads the ranges from."""
        return self.model


def qat_here(**arguments: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON
    """Train in this process; `quantization_aware.train` calls it in a child."""
    work = Procedure(**arguments)
    read = work.read()
    made = rebuild.to_keras_2(read)
    work.notes += made.notes[len(read.notes) :]
    work.open(made)
    work.save(made, BEFORE)
    flat = rebuild.flatten(made.model)
    if flat is not made.model:
        work.notes.append("nested models were made one: tfmot quantizes no model inside a model")
    names = _chosen(flat, work)
    engine = TfmotQuantization(flat, names)
    if engine.left:
        work.notes.append(
            f"not trained quantized, tfmot has no way for them: {', '.join(engine.left)}; quantized by calibration"
        )
    report_progress("measuring ranges to begin with")
    settle_ranges(engine.model, _first_batches(work))
    trained = work.train_with(engine, KerasModel(model=flat, library=KERAS_2, notes=()))
    report_progress("judging the trained model")
    after = training.judge(trained, work.validation, work.task)
    work.write_arrays()
    report_progress("converting to int8")
    _write_tflite(trained, work)
    saved = _write_float(trained, flat, work)
    return work.answer(
        keras=f"{made.library} {made.keras.__version__}",
        engine=tfmot_pruning.name(),
        after=codec.encode(after),
        quantized=[name for name in names if name not in engine.left],
        left=engine.left,
        saved=saved,
    )


def settle_ranges(model: Any, batches: Sequence[Any]) -> None:  # noqa: ANN401 - Keras has no types
    """Begin with the ranges that activations have, not with tfmot's -6..6.

    tfmot's moving average goes a thousandth of the way with every step, so a short training would end with ranges that
    cut logits off. After k steps of an average with decay d that began at v, its value x tells the range itself:
    (x - v d^k) / (1 - d^k), the bias correction of D. Kingma, J. Ba, "Adam", 2015. Layers see what the ranges before
    them let through, so it is done again. Weights and statistics stay as they were.
    """
    import tensorflow as tf
    from tensorflow_model_optimization.python.core.quantization.keras import quant_ops

    decay = float(inspect.signature(quant_ops.MovingAvgQuantize).parameters["ema_decay"].default)
    # The input's range begins at 0 and is no average but the greatest seen.
    ranges = [v for v in model.variables if _is_activation_range(v.name) and float(np.max(np.abs(v.numpy()))) > 0]
    kept = [variable for variable in model.variables if not variable.name.split(":")[0].endswith(("_min", "_max"))]
    kept += keras_files.random_states(model)
    saved = [variable.numpy() for variable in kept]
    forward = tf.function(lambda tensors: model(tensors, training=True), reduce_retracing=True)
    left = decay ** len(batches)
    with _as_inferring(model):
        for _ in range(_SETTLING_ROUNDS):
            begun = [variable.numpy() for variable in ranges]
            for tensors in batches:
                forward(tf.constant(tensors))
            for variable, old in zip(ranges, begun, strict=True):
                variable.assign((variable.numpy() - old * left) / (1 - left))
    for variable, value in zip(kept, saved, strict=True):
        variable.assign(value)


@contextlib.contextmanager
def _as_inferring(model: Any) -> Iterator[None]:  # noqa: ANN401 - Keras has no types
    """Let batch normalization and dropout do what they do in use, while ranges are still measured."""
    changed: list[tuple[Any, str, Any]] = []
    for layer in model._flatten_layers():  # noqa: SLF001 - reaches what is wrapped
        name = "trainable" if type(layer).__name__ == "BatchNormalization" else "rate"
        if name == "trainable" or "Dropout" in type(layer).__name__:
            changed.append((layer, name, getattr(layer, name)))
            setattr(layer, name, False if name == "trainable" else 0.0)
    try:
        yield
    finally:
        for layer, name, value in changed:
            setattr(layer, name, value)


def _is_activation_range(name: str) -> bool:
    # Those of weights are the weights' own at every step, and no average.
    leaf = name.split(":", maxsplit=1)[0].rsplit("/", 1)[-1]
    return leaf.endswith(("_min", "_max")) and "kernel" not in leaf


def _first_batches(work: Procedure) -> list[Any]:
    size = min(_SETTLING_SIZE, len(work.train))
    order = training_data.order(len(work.train), seed=work.how.seed, epoch=0)
    starts = range(0, min(len(order) - size + 1, _SETTLING_BATCHES * size), size)
    return [work.train.tensors(order[start : start + size]) for start in starts]


def _chosen(model: Any, work: Procedure) -> list[str]:  # noqa: ANN401 - Keras has no types
    names = [layer.name for layer in model.layers if type(layer).__name__ != "InputLayer"]
    if not names:
        raise ModelError(f"{work.source}: has no layers")
    settings = work.settings
    if not settings["layers"] and not settings["skip_layers"]:
        return names
    chosen = selection.choose(
        names, (), wanted=settings["layers"], skipped=settings["skip_layers"], doing="trained quantized"
    )
    return list(chosen)


def _write_tflite(trained: Any, work: Procedure) -> None:  # noqa: ANN401 - Keras has no types
    """Convert with the learned ranges; what has none is calibrated. Raises ConversionError."""
    import tensorflow as tf

    from tflotilla.host.models.sources.traced import FrozenFunction

    scheme = QuantizationScheme(work.settings["scheme"])
    target = work.settings["target"]
    offer = None if target is None else codec.decode(RuntimeOffer, dict(target), "target")
    spec = tf.TensorSpec(work.spec.shape, tf.float32, name="input")
    function = tf.function(lambda tensors: trained(tensors, training=False)).get_concrete_function(spec)
    source = FrozenFunction(function)
    samples = np.load(work.folder / CALIBRATION)

    def calibrate() -> Iterator[list[Any]]:
        for sample in samples:
            yield [sample[np.newaxis]]

    reason = ""
    for settings in _SETTINGS:
        converter = source.converter()
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = calibrate
        if scheme in _EDGES:
            edge = tf.as_dtype(_EDGES[scheme])
            converter.inference_input_type = converter.inference_output_type = edge
            converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        for name in settings:
            setattr(converter, name, True)
        try:
            made = bytes(converter.convert())
        except Exception as error:  # the converter raises whatever its passes raise
            raise ConversionError(
                f"the trained model can't become int8: {' '.join(str(error).split())[:240]}"
            ) from error
        found = inspect_bytes(made, scheme.value)
        verdict = None if offer is None else compatibility.check_runtime(found.requirements, offer)
        if verdict is None or verdict.ok:
            (work.folder / QUANTIZED).write_bytes(made)
            if found.float_ops:
                floats = ", ".join(f"{name} ({count})" for name, count in found.float_ops)
                work.notes.append(f"stayed float: {floats}")
            return
        reason = str(verdict)
    raise ConversionError(f"{offer} can't run it: {reason}")


def _write_float(trained: Any, flat: Any, work: Procedure) -> bool:  # noqa: ANN401 - Keras has no types
    """Save the trained weights in the model as it was; return whether every one has its place there."""
    weights = {_plain(variable.name): variable for variable in trained.variables}
    values = []
    for variable in flat.weights:
        name = _plain(variable.name)
        twin = weights.get(name)
        if twin is None or tuple(twin.shape) != tuple(variable.shape):
            work.notes.append(f"no float Keras file: tfmot took {name!r} apart")
            return False
        values.append(twin.numpy())
    flat.set_weights(values)
    work.save(KerasModel(model=flat, library=KERAS_2, notes=()), AFTER)
    return True


def _plain(name: str) -> str:
    """Return a variable's name as it was before tfmot wrapped its layer."""
    parts = name.split(":", maxsplit=1)[0].split("/")
    return "/".join(part.removeprefix("quant_") for part in parts)
