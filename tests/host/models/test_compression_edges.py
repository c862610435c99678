"""The edges of pruning, clustering and training for int8: data, checkpoints, measuring, refusals; no TensorFlow."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from tests.host.bundles import making
from tflotilla.host.models.compression import (
    checkpoints,
    request,
    sparse_encoding,
    training_data,
    variants,
)
from tflotilla.host.models.compression.pruning import PruningRequest, prune
from tflotilla.host.models.compression.schedule import ScheduleOptions
from tflotilla.host.models.compression.sparse_encoding import Encoding, Race
from tflotilla.host.models.compression.tasks import Task
from tflotilla.host.models.compression.training import TrainingOptions
from tflotilla.shared.contract.errors import DatasetError, InputError, ModelError, UsageError
from tflotilla.shared.contract.processing import Preprocessing
from tflotilla.shared.contract.tensors import TensorSpec

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

SPEC = TensorSpec(name="image", shape=(1, 4, 4, 1), dtype="float32")
UNIT = Preprocessing(colour="gray", std=(255.0,))


# The data


def arrays(folder: Path, x: NDArray[Any], y: NDArray[Any] | None = None) -> Path:
    path = folder / "data.npz"
    np.savez(path, **({"x": x} if y is None else {"x": x, "y": y}))
    return path


def open_here(path: Path, preprocessing: Preprocessing | None = UNIT, classes: int | None = 2) -> training_data.Samples:
    return training_data.open_samples(path, SPEC, classes=classes, preprocessing=preprocessing)


def test_pixels_pictures_and_real_numbers_become_the_same_tensors(tmp_path: Path) -> None:
    pixels = np.random.default_rng(3).integers(0, 256, (6, 4, 4), dtype=np.uint8)
    labels = np.arange(6) % 2
    for number, (image, label) in enumerate(zip(pixels, labels, strict=True)):
        (tmp_path / "pictures" / str(label)).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(tmp_path / "pictures" / str(label) / f"{number}.png")
    by_class = np.argsort(labels, kind="stable")

    whole = open_here(arrays(tmp_path, pixels, labels))
    pictures = open_here(tmp_path / "pictures")
    real = open_here(arrays(tmp_path, (pixels / np.float32(255)).astype(np.float32), labels), None)

    expected = (pixels[..., np.newaxis] / 255).astype(np.float32)
    assert np.allclose(whole.tensors(range(6)), expected, atol=1e-6)
    assert np.array_equal(pictures.tensors(range(6)), whole.tensors(by_class))
    assert np.allclose(real.tensors(range(6)), expected, atol=1e-6)
    assert pictures.labels is not None
    assert pictures.labels.tolist() == [0, 0, 0, 1, 1, 1]


def test_the_split_takes_every_fifth_of_each_class_and_repeats_with_its_seed(tmp_path: Path) -> None:
    labels = np.array([0] * 20 + [1] * 10)
    data = open_here(arrays(tmp_path, np.zeros((30, 4, 4, 1), np.float32), labels))

    train, held = training_data.split(data, seed=5)
    again = training_data.split(data, seed=5)[1]

    assert train.labels is not None
    assert held.labels is not None
    assert (np.bincount(train.labels).tolist(), np.bincount(held.labels).tolist()) == ([16, 8], [4, 2])
    assert again.digest() == held.digest()


def test_of_many_classes_with_few_samples_some_are_kept_all_the_same(tmp_path: Path) -> None:
    path = arrays(tmp_path, np.zeros((20, 4, 4, 1), np.float32), np.arange(20) // 2)

    train, held = training_data.split(open_here(path, classes=10), seed=5)

    assert (len(train), len(held)) == (16, 4)


def test_the_order_of_an_epoch_depends_on_seed_and_epoch_alone() -> None:
    first = training_data.order(50, seed=1, epoch=0)

    assert sorted(first) == list(range(50))
    assert np.array_equal(first, training_data.order(50, seed=1, epoch=0))
    assert not np.array_equal(first, training_data.order(50, seed=1, epoch=1))
    assert not np.array_equal(first, training_data.order(50, seed=2, epoch=0))


def test_an_array_without_labels_is_an_autoencoders(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((5, 4, 4, 1), np.float32))

    data = open_here(tmp_path / "x.npy", None, classes=None)

    assert (len(data), data.labels) == (5, None)


def _with_nan() -> NDArray[Any]:
    x = np.zeros((10, 4, 4, 1), np.float32)
    x[7, 0, 0, 0] = np.nan
    return x


@pytest.mark.parametrize(
    ("x", "y", "words"),
    [
        (_with_nan(), np.arange(10) % 2, "sample 7 holds NaN"),
        (np.zeros((10, 4, 4, 1)), np.zeros(10, int), "all 10 samples are of class 0"),
        (np.zeros((10, 4, 4, 1)), np.arange(10), "label 9 has no output"),
        (np.zeros((10, 5, 4, 1)), np.arange(10) % 2, "does not fit input 'image'"),
        (np.zeros((0, 4, 4, 1)), np.zeros(0, int), "0 samples"),
        (np.full((10, 4, 4, 1), 200.0), np.arange(10) % 2, "reach from 200 to 200"),
        (np.zeros((10, 4, 4, 1)), np.arange(10) / 2, "expected whole numbers"),
    ],
)
def test_data_that_cannot_be_trained_on_are_refused_before_training(
    tmp_path: Path, x: NDArray[Any], y: NDArray[Any], words: str
) -> None:
    with pytest.raises(DatasetError, match=words):
        open_here(arrays(tmp_path, x, y))


def test_pixels_need_a_preprocessing(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--preprocess"):
        open_here(arrays(tmp_path, np.zeros((4, 4, 4, 1), np.uint8), np.arange(4) % 2), None)


def test_too_few_samples_to_keep_some_back_are_refused(tmp_path: Path) -> None:
    data = open_here(arrays(tmp_path, np.zeros((4, 4, 4, 1), np.float32), np.arange(4) % 2))

    with pytest.raises(DatasetError, match="give --validation"):
        training_data.split(data, seed=0)


# Checkpoints


def test_a_checkpoint_holds_what_was_saved(tmp_path: Path) -> None:
    saved: list[NDArray[Any]] = [np.arange(6, dtype=np.float32).reshape(2, 3), np.array(7, np.int64)]

    checkpoints.save(tmp_path / "run", saved, {"step": 4}, {"seed": 1})
    found = checkpoints.load(tmp_path / "run", {"seed": 1})

    assert found is not None
    assert found.progress == {"step": 4}
    assert [(a.dtype, a.tolist()) for a in found.arrays] == [(a.dtype, a.tolist()) for a in saved]
    assert [path.name for path in (tmp_path / "run").iterdir()] == [checkpoints.FILE]


def test_no_checkpoint_is_none(tmp_path: Path) -> None:
    assert checkpoints.load(tmp_path, {}) is None


def test_a_checkpoint_of_another_training_is_refused_by_what_differs(tmp_path: Path) -> None:
    checkpoints.save(tmp_path, [], {}, {"seed": 1, "data": "a", "epochs": 2})

    with pytest.raises(UsageError, match="data, seed differed"):
        checkpoints.load(tmp_path, {"seed": 2, "data": "b", "epochs": 2})


@pytest.mark.parametrize("content", [b"", b"no zip", b"PK\x03\x04 half"])
def test_a_damaged_checkpoint_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / checkpoints.FILE).write_bytes(content)

    with pytest.raises(InputError, match="not a checkpoint that can be read; remove it"):
        checkpoints.load(tmp_path, {})


# What the sparse encoding gave


@pytest.mark.parametrize(
    ("sparse_ns", "words"),
    [(500_000, "2.0× as fast"), (1_000_000, "no faster"), (950_000, "no faster"), (2_000_000, "2.0× slower")],
)
def test_speed_is_told_as_it_was_measured(sparse_ns: int, words: str) -> None:
    race = Race(runtime="litert", dense_ns=1_000_000, sparse_ns=sparse_ns)

    said = sparse_encoding.sentence(
        Encoding(sparse_layers=1, unpacked_layers=0), [race], bytes_dense=4096, bytes_sparse=1024, missing=(), avx=True
    )

    assert said.startswith("sparse encoding: 1.0 KiB instead of 4.0 KiB (4.0× smaller)")
    assert words in said
    assert "computed from 1x4 blocks" in said


def test_what_xnnpack_did_not_use_is_explained() -> None:
    said = sparse_encoding.sentence(
        Encoding(sparse_layers=0, unpacked_layers=3),
        [Race(runtime="litert", dense_ns=100, sparse_ns=100)],
        bytes_dense=2,
        bytes_sparse=1,
        missing=("a global average at the end",),
        avx=False,
    )

    assert "3 layer(s) are unpacked on loading and computed dense: its sparse kernels need" in said
    assert said.endswith("a global average at the end")


def test_a_file_of_integers_has_nothing_sparse(tmp_path: Path) -> None:
    data = making.model(tmp_path, "tiny_classifier_float").read_bytes()

    assert sparse_encoding.look(data) == Encoding(sparse_layers=0, unpacked_layers=0)
    assert len(sparse_encoding.missing_for_xnnpack(data)) == 3


# Measuring


def test_files_are_measured_side_by_side(tmp_path: Path) -> None:
    names = ("tiny_classifier_float", "tiny_classifier")
    files = [
        variants.File(of="before", scheme="float32", path=making.model(tmp_path, names[0])),
        variants.File(of="after", scheme="int8", path=making.model(tmp_path, names[1]), like="before float32"),
    ]
    shapes = [d for d in _input_shape(files[0].path) if d != 1]
    x = np.random.default_rng(0).random((12, *shapes)).astype(np.float32)
    np.savez(tmp_path / "v.npz", x=x, y=np.arange(12) % 10)

    found = variants.measure(files, tmp_path / "v.npz", Task.CLASSES, ["ai-edge-litert"])

    assert [(v.of, v.scheme) for v in found] == [("before", "float32"), ("after", "int8")]
    for variant, file in zip(found, files, strict=True):
        (measured,) = variant.measured
        assert measured.reason is None
        assert measured.runs >= 11
        assert measured.samples == 12
        assert variant.size_bytes == file.path.stat().st_size
        assert variant.compressed_bytes == len(zlib.compress(file.path.read_bytes(), 9))
    assert found[0].measured[0].difference is None
    assert found[1].measured[0].difference is not None


def _input_shape(path: Path) -> tuple[int, ...]:
    from tflotilla.host.models.inspect import inspect_model

    return inspect_model(path).inputs[0].shape


def test_a_file_that_no_runtime_takes_is_said_and_the_others_are_measured(tmp_path: Path) -> None:
    good = making.model(tmp_path, "tiny_classifier_float")
    bad = tmp_path / "bad.tflite"
    bad.write_bytes(b"\x1c\x00\x00\x00TFL3" + bytes(8))
    shapes = [d for d in _input_shape(good) if d != 1]
    np.savez(tmp_path / "v.npz", x=np.zeros((2, *shapes), np.float32), y=np.zeros(2, int))

    found = variants.measure(
        [
            variants.File(of="after", scheme="float32", path=good),
            variants.File(of="after", scheme="sparse", path=bad),
        ],
        tmp_path / "v.npz",
        Task.CLASSES,
        ["ai-edge-litert"],
    )

    assert found[0].measured[0].p50_ns
    assert found[1].measured[0].reason
    assert found[1].measured[0].p50_ns is None


@pytest.mark.parametrize(("estimate_ns", "expected"), [(1, 200), (60_000_000, 100), (10**12, 11), (0, 200)])
def test_rounds_fill_a_budget_within_limits(estimate_ns: float, expected: int) -> None:
    assert variants.rounds(estimate_ns) == expected


# What is refused before TensorFlow is loaded


@pytest.fixture
def asked(tmp_path: Path) -> Callable[..., PruningRequest]:
    source = tmp_path / "m.h5"
    source.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(32))
    data = arrays(tmp_path, np.zeros((4, 4, 4, 1), np.uint8), np.arange(4) % 2)

    def make(**changes: Any) -> PruningRequest:  # noqa: ANN401 - any field
        return PruningRequest(**({"source": source, "output": tmp_path / "out.h5", "data": data} | changes))

    return make


@pytest.mark.parametrize(
    ("changes", "kind", "words"),
    [
        ({"output": Path("out.tflite")}, UsageError, "must end in .keras or .h5"),
        ({"data": Path("absent")}, DatasetError, "no such folder or file"),
        ({"validation": Path("absent")}, DatasetError, "no such folder or file"),
        ({"preprocess": "fancy"}, UsageError, "expected one of raw"),
        ({"labels": Path("absent.txt")}, DatasetError, "not a text of labels"),
        ({"pattern": "5:4"}, UsageError, "like 2:4"),
        ({"schedule": ScheduleOptions(final_sparsity=1.5)}, UsageError, "--final-sparsity 1.5"),
        ({"schedule": ScheduleOptions(frequency=0)}, UsageError, "--frequency 0"),
        ({"training": TrainingOptions(epochs=0)}, UsageError, "--epochs 0"),
        ({"training": TrainingOptions(batch_size=0)}, UsageError, "--batch-size 0"),
        ({"training": TrainingOptions(learning_rate=-1)}, UsageError, "--learning-rate -1"),
        ({"training": TrainingOptions(learning_rate=float("nan"))}, UsageError, "--learning-rate nan"),
        ({"training": TrainingOptions(optimizer="lion")}, UsageError, "--optimizer 'lion'"),
        ({"training": TrainingOptions(loss="hinge")}, UsageError, "--loss 'hinge'"),
        ({"training": TrainingOptions(seed=-1)}, UsageError, "--seed -1"),
        ({"training": TrainingOptions(checkpoint_every=0)}, UsageError, "--checkpoint-every 0"),
        ({"training": TrainingOptions(logs="/proc/version")}, InputError, "is a file; give a folder"),
        ({"tflite": Path("/proc/version")}, InputError, "is a file; give a folder"),
        ({"source": Path("absent.keras")}, ModelError, "No such file"),
    ],
)
def test_what_can_be_seen_to_be_wrong_is_refused_at_once(
    asked: Callable[..., PruningRequest], changes: dict[str, Any], kind: type[Exception], words: str
) -> None:
    with pytest.raises(kind, match=words):
        prune(asked(**changes))


def test_the_source_is_never_written_over(asked: Callable[..., PruningRequest], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="the source itself"):
        prune(asked(output=tmp_path / "m.h5"))


def test_a_graph_cannot_be_trained(asked: Callable[..., PruningRequest], tmp_path: Path) -> None:
    folder = tmp_path / "saved"
    folder.mkdir()
    (folder / "saved_model.pb").write_bytes(b"\x08\x01")

    with pytest.raises(
        ModelError, match="a file of SavedModel holds a graph, which can't be trained; give the Keras model"
    ):
        prune(asked(source=folder))


def test_both_float_files_are_compared_on_each_runtime() -> None:
    def made(of: str, p50_ns: int) -> variants.Variant:
        measured = variants.Measured(runtime="litert", p50_ns=p50_ns, runs=50)
        return variants.Variant(of=of, scheme="float32", size_bytes=1, compressed_bytes=1, measured=(measured,))

    assert request.same_speed((made("before", 1_000_000), made("after", 1_010_000))) == [
        "dense float32 on litert: 1.000 ms before, 1.010 ms after (median of 50 runs each, in turns, 1 thread)"
    ]
