"""A bundle of the float classifier, whose batch can be larger than one, and what spoils it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from tests import models_made
from tests.device import running_bundles
from tflotilla.shared.contract.manifest import GoldenPolicy
from tflotilla.shared.contract.processing import Preprocessing
from tflotilla.shared.contract.tensors import QuantizationScheme, TensorSpec
from tflotilla.shared.inference import goldens

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

LABELS = range(4)


def image(label: int) -> NDArray[np.float32]:
    """Return the input of a class, (1, 8, 8, 1)."""
    pixels: NDArray[np.float32] = models_made.pattern(label).reshape(1, 8, 8, 1).astype(np.float32) / np.float32(255)
    return pixels


def scores(label: int) -> NDArray[np.float32]:
    """Return what the classifier says to it: the softmax of one logit of 8 and nine of 0."""
    logits = np.zeros((1, models_made.CLASSES))
    logits[0, label] = 8
    softmax: NDArray[np.float32] = (np.exp(logits) / np.exp(logits).sum()).astype(np.float32)
    return softmax


def write(folder: Path, *, model: bytes | None = None, **changes: Any) -> Path:  # noqa: ANN401 - fields of the manifest
    """Write the bundle; returns its folder."""
    vectors = goldens.GoldenVectors(
        inputs=tuple((image(label),) for label in LABELS), outputs=tuple((scores(label),) for label in LABELS)
    )
    return running_bundles.write(
        folder,
        model=models_made.read("tiny_classifier_float") if model is None else model,
        vectors=goldens.save(vectors),
        changes={
            "inputs": (TensorSpec(name="image", shape=(1, 8, 8, 1), dtype="float32"),),
            "outputs": (TensorSpec(name="scores", shape=(1, 10), dtype="float32"),),
            "scheme": QuantizationScheme.FLOAT32,
            "preprocessing": Preprocessing(colour="gray", std=(255.0,)),
            "goldens": GoldenPolicy(count=len(LABELS), runtime="by construction"),
            **changes,
        },
    )


def poisoned() -> bytes:
    """Return the model with weights that are no numbers, so that every answer is NaN."""
    model = models_made.read("tiny_classifier_float")
    weight = np.float32(0.25).tobytes()
    found = model.replace(weight, np.float32(np.nan).tobytes())
    assert found != model
    return found
