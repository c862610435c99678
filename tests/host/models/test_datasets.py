"""Data for calibration and evaluation, and what is said of data that can't be used."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from tflotilla.host.models import datasets
from tflotilla.host.models.datasets import Calibration
from tflotilla.shared.contract.errors import DatasetError, UsageError
from tflotilla.shared.contract.processing import Preprocessing
from tflotilla.shared.contract.tensors import TensorSpec

if TYPE_CHECKING:
    from pathlib import Path

GRAY = (TensorSpec(name="image", shape=(1, 8, 8, 1), dtype="float32"),)
UNIT = Preprocessing(colour="gray", std=(255.0,))


def photos(folder: Path, *names: str) -> Path:
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8), number * 20, np.uint8)).save(folder / name)
    return folder


def test_images_are_calibrated_with_through_the_preprocessing_of_boards(tmp_path: Path) -> None:
    data = Calibration.open(photos(tmp_path / "photos", "a.png", "sub/b.png", "c.png"))

    found = data.load(GRAY, UNIT, limit=10)

    assert [sample[0].shape for sample in found] == [(1, 8, 8, 1)] * 3
    assert [round(float(sample[0].max()) * 255) for sample in found] == [0, 40, 20]


def test_a_limit_takes_samples_spread_evenly(tmp_path: Path) -> None:
    np.save(
        tmp_path / "x.npy", np.arange(10, dtype=np.float32).reshape(10, 1, 1, 1) * np.ones((1, 8, 8, 1), np.float32)
    )

    found = Calibration.open(tmp_path / "x.npy").load(GRAY, None, limit=5)

    assert [float(sample[0].max()) for sample in found] == [0, 3, 5, 6, 9]


def test_samples_of_another_shape_are_refused_with_both_shapes(tmp_path: Path) -> None:
    file = tmp_path / "x.npy"
    np.save(file, np.zeros((3, 9, 8, 1), np.float32))

    with pytest.raises(
        DatasetError, match=r"x\.npy: a sample of shape \(9, 8, 1\) does not fit input 'image' of shape"
    ):
        Calibration.open(file).load(GRAY, None, limit=5)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_numbers_that_are_none_are_refused_with_their_place(tmp_path: Path, value: float) -> None:
    samples = np.zeros((3, 8, 8, 1), np.float32)
    samples[2, 1, 1, 0] = value
    np.save(tmp_path / "x.npy", samples)

    with pytest.raises(DatasetError, match=r"x\.npy: sample 2 of input 'image' holds NaN or infinity"):
        Calibration.open(tmp_path / "x.npy").load(GRAY, None, limit=5)


def test_empty_arrays_folders_and_files_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "none.npy", np.zeros((0, 8, 8, 1), np.float32))
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken.npz").write_bytes(b"PK\x03\x04 nonsense")
    (tmp_path / "notes.txt").write_text("not data")

    with pytest.raises(DatasetError, match=r"none\.npy"):
        Calibration.open(tmp_path / "none.npy").load(GRAY, None, limit=5)
    with pytest.raises(DatasetError, match="holds no image"):
        Calibration.open(tmp_path / "empty")
    with pytest.raises(DatasetError, match=r"broken\.npz: not a \.npz of arrays"):
        Calibration.open(tmp_path / "broken.npz").load(GRAY, None, limit=5)
    with pytest.raises(DatasetError, match="calibration data are a folder of images"):
        Calibration.open(tmp_path / "notes.txt")
    with pytest.raises(DatasetError, match="there is no such folder or file"):
        Calibration.open(tmp_path / "absent")


def test_one_unreadable_image_among_good_ones_is_an_error_that_names_it(tmp_path: Path) -> None:
    folder = photos(tmp_path / "photos", "a.png", "c.png")
    (folder / "b.png").write_text("this is no picture")

    with pytest.raises(DatasetError, match=r"b\.png is not an image"):
        Calibration.open(folder).load(GRAY, UNIT, limit=5)


def test_pixels_without_preprocessing_are_refused(tmp_path: Path) -> None:
    pixels = np.zeros((3, 8, 8, 1), np.uint8)
    np.save(tmp_path / "x.npy", pixels)
    np.savez(tmp_path / "labelled.npz", x=pixels, y=np.arange(3))

    for path in (photos(tmp_path / "photos", "a.png"), tmp_path / "x.npy", tmp_path / "labelled.npz"):
        with pytest.raises(UsageError, match="say it with --preprocess"):
            Calibration.open(path).load(GRAY, None, limit=5)


def test_floats_that_the_preprocessing_can_not_have_made_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.full((3, 8, 8, 1), 255, np.float32))

    with pytest.raises(DatasetError, match=r"reach from 255 to 255, but --preprocess makes 0 to 1"):
        Calibration.open(tmp_path / "x.npy").load(GRAY, UNIT, limit=5)


def test_colours_that_do_not_fit_the_model_are_an_error_of_the_data(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="say colour=gray"):
        Calibration.open(photos(tmp_path, "a.png")).load(GRAY, Preprocessing(std=(255.0,)), limit=1)


def test_several_inputs_take_an_npz_by_name(tmp_path: Path) -> None:
    specs = (
        TensorSpec(name="a", shape=(1, 2), dtype="float32"),
        TensorSpec(name="b", shape=(), dtype="float32"),
    )
    np.savez(tmp_path / "x.npz", b=np.array([1, 2], np.float32), a=np.zeros((2, 2), np.float32))

    found = Calibration.open(tmp_path / "x.npz").load(specs, None, limit=5)

    assert [(a.shape, float(b)) for a, b in found] == [((1, 2), 1.0), ((1, 2), 2.0)]


def test_class_folders_are_labelled_by_their_order_or_by_the_labels(tmp_path: Path) -> None:
    folder = photos(tmp_path / "data", "cat/1.png", "cat/2.png", "big_dog/1.png")

    by_order = datasets.open_labelled(folder, classes=2)
    by_name = datasets.open_labelled(folder, names=("mouse", "cat", "Big dog"), classes=3)

    assert by_order.labels == (0, 1, 1)
    assert by_name.labels == (2, 1, 1)
    (folder / "labels.txt").write_text("0 cat\n1 big dog\n2 mouse\n")
    assert datasets.open_labelled(folder, names=("x", "y", "z"), classes=3).labels == (1, 0, 0)


def test_folders_named_by_numbers_are_indices(tmp_path: Path) -> None:
    folder = photos(tmp_path, "7/a.png", "10/a.png")

    assert datasets.open_labelled(folder, classes=1001, offset=1).labels == (11, 8)


def test_a_table_places_files_by_index_or_by_name(tmp_path: Path) -> None:
    photos(tmp_path, "a.png", "b.png")
    (tmp_path / "labels.csv").write_text("file,imagenet_index,name\na.png,3,owl\nb.png,1,cat\n")
    assert datasets.open_labelled(tmp_path, classes=5).labels == (3, 1)

    (tmp_path / "labels.csv").write_text("file,name,label\na.png,1,owl\nb.png,2,cat\n")
    assert datasets.open_labelled(tmp_path, names=("cat", "owl"), classes=2).labels == (1, 0)

    (tmp_path / "labels.csv").write_text("a.png,2\nb.png,0\n")
    assert datasets.open_labelled(tmp_path, classes=3).labels == (2, 0)


def test_arrays_take_indices_or_one_hot_rows(tmp_path: Path) -> None:
    x = np.zeros((3, 8, 8), np.uint8)
    np.savez(tmp_path / "index.npz", x=x, y=np.array([[2], [0], [1]]))
    np.savez(tmp_path / "hot.npz", x=x, y=np.eye(3)[[2, 0, 1]])

    assert datasets.open_labelled(tmp_path / "index.npz", classes=3).labels == (2, 0, 1)
    assert datasets.open_labelled(tmp_path / "hot.npz", classes=3).labels == (2, 0, 1)


def test_a_limit_keeps_every_class_of_sorted_folders(tmp_path: Path) -> None:
    folder = photos(tmp_path, *(f"{label}/{i}.png" for label in range(3) for i in range(4)))

    assert datasets.open_labelled(folder, classes=3).take(6).labels == (0, 0, 1, 1, 2, 2)


def test_data_without_labels_are_refused_and_told_what_labelled_data_are(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", x=np.zeros((3, 8, 8)))
    np.save(tmp_path / "x.npy", np.zeros((3, 8, 8)))

    for path in (photos(tmp_path / "flat", "a.png"), tmp_path / "x.npz", tmp_path / "x.npy"):
        with pytest.raises(
            DatasetError, match=r"one subfolder per class, a folder with a labels\.csv .*npz with x and y"
        ):
            datasets.open_labelled(path, classes=10)


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ("a.png,7\n", r"label 7 has no output; the model has 3 \(0\.\.2\)"),
        ("a.png,-1\n", "label -1 has no output"),
        ("a.png,owl\n", "label 'owl' is not among the labels"),
        ("a.png\n", r"row 1 has 1 columns; expected file,label"),
        ("b.png,1\n", r"row 1 names 'b\.png', which is not there"),
        ("file,label\n", "holds no rows"),
    ],
)
def test_tables_that_do_not_fit_are_refused(tmp_path: Path, table: str, words: str) -> None:
    photos(tmp_path, "a.png")
    (tmp_path / "labels.csv").write_text(table)

    with pytest.raises(DatasetError, match=words):
        datasets.open_labelled(tmp_path, classes=3)


def test_another_number_of_class_folders_than_outputs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"has 2 class folders, the model 10 outputs; put a labels\.txt"):
        datasets.open_labelled(photos(tmp_path, "cat/a.png", "dog/a.png"), classes=10)


def test_arrays_of_different_length_or_without_indices_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "short.npz", x=np.zeros((3, 8)), y=np.zeros(2, np.int64))
    np.savez(tmp_path / "float.npz", x=np.zeros((3, 8)), y=np.zeros(3))
    np.savez(tmp_path / "text.npz", x=np.zeros((3, 8)), y=np.array(["a", "b", "c"]))

    with pytest.raises(DatasetError, match="x has 3 samples and y 2"):
        datasets.open_labelled(tmp_path / "short.npz", classes=3)
    for name in ("float", "text"):
        with pytest.raises(DatasetError, match="expected whole numbers"):
            datasets.open_labelled(tmp_path / f"{name}.npz", classes=3)


def test_labels_are_read_with_and_without_their_own_numbers(tmp_path: Path) -> None:
    file = tmp_path / "labels.txt"
    file.write_text("0 tench\n1: gold fish\n\n")
    assert datasets.read_labels(file) == ("tench", "gold fish")
    file.write_text("7 up\n3 way\n")
    assert datasets.read_labels(file) == ("7 up", "3 way")
    file.write_text("\n")
    with pytest.raises(DatasetError, match="holds no labels"):
        datasets.read_labels(file)
