"""Samples travel unchanged, and nothing else is taken for samples."""

from __future__ import annotations

import io
import zipfile
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tflotilla.shared.contract.errors import DatasetError
from tflotilla.shared.inference import sample_set
from tflotilla.shared.inference.sample_set import SampleSet

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_TENSORS = tuple((np.full((2, 3), row, np.float32), np.arange(row + 1)) for row in range(3))


def _zip(members: Mapping[str, bytes], *, compression: int = zipfile.ZIP_STORED) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", compression) as archive:
        for name, data in members.items():
            # Of no date, as these bytes name test cases, which have the same name in every process.
            archive.writestr(zipfile.ZipInfo(name), data, compress_type=compression)
    return target.getvalue()


def _npy(array: np.ndarray, *, pickled: bool = False) -> bytes:  # type: ignore[type-arg]  # of anything
    target = io.BytesIO()
    np.save(target, array, allow_pickle=pickled)
    return target.getvalue()


def test_images_come_back_byte_for_byte_with_their_labels(tmp_path: Path) -> None:
    file = tmp_path / "samples.zip"
    file.write_bytes(sample_set.save(SampleSet(images=(b"one", b"", b"three"), labels=(4, 0, 9))))

    found = sample_set.load(file)

    assert (found.images, found.labels, found.tensors, len(found)) == ((b"one", b"", b"three"), (4, 0, 9), (), 3)


def test_tensors_of_several_inputs_come_back() -> None:
    found = sample_set.load(sample_set.save(SampleSet(tensors=_TENSORS)))

    assert len(found) == 3
    assert found.labels == ()
    for wanted, got in zip(_TENSORS, found.tensors, strict=True):
        for expected, actual in zip(wanted, got, strict=True):
            assert expected.dtype == actual.dtype
            np.testing.assert_array_equal(expected, actual)


def test_equal_samples_are_equal_bytes() -> None:
    one = SampleSet(tensors=_TENSORS, labels=(1, 2, 3))
    other = SampleSet(tensors=tuple(tuple(t.copy() for t in row) for row in _TENSORS), labels=(1, 2, 3))

    assert sample_set.save(one) == sample_set.save(other)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "can't be read as samples"),
        (b"PK\x03\x04 cut", "can't be read as samples"),
        (_zip({}), "at least one"),
        (_zip({"labels.json": b"[1]"}), "at least one"),
        (_zip({"image.00000": b"x", "labels.json": b"[1,2]"}), "1 samples but 2 labels"),
        (_zip({"image.00000": b"x", "labels.json": b'["cat"]'}), "not a list of class numbers"),
        (_zip({"image.00000": b"x", "labels.json": b"[true]"}), "not a list of class numbers"),
        (_zip({"image.00000": b"x", "labels.json": b"[-1]"}), "not a list of class numbers"),
        (_zip({"image.00000": b"x", "labels.json": b"[" * 5000}), "can't be read as samples"),
        (_zip({"image.00001": b"x"}), "follows a gap"),
        (_zip({"../image.00000": b"x"}), "is no sample"),
        (_zip({"image.00000": b"x" * 500}, compression=zipfile.ZIP_DEFLATED), "is compressed"),
        (_zip({"image.00000": b"x", "tensor.00000.000.npy": _npy(np.zeros(2))}), "never both"),
        (_zip({"tensor.00000.001.npy": _npy(np.zeros(2))}), "follows a gap"),
        (_zip({"tensor.00000.000.npy": _npy(np.array([{}], dtype=object), pickled=True)}), "what its header says"),
        (_zip({"tensor.00000.000.npy": _npy(np.zeros(2))[:-3]}), "what its header says"),
    ],
)
def test_anything_else_is_refused_in_one_line(data: bytes, reason: str) -> None:
    with pytest.raises(DatasetError, match=reason) as caught:
        sample_set.load(data)

    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"gone\.zip can't be read as samples: .*No such file"):
        sample_set.load(tmp_path / "gone.zip")


def test_objects_and_too_many_samples_are_refused_before_they_travel() -> None:
    with pytest.raises(DatasetError, match="sample 0 can't be sent"):
        sample_set.save(SampleSet(tensors=((np.array([{}], dtype=object),),)))
    with pytest.raises(DatasetError, match="at most 10000"):
        SampleSet(images=(b"",) * 10_001)
