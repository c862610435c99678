"""Small float TFLite files of every kind that a user may bring, made and converted in one child process."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.host.models import made_sources

if TYPE_CHECKING:
    from collections.abc import Mapping

SIDE, CHANNELS = 8, 8


def make(*, folder: str) -> None:
    """Write them into `folder`, and samples for the first two beside them."""
    import keras
    import numpy as np
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    place = Path(folder)
    keras.utils.set_random_seed(7)
    rng = np.random.default_rng(7)
    np.save(place / "pictures.npy", rng.random((20, SIDE, SIDE, CHANNELS), dtype=np.float32))
    np.save(place / "words.npy", rng.integers(0, 100, (20, 5), dtype=np.int32))
    cnn = _cnn(keras)
    # Of any batch: its flattening computes shapes.
    converter = tf.lite.TFLiteConverter.from_keras_model(cnn)
    (place / "any_batch.tflite").write_bytes(converter.convert())
    fixed = tf.function(lambda x: cnn(x, training=False)).get_concrete_function(
        tf.TensorSpec((1, SIDE, SIDE, CHANNELS), tf.float32, name="picture")
    )
    converter = tf.lite.TFLiteConverter.from_concrete_functions([convert_variables_to_constants_v2(fixed)])
    (place / "cnn.tflite").write_bytes(converter.convert())
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    (place / "small.tflite").write_bytes(converter.convert())
    converter.target_spec.supported_types = [tf.float16]
    (place / "half.tflite").write_bytes(converter.convert())
    tokens = keras.Input((5,), dtype="int32", batch_size=1, name="words")
    table = keras.layers.Embedding(100, 16)(tokens)
    looked_up = keras.Model(tokens, keras.layers.Dense(3)(keras.layers.Flatten()(table)))
    (place / "words.tflite").write_bytes(tf.lite.TFLiteConverter.from_keras_model(looked_up).convert())
    weights = cnn.get_weights()
    weights[0].flat[3] = np.nan
    cnn.set_weights(weights)
    (place / "broken.tflite").write_bytes(tf.lite.TFLiteConverter.from_keras_model(cnn).convert())
    _make_signatures(place, tf)


def _cnn(keras: Any) -> Any:  # noqa: ANN401 - Keras has no types
    """One of every layer whose weights are stored in a way of its own, each with more than a thousand of them."""
    picture = keras.Input((SIDE, SIDE, CHANNELS), name="picture")
    x = keras.layers.Conv2D(128, 1, activation="relu", name="narrow")(picture)
    x = keras.layers.Conv2D(128, 1, padding="same", groups=4, name="grouped")(x)
    x = keras.layers.DepthwiseConv2D(3, activation="relu", name="depthwise")(x)
    x = keras.layers.Conv2DTranspose(4, 2, name="transposed")(x)
    return keras.Model(picture, keras.layers.Dense(10, name="head")(keras.layers.Flatten()(x)))


def _make_signatures(place: Path, tf: Any) -> None:  # noqa: ANN401 - TensorFlow has no types
    class Module(tf.Module):  # type: ignore[misc]
        @tf.function(input_signature=[tf.TensorSpec([1, 2], tf.float32, name="x")])  # type: ignore[misc]
        def double(self, x: Any) -> Any:  # noqa: ANN401
            return {"answer": x * 2.0}

        @tf.function(input_signature=[tf.TensorSpec([1, 2], tf.float32, name="x")])  # type: ignore[misc]
        def triple(self, x: Any) -> Any:  # noqa: ANN401
            return {"answer": x * 3.0}

    module = Module()
    folder = str(place / "signatures")
    tf.saved_model.save(module, folder, signatures={"double": module.double, "triple": module.triple})
    converter = tf.lite.TFLiteConverter.from_saved_model(folder, signature_keys=["double", "triple"])
    (place / "signatures.tflite").write_bytes(converter.convert())


def make_and_attempt(*, sources: str, cases: Mapping[str, Mapping[str, Any]], folder: str) -> dict[str, Any]:
    """Make the files and convert them, in one process."""
    make(folder=sources)
    return made_sources.attempt(cases=cases, folder=folder)
