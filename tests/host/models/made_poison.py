"""Small classifiers of which int8 spoils one place, and searches on them: made with TensorFlow in a child process.

    weights       one layer has huge weights on a channel that is always 0: its other weights round to nothing
    activations   one channel between two layers is a thousand times as loud as it needs be: the others round to nothing

Nothing is trained: the labels are what the float model answers, on samples it is sure of, so float is right everywhere.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tflotilla.host.models import flatbuffer, quantize, sources
from tflotilla.host.models.accuracy_aware import operators, run
from tflotilla.host.models.accuracy_aware.edges import Edges
from tflotilla.host.models.accuracy_aware.search import SCHEMES, Prefer
from tflotilla.host.models.accuracy_aware.steps import Job, Step
from tflotilla.host.models.metrics import Metric
from tflotilla.host.models.sources import SourceOptions
from tflotilla.shared.contract import codec
from tflotilla.shared.contract.tensors import QuantizationScheme

if TYPE_CHECKING:
    from collections.abc import Mapping

SIDE, CLASSES, SAMPLES = 8, 5, 300
RUNTIME = "ai-edge-litert"
#: Operators by the layer they come from: Keras and the converter add to it.
LAYERS = ("first", "second", "poison", "fourth", "head")


def make(*, folder: str) -> dict[str, Any]:
    """Write `weights.keras`, `activations.keras`, `x.npy` and `data.npz`, and search; returns the findings by name."""
    import keras
    import numpy as np

    place = Path(folder)
    rng = np.random.default_rng(11)
    keras.utils.set_random_seed(11)
    image = keras.Input((SIDE, SIDE, 2), name="image")
    x = keras.layers.Conv2D(12, 3, strides=2, activation="relu", name="first")(image)
    x = keras.layers.Conv2D(24, 1, activation="relu", name="second")(x)
    x = keras.layers.Conv2D(32, 1, activation="relu", name="poison")(x)
    x = keras.layers.Conv2D(64, 2, activation="relu", name="fourth")(x)
    model = keras.Model(image, keras.layers.Dense(CLASSES, name="head")(keras.layers.Flatten()(x)))
    second, poison, head = (model.get_layer(name) for name in ("second", "poison", "head"))
    samples = rng.normal(0, 1, (8000, SIDE, SIDE, 2)).astype(np.float32)

    matrix, bias = second.get_weights()
    matrix[..., 0] = 0
    second.set_weights([matrix, bias])
    # Without its mean the head would answer one class always.
    matrix, bias = head.get_weights()
    head.set_weights([matrix, bias - model.predict(samples, verbose=0).mean(axis=0)])
    scores = np.sort(model.predict(samples, verbose=0), axis=1)
    sure = np.argsort(scores[:, -2] - scores[:, -1])[:SAMPLES]
    labels = model.predict(samples[sure], verbose=0).argmax(axis=1)
    np.save(place / "x.npy", samples[:60])
    np.savez(place / "data.npz", x=samples[sure], y=labels)

    clean = poison.get_weights()
    loud = clean[0].copy()
    loud[:, :, 0, :] = 1000.0 * np.sign(loud[:, :, 0, :])
    poison.set_weights([loud, clean[1]])
    model.save(place / "weights.keras")

    poison.set_weights(clean)
    matrix, bias = second.get_weights()
    matrix[..., 1] *= 1000
    second.set_weights([matrix, bias])
    matrix, bias = poison.get_weights()
    matrix[:, :, 1, :] /= 1000
    poison.set_weights([matrix, bias])
    model.save(place / "activations.keras")
    _write_plain(place)
    return _search(place)


def _write_plain(place: Path) -> None:
    """Write mixtures with float edges and float weights, as the quantizer makes them: `plain/first-head.tflite`."""
    import numpy as np

    samples = [(sample[np.newaxis],) for sample in np.load(place / "x.npy")]
    model = sources.load(place / "weights.keras", "Keras .keras", SourceOptions())
    maker = quantize.Maker(model, samples, None, per_channel=True)
    (place / "plain").mkdir()
    (place / "plain" / "int8.tflite").write_bytes(maker.make(QuantizationScheme.INT8))
    names = [operator.name for operator in operators.of(flatbuffer.read(maker.calibrated()))]
    ends = {"first": names[:1], "head": names[-1:], "first-head": [names[0], names[-1]]}
    for name, kept in ends.items():
        (place / "plain" / f"{name}.tflite").write_bytes(maker.mixed(kept))


def job(place: Path, name: str, **changes: object) -> Job:
    """Return the search for one of the sources in a folder."""
    asked: dict[str, Any] = {
        "source": str(place / f"{name}.keras"),
        "format": "Keras .keras",
        "options": SourceOptions(),
        "max_drop": 0.02,
        "calibration": str(place / "x.npy"),
        "samples": 60,
        "data": str(place / "data.npz"),
        "preset": None,
        "preprocessing": None,
        "labels": None,
        "label_offset": 0,
        "limit": None,
        "metric": None,
        "by_likeness": False,
        "runtime": RUNTIME,
        "num_threads": 1,
        "target": None,
        "schemes": SCHEMES,
        "prefer": Prefer.SIZE,
        "edges": Edges.UINT8,
        "max_steps": 40,
        "hold_out": False,
    }
    return Job(**(asked | changes))


def _search(place: Path) -> dict[str, Any]:
    int8_alone = (QuantizationScheme.INT8,)
    searches: Mapping[str, Job] = {
        "weights": job(place, "weights", schemes=(QuantizationScheme.INT8, QuantizationScheme.FLOAT16)),
        "activations": job(place, "activations", schemes=int8_alone, edges=Edges.INT8),
        "nothing": job(place, "weights", schemes=int8_alone, metric=Metric.SQNR, max_drop=1e-9, max_steps=2),
        "resumed": job(
            place, "weights", schemes=(QuantizationScheme.INT8, QuantizationScheme.FLOAT16), hold_out=True, max_drop=0.1
        ),
    }
    found = {}
    for name, asked in searches.items():
        folder = place / name
        folder.mkdir()
        if name == "resumed":
            # A process before this one died of exactly this variant.
            (folder / run.CRASHED).write_text(json.dumps({run.key(Step(scheme=QuantizationScheme.INT8)): "it died"}))
        found[name] = run.run(job=codec.encode(asked), folder=str(folder))
    return found
