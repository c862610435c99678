"""Files of labels as people have them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tflotilla.host.bundles import labels
from tflotilla.shared.contract.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path


def _file(folder: Path, text: str | bytes) -> Path:
    path = folder / "labels of 'mine' $(x).txt"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("cat\ndog\n", ("cat", "dog")),
        ("\ufeffcat\r\ndog\r\n\r\n", ("cat", "dog")),
        ("0 cardboard\n1 plastic\n2 glass\n", ("cardboard", "plastic", "glass")),
        ("0  person\n1  bicycle\n3  car\n", ("person", "bicycle", "???", "car")),
        ("1 one\n2 two\n", ("one", "two")),
        ("10 downing street\n5 avenue\n", ("10 downing street", "5 avenue")),
        ("7 up\n8 mile\n", ("7 up", "8 mile")),
        ("a b c\nGrüße, Welt\n", ("a b c", "Grüße, Welt")),
    ],
)
def test_labels_are_read_in_the_order_of_the_classes(tmp_path: Path, text: str, expected: tuple[str, ...]) -> None:
    assert expected == labels.read(_file(tmp_path, text))


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"", "holds no label"), (b"\n\n", "holds no label"), (b"\xff\xfe\x00", "not a text"), (b"a\x1b[2J", "control")],
)
def test_what_is_no_list_of_labels_is_one_line(tmp_path: Path, content: bytes, words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        labels.read(_file(tmp_path, content))
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.txt"):
        labels.read(tmp_path / "none.txt")


def _fit(names: tuple[str, ...], classes: int, folder: Path) -> tuple[tuple[str, ...], list[str]]:
    notes: list[str] = []
    return labels.fit(names, classes, where=folder / "labels.txt", note=notes.append), notes


def test_as_many_labels_as_classes_are_taken_as_they_are(tmp_path: Path) -> None:
    assert (("a", "b"), []) == _fit(("a", "b"), 2, tmp_path)


def test_a_background_class_is_put_in_front_and_noted(tmp_path: Path) -> None:
    found, notes = _fit(tuple(f"c{i}" for i in range(1000)), 1001, tmp_path)

    assert ("background", "c0") == found[:2]
    assert 1001 == len(found)
    assert "background" in notes[0]


def test_a_background_label_without_a_class_is_left_out_and_noted(tmp_path: Path) -> None:
    found, notes = _fit(("background", "cat", "dog"), 2, tmp_path)

    assert ("cat", "dog") == found
    assert "left out" in notes[0]


@pytest.mark.parametrize("classes", [2, 4, 1001])
def test_any_other_number_is_refused_with_both_figures(tmp_path: Path, classes: int) -> None:
    with pytest.raises(InputError, match=f"3 labels, the model has {classes} classes"):
        _fit(("cat", "dog", "owl"), classes, tmp_path)
