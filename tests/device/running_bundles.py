"""Bundle folders that run, unsigned, for the processes that load models: the store has verified them already.

Golden outputs are not computed by a runtime but known by construction, see `tests.models_made`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from tests import models_made
from tflotilla.shared.contract import digest
from tflotilla.shared.contract.manifest import (
    GOLDENS,
    LABELS,
    MANIFEST,
    MODEL,
    FileEntry,
    GoldenPolicy,
    HealthPolicy,
    Manifest,
    ModelRequirements,
    OpRequirement,
)
from tflotilla.shared.contract.processing import Postprocessing, Preprocessing
from tflotilla.shared.contract.tensors import Quantization, QuantizationScheme, TensorSpec
from tflotilla.shared.inference import goldens

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

IMAGE = TensorSpec(
    name="image", shape=(1, 8, 8, 1), dtype="uint8", quantization=Quantization(scales=(1 / 255,), zero_points=(0,))
)
SCORES = TensorSpec(
    name="scores", shape=(1, 10), dtype="uint8", quantization=Quantization(scales=(1 / 256,), zero_points=(0,))
)


def write(
    folder: Path,
    *,
    model: bytes | None = None,
    vectors: bytes | None = None,
    changes: dict[str, Any] | None = None,
    health: HealthPolicy | None = None,
    vector_count: int = 4,
) -> Path:
    """Write a bundle of the tiny classifier; `changes` replaces fields of its manifest. Returns the folder."""
    files = {
        MODEL: models_made.read("tiny_classifier") if model is None else model,
        GOLDENS: golden_bytes(vector_count) if vectors is None else vectors,
        LABELS: models_made.LABELS_TXT,
    }
    manifest = Manifest(
        schema=1,
        name="tiny",
        version="1.0.0",
        release=1,
        created="2026-01-01T00:00:00Z",
        scheme=QuantizationScheme.INT8_IO_UINT8,
        files={name: FileEntry(size=len(data), sha256=digest.of_bytes(data)) for name, data in files.items()},
        requirements=ModelRequirements(ops=(OpRequirement(name="FULLY_CONNECTED", version=4),)),
        inputs=(IMAGE,),
        outputs=(SCORES,),
        preprocessing=Preprocessing(colour="gray", std=(255.0,)),
        postprocessing=Postprocessing(top_k=3),
        goldens=GoldenPolicy(count=vector_count, runtime="by construction", tolerance_lsb=2),
        health=health or HealthPolicy(),
    )
    manifest = replace(manifest, **(changes or {}))
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in {**files, MANIFEST: manifest.to_bytes()}.items():
        (folder / name).write_bytes(data)
    return folder


def golden_bytes(count: int = 4, *, shift: int = 0) -> bytes:
    """Return golden vectors of the first classes; with `shift` they are those of another model."""
    pairs = [(image(label), scores((label + shift) % models_made.CLASSES)) for label in range(count)]
    return goldens.save(
        goldens.GoldenVectors(inputs=tuple((i,) for i, _ in pairs), outputs=tuple((o,) for _, o in pairs))
    )


def image(label: int) -> NDArray[np.uint8]:
    """Return the input of a class."""
    return models_made.pattern(label).reshape(1, 8, 8, 1)


def scores(label: int) -> NDArray[np.uint8]:
    """Return what the classifier says to it: a logit of 8 against nine of 0 leaves them less than half a step."""
    expected = np.zeros((1, models_made.CLASSES), dtype=np.uint8)
    expected[0, label] = 255
    return expected


def write_images(folder: Path, labels: range = range(models_made.CLASSES), suffix: str = ".png") -> Path:
    """Write one image per class, named by its label, in the order of the classes."""
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    for label in labels:
        Image.fromarray(models_made.pattern(label)).save(folder / f"{label}-{models_made.LABELS[label]}{suffix}")
    return folder
