"""Reading TFLite files without running them."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from tests import catalogue
from tflotilla.host.models.inspect import inspect_bytes, inspect_model
from tflotilla.shared.contract.errors import ModelError
from tflotilla.shared.contract.manifest import OpRequirement
from tflotilla.shared.contract.tensors import QuantizationScheme

if TYPE_CHECKING:
    from pathlib import Path

TROUBLESOME = "models/troublesome_tflite"


@pytest.mark.catalogue
@pytest.mark.parametrize(
    ("file", "scheme", "integer_only"),
    [
        ("models/imagenet/coral/mobilenet_v2_1.0_224_quant.tflite", "int8_io_uint8", True),
        ("models/imagenet/mobilenet_v1_0.25_224_1_default_1.tflite", "float32", False),
        ("models/mlperf_tiny/resnet8_cifar10/pretrainedResnet_quant.tflite", "int8_io_int8", True),
        ("models/mlperf_tiny/kws_dscnn/kws_ref_model_float32.tflite", "dynamic_range", False),
        ("models/troublesome_tflite/single_add_a16w8.tflite", "int16x8", True),
        ("models/troublesome_tflite/lstm_quantized.tflite", "int8", False),
    ],
)
def test_names_the_scheme_of_real_files(file: str, scheme: str, integer_only: bool) -> None:  # noqa: FBT001
    found = inspect_model(catalogue.path(file))

    assert (found.scheme, found.integer_only) == (QuantizationScheme(scheme), integer_only)


@pytest.mark.catalogue
def test_reads_the_tensors_and_needs_of_a_real_file() -> None:
    found = inspect_model(catalogue.path("models/imagenet/coral/mobilenet_v2_1.0_224_quant.tflite"))

    (image,), (scores,) = found.inputs, found.outputs
    assert (image.shape, image.dtype) == ((1, 224, 224, 3), "uint8")
    assert image.quantization is not None
    assert image.quantization.scales == pytest.approx((1 / 128,), rel=1e-3)
    assert (scores.shape, scores.dtype) == ((1, 1001), "uint8")
    assert OpRequirement(name="DEPTHWISE_CONV_2D", version=1) in found.requirements.ops
    assert found.requirements.min_runtime_version == "1.5.0"
    # The widest pair: 112 x 112 x 96 bytes beside the 56 x 56 x 96 it becomes.
    assert found.requirements.arena_bytes == 112 * 112 * 96 + 56 * 56 * 96
    assert found.associated_files == ("imagenet_labels.txt",)
    assert found.float_ops == ()


@pytest.mark.catalogue
def test_tells_custom_flex_and_float_ops_apart() -> None:
    detector = inspect_model(catalogue.path("models/detection/coco_ssd_mobilenet_v1_1.0_quant_2018_06_29.tflite"))
    softplus = inspect_model(catalogue.path(f"{TROUBLESOME}/softplus_flex.tflite"))

    assert detector.requirements.custom_ops == ("TFLite_Detection_PostProcess",)
    assert detector.float_ops == (("TFLite_Detection_PostProcess", 1),)
    assert not detector.integer_only
    assert softplus.requirements.flex_ops == ("FlexSoftplus",)
    assert softplus.requirements.custom_ops == ()


@pytest.mark.catalogue
def test_lists_signatures_and_the_bodies_of_control_flow() -> None:
    signatures = inspect_model(catalogue.path(f"{TROUBLESOME}/multi_signatures.tflite")).signatures
    subgraphs = inspect_model(catalogue.path(f"{TROUBLESOME}/nested_while.tflite")).subgraphs

    assert [s.key for s in signatures] == ["add", "sub"]
    assert len(subgraphs) == 5


@pytest.mark.catalogue
def test_marks_dynamic_dimensions_and_leaves_the_arena_open() -> None:
    found = inspect_model(catalogue.path(f"{TROUBLESOME}/simple_add_dynamic_shape.tflite"))

    assert [spec.shape for spec in found.inputs] == [(-1, 128, 4), (-1, 128, 4)]
    assert found.requirements.arena_bytes is None


@pytest.mark.catalogue
def test_every_troublesome_file_gets_an_answer_or_one_clear_line() -> None:
    refused = {}
    for file in sorted(catalogue.path(TROUBLESOME).glob("*.tflite")):
        try:
            inspect_model(file)
        except ModelError as error:
            refused[file.name] = str(error).removeprefix(f"{file}: ")

    assert refused == {
        "no_subgraphs.tflite": "corrupt TFLite file: it has no subgraph, so there is nothing to run",
        "test_model_broken.tflite": "not a TFLite model (no TFL3 mark at byte 4)",
    }


@pytest.mark.catalogue
def test_a_file_cut_anywhere_is_refused() -> None:
    data = catalogue.path("models/mlperf_tiny/resnet8_cifar10/pretrainedResnet_quant.tflite").read_bytes()

    for length in range(0, len(data), 4001):
        with pytest.raises(ModelError, match=r"^cut: "):
            inspect_bytes(data[:length], "cut")


@pytest.mark.catalogue
def test_edited_bytes_never_raise_anything_but_a_model_error() -> None:
    data = catalogue.path(f"{TROUBLESOME}/nested_while.tflite").read_bytes()
    chance = random.Random(2026)  # noqa: S311 - the same mutants every time
    refused = 0
    for _ in range(1500):
        edited = bytearray(data)
        for _ in range(chance.randint(1, 8)):
            edited[chance.randrange(8, len(edited))] = chance.randrange(256)
        try:
            inspect_bytes(bytes(edited), "edited")
        except ModelError:
            refused += 1

    assert refused > 0


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "the file is empty"),
        (b"\x89HDF\r\n\x1a\n....", "a Keras .h5 file; convert it first"),
        (b"PK\x03\x04.....", "a zip archive"),
        (b"<!DOCTYPE html>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1", "a Git LFS pointer"),
        (b"anything else", "no TFL3 mark"),
        (b"\x1c\0\0\0TFL3", "corrupt or truncated"),
        (b"\xff\xff\xff\xffTFL3" + b"\xff" * 64, "corrupt or truncated"),
    ],
)
def test_what_is_not_a_model_is_refused_in_one_line(tmp_path: Path, content: bytes, words: str) -> None:
    file = tmp_path / "model with 'quotes' $(x).tflite"
    file.write_bytes(content)

    with pytest.raises(ModelError) as caught:
        inspect_model(file)

    assert str(file) in str(caught.value)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="No such file"):
        inspect_model(tmp_path / "absent.tflite")
    with pytest.raises(ModelError, match="a folder"):
        inspect_model(tmp_path)
