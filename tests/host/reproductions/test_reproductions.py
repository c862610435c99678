"""The cases by name, their page, and the folder of real data. The cases themselves run in `tests/slow`."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tflotilla.host.reproductions import catalogue, desk, mnist
from tflotilla.host.reproductions.reproduction import Reproduction, Row, markdown, megabytes
from tflotilla.shared.contract.errors import DatasetError, UsageError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("name", catalogue.CASES)
def test_every_case_says_what_it_is_and_needs(name: str) -> None:
    case = catalogue.case(name)

    assert case.TITLE
    assert case.MINUTES > 0
    assert isinstance(case.NEEDS, str)
    assert callable(case.run)


def test_all_is_every_case_and_a_wrong_name_proposes_the_nearest() -> None:
    assert catalogue.choose(["all"]) == catalogue.CASES
    assert catalogue.choose(["mtcnn", "float16", "mtcnn"]) == ("mtcnn", "float16")
    with pytest.raises(UsageError, match="no case 'mnist-uint16'; did you mean mnist-uint8"):
        catalogue.choose(["mnist-uint16"])


def test_a_page_has_a_table_for_each_case_and_says_what_fails() -> None:
    done = Reproduction(
        name="x",
        title="A title",
        rows=(
            Row(what="size | zipped", published="4 MB", ours="4.1 MB"),
            Row(what="ratio", published="2×", ours="1×", holds=False),
        ),
        remarks=("The weights are random.",),
    )

    page = markdown([done], "two cores")

    assert not done.holds
    assert "## A title\n\n`tflotilla reproduce x`" in page
    assert "| size \\| zipped | 4 MB | 4.1 MB |  |" in page
    assert "| ratio | 2× | 1× | NO |" in page
    assert "- The weights are random.\n" in page


def test_sizes_are_spelled_as_published() -> None:
    assert ["401 kB", "14.0 MB"] == [megabytes(401_234), megabytes(14_012_345)]


def test_data_are_found_by_name_wherever_they_lie(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "mtcnn.pb").write_text("")
    place = desk.Desk(folder=tmp_path, data=tmp_path)

    assert place.find("mtcnn.pb") == tmp_path / "a" / "b" / "mtcnn.pb"
    assert not place.finds("*.onnx")
    with pytest.raises(DatasetError, match=r"holds no \*\.onnx"):
        place.find("*.onnx")
    with pytest.raises(UsageError, match="say in which folder with --data"):
        desk.Desk(folder=tmp_path, data=None).find("mtcnn.pb")
    monkeypatch.setenv(desk.VARIABLE, str(tmp_path / "absent"))
    with pytest.raises(DatasetError, match="no such folder"):
        desk.data_folder(None)


def test_mnist_is_read_from_its_own_files_and_padded_to_the_size_of_cifar(tmp_path: Path) -> None:
    images = np.arange(3 * 28 * 28, dtype=np.uint8).reshape(3, 28, 28)
    (tmp_path / "t10k-images-idx3-ubyte").write_bytes(struct.pack(">HBB3I", 0, 8, 3, 3, 28, 28) + images.tobytes())
    (tmp_path / "t10k-labels-idx1-ubyte").write_bytes(struct.pack(">HBBI", 0, 8, 1, 3) + bytes([7, 2, 1]))
    place = desk.Desk(folder=tmp_path, data=tmp_path)

    with np.load(mnist.coloured(place, "test", 2)) as archive:
        x, y = archive["x"], archive["y"]

    assert (2, 32, 32, 3) == x.shape
    assert [7, 2] == y.tolist()
    assert np.array_equal(images[1], x[1, 2:30, 2:30, 1])
    assert 0 == x[:, :2].max()
