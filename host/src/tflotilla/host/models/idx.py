"""MNIST's own files: idx, gzipped or not, images and labels side by side.

Source: Y. LeCun, "The MNIST database of handwritten digits": two zero bytes, a byte for the type, one for the number of
dimensions, the sizes as big-endian uint32, the numbers. What it does NOT do: download, or read other types than bytes.
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from typing import TYPE_CHECKING

import numpy as np

from tflotilla.shared.contract.errors import DatasetError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

_BYTES = 0x08
_IMAGE_KINDS = (("-images-idx3-ubyte", "-labels-idx1-ubyte"), ("-images.idx3-ubyte", "-labels.idx1-ubyte"))
_GZIP = b"\x1f\x8b"
#: Sizes of the dimensions can't be larger together: a damaged head must not fill the memory.
_MOST_BYTES = 1 << 32


def find(path: Path) -> tuple[Path, Path] | None:
    """Return images and labels of a folder, or of the one file that is named; None where there are no such files.

    A folder that holds a test set (`t10k-…`) and a training set gives the test set: nobody is judged by what he learnt.

    Raises:
        DatasetError: images without labels.

    """
    files = [path] if path.is_file() else sorted(path.iterdir()) if path.is_dir() else []
    for file in sorted(files, key=lambda each: (each.name.startswith("train"), each.name)):
        for images, labels in _IMAGE_KINDS:
            if images not in file.name:
                continue
            beside = [
                file.with_name(file.name.replace(images, labels).removesuffix(".gz") + end) for end in ("", ".gz")
            ]
            found = next((each for each in beside if each.is_file()), None)
            if found is None:
                raise DatasetError(f"{file}: images without labels; {beside[0].name}(.gz) belongs beside it")
            return file, found
    return None


def read(path: Path) -> NDArray[np.uint8]:
    """Read one file. Raises DatasetError."""
    try:
        data = path.read_bytes()
        if data[:2] == _GZIP:
            data = gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        raise DatasetError(f"{path}: can't be read ({error})") from error
    try:
        zero, kind, dimensions = struct.unpack_from(">HBB", data)
        shape = struct.unpack_from(f">{dimensions}I", data, 4)
    except struct.error:
        raise DatasetError(f"{path}: too short for an idx file") from None
    if zero or kind != _BYTES or not dimensions:
        raise DatasetError(f"{path}: not an idx file of bytes")
    begin, size = 4 + 4 * dimensions, math.prod(shape)
    if size > _MOST_BYTES or len(data) - begin != size:
        raise DatasetError(f"{path}: holds {len(data) - begin:,} numbers, its head promises {size:,}")
    return np.frombuffer(data, dtype=np.uint8, offset=begin).reshape(shape)
