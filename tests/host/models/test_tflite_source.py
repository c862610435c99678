"""A float .tflite as the source of a conversion: every scheme on every runtime, and what is refused."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pytest

from tests import catalogue
from tests.host.models import made_sources
from tflotilla.host.models import child, fidelity, flatbuffer, idle_limits, sources, stored_weights
from tflotilla.host.models.inspect import inspect_bytes, inspect_model
from tflotilla.host.models.sources import SourceOptions, tflite_file
from tflotilla.shared.contract.errors import TflotillaError
from tflotilla.shared.contract.tensors import QuantizationScheme

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.tensorflow

ALL = [scheme.value for scheme in QuantizationScheme]
FLOATS = ["float32", "float16", "dynamic_range"]
RUNTIMES = ("tflite-runtime", "ai-edge-litert")
#: From the catalogue: file → error and words.
REFUSED = {
    "add_quantized_int8": ("ConversionError", "quantized already (tensor 'input' is int8)"),
    "blockwise_quantized": ("ConversionError", "no runtime has its custom operator DISPATCH_OP"),
    "custom_sinh": ("ConversionError", "no runtime has its custom operator Sinh"),
    "empty_model": ("ConversionError", "it has no operators"),
    "keras_lstm_mnist_ptq": ("ConversionError", "quantized already"),
    "mobilenet_v1_0.25_128_quant_edgetpu": ("ConversionError", "compiled for an Edge TPU"),
    "multi_add_flex": ("ConversionError", "TFLite has no operator for AddV2"),
    "multi_signatures": ("UsageError", "choose one with --signature: add, sub"),
    "no_subgraphs": ("ModelError", "it has no subgraph"),
    "single_add_a16w8": ("ConversionError", "quantized already"),
    "softplus_flex": ("ConversionError", "TFLite has no operator for Softplus"),
    "string_input_model": ("ConversionError", "holds text"),
    "with_metadata": ("ConversionError", "no runtime has its custom operator NPU_OP"),
}


class Made(NamedTuple):
    """What one child made of all cases."""

    sources: Path
    folder: Path
    found: dict[str, Any]

    def file(self, name: str, scheme: str) -> Path:
        assert "error" not in self.found[name], self.found[name]
        path = self.folder / name / f"{scheme}.tflite"
        assert path.exists(), self.found[name]["failures"]
        return path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
    place, folder = tmp_path_factory.mktemp("sources"), tmp_path_factory.mktemp("made")
    pictures, case = place / "pictures.npy", made_sources.case
    cases = {
        "cnn": case(place / "cnn.tflite", "TFLite", ALL, pictures),
        "per_tensor": case(place / "cnn.tflite", "TFLite", [*FLOATS, "int8", "int16x8"], pictures)
        | {"per_channel": False},
        "any_batch": case(place / "any_batch.tflite", "TFLite", ["float32", "int8_io_int8"], pictures),
        "two_at_once": case(place / "any_batch.tflite", "TFLite", input_shapes={"": [2, 8, 8, 8]}),
        "half": case(place / "half.tflite", "TFLite", FLOATS),
        "words": case(place / "words.tflite", "TFLite", [*FLOATS, "int8"], place / "words.npy"),
        "triple": case(place / "signatures.tflite", "TFLite", signature="triple"),
        "small": case(place / "small.tflite", "TFLite"),
        "broken": case(place / "broken.tflite", "TFLite"),
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parents[3]), prepend=os.pathsep)
        found = child.call(
            "tests.host.models.made_flatbuffers:make_and_attempt",
            {"sources": str(place), "cases": cases, "folder": str(folder)},
        )
        yield Made(place, folder, found)


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("name", ["cnn", "per_tensor", "any_batch", "two_at_once", "half", "words", "triple"])
def test_every_scheme_of_a_float_file_follows_it_on_every_runtime(made: Made, name: str, runtime: str) -> None:
    pytest.importorskip(runtime.replace("-", "_"))
    schemes = made.found[name].get("failures")
    assert schemes == {}, made.found[name]
    files = {QuantizationScheme(path.stem): path for path in (made.folder / name).glob("*.tflite")}

    found = fidelity.measure(files, made.folder / name / "reference.npz", runtime)

    assert {scheme.value: entry.reason for scheme, entry in found.items()} == {s.value: None for s in files}
    assert min(entry.sqnr_db or 0 for entry in found.values()) > 15


def test_each_scheme_is_what_it_says(made: Made) -> None:
    assert [inspect_model(made.file("cnn", scheme)).scheme.value for scheme in ALL] == ALL
    sizes = {scheme: made.file("cnn", scheme).stat().st_size for scheme in FLOATS}
    assert sizes["float16"] < 0.6 * sizes["float32"]
    assert sizes["dynamic_range"] < 0.4 * sizes["float32"]


def test_float32_is_the_file_itself_where_nothing_had_to_be_fixed(made: Made) -> None:
    assert made.file("cnn", "float32").read_bytes() == (made.sources / "cnn.tflite").read_bytes()


def test_a_batch_of_any_size_is_fixed_and_so_is_what_follows_from_it(made: Made) -> None:
    source = inspect_model(made.sources / "any_batch.tflite")
    one, two = inspect_model(made.file("any_batch", "float32")), inspect_model(made.file("two_at_once", "float32"))

    assert "SHAPE" in {op.name for op in source.ops}
    assert source.inputs[0].shape[0] == -1
    for found, batch in ((one, 1), (two, 2)):
        assert {op.name for op in found.ops} == {op.name for op in source.ops} - {"SHAPE", "STRIDED_SLICE", "PACK"}
        assert (found.inputs[0].shape[0], found.outputs[0].shape[0]) == (batch, batch)
        assert not any(-1 in tensor.shape for tensor in found.tensors)


def test_weights_of_16_bits_are_float32_again(made: Made) -> None:
    assert any("stored in 16 bits" in note for note in made.found["half"]["notes"])
    assert inspect_model(made.file("half", "float32")).scheme is QuantizationScheme.FLOAT32


def test_a_signature_is_chosen_and_the_others_left_out(made: Made) -> None:
    found = inspect_model(made.file("triple", "float32"))

    assert [entry.key for entry in found.signatures] == ["triple"]
    assert len(found.subgraphs) == 1


def test_per_tensor_means_one_scale_for_each_weight(made: Made) -> None:
    def most_scales(name: str, scheme: str) -> int:
        found = inspect_model(made.file(name, scheme))
        weights = [t for t in found.tensors if t.constant_bytes and t.dtype == "int8" and t.quantization is not None]
        assert weights
        return max(len(tensor.quantization.scales) for tensor in weights if tensor.quantization is not None)

    for scheme in ("dynamic_range", "int8", "int16x8"):
        assert most_scales("cnn", scheme) > 1, scheme
        assert most_scales("per_tensor", scheme) == 1, scheme


def test_operators_get_the_versions_that_read_small_weights(made: Made) -> None:
    """A kernel that is older than such weights takes a lower version, and answers zeros."""
    data = (made.sources / "cnn.tflite").read_bytes()
    versions = {}
    for dense in (True, False):
        model = flatbuffer.read(data)
        stored_weights.to_int8(model, per_channel_dense=dense)
        versions[dense] = {(op.name, op.version) for op in inspect_bytes(flatbuffer.write(model), "made").ops}

    # The source's CONV_2D has version 6 already: groups of channels.
    assert {("CONV_2D", 6), ("DEPTHWISE_CONV_2D", 6), ("FULLY_CONNECTED", 12), ("DEQUANTIZE", 2)} <= versions[True]
    assert ("FULLY_CONNECTED", 9) in versions[False]


def test_what_16_bits_can_not_hold_stays_as_it_is(made: Made) -> None:
    model = flatbuffer.read((made.sources / "cnn.tflite").read_bytes())
    graph = model.subgraphs[0]
    tensor = next(
        t for t in graph.tensors if (v := flatbuffer.constant(model, t)) is not None and v.shape == (128, 1, 1, 8)
    )
    values = np.array(flatbuffer.constant(model, tensor))
    values.flat[0] = 1e6
    flatbuffer.set_constant(model, tensor, values)

    stored_weights.to_float16(model)

    kept = [flatbuffer.dtype(t) for t in graph.tensors if flatbuffer.shape(t) == (128, 1, 1, 8)]
    assert kept == ["float32"]


def test_a_limit_that_16_bits_can_not_reach_is_no_reason_to_refuse_a_file(made: Made) -> None:
    """MobileNetV2 that was never trained: its activations vanish, and 6 / scale overflows in the kernel."""
    model = flatbuffer.read(made.file("cnn", "int16x8").read_bytes())
    graph, functions = model.subgraphs[0], flatbuffer.SCHEMA.ActivationFunctionType
    first = next(o for o in graph.operators if flatbuffer.op_name(model, o) == "CONV_2D")
    first.builtinOptions.fusedActivationFunction = functions.RELU6
    reachable = flatbuffer.write(model)
    graph.tensors[first.outputs[0]].quantization.scale = np.array([1e-9], dtype=np.float32)

    loosened = flatbuffer.read(idle_limits.remove(flatbuffer.write(model)))

    assert idle_limits.remove(reachable) == reachable
    kinds = [o.builtinOptions.fusedActivationFunction for o in loosened.subgraphs[0].operators
             if flatbuffer.op_name(loosened, o) == "CONV_2D"]  # fmt: skip
    assert kinds[0] == functions.RELU


def test_what_is_quantized_or_broken_is_refused_by_name(made: Made) -> None:
    small, broken = made.found["small"], made.found["broken"]

    assert small["error"] == "ConversionError"
    assert "quantized already (tensor '" in small["message"]
    assert broken["error"] == "ModelError"
    assert "hold NaN (1 of 1,024 values)" in broken["message"]
    assert "narrow" in broken["message"]


@pytest.mark.catalogue
@pytest.mark.parametrize("name", REFUSED)
def test_files_that_are_no_float_computation_are_refused_in_one_line(name: str) -> None:
    path = catalogue.path(f"models/troublesome_tflite/{name}.tflite")
    assert sources.detect(path) == "TFLite"

    with pytest.raises(TflotillaError) as caught:
        tflite_file.load(path, SourceOptions())

    kind, words = REFUSED[name]
    assert type(caught.value).__name__ == kind
    assert words in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_command_makes_the_same_bytes_again(made: Made, tmp_path: Path) -> None:
    """Another process, another time: the file is a function of its source."""
    pictures, target = str(made.sources / "pictures.npy"), "tflite-runtime==2.14.0"

    done = _convert(made.sources / "cnn.tflite", tmp_path, "--scheme", "all", "--calibration", pictures,
                    "--target-runtime", target, "--samples", "20")  # fmt: skip

    assert done.returncode == 0, done.stderr
    files = {entry["scheme"]: entry for entry in json.loads(done.stdout)["files"]}
    assert list(files) == ALL
    for scheme in ALL:
        assert Path(files[scheme]["path"]).read_bytes() == made.file("cnn", scheme).read_bytes(), scheme
    scales = {scheme: entry["weight_scales"] for scheme, entry in files.items()}
    assert scales["float32"] is scales["float16"] is None
    assert {scales[scheme] for scheme in ALL[2:]} == {"per channel"}


def test_a_disk_that_fills_leaves_no_file(made: Made, tmp_path: Path) -> None:
    """The limit on a file's size stands in for the disk: whatever is written ends in the middle."""
    out = tmp_path / "out"

    done = _convert(made.sources / "cnn.tflite", out, "--scheme", "float16", limit_bytes=20_000)

    assert done.returncode == 3
    assert "File too large" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert not out.exists() or list(out.iterdir()) == []


def _convert(
    source: Path, out: Path, *options: str, limit_bytes: int | None = None
) -> subprocess.CompletedProcess[str]:
    def limit() -> None:
        if limit_bytes is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, limit_bytes))

    return subprocess.run(
        [sys.executable, "-m", "tflotilla.host", "convert", str(source), "-o", str(out), "--json", *options],
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
        preexec_fn=limit,
    )
