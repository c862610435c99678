"""Published architectures with random weights, written as Keras .h5 and as frozen graph; runs in a child.

Sizes and speed don't depend on the values of weights, and the published weights can't be had offline. What it does NOT
do: train.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tflotilla.host.models import child

if TYPE_CHECKING:
    from tflotilla.host.reproductions.desk import Desk

_SEED = 7


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """One network in two formats."""

    h5: Path
    frozen: Path
    parameters: int


def write(desk: Desk, architecture: str, side: int) -> Written:
    """Write `keras.applications.ARCHITECTURE` for images of `side` pixels, once per desk."""
    stem = f"{architecture}-{side}"
    h5, frozen, count = desk.made(f"{stem}.h5"), desk.made(f"{stem}.pb"), desk.made(f"{stem}.parameters")
    if not count.exists():
        desk.say(f"building {architecture}")
        parameters = child.call(
            "tflotilla.host.reproductions.networks:write_here",
            {"architecture": architecture, "side": side, "h5": str(h5), "frozen": str(frozen)},
            doing=f"building {architecture}",
        )
        count.write_text(str(parameters))
    return Written(h5=h5, frozen=frozen, parameters=int(count.read_text()))


def write_here(*, architecture: str, side: int, h5: str, frozen: str) -> int:
    """Write in this process; `write` calls it in a child. Return the number of weights."""
    import keras
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    keras.utils.set_random_seed(_SEED)
    model = getattr(keras.applications, architecture)(weights=None, input_shape=(side, side, 3))
    _settle(keras, model, side)
    model.save(h5)
    function = tf.function(lambda image: model(image, training=False))
    concrete = function.get_concrete_function(tf.TensorSpec((1, side, side, 3), tf.float32, name="image"))
    graph = convert_variables_to_constants_v2(concrete).graph.as_graph_def()
    Path(frozen).write_bytes(graph.SerializeToString())
    return int(model.count_params())


def _settle(keras: Any, model: Any, side: int) -> None:  # noqa: ANN401 - Keras has no types
    """Give the batch normalizations statistics that fit, or random weights let the activations die out."""
    rng = np.random.default_rng(_SEED)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.0
    model(rng.random((4, side, side, 3), dtype=np.float32) * 2 - 1, training=True)


def graph_latency_s(frozen: Path, runs: int) -> float:
    """Return the median seconds of one image through a frozen graph in TensorFlow, with all cores, as published."""
    answer: float = child.call(
        "tflotilla.host.reproductions.networks:graph_latency_here",
        {"frozen": str(frozen), "runs": runs},
        doing="TensorFlow on the frozen graph",
    )
    return answer


def graph_latency_here(*, frozen: str, runs: int) -> float:
    """Measure in this process; `graph_latency_s` calls it in a child."""
    import tensorflow as tf

    graph_def = tf.compat.v1.GraphDef()
    graph_def.ParseFromString(Path(frozen).read_bytes())
    with tf.Graph().as_default() as graph:
        tf.import_graph_def(graph_def, name="")
    placeholder = next(op for op in graph.get_operations() if op.type == "Placeholder").outputs[0]
    last = graph.get_operations()[-1].outputs[0]
    image = np.random.default_rng(_SEED).random(placeholder.shape.as_list(), dtype=np.float32)
    taken = []
    with tf.compat.v1.Session(graph=graph) as session:
        run = session.make_callable(last, [placeholder])
        for _ in range(5):
            run(image)
        for _ in range(runs):
            start = time.perf_counter()
            run(image)
            taken.append(time.perf_counter() - start)
    return statistics.median(taken)
