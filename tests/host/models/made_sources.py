"""Small source models of every format, made with TensorFlow in a child process, and many conversions in one.

TensorFlow takes ten seconds to import, so tests share two children: one makes and tries everything made here, one
everything real.
"""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tflotilla.host.models import quantize
from tflotilla.shared.contract.errors import TflotillaError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

TARGET = {"name": "tflite-runtime", "version": "2.14.0"}
SIDE, CLASSES = 8, 10


def make(*, folder: str) -> None:
    """Write one of each kind into `folder`."""
    import keras
    import numpy as np
    import tensorflow as tf

    place = Path(folder)
    keras.utils.set_random_seed(7)
    rng = np.random.default_rng(7)
    np.save(place / "images.npy", rng.random((30, SIDE, SIDE, 1), dtype=np.float32))
    np.save(place / "rows.npy", rng.random((30, 4), dtype=np.float32))
    np.save(place / "series.npy", rng.random((10, 70, 2), dtype=np.float32))
    np.save(place / "steps.npy", rng.random((10, 3, 2), dtype=np.float32))
    np.savez(place / "two.npz", first=rng.random((30, 4)), second=rng.random((30, 4)))
    image = keras.Input((SIDE, SIDE, 1), name="image")
    x = keras.layers.Conv2D(4, 3, activation="relu")(image)
    x = keras.layers.Dropout(0.5)(keras.layers.BatchNormalization()(x))
    cnn = keras.Model(image, keras.layers.Dense(CLASSES, activation="softmax")(keras.layers.Flatten()(x)))
    cnn.save(place / "cnn.keras")
    cnn.save(place / "cnn3.h5")
    a, b = keras.Input((4,), name="second"), keras.Input((4,), name="first")
    two = keras.Model([a, b], [keras.layers.Dense(3)(keras.layers.Add()([a, b])), keras.layers.Dense(2)(b)])
    two.save(place / "two.keras")
    row = keras.Input((4,), name="row")
    keras.Model(row, keras.layers.Lambda(lambda v: v * 2)(row)).save(place / "lambda.keras")
    dense = keras.layers.Dense(3)(row)
    keras.Model(row, keras.ops.floor(dense)).save(place / "floor.keras")
    keras.Model(row, keras.ops.square(keras.ops.negative(dense) - dense[:, :1])).save(place / "negative.keras")
    series = keras.Input((70, 2), name="series")
    keras.Model(series, keras.layers.LSTM(4, dropout=0.1)(series)).save(place / "long_lstm.keras")
    steps = keras.Input((3, 2), name="steps")
    keras.Model(steps, keras.layers.Bidirectional(keras.layers.GRU(2))(steps)).save(place / "both_ways.keras")
    keras.Sequential([keras.layers.Dense(2)]).save(place / "unbuilt.keras")
    broken = keras.Model(row, keras.layers.Dense(2, bias_initializer=keras.initializers.Constant(np.nan))(row))
    broken.save(place / "broken.keras")
    _make_custom(place, row)
    _make_keras_2(place)
    _make_saved_models(place, tf)
    _make_graphs(place, tf)


def _make_custom(place: Path, row: Any) -> None:  # noqa: ANN401 - Keras has no types
    import keras

    @keras.saving.register_keras_serializable(package="mine")
    class Twice(keras.layers.Layer):  # type: ignore[misc]
        def call(self, value: Any) -> Any:  # noqa: ANN401
            return value * 2

    keras.Model(row, Twice()(row)).save(place / "custom_here.keras")
    # As a stranger sees it: the class is nowhere.
    with zipfile.ZipFile(place / "custom_here.keras") as source, zipfile.ZipFile(place / "custom.keras", "w") as target:
        for name in source.namelist():
            data = source.read(name)
            if name == "config.json":
                data = (
                    json.dumps(json.loads(data))
                    .replace("mine>Twice", "mine>Thrice")
                    .replace('"Twice"', '"Thrice"')
                    .encode()
                )
            target.writestr(name, data)


def _make_keras_2(place: Path) -> None:
    import tf_keras

    tf_keras.utils.set_random_seed(7)
    old = tf_keras.Sequential(
        [
            tf_keras.layers.DepthwiseConv2D(3, input_shape=(SIDE, SIDE, 1)),
            tf_keras.layers.Flatten(),
            tf_keras.layers.Dense(CLASSES, activation="softmax"),
        ]
    )
    old.save(place / "keras2.h5", save_format="h5")
    recurrent = tf_keras.Sequential([tf_keras.layers.LSTM(2, input_shape=(3, 2))])
    recurrent.save(place / "recurrent2.h5", save_format="h5")
    tf_keras.Sequential([tf_keras.layers.Lambda(lambda v: v * 2, input_shape=(4,))]).save(place / "lambda.h5")


def _make_saved_models(place: Path, tf: Any) -> None:  # noqa: ANN401 - TensorFlow has no types
    class Module(tf.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.weight = tf.Variable([[2.0], [3.0]])

    module = Module()
    unknown = tf.TensorSpec([None, None], tf.float32, name="rows")

    @tf.function(input_signature=[unknown])  # type: ignore[misc]
    def double(rows: Any) -> Any:  # noqa: ANN401
        return {"answer": rows @ module.weight * 2.0}

    @tf.function(input_signature=[unknown])  # type: ignore[misc]
    def triple(rows: Any) -> Any:  # noqa: ANN401
        return {"answer": rows @ module.weight * 3.0}

    @tf.function(input_signature=[tf.TensorSpec([1, 2], tf.float32, name="rows")])  # type: ignore[misc]
    def python(rows: Any) -> Any:  # noqa: ANN401
        return {"answer": tf.ensure_shape(tf.py_function(lambda v: v, [rows], tf.float32), [1, 2])}

    @tf.function(input_signature=[tf.TensorSpec([1, 4], tf.float32, name="rows")])  # type: ignore[misc]
    def spectrum(rows: Any) -> Any:  # noqa: ANN401
        return {"answer": tf.signal.rfft(rows)}

    tf.saved_model.save(module, str(place / "complex"), signatures={"serving_default": spectrum})
    tf.saved_model.save(module, str(place / "saved"), signatures={"double": double, "triple": triple})
    tf.saved_model.save(module, str(place / "python"), signatures={"serving_default": python})


def _make_graphs(place: Path, tf: Any) -> None:  # noqa: ANN401 - TensorFlow has no types
    with tf.Graph().as_default() as graph:
        left = tf.compat.v1.placeholder(tf.float32, [None, 4], name="left")
        right = tf.compat.v1.placeholder(tf.float32, [None, 4], name="right")
        weights = tf.constant([[0.5, -1.0]] * 4, name="weights")
        total = tf.identity(tf.matmul(left + right, weights, name="product"), name="total")
        tf.identity(tf.nn.softmax(total), name="scores")
        tf.identity(tf.linalg.inv(tf.matmul(total, total, transpose_a=True)), name="strange")
    (place / "graph.pb").write_bytes(graph.as_graph_def().SerializeToString())
    (place / "graph.pbtxt").write_text(str(graph.as_graph_def()))
    with tf.Graph().as_default() as graph:
        tf.compat.v1.get_variable("weights", [2], use_resource=True)
    (place / "unfrozen.pb").write_bytes(graph.as_graph_def().SerializeToString())


def attempt(*, cases: Mapping[str, Mapping[str, Any]], folder: str) -> dict[str, Any]:
    """Run conversions one after the other; a refused one is told by class and message."""
    found: dict[str, Any] = {}
    for name, case in cases.items():
        place = Path(folder) / name
        place.mkdir(parents=True)
        try:
            found[name] = quantize.run(**(_DEFAULTS | dict(case) | {"folder": str(place)}))
        except TflotillaError as error:
            found[name] = {"error": type(error).__name__, "message": str(error)}
    return found


def make_and_attempt(*, sources: str, cases: Mapping[str, Mapping[str, Any]], folder: str) -> dict[str, Any]:
    """Make the sources and convert them, in one process."""
    make(folder=sources)
    return attempt(cases=cases, folder=folder)


_DEFAULTS: dict[str, Any] = {
    "options": {},
    "schemes": ["float32"],
    "calibration": None,
    "preprocess": None,
    "target": TARGET,
    "samples": 20,
    "compare": True,
}


def case(
    source: Path,
    format: str,  # noqa: A002 - the word of the field
    schemes: Sequence[str] = ("float32",),
    calibration: Path | None = None,
    preprocess: str | None = None,
    **options: Any,  # noqa: ANN401 - SourceOptions
) -> dict[str, Any]:
    """Describe one conversion for `attempt`."""
    return {
        "source": str(source),
        "format": format,
        "schemes": list(schemes),
        "calibration": None if calibration is None else str(calibration),
        "preprocess": preprocess,
        "options": options,
    }
