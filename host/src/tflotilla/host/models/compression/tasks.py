"""What a model is trained for, told by its outputs and by the data: pure decisions over arrays and names.

    softmax or rows that add up to 1     classes, from probabilities
    sigmoid                              yes or no (one output), or one yes or no per class
    anything else                        classes, from logits
    no labels                            an autoencoder: what goes in is what shall come out

What it does NOT do: compute losses while training (Keras does), read data.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Any

import numpy as np

from tflotilla.shared.contract.errors import ModelError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


class Task(StrEnum):
    """A loss with the form of outputs it takes."""

    CLASSES = "sparse_categorical_crossentropy"
    CLASSES_FROM_LOGITS = "sparse_categorical_crossentropy from logits"
    BINARY = "binary_crossentropy"
    BINARY_FROM_LOGITS = "binary_crossentropy from logits"
    RECONSTRUCTION = "mse"

    @property
    def classifies(self) -> bool:
        """Whether accuracy means something."""
        return self is not Task.RECONSTRUCTION


#: What `--loss` takes.
LOSSES = ("auto", "sparse_categorical_crossentropy", "binary_crossentropy", "mse")
_SUM_TOLERANCE = 1e-2


def choose(loss: str, activation: str | None, outputs: NDArray[Any], *, labelled: bool) -> Task:
    """Return the task.

    Args:
        loss: `--loss`.
        activation: the name of the last layer's activation, where it has one.
        outputs: what the model answers on a few samples, (N, …).
        labelled: whether the data have classes.

    Raises:
        UsageError: the loss doesn't fit the data or the outputs.

    """
    if loss not in LOSSES:
        raise UsageError(f"--loss {loss!r}: expected one of {', '.join(LOSSES)}")
    if not labelled:
        if loss in ("auto", "mse"):
            return Task.RECONSTRUCTION
        raise UsageError(f"--loss {loss} needs labels, and the data have none")
    single = outputs.shape[-1] == 1
    bounded = bool((outputs >= 0).all() and (outputs <= 1).all())
    if loss == "auto":
        binary = single or activation == "sigmoid"
        loss = "binary_crossentropy" if binary else "sparse_categorical_crossentropy"
    if loss == "mse":
        raise UsageError("--loss mse is for autoencoders; give data without labels, an .npy")
    if loss == "binary_crossentropy":
        return Task.BINARY if activation == "sigmoid" or (activation is None and bounded) else Task.BINARY_FROM_LOGITS
    if single:
        raise UsageError(f"--loss {loss} needs an output per class, and the model has one; give binary_crossentropy")
    # Keras may hide a softmax inside a nested model or a plain function: then the sums tell.
    sums = bounded and bool(np.allclose(outputs.sum(axis=-1), 1.0, atol=_SUM_TOLERANCE))
    return Task.CLASSES if activation == "softmax" or sums else Task.CLASSES_FROM_LOGITS


def targets(task: Task, labels: NDArray[np.int64], output_shape: Sequence[int]) -> NDArray[Any]:
    """Return what a batch of labels is compared with, for outputs of `output_shape` without the batch."""
    if task in (Task.BINARY, Task.BINARY_FROM_LOGITS):
        if output_shape[-1] == 1:
            return labels.astype(np.float32).reshape(-1, *output_shape)
        hot = np.eye(output_shape[-1], dtype=np.float32)[labels]
        return hot.reshape(-1, *output_shape)
    return labels.reshape(-1, *output_shape[:-1])


def right(task: Task, outputs: NDArray[Any], labels: NDArray[np.int64]) -> int:
    """Return how many samples are classified right; ties go to the first class."""
    flat = outputs.reshape(len(outputs), -1)
    if flat.shape[1] == 1:
        limit = 0.0 if task is Task.BINARY_FROM_LOGITS else 0.5
        return int(np.sum((flat[:, 0] > limit) == (labels > 0)))
    return int(np.sum(flat.argmax(axis=1) == labels))


def check_outputs(shape: Sequence[int | None], *, where: str) -> int:
    """Return how many classes an output of `shape`, with its batch, tells apart.

    Raises:
        ModelError: not one answer per sample (a map, boxes, a sequence), or of unknown size.

    """
    sizes = list(shape[1:])
    if not sizes or any(size is None for size in sizes) or any(size != 1 for size in sizes[:-1]):
        raise ModelError(
            f"{where}: its output of shape {_shown(shape)} is not one score per class; what can be trained here are "
            "classifiers, and autoencoders on data without labels (an .npy)"
        )
    return int(sizes[-1] or 0)


def _shown(shape: Sequence[int | None]) -> str:
    return "(" + ", ".join("?" if size is None else str(size) for size in shape) + ")"
