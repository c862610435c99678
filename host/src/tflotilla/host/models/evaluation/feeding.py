"""Samples to input tensors: one at a time as a board does it, and many at a time to the same bits.

    images     decoded and preprocessed by the bundle's own code
    arrays     uint8 where a preprocessing is known: pixels; the input's own dtype: as they are; else real numbers

A sample's shape must be the input's, where dimensions of 1 say nothing, or flattened: (28, 28) feeds (1, 784). What it
does NOT do: guess which axis holds the channels.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tflotilla.shared.contract.errors import DatasetError, ModelError, UsageError
from tflotilla.shared.inference import images
from tflotilla.shared.inference.preprocessing import Preprocessor, real_levels
from tflotilla.shared.inference.quantization import quantize

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL import Image

    from tflotilla.shared.contract.processing import Preprocessing
    from tflotilla.shared.contract.tensors import TensorSpec

#: One array per input or output.
Tensors = tuple[NDArray[Any], ...]
_IMAGE_DIMENSIONS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Samples:
    """What is fed: files of images, or one array per input. Exactly one of both is set."""

    path: Path
    files: tuple[Path, ...] = ()
    arrays: Tensors = ()

    @property
    def count(self) -> int:
        """How many samples there are."""
        return len(self.files) or len(self.arrays[0])


class Feeder:
    """Makes the input tensors of one model. Reading is safe from several threads."""

    def __init__(self, samples: Samples, specs: Sequence[TensorSpec], preprocessing: Preprocessing | None) -> None:
        """Look whether the samples fit.

        Raises:
            DatasetError: they don't.
            UsageError: the preprocessing doesn't fit the input.

        """
        self._samples = samples
        self._columns: tuple[_Column, ...] = ()
        self._preprocessor: Preprocessor | None = None
        if not samples.files:
            self._columns = tuple(
                _Column(samples.path, array, spec, preprocessing)
                for array, spec in zip(samples.arrays, specs, strict=True)
            )
            return
        if len(specs) != 1:
            raise DatasetError(
                f"{samples.path}: images fit a model of one input, this one has {len(specs)}; give a .npz"
            )
        if preprocessing is None:
            raise UsageError(f"{samples.path}: how images become inputs is not said; give --preprocess")
        try:
            self._preprocessor = Preprocessor(preprocessing, specs[0])
        except ModelError as error:
            # What doesn't fit is what the user said about the images, not the file.
            raise UsageError(str(error)) from error

    @property
    def draft_size(self) -> tuple[int, int] | None:
        """See `Preprocessor.draft_size`."""
        return None if self._preprocessor is None else self._preprocessor.draft_size

    def single(self, index: int) -> tuple[Tensors, int, int]:
        """Return the tensors of one sample, the nanoseconds its decoding took, and when its preparation began."""
        begin = time.perf_counter_ns()
        if self._preprocessor is None:
            rows = slice(index, index + 1)
            return tuple(column.take(rows)[0] for column in self._columns), 0, begin
        image = images.open_image(self._samples.files[index], draft_size=self.draft_size)
        decoded = time.perf_counter_ns()
        return (self._preprocessor.prepare(image),), decoded - begin, decoded

    def many(self, rows: slice | NDArray[np.int64]) -> Tensors:
        """Return the tensors of several samples, (n, *shape of the input) each."""
        if self._preprocessor is not None:
            raise RuntimeError("images are read once, and prepared for each model: `read`, then `prepare`")
        return tuple(column.take(rows) for column in self._columns)

    def prepare(self, pictures: Sequence[Image.Image]) -> Tensors:
        """Return the tensors of several decoded images, (n, *shape of the input)."""
        assert self._preprocessor is not None  # noqa: S101 - only images are read
        return (np.stack([self._preprocessor.prepare(picture) for picture in pictures]),)


class _Column:
    """The values of one input."""

    def __init__(self, path: Path, array: NDArray[Any], spec: TensorSpec, preprocessing: Preprocessing | None) -> None:
        self._path = path
        self._array = array
        self._spec = spec
        self._shape = _fitted(path, array.shape[1:], spec)
        self._table: NDArray[Any] | None = None
        if array.dtype == np.uint8 and preprocessing is not None:
            self._preprocessor = _for_pixels(preprocessing, spec, array.shape[1:])
            if self._preprocessor is None:
                self._table = quantize(real_levels(preprocessing)[:, 0], spec)
        else:
            self._preprocessor = None
        if array.dtype.kind not in "fiub":
            raise DatasetError(f"{path}: holds {array.dtype}, not numbers")
        self._as_is = array.dtype == np.dtype(spec.dtype)

    def take(self, rows: slice | NDArray[np.int64]) -> NDArray[Any]:
        """Return (n, *shape of the input)."""
        taken = self._array[rows]
        shape = (len(taken), *self._shape)
        if self._preprocessor is not None:
            return self._preprocessor.prepare_pixels(taken.reshape(len(taken), *self._shape[1:])).reshape(shape)
        if self._table is not None:
            return self._table.take(taken).reshape(shape)
        if taken.dtype.kind == "f" and not np.isfinite(taken).all():
            wrong = int(np.argmin(np.isfinite(taken.reshape(len(taken), -1)).all(axis=1)))
            number = wrong + (rows.start or 0) if isinstance(rows, slice) else int(rows[wrong])
            raise DatasetError(f"{self._path}: sample {number} holds NaN or infinity")
        if self._as_is:
            return np.ascontiguousarray(taken.reshape(shape))
        return quantize(taken.reshape(shape), self._spec)


def _for_pixels(preprocessing: Preprocessing, spec: TensorSpec, given: Sequence[int]) -> Preprocessor | None:
    """Return who prepares pixels of an image input; None where every pixel is treated alike, in whatever shape."""
    alike = len(set(preprocessing.mean)) == len(set(preprocessing.std)) == 1
    is_image = len(spec.shape) == _IMAGE_DIMENSIONS and spec.shape[-1] in (1, 3) and -1 not in spec.shape[1:]
    if is_image:
        try:
            return Preprocessor(preprocessing, spec)
        except ModelError as error:
            raise UsageError(str(error)) from error
    if not alike or preprocessing.colour == "bgr":
        raise UsageError(
            f"pixels of shape {tuple(given)} for input {spec.name!r} of shape {spec.shape}: --preprocess treats the "
            "channels differently, and which axis holds them is not known; give real numbers, already preprocessed"
        )
    return None


def _fitted(path: Path, given: tuple[int, ...], spec: TensorSpec) -> tuple[int, ...]:
    """Return the tensor's shape for samples of a shape. Raises DatasetError."""
    wanted = tuple(spec.shape)
    real = [size for size in given if size != 1]
    if -1 in wanted[1:]:
        full = given if len(given) == len(wanted) else (1, *given)
        if len(full) == len(wanted) and all(want in (-1, have) for want, have in zip(wanted, full, strict=True)):
            return tuple(full)
    else:
        shape = tuple(1 if size == -1 else size for size in wanted)
        expected = [size for size in shape if size != 1]
        flat = len(real) <= 1 or len(expected) <= 1
        if real == expected or (flat and math.prod(real) == math.prod(expected)):
            return shape
        wanted = shape
    message = f"{path}: a sample has shape {given}, the model takes {wanted}"
    if sorted(real) == sorted(size for size in wanted if size != 1):
        message += "; the same sizes in another order: transpose the array"
    raise DatasetError(message)
