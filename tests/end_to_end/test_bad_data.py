"""Data to calibrate, to evaluate and to make goldens with, that can't be used: named by file, before long work."""

from __future__ import annotations

import os
import pickle
import struct
import zipfile
import zlib
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from tests import models_made, sshd
from tests.end_to_end.commands import Person
from tests.end_to_end.mistakes import Clumsy, clumsy, complaint

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["clumsy"]
_GOLDENS = ("bundle", "create", "m.tflite", "--version", "1", "--key", "key", "-o", "x.tflb", "--goldens")


def _images() -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.stack([models_made.noisy(k, seed=k) for k in range(10)])[..., None]


def _npy_header(shape: str) -> bytes:
    text = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


def _zip(path: Path, name: str, data: bytes) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(name, data)


def _bomb() -> bytes:
    """Return a PNG of a megabyte's zeros that says it is 2.5 gigapixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    size = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 0, 0, 0, 0)
    pixels = chunk(b"IDAT", zlib.compress(bytes(1 << 20)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + pixels + chunk(b"IEND", b"")


def _folder(data: bytes | None, name: str = "a.png") -> Callable[[Path], object]:
    """Return the maker of a folder with one good image and, beside it, `data`."""

    def make(path: Path) -> None:
        path.mkdir()
        Image.fromarray(models_made.pattern(1)).save(path / "0.png")
        (path / name).write_bytes(data or b"")

    return make


#: Data that no reader takes, whatever the model: name, maker, words of the complaint.
_UNREADABLE: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "objects": ("x.npy", lambda p: np.save(p, np.array([{}], dtype=object), allow_pickle=True), "not an array"),
    "a pickle": ("x.npy", lambda p: p.write_bytes(pickle.dumps([1, 2])), "not an array"),
    "a pickle that runs code": (
        "x.npy",
        lambda p: p.write_bytes(b"cos\nsystem\n(S'touch pwned'\ntR."),
        "not an array",
    ),
    "text": ("x.npy", lambda p: p.write_text("hello"), "not an array"),
    "nothing": ("x.npy", lambda p: p.touch(), "not an array"),
    "a header alone": ("x.npy", lambda p: p.write_bytes(_npy_header("(9, 8, 8, 1)")), "not an array"),
    "more than there is memory": ("x.npy", lambda p: p.write_bytes(_npy_header("(10**12, 8)")), "not an array"),
    "a shape below zero": ("x.npy", lambda p: p.write_bytes(_npy_header("(-1, 8)")), "not an array"),
    "a folder": ("x.npy", lambda p: p.mkdir(), ""),
    "no zip": ("x.npz", lambda p: p.write_text("hello"), "not a .npz"),
    "an empty file": ("x.npz", lambda p: p.touch(), "not a .npz"),
    "objects in a zip": ("x.npz", lambda p: np.savez(p, x=np.array([{}], dtype=object)), "not a .npz"),
    "junk in a zip": ("x.npz", lambda p: _zip(p, "x.npy", b"junk"), "x is not an array"),
    "another zip": ("x.npz", lambda p: _zip(p, "word/document.xml", b"<x/>"), "is not an array"),
    "a folder without images": ("photos", lambda p: p.mkdir(), "holds no image"),
    "an empty image": ("photos", _folder(b""), "a.png is empty"),
    "a table": ("x.csv", lambda p: p.write_text("1,2"), "images"),
    "nowhere": ("x.npy", lambda p: p.with_name("y").touch(), "no such file"),
    "nowhere, a folder": ("photos", lambda p: p.with_name("y").touch(), "no such folder"),
}
#: Data that don't fit an input of (1, 8, 8, 1).
_UNFIT: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "a wrong shape": ("x.npy", lambda p: np.save(p, np.zeros((4, 9, 9, 1), np.uint8)), "(9, 9, 1)"),
    "NaN": ("x.npy", lambda p: np.save(p, np.full((4, 8, 8, 1), np.nan)), "sample 0 of input 'image' holds NaN"),
    "infinity": ("x.npy", lambda p: np.save(p, np.full((4, 8, 8, 1), np.inf)), "infinity"),
    "texts": ("x.npy", lambda p: np.save(p, np.full((4, 8, 8, 1), "a")), "not numbers"),
    "complex numbers": ("x.npy", lambda p: np.save(p, np.zeros((4, 8, 8, 1), complex)), "not numbers"),
    "dates": ("x.npy", lambda p: np.save(p, np.zeros((4, 8, 8, 1), "M8[s]")), "not numbers"),
    "a single number": ("x.npy", lambda p: np.save(p, np.float32(3)), "single number"),
    "no samples": ("x.npy", lambda p: np.save(p, np.zeros((0, 8, 8, 1), np.uint8)), "at least one"),
    "arrays of other names": ("x.npz", lambda p: np.savez(p, a=_images(), b=_images()), "holds a, b; expected"),
    "text as an image": ("photos", _folder(b"hello"), "not an image"),
    "half an image": ("photos", _folder(b"\x89PNG\r\n\x1a\n\x00\x00\x00\x0dIHDR\x00\x00"), "a.png"),
    "a decompression bomb": ("photos", _folder(_bomb()), "too many pixels"),
    "an image that is text": ("x.png", lambda p: p.write_text("hello"), "not an image"),
}
#: Labelled data that `evaluate` can't judge by.
_UNLABELLED: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "images without labels": ("photos", _folder(b"", "b.txt"), "images without labels"),
    "arrays without labels": ("x.npz", lambda p: np.savez(p, x=_images()), "holds x; labelled data is"),
    "too few labels": ("x.npz", lambda p: np.savez(p, x=_images(), y=np.arange(9)), "10 samples and y 9"),
    "labels beyond the outputs": ("x.npz", lambda p: np.savez(p, x=_images(), y=np.arange(10) + 1), "label 10 has no"),
    "labels below zero": ("x.npz", lambda p: np.savez(p, x=_images(), y=np.arange(10) - 1), "label -1 has no"),
    "labels that are texts": ("x.npz", lambda p: np.savez(p, x=_images(), y=np.array(["a"] * 10)), "whole numbers"),
    "labels with fractions": ("x.npz", lambda p: np.savez(p, x=_images(), y=np.arange(10) / 2), "whole numbers"),
    "no samples": ("x.npz", lambda p: np.savez(p, x=_images()[:0], y=np.arange(0)), "0 samples"),
    "one array": ("x.npy", lambda p: np.save(p, _images()), "labelled data is"),
    "junk in a zip": ("x.npz", lambda p: _zip(p, "x.npy", b"junk"), "x.npz"),
    "nowhere": ("photos", lambda p: p.with_name("y").touch(), "no such"),
}


def _table(rows: str) -> Callable[[Path], object]:
    def make(path: Path) -> None:
        _folder(b"", "b.txt")(path)
        (path / "labels.csv").write_text(rows)

    return make


_UNLABELLED |= {
    "a table of other files": ("photos", _table("file,label\nnone.png,1\n"), "which is not there"),
    "a table of strange labels": ("photos", _table("file,label\n0.png,unicorn\n"), "unicorn"),
    "a table of one column": ("photos", _table("file\n0.png\n"), "expected file,label"),
    "an empty table": ("photos", _table(""), "holds no rows"),
    "a table of nothing but a head": ("photos", _table("file,label\n"), "holds no rows"),
    "a table that leaves the folder": ("photos", _table("file,label\n../../nothing.png,1\n"), "which is not there"),
}


@pytest.fixture
def somebody(clumsy: Clumsy) -> Clumsy:
    """Give somebody with a good model, and a key to sign with."""
    (clumsy.folder / "m.tflite").write_bytes(models_made.read("tiny_classifier"))
    # Enough for the command to believe that it is a source: nobody comes as far as reading it.
    _zip(clumsy.folder / "m.keras", "config.json", b"{}")
    sshd.generate_key(clumsy.folder / "key")
    return clumsy


@pytest.mark.parametrize("kind", _UNREADABLE | _UNFIT)
def test_goldens_from_bad_data(somebody: Clumsy, kind: str) -> None:
    name, make, words = (_UNREADABLE | _UNFIT)[kind]
    make(somebody.folder / name)

    said = somebody.errs(*_GOLDENS, name, "--preprocess", "unit", code=3)

    assert name in said
    assert words in said


@pytest.mark.parametrize("kind", ["objects", "junk in a zip", "an empty image", "nowhere, a folder"])
def test_calibration_with_unreadable_data_ends_before_tensorflow_loads(somebody: Clumsy, kind: str) -> None:
    name, make, words = _UNREADABLE[kind]
    make(somebody.folder / name)

    ran = somebody.types("convert", "m.keras", "-o", "out", "--scheme", "int8", "--calibration", name)

    assert words in complaint(ran, 3)
    assert "loading TensorFlow" not in ran.err
    assert not (somebody.folder / "out").exists()


@pytest.mark.parametrize("kind", _UNLABELLED)
def test_evaluation_by_bad_labels(somebody: Clumsy, kind: str) -> None:
    name, make, words = _UNLABELLED[kind]
    make(somebody.folder / name)

    said = somebody.errs("evaluate", "m.tflite", "--data", name, "--preprocess", "unit", "--runtime", "litert", code=3)

    assert name in said
    assert words in said


@pytest.mark.parametrize("kind", ["text as an image", "a decompression bomb"])
def test_an_image_that_is_none_ends_an_evaluation(somebody: Clumsy, kind: str) -> None:
    _name, make, words = _UNFIT[kind]
    (somebody.folder / "photos").mkdir()
    make(somebody.folder / "photos" / "3")

    said = somebody.errs(
        "evaluate", "m.tflite", "--data", "photos", "--preprocess", "unit", "--runtime", "litert", code=3
    )

    assert "photos/3/a.png" in said
    assert words in said


def test_pixels_of_unknown_meaning_are_asked_about(somebody: Clumsy) -> None:
    np.savez(somebody.folder / "x.npz", x=np.zeros((4, 8, 8, 1)), y=np.arange(4))
    _folder(b"", "b.txt")(somebody.folder / "photos")

    assert "--preprocess" in somebody.errs(*_GOLDENS, "photos", code=3)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "holds no label"),
        (b"\n\n", "holds no label"),
        (b"\xff\xfe\x00", "UTF-8"),
        (b"a\nb\n", "2 labels, the model has 10 classes"),
        (b"a\x00\n" * 10, "control characters"),
        (b"\x1b[31mred\n" * 10, "control characters"),
        (b"x\n" * 100_001, "no list of labels"),
    ],
    ids=["empty", "blank", "UTF-16", "too few", "zeros", "escapes", "too many"],
)
def test_labels_that_are_none(somebody: Clumsy, data: bytes, words: str) -> None:
    (somebody.folder / "l.txt").write_bytes(data)

    said = somebody.errs(
        *("bundle", "create", "m.tflite", "--version", "1", "--key", "key", "-o", "x.tflb", "--labels", "l.txt"), code=3
    )

    assert said.startswith("l.txt: ")
    assert words in said


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads and writes everything")
def test_data_of_somebody_else(somebody: Clumsy) -> None:
    np.save(somebody.folder / "x.npy", _images())
    (somebody.folder / "x.npy").chmod(0)

    assert "x.npy" in somebody.errs(*_GOLDENS, "x.npy", "--preprocess", "unit", code=3)


def test_by_the_command_line_too(tmp_path: Path) -> None:
    """The same in a process of its own: exit code, one line, nothing on stdout, nothing left."""
    (tmp_path / "m.tflite").write_bytes(models_made.read("tiny_classifier"))
    _folder(b"")(tmp_path / "photos")
    person = Person(folder=tmp_path, home=tmp_path)

    ran = person.types("evaluate", "m.tflite", "--data", "photos", "--preprocess", "unit", "--json", code=3)

    assert "images without labels" in complaint(ran, 3)
    assert ran.out == ""
