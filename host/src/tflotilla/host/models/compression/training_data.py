"""Labelled data as `evaluate` takes them, in batches of real numbers, through the same preprocessing. No TensorFlow.

Rules it keeps: what is wrong with the data is said before training, not in its third epoch; the order of an epoch and
the split are functions of a seed; pictures are decoded batch by batch, and kept where they fit.
An .npy, or an .npz of x alone, has no labels: data for an autoencoder.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tflotilla.host.models import datasets, samples
from tflotilla.shared.contract.errors import DatasetError, ModelError, UsageError
from tflotilla.shared.contract.tensors import TensorSpec
from tflotilla.shared.inference.images import open_image
from tflotilla.shared.inference.preprocessing import Preprocessor

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tflotilla.shared.contract.processing import Preprocessing

#: Prepared samples up to this size stay in memory; above, pictures are decoded in every epoch.
_KEPT_BYTES = 2 * 1024**3
_LEAST_SAMPLES = 2
_LEAST_CLASSES = 2
_EVERY = 5


@dataclass(slots=True, kw_only=True)
class Samples:
    """Samples that become tensors when they are asked for; `labels` is None for an autoencoder's."""

    path: Path
    spec: TensorSpec
    prepare: Preprocessor | None
    files: tuple[Path, ...] = ()
    array: NDArray[Any] | None = None
    labels: NDArray[np.int64] | None = None
    _kept: dict[int, NDArray[np.float32]] = field(default_factory=dict)

    def __len__(self) -> int:
        """How many there are."""
        return len(self.files) if self.array is None else len(self.array)

    def tensors(self, indices: Sequence[int] | NDArray[np.int64]) -> NDArray[np.float32]:
        """Return samples as (N, …) float32.

        Raises:
            DatasetError: a picture can't be read, a sample holds NaN; names it.

        """
        return np.stack([self._tensor(int(index)) for index in indices])

    def subset(self, indices: NDArray[np.int64]) -> Samples:
        """Return some of them."""
        return Samples(
            path=self.path,
            spec=self.spec,
            prepare=self.prepare,
            files=tuple(self.files[i] for i in indices) if self.files else (),
            array=None if self.array is None else self.array[indices],
            labels=None if self.labels is None else self.labels[indices],
        )

    def digest(self) -> str:
        """Return what tells these samples from others: contents of arrays, names and sizes of files."""
        found = hashlib.sha256(repr((self.spec.shape, len(self))).encode())
        if self.labels is not None:
            found.update(np.ascontiguousarray(self.labels).tobytes())
        if self.array is not None:
            found.update(np.ascontiguousarray(self.array).tobytes())
        for file in self.files:
            found.update(f"{file.name}:{file.stat().st_size};".encode())
        return found.hexdigest()

    def _tensor(self, index: int) -> NDArray[np.float32]:
        if index in self._kept:
            return self._kept[index]
        made: NDArray[np.float32]
        if self.array is None:
            assert self.prepare is not None  # noqa: S101 - pictures are refused without
            image = open_image(self.files[index], draft_size=self.prepare.draft_size)
            made = self.prepare.prepare(image)[0]
        else:
            made = self._from_array(index, self.array[index])
        if self.array is None and len(self) * made.nbytes <= _KEPT_BYTES:
            self._kept[index] = made
        return made

    def _from_array(self, index: int, sample: NDArray[Any]) -> NDArray[np.float32]:
        shape = tuple(self.spec.shape[1:])
        if sample.dtype == np.uint8 and self.prepare is not None:
            pixels = sample.reshape(shape)
            squeezed = pixels[..., 0] if pixels.shape[-1] == 1 else pixels
            made: NDArray[np.float32] = self.prepare.prepare(Image.fromarray(np.ascontiguousarray(squeezed)))[0]
            return made
        if sample.dtype.kind == "f" and not np.isfinite(sample).all():
            raise DatasetError(f"{self.path}: sample {index} holds NaN or infinity")
        return np.asarray(sample, dtype=np.float32).reshape(shape)


def open_samples(
    path: Path,
    spec: TensorSpec,
    *,
    classes: int | None,
    preprocessing: Preprocessing | None,
    names: Sequence[str] = (),
    offset: int = 0,
) -> Samples:
    """Open data for a model of one input; `classes` is None when the output is none of classes.

    Raises:
        DatasetError: unreadable, empty, of another shape, NaN, one class only, labels without an output.
        UsageError: pixels without preprocessing.

    """
    labels: NDArray[np.int64] | None = None
    files: tuple[Path, ...] = ()
    array: NDArray[Any] | None
    if _unlabelled(path):
        array = _plain_array(path)
    else:
        if classes is None:
            raise DatasetError(f"{path}: has labels, and the model's output is not one score per class")
        data = datasets.open_labelled(path, names=names, classes=classes, offset=offset)
        labels, files, array = np.array(data.labels, dtype=np.int64), data.files, data.array
        if len(set(data.labels)) < _LEAST_CLASSES:
            raise DatasetError(f"{path}: all {len(data.labels)} samples are of class {data.labels[0]}; no use to train")
    count = len(files) if array is None else len(array)
    if count < _LEAST_SAMPLES:
        raise DatasetError(f"{path}: holds {count} sample(s); training needs more")
    pixels = array is None or array.dtype == np.uint8
    if pixels and preprocessing is None:
        raise UsageError(
            f"{path} holds pixels, and how they become inputs is half the model; say it with --preprocess "
            "(raw: 0..255, unit: 0..1, mobilenet: -1..1, …)"
        )
    made = Samples(
        path=path,
        spec=spec,
        prepare=_preprocessor(preprocessing, spec) if pixels and preprocessing is not None else None,
        files=tuple(files),
        array=None if array is None else _shaped(array, spec, path),
        labels=labels,
    )
    if made.array is not None and made.array.dtype.kind == "f":
        _refuse_bad_numbers(made.array, preprocessing, path)
    return made


def split(data: Samples, *, seed: int) -> tuple[Samples, Samples]:
    """Keep every fifth sample of every class for validation, chosen by the seed; return (train, validation).

    Where no class has five, every fifth of all.

    Raises:
        DatasetError: too few samples.

    """
    generator = np.random.Generator(np.random.PCG64(seed))
    labels = np.zeros(len(data), dtype=np.int64) if data.labels is None else data.labels
    held: list[int] = []
    for label in np.unique(labels):
        among = generator.permutation(np.flatnonzero(labels == label))
        held += [int(i) for i in among[: len(among) // _EVERY]]
    if not held:
        # Many classes of few samples: then of all together.
        held = [int(i) for i in generator.permutation(len(data))[: len(data) // _EVERY]]
    if not held:
        raise DatasetError(
            f"{data.path}: {len(data)} samples are too few to keep some for validation; give --validation"
        )
    mask = np.zeros(len(data), dtype=bool)
    mask[held] = True
    return data.subset(np.flatnonzero(~mask)), data.subset(np.flatnonzero(mask))


def order(count: int, *, seed: int, epoch: int) -> NDArray[np.int64]:
    """Return the order of an epoch's samples: the same for the same seed and epoch, whoever asks, whenever."""
    return np.random.Generator(np.random.PCG64([seed, epoch])).permutation(count)


def batches(data: Samples, size: int) -> Iterator[tuple[NDArray[np.float32], NDArray[np.int64]]]:
    """Yield (tensors, indices) in the data's own order."""
    for start in range(0, len(data), size):
        indices = np.arange(start, min(start + size, len(data)))
        yield data.tensors(indices), indices


def _unlabelled(path: Path) -> bool:
    if path.suffix == ".npy":
        return True
    if path.suffix != ".npz" or not path.is_file():
        return False
    try:
        with np.load(path, allow_pickle=False) as archive:
            return list(archive.files) == ["x"]
    except Exception:  # noqa: BLE001 - whoever opens it says what is wrong
        return False


def _plain_array(path: Path) -> NDArray[Any]:
    samples.check_readable(path)
    loaded = np.load(path, mmap_mode="r", allow_pickle=False)
    array: NDArray[Any] = loaded if isinstance(loaded, np.ndarray) else loaded["x"]
    if not array.ndim or not len(array):
        raise DatasetError(f"{path}: holds no samples")
    if array.dtype.kind not in "fiub":
        raise DatasetError(f"{path}: holds {array.dtype}, not numbers")
    return array


def _shaped(array: NDArray[Any], spec: TensorSpec, path: Path) -> NDArray[Any]:
    wanted = [size for size in spec.shape[1:] if size != 1]
    if [size for size in array.shape[1:] if size != 1] != wanted:
        raise DatasetError(
            f"{path}: a sample of shape {tuple(array.shape[1:])} does not fit input {spec.name!r} of shape {spec.shape}"
        )
    return array


def _refuse_bad_numbers(array: NDArray[Any], preprocessing: Preprocessing | None, path: Path) -> None:
    step = max(1, _KEPT_BYTES // 64 // max(1, math.prod(array.shape[1:]) * array.itemsize))
    least, greatest = math.inf, -math.inf
    for start in range(0, len(array), step):
        part = array[start : start + step]
        finite = np.isfinite(part).reshape(len(part), -1).all(axis=1)
        if not finite.all():
            raise DatasetError(f"{path}: sample {start + int(np.argmin(finite))} holds NaN or infinity")
        least, greatest = min(least, float(part.min())), max(greatest, float(part.max()))
    if preprocessing is not None:
        datasets.refuse_unprocessed(np.array([least, greatest]), preprocessing, path)


def _preprocessor(preprocessing: Preprocessing, spec: TensorSpec) -> Preprocessor:
    try:
        return Preprocessor(preprocessing, spec)
    except ModelError as error:
        # What doesn't fit is what the user said about the images, not the file.
        raise UsageError(str(error)) from error
