"""MNIST from its four published files, and the networks that are trained on it. The training half runs in a child.

What it does NOT do: augment, or look at the test images before the end.
"""

from __future__ import annotations

import gzip
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from tflotilla.host.models import child
from tflotilla.shared.contract.errors import DatasetError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from tflotilla.host.reproductions.desk import Desk

FILES = {
    "train": ("train-images*idx3-ubyte*", "train-labels*idx1-ubyte*"),
    "test": ("t10k-images*idx3-ubyte*", "t10k-labels*idx1-ubyte*"),
}
CALIBRATION = 200
_SEED = 7
_IMAGE_HEADER, _LABEL_HEADER = 16, 8
_SIDE = 28

Network = Literal["cnn", "tutorial"]


def arrays(desk: Desk, part: Literal["train", "test"]) -> Path:
    """Return an .npz with x (N, 28, 28, 1) uint8 and y (N,) int64. Raises DatasetError, UsageError."""
    target = desk.made(f"mnist-{part}.npz")
    if not target.exists():
        images, labels = (_payload(desk.find(name)) for name in FILES[part])
        x = images[_IMAGE_HEADER:].reshape(-1, _SIDE, _SIDE, 1)
        y = labels[_LABEL_HEADER:].astype(np.int64)
        if len(x) != len(y):
            raise DatasetError(f"MNIST's {part} files hold {len(x)} images and {len(y)} labels")
        np.savez(target, x=x, y=y)
    return target


def calibration(desk: Desk) -> Path:
    """Return an .npy of training images, uint8."""
    target = desk.made("mnist-calibration.npy")
    if not target.exists():
        with np.load(arrays(desk, "train")) as archive:
            np.save(target, archive["x"][:CALIBRATION])
    return target


def trained(desk: Desk, network: Network, *, epochs: int) -> Path:
    """Return a `.keras` file of a trained network, trained once per desk. Inputs are x / 255."""
    target = desk.made(f"mnist-{network}.keras")
    if not target.exists():
        child.call(
            "tflotilla.host.reproductions.mnist:train_here",
            {"network": network, "data": str(arrays(desk, "train")), "output": str(target), "epochs": epochs},
            doing="training on MNIST",
            on_progress=desk.say,
        )
    return target


def train_here(*, network: str, data: str, output: str, epochs: int) -> None:
    """Train in this process; `trained` calls it in a child."""
    import keras

    keras.utils.set_random_seed(_SEED)
    with np.load(data) as archive:
        x, y = archive["x"].astype(np.float32) / 255, archive["y"]
    model = _network(keras, network)
    model.compile(keras.optimizers.Adam(2e-3), "sparse_categorical_crossentropy", metrics=["accuracy"])

    class Progress(keras.callbacks.Callback):  # type: ignore[misc]  # Keras has no types
        def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
            accuracy = (logs or {}).get("accuracy", 0.0)
            child.report_progress(f"training on MNIST: epoch {epoch + 1} of {epochs}, accuracy {accuracy:.2%}")

    model.fit(x, y, batch_size=128, epochs=epochs, verbose=0, callbacks=[Progress()])
    model.save(output)


def _network(keras: Any, name: str) -> Any:  # noqa: ANN401 - Keras has no types
    layers = keras.layers
    if name == "cnn":
        # About 400,000 weights: 1.6 MB in float32, as published.
        body = [
            layers.Conv2D(16, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(32, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dense(480, activation="relu"),
            layers.Dropout(0.3),
        ]
    else:
        # The network of TensorFlow's pruning tutorial: 3.3 million weights.
        body = [
            layers.Conv2D(32, 5, padding="same", activation="relu"),
            layers.MaxPooling2D(padding="same"),
            layers.BatchNormalization(),
            layers.Conv2D(64, 5, padding="same", activation="relu"),
            layers.MaxPooling2D(padding="same"),
            layers.Flatten(),
            layers.Dense(1024, activation="relu"),
            layers.Dropout(0.4),
        ]
    return keras.Sequential([keras.Input((_SIDE, _SIDE, 1)), *body, layers.Dense(10, activation="softmax")])


def _payload(path: Path) -> NDArray[np.uint8]:
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError) as error:
        raise DatasetError(f"{path}: can't be read ({error})") from error
    return np.frombuffer(data, dtype=np.uint8)
