"""Labelled boxes in every form, the same boxes; and what can't be right, by file and row."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from PIL import Image

from tflotilla.host.models import detection_data
from tflotilla.host.models.average_precision import LabelledBox
from tflotilla.shared.contract.errors import DatasetError

if TYPE_CHECKING:
    from pathlib import Path

    from tflotilla.host.models.detection_data import BoxedData

NAMES = {0: "person", 16: "cat", 17: "dog"}
WIDTH, HEIGHT = 200, 100
CAT = LabelledBox(index=16, box=(0.1, 0.25, 0.5, 0.75))
DOG = LabelledBox(index=17, box=(0.0, 0.0, 1.0, 1.0))
HEAD = "file,label,xmin,ymin,xmax,ymax\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a.png", "b.png"):
        Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / name)
    return tmp_path


def opened(path: Path, table: str | None = None, *, offset: int = 0) -> BoxedData:
    if table is not None:
        (path / "boxes.csv").write_text(table)
    return detection_data.open_boxed(path, names=NAMES, offset=offset)


@pytest.mark.parametrize(
    "table",
    [
        HEAD + "a.png,cat,50,10,150,50\na.png,dog,0,0,200,100\nb.png\n",
        "a.png,cat,50,10,150,50\na.png,17,0,0,200,100\nb.png,,,,,\n",
        HEAD + "a.png,Cat,0.25,0.1,0.75,0.5\na.png,dog,0,0,1,1\nb.png\n",
        "class,ymin,xmin,ymax,xmax,width,height,filename\n"
        "cat,10,50,50,150,200,100,a.png\ndog,0,0,100,200,200,100,a.png\n,,,,,,,b.png\n",
    ],
    ids=["pixels", "no head", "shares", "TensorFlow's columns"],
)
def test_a_table_in_pixels_or_shares(folder: Path, table: str) -> None:
    data = opened(folder, table)

    assert detection_data.has_boxes(folder)
    assert data.files == (folder / "a.png", folder / "b.png")
    assert data.boxes == ((CAT, DOG), ())
    assert data.take(1).files == (folder / "a.png",)


def test_coco_annotations_by_name_or_by_number(folder: Path) -> None:
    document = {
        "images": [{"id": 7, "file_name": "b.png"}, {"id": 3, "file_name": "a.png", "width": WIDTH, "height": HEIGHT}],
        "annotations": [
            {"id": 1, "image_id": 3, "category_id": 17, "bbox": [50, 10, 100, 40]},
            {"id": 2, "image_id": 3, "category_id": 18, "bbox": [0, 0, 200, 100], "iscrowd": 1},
        ],
        "categories": [{"id": 17, "name": "cat"}, {"id": 18, "name": "dog"}],
    }
    crowd = LabelledBox(index=17, box=DOG.box, crowd=True)
    (folder / "annotations").mkdir()
    file = folder / "annotations" / "instances_val.json"
    file.write_text(json.dumps(document))

    assert detection_data.has_boxes(folder)
    assert opened(folder).boxes == opened(file).boxes == ((CAT, crowd), ())
    # Without names COCO's own numbers count from 1.
    assert detection_data.open_boxed(file, names={}, offset=-1).boxes == ((CAT, crowd), ())


def test_pascal_voc_beside_the_pictures_or_in_folders(folder: Path) -> None:
    def voc(*objects: str) -> str:
        return f"<annotation><filename>a.png</filename>{''.join(objects)}</annotation>"

    def entry(name: str, difficult: int, *edges: int) -> str:
        names = zip(("xmin", "ymin", "xmax", "ymax"), edges, strict=True)
        box = "".join(f"<{key}>{value}</{key}>" for key, value in names)
        return f"<object><name>{name}</name><difficult>{difficult}</difficult><bndbox>{box}</bndbox></object>"

    text = voc(entry("cat", 0, 50, 10, 150, 50), entry("dog", 1, 0, 0, 200, 100))
    expected = ((CAT, LabelledBox(index=17, box=DOG.box, ignored=True)),)
    (folder / "a.xml").write_text(text)
    assert opened(folder).boxes == expected

    (folder / "a.xml").unlink()
    (folder / "Annotations").mkdir()
    (folder / "JPEGImages").mkdir()
    (folder / "Annotations" / "a.xml").write_text(text)
    (folder / "a.png").rename(folder / "JPEGImages" / "a.png")
    assert opened(folder).boxes == expected


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ("", "holds no boxes"),
        ("x.png,cat,0,0,5,5\n", "row 2 names 'x.png', which is not there"),
        ("a.png,unicorn,0,0,5,5\n", "row 2: label 'unicorn' is not among the labels; the labels are person, cat, dog"),
        ("a.png,cat,5,0,5,5\n", "row 2: box 5,0,5,5 has no area; expected xmin < xmax"),
        ("a.png,cat,0,0,300,50\n", "row 2: box 0,0,300,50 lies outside of its picture of 200x100 pixels"),
        ("a.png,cat,-9,0,50,50\n", "lies outside of its picture"),
        ("a.png,cat,0,0,wide,5\n", "are not the four numbers of a box"),
        ("a.png,cat,0,0,nan,5\n", "holds NaN or infinity"),
        ("a.png,cat,0,0,5\n", "row 2 has 5 columns; expected file,label,xmin,ymin,xmax,ymax"),
        ("a.png,cat,0,0,1.5,1.5\n", "too far for shares of 0..1, too near for pixels"),
        ("a.png,-3,0,0,5,5\n", "label -3 becomes class -3; classes begin at 0"),
    ],
)
def test_rows_that_can_not_be_right_are_named(folder: Path, rows: str, words: str) -> None:
    with pytest.raises(DatasetError) as refused:
        opened(folder, HEAD + rows)

    assert words in str(refused.value)
    assert str(folder) in str(refused.value)


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("boxes.csv", "", "holds no rows"),
        ("boxes.csv", "file,label\na.png,cat\n", "its head lacks xmin, ymin, xmax, ymax"),
        ("boxes.csv", "\xff\xfe\n", "not there"),
        ("a.json", "[1", "no labelled boxes"),
        ("a.json", '{"images": [], "annotations": []}', "holds no boxes"),
        ("a.json", '{"images": [{"file_name": "a.png"}], "annotations": []}', "KeyError at 'id'"),
        (
            "a.json",
            '{"images": [], "annotations": [{"image_id": 1, "category_id": 1, "bbox": [0, 0, 1, 1]}]}',
            "names image 1, which is not among the images",
        ),
        ("a.json", '{"images": [{"id": 1, "file_name": "x.png"}], "annotations": []}', "names 'x.png', which is not"),
        ("a.xml", "<annotation>", "not XML that can be read"),
        ("a.xml", "<annotation><object><name>cat</name></object></annotation>", "lacks its name or its bndbox"),
    ],
)
def test_files_that_can_not_be_read_are_named(folder: Path, name: str, text: str, words: str) -> None:
    (folder / name).write_text(text)

    with pytest.raises(DatasetError) as refused:
        opened(folder)

    assert words in str(refused.value)
    assert str(folder) in str(refused.value)


def test_a_damaged_json_that_is_named_and_pictures_that_are_none(folder: Path) -> None:
    (folder / "a.json").write_text("[1")
    with pytest.raises(DatasetError, match="not JSON"):
        opened(folder / "a.json")
    (folder / "a.png").write_text("no image")
    with pytest.raises(DatasetError, match=r"a\.png is not an image"):
        opened(folder, HEAD + "a.png,cat,0,0,50,50\n")


def test_labels_by_line_by_number_and_without_the_background(tmp_path: Path) -> None:
    file = tmp_path / "labels.txt"
    for text, expected in (
        ("person\nbicycle\n", {0: "person", 1: "bicycle"}),
        ("???\nperson\nbicycle\n", {0: "person", 1: "bicycle"}),
        ("0  person\n2: stop sign\n", {0: "person", 2: "stop sign"}),
    ):
        file.write_text(text)
        assert detection_data.read_label_map(file) == expected
    file.write_text("\n")
    with pytest.raises(DatasetError, match="holds no labels"):
        detection_data.read_label_map(file)
