"""Small networks that remember what they were trained on, and what is said of calibration data for them.

Runs in one child process with TensorFlow. Batch normalization learns its moments by being called as in training, which
needs no gradients; the pictures are patches whose red is stronger than their blue, as in photos.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tflotilla.host.models import sources
from tflotilla.host.models.calibration import memories, probe
from tflotilla.host.models.sources import SourceOptions
from tflotilla.shared.inference import preprocessing

if TYPE_CHECKING:
    from numpy.typing import NDArray

SIDE, CLASSES, TRAINED_STEPS, FEW_STEPS = 24, 4, 500, 25
_BATCH = 16


def pictures(count: int, *, channels: int, seed: int) -> NDArray[np.uint8]:
    """Return (count, SIDE, SIDE, channels) pixels: patches, warm ones in colour, dark ones in gray."""
    generator = np.random.default_rng(seed)
    coarse = generator.random((count, 4, 4, channels)).repeat(SIDE // 4, axis=1).repeat(SIDE // 4, axis=2)
    fine = generator.random((count, SIDE, SIDE, channels))
    shares = 0.85 * coarse + 0.15 * fine
    shares = shares * np.array([1.0, 0.85, 0.7]) if channels == len("rgb") else shares**4
    made: NDArray[np.uint8] = np.rint(255 * shares).astype(np.uint8)
    return made


def make(*, folder: str) -> None:
    """Write the networks, and pictures for them, into `folder`."""
    import keras

    place = Path(folder)
    keras.utils.set_random_seed(3)
    np.save(place / "colour.npy", pictures(40, channels=3, seed=1))
    np.save(place / "gray.npy", pictures(40, channels=1, seed=2))
    _trained(place / "unit.keras", scale=1 / 255, offset=0.0)
    _trained(place / "mobilenet.keras", scale=1 / 127.5, offset=-1.0)
    _trained(place / "short.keras", scale=1 / 255, offset=0.0, steps=FEW_STEPS)
    _trained(place / "untrained.keras", scale=1 / 255, offset=0.0, steps=0)
    _trained(place / "rescaling.keras", scale=1.0, offset=0.0, first=keras.layers.Rescaling(1 / 127.5, offset=-1.0))
    adapted = keras.layers.Normalization()
    adapted.adapt(pictures(200, channels=3, seed=4).astype(np.float32))
    _trained(place / "normalization.keras", scale=1.0, offset=0.0, first=adapted, steps=0)
    _trained(place / "gray.keras", scale=1 / 255, offset=0.0, channels=1)
    _templates(place / "templates.keras")


def _trained(
    path: Path,
    *,
    scale: float,
    offset: float,
    first: Any = None,  # noqa: ANN401 - Keras has no types
    steps: int = TRAINED_STEPS,
    channels: int = 3,
) -> None:
    import keras

    image = keras.Input((SIDE, SIDE, channels), name="image")
    x = image if first is None else first(image)
    x = keras.layers.Conv2D(12, 3, strides=2, use_bias=False)(x)
    x = keras.layers.BatchNormalization()(x)
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.ReLU()(x))
    model = keras.Model(image, keras.layers.Dense(CLASSES, activation="softmax")(x))
    data = pictures(_BATCH * 8, channels=channels, seed=5).astype(np.float32) * scale + offset
    for step in range(steps):
        model(data[step % 8 * _BATCH :][:_BATCH], training=True)
    model.save(path)


def _templates(path: Path) -> None:
    """Write a classifier without memory, of quarters of a gray picture: sure of bright ones with numbers of 0 to 1."""
    import keras

    image = keras.Input((SIDE, SIDE, 1), name="image")
    x = keras.layers.Flatten()(keras.layers.AveragePooling2D(SIDE // 2)(image))
    scores = keras.layers.Dense(CLASSES, activation="softmax", kernel_initializer="identity")
    model = keras.Model(image, scores(x))
    scores.set_weights([12.0 * np.eye(CLASSES, dtype=np.float32), np.zeros(CLASSES, np.float32)])
    model.save(path)


def quarters(count: int) -> NDArray[np.uint8]:
    """Return (count, SIDE, SIDE, 1) dark pictures of one bright quarter each."""
    made = np.random.default_rng(6).integers(0, 20, (count, SIDE, SIDE, 1)).astype(np.uint8)
    for number, picture in enumerate(made):
        row, column = divmod(number % CLASSES, 2)
        half = SIDE // 2
        picture[row * half :][:half, column * half :][:, :half] = 160 + number
    return made


def say(*, folder: str, asked: list[list[Any]]) -> dict[str, Any]:
    """Make everything, then look at (network, pictures, preprocess, whether they are files) each.

    Returns, under "looks", the warnings of each, quick and thorough; under "layers" each network's nearest memory.
    """
    make(folder=folder)
    place = Path(folder)
    data = {
        "colour": pictures(40, channels=3, seed=1),
        "blue": pictures(40, channels=3, seed=1)[..., ::-1],
        "gray": pictures(40, channels=1, seed=2),
        "quarters": quarters(40),
        "few": pictures(2, channels=3, seed=1),
    }
    models = {}
    layers = {}
    looks = []
    for network, pixels, text, files in asked:
        if network not in models:
            path = place / f"{network}.keras"
            models[network] = sources.load(path, sources.detect(path), SourceOptions())
            graph, (source,), _ = models[network].graph()  # type: ignore[attr-defined]
            layers[network] = [memory.layer for memory in memories.nearest(graph, source)]
        model = models[network]
        chosen = preprocessing.parse(text, channels=model.inputs[0].shape[-1])
        samples = [
            (((picture[np.newaxis] - np.asarray(chosen.mean)) / np.asarray(chosen.std)).astype(np.float32),)
            for picture in (data[pixels] if chosen.colour != "bgr" else data[pixels][..., ::-1])
        ]
        known = probe.Data(samples=samples, preprocessing=chosen, pixels=True, files=files)
        quick = [suspicion.message for suspicion in probe.look(model, known)]
        found, about = probe.look_closely(model, known)
        looks.append({"quick": quick, "evidence": found, "about": about})
    return {"looks": looks, "layers": layers}
