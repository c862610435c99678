"""Make the model of the promise: `python -m tests.benchmarks.mobilenet`, once, a minute with TensorFlow.

MobileNetV2 1.0 224 with random weights, converted to int8 with int8 input and output: what it answers is nonsense, how
long it takes is not.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import numpy as np

from tests.benchmarks.models import MADE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray


def main() -> int:
    """Convert and write it."""
    import tensorflow as tf

    tf.keras.utils.set_random_seed(0)
    converter = tf.lite.TFLiteConverter.from_keras_model(tf.keras.applications.MobileNetV2(weights=None))
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = _samples
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    MADE.parent.mkdir(exist_ok=True)
    MADE.write_bytes(converter.convert())
    return 0


def _samples() -> Iterator[list[NDArray[np.float32]]]:
    generator = np.random.default_rng(0)
    for _ in range(8):
        yield [generator.uniform(-1, 1, (1, 224, 224, 3)).astype(np.float32)]


if __name__ == "__main__":
    sys.exit(main())
