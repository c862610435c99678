"""Labelled data of the user as samples for a board: encoded pictures where there are pictures, real numbers elsewhere.

Speed is quoted beside correctness: what a board times its inferences with, it also has to answer rightly. Pixels of
arrays become PNGs, so that decoding and preprocessing are the board's, as for the pictures it will see.
What it does NOT do: send, or say how good the model is.
"""

from __future__ import annotations

import io
import math
from typing import TYPE_CHECKING

import numpy as np

from tflotilla.host.models import datasets
from tflotilla.shared.contract.errors import DatasetError, UsageError
from tflotilla.shared.contract.manifest import LABELS
from tflotilla.shared.contract.session import MAX_SAMPLES_BYTES
from tflotilla.shared.inference import sample_set
from tflotilla.shared.inference.sample_set import SampleSet

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from tflotilla.host.bundles.archive import Bundle

_IMAGE_DIMENSIONS = (2, 3)
_CHANNELS = (1, 3)


def load(path: Path, bundle: Bundle, *, limit: int, offset: int = 0) -> bytes:
    """Return up to `limit` samples, spread evenly, with the indices of their classes, as `sample_set` writes them.

    Raises:
        DatasetError: unlabelled, empty, labels without an output, more than a board takes, or no classifier.
        UsageError: the bundle doesn't say how pictures become inputs.

    """
    manifest = bundle.manifest
    if manifest.postprocessing.kind != "classification":
        raise DatasetError(f"{path}: {manifest.title} is no classifier, and only answers of classifiers are counted")
    classes = math.prod(size for size in manifest.outputs[0].shape if size > 0)
    names: tuple[str, ...] = ()
    if LABELS in manifest.files:
        names = tuple(bundle.read(LABELS).decode(errors="replace").splitlines())
    found = datasets.open_labelled(path, names=names, classes=classes, offset=offset).take(limit)
    if found.files and manifest.preprocessing is None:
        raise UsageError(f"{path} holds pictures, and {manifest.title} doesn't say how they become inputs")
    array = found.array
    if found.files:
        samples = SampleSet(images=tuple(_read(file) for file in found.files), labels=found.labels)
    elif array is None:
        raise DatasetError(f"{path}: there is nothing in it")
    elif array.dtype == np.uint8 and manifest.preprocessing is not None and _are_pictures(array):
        samples = SampleSet(images=tuple(_png(pixels) for pixels in array), labels=found.labels)
    else:
        shape = tuple(max(1, size) for size in manifest.inputs[0].shape)
        if math.prod(array.shape[1:]) != math.prod(shape):
            raise DatasetError(f"{path}: a sample has shape {array.shape[1:]}, {manifest.title} takes {shape}")
        rows = array.astype(np.float32).reshape(len(array), *shape)
        samples = SampleSet(tensors=tuple((row,) for row in rows), labels=found.labels)
    data = sample_set.save(samples)
    if len(data) > MAX_SAMPLES_BYTES:
        raise DatasetError(
            f"{path}: {len(samples)} samples are {len(data) / 1e6:.0f} MB, a board takes {MAX_SAMPLES_BYTES / 1e6:.0f}"
            "; take fewer with --samples"
        )
    return data


def _are_pictures(array: NDArray[np.generic]) -> bool:
    shape = array.shape[1:]
    return len(shape) in _IMAGE_DIMENSIONS and (len(shape) == _IMAGE_DIMENSIONS[0] or shape[-1] in _CHANNELS)


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise DatasetError(f"{file} can't be read: {error.strerror or error}") from error


def _png(pixels: NDArray[np.generic]) -> bytes:
    from PIL import Image

    squeezed = pixels[..., 0] if pixels.ndim == _IMAGE_DIMENSIONS[1] and pixels.shape[-1] == 1 else pixels
    target = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(squeezed)).save(target, "PNG")
    return target.getvalue()
