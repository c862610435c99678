"""Real handwritten digits and a small CNN trained on them: what the demo ships to its boards.

The data are scikit-learn's bundled UCI digits (1797 images of 8x8, values 0..16; E. Alpaydin, C. Kaynak, 1998), so
nothing is downloaded. The split is by writer order as UCI published it: no image is both trained on and judged with.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tflotilla.shared.contract.processing import Preprocessing

LABELS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
#: x / 255: the CNN was trained on 0..1.
PREPROCESSING = Preprocessing(colour="gray", mean=(0.0,), std=(255.0,))
_TRAINED_SHARE = 0.7
_SOURCE_MAXIMUM = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Digits:
    """Images as uint8 (N, 8, 8) in 0..255, labels as int64 (N,)."""

    train_images: NDArray[np.uint8]
    train_labels: NDArray[np.int64]
    held_out_images: NDArray[np.uint8]
    held_out_labels: NDArray[np.int64]


def load() -> Digits:
    """Read the bundled data; about one second for importing scikit-learn."""
    from sklearn.datasets import load_digits

    bundled = load_digits()
    images = np.round(bundled.images * (255 / _SOURCE_MAXIMUM)).astype(np.uint8)
    labels = bundled.target.astype(np.int64)
    cut = int(len(images) * _TRAINED_SHARE)
    return Digits(
        train_images=images[:cut],
        train_labels=labels[:cut],
        held_out_images=images[cut:],
        held_out_labels=labels[cut:],
    )


def write_class_folders(images: NDArray[np.uint8], labels: NDArray[np.int64], folder: Path) -> None:
    """Write PNGs as `folder/<class>/<number>.png`, the labelled form that `evaluate` reads."""
    from PIL import Image

    for name in LABELS:
        (folder / name).mkdir(parents=True, exist_ok=True)
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        Image.fromarray(image).save(folder / LABELS[label] / f"{number:04}.png")


def write_stream(images: NDArray[np.uint8], labels: NDArray[np.int64], folder: Path) -> None:
    """Write PNGs into one flat folder, as a camera would; the true class stands in the file name."""
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        Image.fromarray(image).save(folder / f"{number:04}-{LABELS[label]}.png")


def train(*, output: str, epochs: int, seed: int, width: int) -> dict[str, Any]:
    """Train the CNN and save it as a Keras 3 `.keras` file. Runs in a child process: it imports TensorFlow.

    Returns:
        `accuracy` on the held-out digits, `parameters`, `epochs`.

    """
    import keras

    keras.utils.set_random_seed(seed)
    digits = load()
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1), name="image"),
            keras.layers.Conv2D(width, 3, padding="same", activation="relu"),
            keras.layers.Conv2D(2 * width, 3, padding="same", activation="relu"),
            keras.layers.MaxPooling2D(),
            keras.layers.Dropout(0.3),
            keras.layers.Flatten(),
            keras.layers.Dense(4 * width, activation="relu"),
            keras.layers.Dropout(0.3),
            keras.layers.Dense(len(LABELS), activation="softmax", name="digit"),
        ],
        name="digits",
    )
    model.compile(optimizer=keras.optimizers.Adam(2e-3), loss="sparse_categorical_crossentropy", metrics=["accuracy"])

    def scale(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        return (images[..., None] / 255).astype(np.float32)

    model.fit(scale(digits.train_images), digits.train_labels, epochs=epochs, batch_size=64, verbose=0)
    _, accuracy = model.evaluate(scale(digits.held_out_images), digits.held_out_labels, verbose=0)
    model.save(Path(output))
    return {"accuracy": float(accuracy), "parameters": int(model.count_params()), "epochs": epochs}
