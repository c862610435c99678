"""MNIST's own file format, and what damaged files get."""

from __future__ import annotations

import gzip
import struct
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tflotilla.host.models import datasets, idx
from tflotilla.shared.contract.errors import DatasetError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray


def packed(array: NDArray[np.uint8]) -> bytes:
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


@pytest.fixture
def digits() -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    random = np.random.default_rng(1)
    return random.integers(0, 256, (6, 3, 4), dtype=np.uint8), np.array([0, 1, 2, 2, 1, 0], np.uint8)


def test_images_and_labels_side_by_side_are_labelled_data(
    tmp_path: Path, digits: tuple[NDArray[np.uint8], NDArray[np.uint8]]
) -> None:
    images, labels = digits
    (tmp_path / "train-images-idx3-ubyte").write_bytes(packed(images[:0]))
    (tmp_path / "t10k-images-idx3-ubyte.gz").write_bytes(gzip.compress(packed(images), mtime=0))
    (tmp_path / "t10k-labels-idx1-ubyte").write_bytes(packed(labels))

    for path in (tmp_path, tmp_path / "t10k-images-idx3-ubyte.gz"):
        data = datasets.open_labelled(path, classes=3)
        assert data.array is not None
        assert np.array_equal(data.array, images)
        assert data.labels == tuple(labels.tolist())
        assert datasets.is_labelled(path)
    assert datasets.open_labelled(tmp_path, classes=4, offset=1).labels == (1, 2, 3, 3, 2, 1)
    with pytest.raises(DatasetError, match="label 2 has no output; the model has 2"):
        datasets.open_labelled(tmp_path, classes=2)


def test_images_without_labels_and_labels_of_others_are_refused(
    tmp_path: Path, digits: tuple[NDArray[np.uint8], NDArray[np.uint8]]
) -> None:
    images, labels = digits
    (tmp_path / "t10k-images-idx3-ubyte").write_bytes(packed(images))
    with pytest.raises(DatasetError, match=r"images without labels; t10k-labels-idx1-ubyte\(\.gz\) belongs beside"):
        datasets.open_labelled(tmp_path, classes=3)
    (tmp_path / "t10k-labels-idx1-ubyte").write_bytes(packed(labels[:5]))
    with pytest.raises(DatasetError, match="holds 6 images, t10k-labels-idx1-ubyte 5 labels"):
        datasets.open_labelled(tmp_path, classes=3)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "too short"),
        (b"\0\0\x08\x03\0\0", "too short"),
        (b"\0\0\x0d\x01\0\0\0\x01\0", "not an idx file of bytes"),
        (b"\0\0\x08\x01\0\0\0\x09\0", "holds 1 numbers, its head promises 9"),
        (b"\0\0\x08\x02\xff\xff\xff\xff\xff\xff\xff\xff", "its head promises"),
        (b"\x1f\x8bjunk", "can't be read"),
        (gzip.compress(b"\0\0\x08\x01\0\0\0\0", mtime=0)[:-6], "can't be read"),
    ],
)
def test_damaged_files_are_named(tmp_path: Path, data: bytes, words: str) -> None:
    file = tmp_path / "t10k-images-idx3-ubyte"
    file.write_bytes(data)

    with pytest.raises(DatasetError, match=words) as refused:
        idx.read(file)

    assert str(file) in str(refused.value)
