"""Models that are none, are damaged, or hold what no runtime here has: by every command that takes a model."""

from __future__ import annotations

import random
import shutil
import zipfile
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from tests import catalogue, models_made, sshd
from tests.end_to_end.commands import Person
from tests.end_to_end.mistakes import Clumsy, clumsy, complaint

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["clumsy"]
_GOOD = models_made.read("tiny_classifier")
_BUNDLE = ("--name", "x", "--version", "1", "--key", "key", "--preprocess", "unit", "-o", "x.tflb")
_MADE: dict[str, Callable[[Path], object]] = {
    "random bytes": lambda path: path.write_bytes(random.Random(1).randbytes(4000)),  # noqa: S311 - the same each time
    "a header and random bytes": lambda path: path.write_bytes(
        _GOOD[:8] + random.Random(1).randbytes(4000)  # noqa: S311
    ),
    "nothing": lambda path: path.touch(),
    "an image": lambda path: Image.new("RGB", (8, 8)).save(path, format="PNG"),
    "JSON": lambda path: path.write_text("{}"),
    "text": lambda path: path.write_text("hello\n"),
    "a web page": lambda path: path.write_text("<!DOCTYPE html><title>Sign in</title>"),
    "a folder": lambda path: path.mkdir(),
    "a zip": lambda path: zipfile.ZipFile(path, "w").close(),
    "a Git LFS pointer": lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\n"),
    "a dangling link": lambda path: path.symlink_to("nowhere"),
}


@pytest.fixture
def somebody(clumsy: Clumsy) -> Clumsy:
    """Give somebody who has a key to sign with and labelled data."""
    sshd.generate_key(clumsy.folder / "key")
    images = np.stack([models_made.noisy(k, seed=k) for k in range(10)])[..., None]
    np.savez(clumsy.folder / "data.npz", x=images, y=np.arange(10))
    return clumsy


def _evaluate(model: str | Path) -> tuple[str | Path, ...]:
    return ("evaluate", model, "--data", "data.npz", "--preprocess", "unit,colour=gray", "--runtime", "litert")


@pytest.mark.parametrize("kind", _MADE)
def test_what_is_no_model_is_named(somebody: Clumsy, kind: str) -> None:
    model = 'it\'s a "model".tflite'
    _MADE[kind](somebody.folder / model)

    for command in (("inspect", model), ("bundle", "create", model, *_BUNDLE), _evaluate(model)):
        said = somebody.errs(*command, code=3)
        assert model in said


@pytest.mark.parametrize("name", ["model.keras", "model.h5", "model.pb", "model.tflite"])
@pytest.mark.parametrize("kind", _MADE)
def test_what_is_no_source_is_named_before_tensorflow_starts(clumsy: Clumsy, kind: str, name: str) -> None:
    _MADE[kind](clumsy.folder / name)

    said = clumsy.errs("convert", name, "-o", "out", code=3)

    assert name in said


def test_a_converted_model_under_another_name_is_recognized(clumsy: Clumsy) -> None:
    for name in ("model.keras", "model.h5", "model.pb"):
        (clumsy.folder / name).write_bytes(_GOOD)
        assert "quantized already" in clumsy.errs("convert", name, "-o", "out", code=12)


def test_a_missing_file_is_said_to_be_missing(somebody: Clumsy) -> None:
    for command in (("inspect", "m"), ("bundle", "create", "m", *_BUNDLE), _evaluate("m"), ("convert", "m", "-o", "o")):
        assert somebody.errs(*command, code=3).startswith("m: ")


@pytest.mark.parametrize("length", [1, 4, 7, 8, 9, 12, 20, 100, 500, len(_GOOD) // 2, len(_GOOD) - 40, len(_GOOD) - 1])
def test_a_truncated_model_is_named(somebody: Clumsy, length: int) -> None:
    (somebody.folder / "cut.tflite").write_bytes(_GOOD[:length])

    said = somebody.errs("inspect", "cut.tflite", code=3)
    assert said.startswith("cut.tflite: ")
    assert said == somebody.errs("bundle", "create", "cut.tflite", *_BUNDLE, code=3)


def test_flipped_bits_never_crash_the_reader(clumsy: Clumsy) -> None:
    """Whatever is wrong with a file, it is read or refused in one line."""
    chance = random.Random(7)  # noqa: S311 - the same each time
    damaged = clumsy.folder / "damaged.tflite"
    refused = 0
    for _ in range(200):
        data = bytearray(_GOOD)
        for _ in range(chance.choice([1, 1, 3, 10])):
            data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        damaged.write_bytes(data)
        ran = clumsy.types("inspect", damaged.name, "--json")
        if ran.code:
            refused += 1
            assert complaint(ran, 3).startswith("damaged.tflite: ")
    assert refused > 20


def test_flipped_bits_never_crash_whoever_runs_it(somebody: Clumsy) -> None:
    """Runtimes die of such files: in a child process, which is said in one line, and no bundle is left."""
    chance = random.Random(11)  # noqa: S311 - the same each time
    damaged = somebody.folder / "damaged.tflite"
    for _ in range(6):
        data = bytearray(_GOOD)
        for _ in range(2):
            data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        damaged.write_bytes(data)
        ran = somebody.types("bundle", "create", damaged.name, *_BUNDLE)
        if ran.code:
            assert complaint(ran, 3).startswith("damaged.tflite: ")
            assert not (somebody.folder / "x.tflb").exists()
        (somebody.folder / "x.tflb").unlink(missing_ok=True)


def test_a_custom_op_is_shown_and_named_by_whoever_would_run_it(somebody: Clumsy) -> None:
    (somebody.folder / "m.tflite").write_bytes(models_made.read("custom_op"))

    shown = somebody.types("inspect", "m.tflite")
    assert shown.code == 0
    assert "custom op" in shown.out

    op = shown.out.split("custom ops")[1].split()[0]
    for command in (("bundle", "create", "m.tflite", *_BUNDLE), _evaluate("m.tflite")):
        said = somebody.errs(*command, code=3)
        assert said.startswith("m.tflite: ")
        assert f"custom op '{op}'" in said


def test_an_op_of_a_newer_version_is_named_with_both_versions(somebody: Clumsy) -> None:
    (somebody.folder / "m.tflite").write_bytes(models_made.read("op_version_too_high"))

    for command in (("bundle", "create", "m.tflite", *_BUNDLE), _evaluate("m.tflite")):
        said = somebody.errs(*command, code=3)
        assert "FULLY_CONNECTED version" in said
        assert "accepts 1.." in said


@pytest.mark.catalogue
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("softplus_flex", "FlexSoftplus need the Flex delegate"),
        ("custom_sinh", "custom op 'Sinh'"),
        ("mobilenet_v1_0.25_128_quant_edgetpu", "Edge TPU"),
        ("string_input_model", "text"),
        ("no_subgraphs", "no subgraph"),
        ("test_model_broken", "not a TFLite model"),
    ],
)
def test_a_troublesome_model_is_refused_in_our_words(somebody: Clumsy, name: str, words: str) -> None:
    model = catalogue.path(f"models/troublesome_tflite/{name}.tflite")

    said = somebody.errs("bundle", "create", model, *_BUNDLE, code=3)

    assert words in said


def test_by_the_command_line_too(tmp_path: Path) -> None:
    """The same in a process of its own: exit code, one line, nothing on stdout."""
    person = Person(folder=tmp_path, home=tmp_path)
    (tmp_path / "cut.tflite").write_bytes(_GOOD[:700])

    ran = person.types("inspect", "cut.tflite", "--json", code=3)

    assert "corrupt or truncated" in complaint(ran, 3)
    assert ran.out == ""


@pytest.fixture(scope="module")
def keras_model() -> Path:
    return catalogue.path("models/mnist/mnist_model.keras")


def _cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


def _flip(data: bytes) -> bytes:
    changed = bytearray(data)
    for place in range(2000, len(changed), 5000):
        changed[place] ^= 0xFF
    return bytes(changed)


@pytest.mark.catalogue
@pytest.mark.parametrize("damage", [_cut, _flip])
def test_a_damaged_keras_file_is_named_before_tensorflow_starts(
    clumsy: Clumsy, keras_model: Path, damage: Callable[[bytes], bytes]
) -> None:
    (clumsy.folder / "bad.keras").write_bytes(damage(keras_model.read_bytes()))

    assert "corrupt" in clumsy.errs("convert", "bad.keras", "-o", "out", code=3)


@pytest.mark.catalogue
@pytest.mark.tensorflow
def test_a_damaged_h5_file_is_named(clumsy: Clumsy) -> None:
    (clumsy.folder / "bad.h5").write_bytes(_flip(catalogue.path("models/mnist/mnist_model.h5").read_bytes()))

    said = clumsy.errs("convert", "bad.h5", "-o", "out", code=3)

    assert "bad.h5" in said


@pytest.mark.catalogue
@pytest.mark.tensorflow
def test_the_content_decides_not_the_name(clumsy: Clumsy, keras_model: Path) -> None:
    """Keras itself believes the name."""
    shutil.copy(keras_model, clumsy.folder / "model.h5")

    ran = clumsy.types("convert", "model.h5", "-o", "out")

    assert ran.code == 0, ran.err
    assert [path.name for path in (clumsy.folder / "out").iterdir()] == ["model-float32.tflite"]
