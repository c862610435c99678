"""MNIST from its four published files, and the networks that are trained on it. The training half runs in a child.

What it does NOT do: augment, or look at the test images before the end.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from tflotilla.host.models import child, idx
from tflotilla.shared.contract.errors import DatasetError

if TYPE_CHECKING:
    from pathlib import Path

    from tflotilla.host.reproductions.desk import Desk

FILES = {
    "train": ("train-images*idx3-ubyte*", "train-labels*idx1-ubyte*"),
    "test": ("t10k-images*idx3-ubyte*", "t10k-labels*idx1-ubyte*"),
}
CALIBRATION = 200
_SEED = 7
_SIDE = 28

Network = Literal["cnn", "tutorial", "vgg16"]
#: VGG16 takes the images of CIFAR-10's size.
_VGG_SIDE, _VGG_BLOCKS = 32, ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))


def arrays(desk: Desk, part: Literal["train", "test"]) -> Path:
    """Return an .npz with x (N, 28, 28, 1) uint8 and y (N,) int64. Raises DatasetError, UsageError."""
    target = desk.made(f"mnist-{part}.npz")
    if not target.exists():
        x, y = (idx.read(desk.find(name)) for name in FILES[part])
        if len(x) != len(y):
            raise DatasetError(f"MNIST's {part} files hold {len(x)} images and {len(y)} labels")
        np.savez(target, x=x[..., None], y=y.astype(np.int64))
    return target


def calibration(desk: Desk) -> Path:
    """Return an .npy of training images, uint8."""
    target = desk.made("mnist-calibration.npy")
    if not target.exists():
        with np.load(arrays(desk, "train")) as archive:
            np.save(target, archive["x"][:CALIBRATION])
    return target


def coloured(desk: Desk, part: Literal["train", "test"], count: int) -> Path:
    """Return an .npz of the first `count` images in CIFAR-10's shape: x (N, 32, 32, 3) uint8, padded, and y."""
    target = desk.made(f"mnist-{part}-32x32x3-{count}.npz")
    if not target.exists():
        with np.load(arrays(desk, part)) as archive:
            x, y = archive["x"][:count], archive["y"][:count]
        edge = (_VGG_SIDE - _SIDE) // 2
        np.savez(target, x=np.repeat(np.pad(x, ((0, 0), (edge, edge), (edge, edge), (0, 0))), 3, axis=3), y=y)
    return target


def trained(desk: Desk, network: Network, *, epochs: int, data: Path | None = None) -> Path:
    """Return a `.keras` file of a trained network, trained once per desk. Inputs are x / 255.

    `data` is an .npz with x and y, all of MNIST's training images without it.
    """
    target = desk.made(f"mnist-{network}.keras")
    if not target.exists():
        child.call(
            "tflotilla.host.reproductions.mnist:train_here",
            {"network": network, "data": str(data or arrays(desk, "train")), "output": str(target), "epochs": epochs},
            doing="training on MNIST",
            on_progress=desk.say,
        )
    return target


def train_here(*, network: str, data: str, output: str, epochs: int) -> None:
    """Train in this process; `trained` calls it in a child."""
    child.allow_fast_kernels()
    import keras

    keras.utils.set_random_seed(_SEED)
    with np.load(data) as archive:
        x, y = archive["x"].astype(np.float32) / 255, archive["y"]
    model = _network(keras, network)
    model.compile(keras.optimizers.Adam(1e-3), "sparse_categorical_crossentropy", metrics=["accuracy"])

    class Progress(keras.callbacks.Callback):  # type: ignore[misc]  # Keras has no types
        def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
            accuracy = (logs or {}).get("accuracy", 0.0)
            child.report_progress(f"training on MNIST: epoch {epoch + 1} of {epochs}, accuracy {accuracy:.2%}")

    model.fit(x, y, batch_size=64, epochs=epochs, verbose=0, callbacks=[Progress()])
    model.save(output)


def _network(keras: Any, name: str) -> Any:  # noqa: ANN401 - Keras has no types
    layers = keras.layers
    side, channels = (_VGG_SIDE, 3) if name == "vgg16" else (_SIDE, 1)
    if name == "vgg16":
        body = []
        for filters, depth in _VGG_BLOCKS:
            for _ in range(depth):
                body += [
                    layers.Conv2D(filters, 3, padding="same", use_bias=False),
                    layers.BatchNormalization(momentum=0.9),
                    layers.ReLU(),
                ]
            body.append(layers.MaxPooling2D())
        body.append(layers.Flatten())
    elif name == "cnn":
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
    return keras.Sequential([keras.Input((side, side, channels)), *body, layers.Dense(10, activation="softmax")])
