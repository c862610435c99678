"""Trainings of tiny models of both Keras, all in one child process per Keras: TensorFlow takes ten seconds to import.

The functions run in the child and return plain figures; the tests judge them.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tflotilla.host.models.compression import own_pruning, procedures, schedule, training
from tflotilla.shared.contract.errors import TflotillaError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence


SIDE, CLASSES, SAMPLES = 8, 3, 60
DYING_STEP = 9


def make_data(folder: Path) -> None:
    """Write labelled pixels in which a class is where the light is, and the same without labels."""
    rng = np.random.default_rng(4)
    labels = np.arange(SAMPLES) % CLASSES
    pixels = rng.integers(0, 80, (SAMPLES, SIDE, SIDE, 1))
    for number, label in enumerate(labels):
        pixels[number, :, 2 * label : 2 * label + 3] += 150
    np.savez(folder / "data.npz", x=pixels.astype(np.uint8), y=labels)
    np.save(folder / "plain.npy", (pixels / 255).astype(np.float32))


def make_models(folder: Path, keras: Any, suffix: str) -> None:  # noqa: ANN401 - keras or tf_keras
    """Write a CNN, one inside another model, an autoencoder, and ones that can't be trained here."""
    layers = keras.layers
    keras.utils.set_random_seed(11)

    def save(name: str, model: Any) -> None:  # noqa: ANN401 - Keras has no types
        model.save(folder / f"{name}{suffix}")

    def cnn(name: str) -> list[Any]:
        return [
            layers.Conv2D(8, 3, padding="same", use_bias=False, name=f"{name}conv"),
            layers.BatchNormalization(name=f"{name}norm"),
            layers.ReLU(name=f"{name}relu"),
            layers.Flatten(name=f"{name}flatten"),
            layers.Dropout(0.2, name=f"{name}dropout"),
            layers.Dense(16, activation="relu", name=f"{name}dense"),
        ]

    def head() -> Any:  # noqa: ANN401 - Keras has no types
        return layers.Dense(CLASSES, activation="softmax", name="head")

    image = keras.Input((SIDE, SIDE, 1), name="image")
    save("cnn", keras.Sequential([image, *cnn(""), head()]))
    inner = keras.Sequential([keras.Input((SIDE, SIDE, 1)), *cnn("inner_")], name="backbone")
    save("nested", keras.Sequential([keras.Input((SIDE, SIDE, 1)), inner, head()]))
    save("auto", keras.Sequential([image, layers.Conv2D(1, 3, padding="same", activation="sigmoid", name="same")]))
    save("bare", keras.Sequential([image, layers.Flatten(), layers.Softmax()]))
    two = keras.Input((4,), name="other")
    save("two", keras.Model([image, two], layers.Dense(3)(layers.Concatenate()([layers.Flatten()(image), two]))))
    save("lambda", keras.Sequential([image, layers.Lambda(lambda v: v), layers.Flatten(), head()]))


def arguments(folder: Path, source: str, **changes: Any) -> dict[str, Any]:  # noqa: ANN401 - any argument
    """Return the arguments of a procedure."""
    target = folder / f"made-{len(list(folder.glob('made-*')))}"
    target.mkdir()
    steps = {"kind": "polynomial", "initial_sparsity": 0.2, "final_sparsity": 0.75, "frequency": 2}
    return {
        "source": str(folder / source),
        "options": {},
        "data": str(folder / "data.npz"),
        "validation": None,
        "preprocess": "unit",
        "labels": None,
        "label_offset": 0,
        "training": {"epochs": 2, "batch_size": 8} | changes.pop("training", {}),
        "settings": {"layers": [], "skip_layers": [], "pattern": None, "schedule": steps} | changes.pop("settings", {}),
        "folder": str(target),
        "suffix": Path(source).suffix,
    } | changes


def kernels(path: Path) -> list[list[Any]]:
    """Return (name, share of zeros) of the kernels of a saved model."""
    from tflotilla.host.models.compression import keras_files
    from tflotilla.host.models.sources import SourceOptions

    made = keras_files.read(path, SourceOptions())
    return [[k.path, float(np.mean(k.values() == 0))] for k in keras_files.kernels(made.model)]


def attempt(function: Callable[..., Mapping[str, Any]], given: Mapping[str, Any]) -> dict[str, Any]:
    """Run a procedure; return its answer, or the class and words of its refusal."""
    try:
        return dict(function(**given)) | {
            "folder": given["folder"],
            "files": sorted(p.name for p in Path(given["folder"]).iterdir()),
        }
    except TflotillaError as error:
        return {"error": type(error).__name__, "message": str(error)}


class Dying:
    """An engine that is killed before a step; in all else the one it holds."""

    def __init__(self, engine: training.Engine) -> None:
        self._engine = engine

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever the engine has
        return getattr(self._engine, name)

    def before_batch(self, step: int) -> None:
        """Die, or go on."""
        if step == DYING_STEP:
            raise KeyboardInterrupt
        self._engine.before_batch(step)


def _engine(made: Any) -> training.Engine:  # noqa: ANN401 - Keras has no types
    from tflotilla.host.models.compression import keras_files, tfmot_pruning

    planned, _ = schedule.plan(schedule.ScheduleOptions(final_sparsity=0.75, frequency=2), 12)
    found = keras_files.kernels(made.model)
    if made.library == keras_files.KERAS_2:
        return tfmot_pruning.TfmotPruning(made.model, found, planned, None)
    return own_pruning.OwnPruning(made.model, found, planned, None)


def _trained(given: Mapping[str, Any], *, dying: bool) -> list[Any]:
    work = procedures.Procedure(**given)
    made = work.read()
    work.open(made)
    engine = _engine(made)
    try:
        model = work.train_with(Dying(engine) if dying else engine, made)
    except KeyboardInterrupt:
        return []
    return [np.asarray(weight).tolist() for weight in model.get_weights()] + [
        [e.loss for e in work.epochs],
        work.notes[-1],
    ]


def resumed(folder: Path, source: str) -> dict[str, Any]:
    """Train through, and again with a death in the middle; return whether both end with the same bits."""
    whole = _trained(arguments(folder, source), dying=False)
    how = {"checkpoint": str(folder / f"run{Path(source).suffix}"), "checkpoint_every": 3}
    first = _trained(arguments(folder, source, training=how), dying=True)
    second = _trained(arguments(folder, source, training=how), dying=False)
    other = attempt(procedures.prune_here, arguments(folder, source, training=how | {"seed": 9}))
    return {"first": first, "same": whole[:-1] == second[:-1], "note": second[-1], "other": other}


def refusals(folder: Path, suffix: str) -> dict[str, Any]:
    """Try what can't be done."""
    x = np.zeros((20, SIDE, SIDE, 1), np.uint8)
    np.savez(folder / "one_class.npz", x=x, y=np.zeros(20, int))
    np.savez(folder / "too_many.npz", x=x, y=np.arange(20) % 5)
    nan = np.full((20, SIDE, SIDE, 1), np.nan, np.float32)
    np.savez(folder / "nan.npz", x=nan, y=np.arange(20) % 3)

    def of(source: str, **changes: Any) -> dict[str, Any]:  # noqa: ANN401 - any argument
        return attempt(procedures.prune_here, arguments(folder, f"{source}{suffix}", **changes))

    return {
        "wrong layer": of("cnn", settings={"layers": ["densee"]}),
        "no kernel": of("bare"),
        "two inputs": of("two"),
        "lambda": of("lambda"),
        "one class": of("cnn", data=str(folder / "one_class.npz")),
        "too many": of("cnn", data=str(folder / "too_many.npz")),
        "nan": of("cnn", data=str(folder / "nan.npz"), preprocess=None),
        "no preprocessing": of("cnn", preprocess=None),
        "begins late": of("cnn", settings={"schedule": {"begin_step": 10_000}}),
        "blocks on convolutions": of("cnn", settings={"pattern": "1x4", "layers": ["conv"]}),
        "no autoencoder": of("cnn", data=str(folder / "plain.npy"), preprocess=None),
        "diverges": of("cnn", training={"learning_rate": 1e30, "optimizer": "sgd"}),
    }


def keras_3(*, folder: str) -> dict[str, Any]:
    """Train models of Keras 3."""
    import keras

    place = Path(folder)
    make_data(place)
    make_models(place, keras, ".keras")
    whole = attempt(
        procedures.prune_here, arguments(place, "cnn.keras", training={"logs": str(place / "logs"), "epochs": 6})
    )
    return {
        "whole": whole,
        "kernels": kernels(Path(whole["folder"]) / "after.keras"),
        "logs": _logged(place / "logs"),
        "chosen": attempt(procedures.prune_here, arguments(place, "nested.keras", settings={"layers": ["backbone"]})),
        "pattern": attempt(
            procedures.prune_here, arguments(place, "cnn.keras", settings={"pattern": "2:4"}, suffix=".h5")
        ),
        "blocks": attempt(procedures.prune_here, arguments(place, "cnn.keras", settings={"pattern": "1x4"})),
        "autoencoder": attempt(
            procedures.prune_here, arguments(place, "auto.keras", data=str(place / "plain.npy"), preprocess=None)
        ),
        "resumed": resumed(place, "cnn.keras"),
        "refused": refusals(place, ".keras"),
    }


def keras_2(*, folder: str) -> dict[str, Any]:
    """Train models of Keras 2 with tfmot, and compare our figures with its own."""
    from tflotilla.host.models.compression import keras_files, tfmot_clustering, tfmot_qat

    place = Path(folder)
    keras_files.prepare_keras_2()
    import keras
    import tf_keras

    make_data(place)
    make_models(place, tf_keras, ".h5")
    make_models(place, keras, ".keras")
    clusters = {"clusters": 6, "init": "linear"}
    edges = {"scheme": "int8_io_uint8", "target": {"name": "tflite-runtime", "version": "2.14.0"}}
    return {
        "schedules": _schedules(),
        "masks": _masks(),
        "whole": attempt(procedures.prune_here, arguments(place, "cnn.h5")),
        "pattern": attempt(
            procedures.prune_here, arguments(place, "cnn.h5", settings={"pattern": "2:4"}, suffix=".keras")
        ),
        "nested": attempt(procedures.prune_here, arguments(place, "nested.h5")),
        "resumed": resumed(place, "cnn.h5"),
        "clustered": attempt(tfmot_clustering.cluster_here, arguments(place, "cnn.h5", settings=clusters)),
        "clustered nested": attempt(tfmot_clustering.cluster_here, arguments(place, "nested.h5", settings=clusters)),
        "clustered 3": attempt(tfmot_clustering.cluster_here, arguments(place, "cnn.keras", settings=clusters)),
        "qat": attempt(tfmot_qat.qat_here, arguments(place, "cnn.h5", settings=edges)),
        "qat nested 3": attempt(
            tfmot_qat.qat_here, arguments(place, "nested.keras", settings={"scheme": "int8", "target": None})
        ),
        "settled": _settled(place),
        "qat wrong layer": attempt(
            tfmot_qat.qat_here, arguments(place, "cnn.h5", settings=edges | {"layers": ["hed"]})
        ),
    }


def _settled(place: Path) -> dict[str, float]:
    """Return how far a quantized model of great activations is off its float model, before and after settling."""
    from tflotilla.host.models.compression import tfmot_qat

    work = procedures.Procedure(**arguments(place, "cnn.h5", settings={"scheme": "int8", "target": None}))
    made = work.read()
    work.open(made)
    weights = made.model.get_weights()
    made.model.set_weights([weights[0] * 60, *weights[1:]])
    engine = tfmot_qat.TfmotQuantization(made.model, [layer.name for layer in made.model.layers])
    samples = work.train.tensors(range(len(work.train)))
    exact = np.asarray(made.model(samples, training=False))
    raw = np.asarray(engine.model(samples, training=False))
    untouched = [v.numpy() for v in engine.model.trainable_variables]
    tfmot_qat.settle_ranges(engine.model, [samples[:16], samples[16:32], samples[32:]])
    settled = np.asarray(engine.model(samples, training=False))
    same = all(np.array_equal(a, v.numpy()) for a, v in zip(untouched, engine.model.trainable_variables, strict=True))
    return {
        "raw": float(np.abs(raw - exact).max()),
        "settled": float(np.abs(settled - exact).max()),
        "same weights": float(same),
    }


def _logged(folder: Path) -> dict[str, list[int]]:
    """Return the steps at which each tag was logged."""
    import tensorflow as tf
    from tensorflow.core.util import event_pb2

    found: dict[str, list[int]] = {}
    for file in folder.iterdir():
        for record in tf.data.TFRecordDataset(str(file)):
            event = event_pb2.Event.FromString(record.numpy())
            for value in event.summary.value:
                found.setdefault(value.tag, []).append(event.step)
    return found


def _schedules() -> list[list[Any]]:
    """Return, per schedule and step, our sparsity and update beside tfmot's."""
    import tensorflow as tf
    import tensorflow_model_optimization as tfmot

    rows = []
    for begin, end, frequency, power in itertools.product((0, 5), (20, 21), (1, 5), (1, 3)):
        ours = schedule.Schedule(
            kind="polynomial",
            initial_sparsity=0.3,
            final_sparsity=0.8,
            begin_step=begin,
            end_step=end,
            frequency=frequency,
            power=power,
        )
        theirs = tfmot.sparsity.keras.PolynomialDecay(0.3, 0.8, begin, end, power=power, frequency=frequency)
        for step in range(1, 25):
            update, sparsity = theirs(tf.constant(step, tf.int64))
            rows.append([ours.updates_at(step), bool(update), ours.sparsity_at(step), float(sparsity)])
    return rows


def _masks() -> list[bool]:
    """Return whether our masks are tfmot's, for many shapes and sparsities, with no magnitudes alike."""
    import tensorflow as tf
    from tensorflow_model_optimization.python.core.sparsity.keras import pruning_impl, pruning_schedule, pruning_utils

    from tflotilla.host.models.compression import masks

    rng = np.random.default_rng(5)
    same = []
    shapes: Sequence[tuple[int, ...]] = ((7, 5), (16, 10), (3, 3, 6, 4), (5, 5, 1, 9))
    for shape in shapes:
        weights = rng.normal(size=shape).astype(np.float32)
        for sparsity in (0.0, 0.3, 0.5, 0.777, 0.95):
            kept = pruning_schedule.ConstantSparsity(sparsity, 0)
            their = pruning_impl.Pruning(lambda: tf.constant(1), [], kept, [1, 1], "AVG")
            _, mask = their._update_mask(tf.constant(weights))
            same.append(np.array_equal(masks.magnitude_mask(weights, sparsity), mask.numpy().astype(bool)))
        for kept_count, group in ((2, 4), (1, 4), (3, 8)):
            arranged = pruning_utils.weights_rearrange(tf.constant(weights))
            mask = pruning_utils.generate_m_by_n_mask(arranged, (group - kept_count, group))
            theirs = pruning_utils.m_by_n_sparsity_mask_prepare(mask, tf.constant(weights).shape).numpy().astype(bool)
            pattern = masks.Pattern(kept=kept_count, group=group)
            same.append(np.array_equal(masks.pattern_mask(weights, pattern, -2), theirs))
    return same
