"""The inputs goldens are made from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from tests import models_made
from tflotilla.host.models import samples
from tflotilla.shared.contract.errors import DatasetError, ModelError
from tflotilla.shared.contract.processing import Preprocessing
from tflotilla.shared.contract.tensors import Quantization, TensorSpec
from tflotilla.shared.inference.preprocessing import Preprocessor

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

IMAGE = TensorSpec(
    name="image", shape=(1, 8, 8, 1), dtype="int8", quantization=Quantization(scales=(1 / 255,), zero_points=(-128,))
)
GRAY = Preprocessing(colour="gray", std=(255.0,))


def _load(data: Path | None, *specs: TensorSpec, limit: int = 8) -> tuple[tuple[NDArray[Any], ...], ...]:
    return samples.load(data, specs or (IMAGE,), GRAY if len(specs) < 2 else None, limit=limit)


def _images(folder: Path, count: int) -> Path:
    folder.mkdir()
    for i in range(count):
        Image.fromarray(models_made.noisy(i % 10, seed=i)).save(folder / f"{i:03}.png")
    return folder


def test_noise_is_the_same_every_time_and_differs_between_samples() -> None:
    first, second = _load(None), _load(None)

    assert all(a[0].tobytes() == b[0].tobytes() for a, b in zip(first, second, strict=True))
    assert len({sample[0].tobytes() for sample in first}) == 8
    assert {(sample[0].shape, sample[0].dtype.name) for sample in first} == {((1, 8, 8, 1), "int8")}


@pytest.mark.parametrize("dtype", ["float32", "uint8", "int8", "int16", "int32", "int64", "bool"])
def test_noise_is_made_for_every_kind_of_number(dtype: Any) -> None:  # noqa: ANN401 - a DType
    spec = TensorSpec(name="x", shape=(-1, 5), dtype=dtype)

    ((tensor,), *_rest) = samples.load(None, (spec,), None, limit=2)

    assert (tensor.shape, tensor.dtype.name) == ((1, 5), dtype)


def test_images_go_through_the_bundles_own_preprocessing(tmp_path: Path) -> None:
    folder = _images(tmp_path / "with space", 3)

    found = _load(folder)

    expected = Preprocessor(GRAY, IMAGE).prepare(Image.open(folder / "000.png"))
    assert found[0][0].tobytes() == expected.tobytes()
    assert len(found) == 3


def test_samples_are_spread_over_the_data(tmp_path: Path) -> None:
    """Folders are sorted by class; the first hundred would all be of one."""
    folder = _images(tmp_path / "images", 10)
    prepare = Preprocessor(GRAY, IMAGE).prepare

    found = _load(folder, limit=2)

    assert [s[0].tobytes() for s in found] == [prepare(Image.open(folder / f"00{i}.png")).tobytes() for i in (1, 8)]


@pytest.mark.parametrize("classes", [2, 3, 4, 5, 10])
@pytest.mark.parametrize("limit", [50, 100])
def test_classes_that_come_in_turns_are_all_among_the_samples(classes: int, limit: int) -> None:
    """100 of 200 once were every other one: all of one class, and int8 calibrated on them knew no other."""
    for total in (limit * classes, limit * 2 * classes, 1000):
        chosen = samples.evenly(total, limit)

        assert len(chosen) == min(limit, total)
        assert [place * limit // total for place in chosen] == list(range(limit)), "one of each equal part"
        counts = [sum(place % classes == number for place in chosen) for number in range(classes)]
        assert min(counts) > 0
        assert max(counts) < 2.5 * limit / classes


def test_no_more_samples_are_taken_than_there_are() -> None:
    assert samples.evenly(3, 5) == samples.evenly(3, None) == [0, 1, 2]
    assert samples.evenly(0, 5) == samples.evenly(5, 0) == []


def test_pixels_reals_and_raw_tensors_mean_the_same_in_arrays(tmp_path: Path) -> None:
    pixels = np.stack([models_made.noisy(i, seed=i) for i in range(4)])
    arrays: dict[str, NDArray[Any]] = {
        "pixels": pixels,
        "reals": (pixels / 255).astype(np.float32)[..., np.newaxis],
        "raw": (pixels.astype(np.int16) - 128).astype(np.int8)[:, np.newaxis, ..., np.newaxis],
    }
    found = {}
    for name, array in arrays.items():
        np.save(tmp_path / f"{name}.npy", array)
        found[name] = [sample[0].tobytes() for sample in _load(tmp_path / f"{name}.npy")]

    assert found["pixels"] == found["reals"] == found["raw"]


def test_several_inputs_are_found_by_name_or_order(tmp_path: Path) -> None:
    a, b = (TensorSpec(name=n, shape=(1, 2), dtype="float32") for n in "ab")
    one, two = np.ones((3, 2), np.float32), np.zeros((3, 2), np.float32)
    np.savez(tmp_path / "named.npz", b=two, a=one)
    np.savez(tmp_path / "ordered.npz", one, two)

    for name in ("named.npz", "ordered.npz"):
        ((first, second), *_rest) = _load(tmp_path / name, a, b)
        assert (first[0, 0], second[0, 0]) == (1.0, 0.0)


def test_labelled_data_serve_as_samples_too(tmp_path: Path) -> None:
    row = TensorSpec(name="row", shape=(1, 2), dtype="float32")
    np.savez(tmp_path / "labelled.npz", x=np.ones((3, 2), np.float32), y=np.arange(3))

    ((first,), *_rest) = _load(tmp_path / "labelled.npz", row)

    assert first.tolist() == [[1.0, 1.0]]


def test_one_name_that_is_wrong_among_right_ones_is_refused(tmp_path: Path) -> None:
    a, b = (TensorSpec(name=n, shape=(1, 2), dtype="float32") for n in "ab")
    np.savez(tmp_path / "typo.npz", bb=np.zeros((3, 2), np.float32), a=np.ones((3, 2), np.float32))

    with pytest.raises(DatasetError, match="holds bb, a; expected one array for each of a, b"):
        _load(tmp_path / "typo.npz", a, b)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("missing", None, "no such folder or file"),
        ("missing.npy", None, "no such file"),
        ("missing.npz", None, "no such file"),
        ("junk.npy", b"junk", "not an array"),
        ("junk.npz", b"junk", "not a .npz"),
        ("notes.txt", b"hello", "goldens are made from"),
        ("empty.png", b"", "is empty"),
        ("text.png", b"hello", "not an image"),
    ],
)
def test_data_that_can_not_be_used_is_one_line(tmp_path: Path, name: str, content: bytes | None, words: str) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)

    with pytest.raises(DatasetError, match=words) as caught:
        _load(path)
    assert "\n" not in str(caught.value)


def test_pickles_in_arrays_are_never_opened(tmp_path: Path) -> None:
    np.save(tmp_path / "evil.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)

    with pytest.raises(DatasetError, match="not an array of numbers"):
        _load(tmp_path / "evil.npy")


@pytest.mark.parametrize("shape", [(3, 9, 8), (3, 8, 8, 3), (0, 8, 8), ()])
def test_arrays_of_another_shape_are_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    np.save(tmp_path / "x.npy", np.zeros(shape, np.float32))

    with pytest.raises(DatasetError):
        _load(tmp_path / "x.npy")


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="holds no image"):
        _load(tmp_path)


def test_images_without_preprocessing_are_refused(tmp_path: Path) -> None:
    folder = _images(tmp_path / "images", 1)

    with pytest.raises(DatasetError, match="give --preprocess"):
        samples.load(folder, (IMAGE,), None, limit=1)


def test_text_inputs_and_no_inputs_are_refused() -> None:
    words = (TensorSpec(name="words", shape=(1,), dtype="string"),)
    with pytest.raises(ModelError, match="holds text"):
        samples.load(None, words, None, limit=1)
    with pytest.raises(ModelError, match="holds text"):
        samples.noise(words, None, count=1)
    with pytest.raises(ModelError, match="no input"):
        samples.load(None, (), None, limit=1)
