"""Samples on their way to a board: encoded images or arrays, with labels where they are known.

One file, written on the host and read on the board: `image.00000` (an encoded picture as it is) or
`tensor.00000.000.npy` (one per input of the model, real-valued, as `preprocessing.from_real` takes them), and
`labels.json`, a list of class numbers as the model counts them. Equal samples give equal bytes, so that their SHA-256
names them.

Rules it keeps: nothing is unpickled, and a file that holds anything else is refused whole. What it does NOT do: decode
or preprocess (that is what a benchmark times), or choose samples.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tflotilla.shared.contract.errors import DatasetError
from tflotilla.shared.inference import stored_zip

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from tflotilla.shared.inference.runtime import Tensor

    Tensors = tuple[Tensor, ...]

#: As many as a benchmark can rotate over, and more than any board wants to receive.
MAX_SAMPLES = 10_000
MAX_BYTES = 512 << 20
_LABELS = "labels.json"
_IMAGE = re.compile(r"image\.(\d{5})")
_TENSOR = re.compile(r"tensor\.(\d{5})\.(\d{3})\.npy")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SampleSet:
    """Either images or tensors, and a label for each or none."""

    images: tuple[bytes, ...] = ()
    tensors: tuple[Tensors, ...] = ()
    labels: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        """Refuse both kinds at once, none, too many, or labels that don't match. Raises DatasetError."""
        if bool(self.images) == bool(self.tensors):
            message = "samples are images or tensors, at least one, and never both"
            raise DatasetError(message)
        if len(self) > MAX_SAMPLES:
            message = f"{len(self)} samples; a board takes at most {MAX_SAMPLES}"
            raise DatasetError(message)
        if self.labels and len(self.labels) != len(self):
            message = f"{len(self)} samples but {len(self.labels)} labels"
            raise DatasetError(message)

    def __len__(self) -> int:
        """How many samples there are."""
        return len(self.images) or len(self.tensors)


def save(samples: SampleSet) -> bytes:
    """Serialize; equal samples give equal bytes.

    Raises:
        DatasetError: a tensor holds Python objects, or all of it is more than `MAX_BYTES`.

    """
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for row, image in enumerate(samples.images):
            stored_zip.add(archive, f"image.{row:05}", image)
            _check_size(target.tell())
        for row, tensors in enumerate(samples.tensors):
            for column, tensor in enumerate(tensors):
                try:
                    stored_zip.add_tensor(archive, f"tensor.{row:05}.{column:03}.npy", np.asarray(tensor, order="C"))
                except ValueError as error:
                    message = f"sample {row} can't be sent: {error}"
                    raise DatasetError(message) from error
            _check_size(target.tell())
        if samples.labels:
            text = json.dumps([int(label) for label in samples.labels], separators=(",", ":"))
            stored_zip.add(archive, _LABELS, text.encode())
    return target.getvalue()


def load(source: bytes | Path) -> SampleSet:
    """Read what `save` wrote.

    Raises:
        DatasetError: it is something else, or damaged; in one line.

    """
    where = "the samples" if isinstance(source, bytes) else str(source)
    try:
        size = len(source) if isinstance(source, bytes) else source.stat().st_size
        _check_size(size)
        with zipfile.ZipFile(io.BytesIO(source) if isinstance(source, bytes) else source) as archive:
            return _read(archive)
    except DatasetError as error:
        message = f"{where}: {error}"
        raise DatasetError(message) from error
    except (*stored_zip.ERRORS, RecursionError) as error:
        message = f"{where} can't be read as samples: {' '.join(str(error).split()) or type(error).__name__}"
        raise DatasetError(message) from error


def _read(archive: zipfile.ZipFile) -> SampleSet:
    images: list[bytes] = []
    rows: list[list[NDArray[Any]]] = []
    labels: tuple[int, ...] = ()
    # In order, as they were written: whatever is twice, left out or strange ends it.
    for member in archive.infolist():
        if image := _IMAGE.fullmatch(member.filename):
            _check_next(int(image[1]), len(images), member)
            images.append(stored_zip.read(archive, member))
        elif tensor := _TENSOR.fullmatch(member.filename):
            row, column = int(tensor[1]), int(tensor[2])
            if row == len(rows):
                rows.append([])
            _check_next(row, len(rows) - 1, member)
            _check_next(column, len(rows[-1]), member)
            rows[-1].append(stored_zip.read_tensor(archive, member))
        elif member.filename == _LABELS:
            labels = _labels(stored_zip.read(archive, member))
        else:
            message = f"{member.filename[:80]!r} is no sample"
            raise DatasetError(message)
    return SampleSet(images=tuple(images), tensors=tuple(tuple(row) for row in rows), labels=labels)


def _labels(data: bytes) -> tuple[int, ...]:
    found = json.loads(data)
    if not isinstance(found, list) or any(type(label) is not int or not 0 <= label < 1 << 31 for label in found):
        message = f"{_LABELS} is not a list of class numbers"
        raise DatasetError(message)
    return tuple(found)


def _check_next(number: int, expected: int, member: zipfile.ZipInfo) -> None:
    if number != expected:
        message = f"{member.filename} follows a gap"
        raise DatasetError(message)


def _check_size(size: int) -> None:
    if size > MAX_BYTES:
        message = f"samples of {size >> 20} MiB; a board takes at most {MAX_BYTES >> 20}"
        raise DatasetError(message)
