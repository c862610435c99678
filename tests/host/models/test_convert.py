"""Conversion of sources of every format: what comes out, and what is said when nothing can."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pytest

from tests.host.models import made_sources
from tflotilla.host.models import child, convert, fidelity
from tflotilla.host.models.convert import ConversionRequest, parse_schemes, parse_target
from tflotilla.host.models.inspect import inspect_model
from tflotilla.shared.contract.board import RuntimeOffer
from tflotilla.shared.contract.errors import DatasetError, UsageError
from tflotilla.shared.contract.manifest import OpRequirement
from tflotilla.shared.contract.tensors import QuantizationScheme

if TYPE_CHECKING:
    from collections.abc import Sequence

ALL = [scheme.value for scheme in QuantizationScheme]
KERAS, H5, SAVED, GRAPH = "Keras .keras", "Keras .h5", "SavedModel", "TensorFlow 1 frozen graph"
TARGET = RuntimeOffer(name="tflite-runtime", version="2.14.0")

tensorflow = pytest.mark.tensorflow


class Made(NamedTuple):
    """What one child made of all cases."""

    sources: Path
    folder: Path
    found: dict[str, Any]

    def refusal(self, name: str) -> tuple[str, str]:
        assert "error" in self.found[name], self.found[name]
        message: str = self.found[name]["message"]
        assert "\n" not in message
        return self.found[name]["error"], message

    def file(self, name: str, scheme: str) -> Path:
        assert "error" not in self.found[name], self.found[name]
        path = self.folder / name / f"{scheme}.tflite"
        assert path.exists(), self.found[name]["failures"]
        return path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    sources, folder = tmp_path_factory.mktemp("sources"), tmp_path_factory.mktemp("made")
    images, rows = sources / "images.npy", sources / "rows.npy"
    case = made_sources.case
    cases = {
        "cnn": case(sources / "cnn.keras", KERAS, ["int8_io_uint8", "dynamic_range"], images),
        "cnn3": case(sources / "cnn3.h5", H5),
        "keras2": case(sources / "keras2.h5", H5, ["float32", "int8_io_int8"], images),
        "two": case(sources / "two.keras", KERAS, ["float32", "int8_io_int8"], sources / "two.npz"),
        "both_ways": case(sources / "both_ways.keras", KERAS, ["int8"], sources / "steps.npy"),
        "recurrent2": case(sources / "recurrent2.h5", H5, ["int8"], sources / "steps.npy"),
        "broken": case(sources / "broken.keras", KERAS),
        "complex": case(sources / "complex", SAVED),
        "lambda": case(sources / "lambda.keras", KERAS),
        "lambda_allowed": case(sources / "lambda.keras", KERAS, allow_code=True),
        "lambda_h5": case(sources / "lambda.h5", H5),
        "floor": case(sources / "floor.keras", KERAS, ["int8", "int8_io_uint8", "int16x8"], rows),
        "negative": case(sources / "negative.keras", KERAS, ["int8_io_uint8", "int16x8"], rows),
        "custom": case(sources / "custom.keras", KERAS),
        "unbuilt": case(sources / "unbuilt.keras", KERAS),
        "unbuilt_shaped": case(sources / "unbuilt.keras", KERAS, input_shapes={"": [1, 3]}),
        "wrong_shape": case(sources / "cnn.keras", KERAS, input_shapes={"": [1, 9, 9, 1]}),
        "no_signature": case(sources / "saved", SAVED),
        "wrong_signature": case(sources / "saved", SAVED, signature="tripple"),
        "unknown": case(sources / "saved", SAVED, signature="triple"),
        "triple": case(sources / "saved", SAVED, signature="triple", input_shapes={"rows": [1, 2]}),
        "python": case(sources / "python", SAVED),
        "graph": case(sources / "graph.pb", GRAPH, output_arrays=["total", "scores"]),
        "graph_text": case(sources / "graph.pbtxt", GRAPH, output_arrays=["total"]),
        "graph_inside": case(sources / "graph.pb", GRAPH, input_arrays=["product"], output_arrays=["scores"]),
        "graph_all": case(sources / "graph.pb", GRAPH),
        "graph_typo": case(sources / "graph.pb", GRAPH, output_arrays=["score"]),
        "graph_half": case(sources / "graph.pb", GRAPH, input_arrays=["left"], output_arrays=["total"]),
        "graph_unused": case(
            sources / "graph.pb", GRAPH, input_arrays=["left", "right", "scores"], output_arrays=["total"]
        ),
        "unfrozen": case(sources / "unfrozen.pb", GRAPH),
        "no_data": case(sources / "cnn.keras", KERAS, ["int8"], sources / "absent.npy"),
        "other_data": case(sources / "cnn.keras", KERAS, ["int8"], rows),
    }
    found = child.call(
        "tests.host.models.made_sources:make_and_attempt",
        {"sources": str(sources), "cases": cases, "folder": str(folder)},
    )
    return Made(sources, folder, found)


@pytest.fixture(scope="module", autouse=True)
def _child_finds_the_tests() -> Any:  # noqa: ANN401 - a generator fixture
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parents[3]))
        yield


@pytest.fixture(scope="module")
def report(made: Made, tmp_path_factory: pytest.TempPathFactory) -> convert.ConversionReport:
    return convert.convert(
        ConversionRequest(
            source=made.sources / "cnn.keras",
            output=tmp_path_factory.mktemp("out") / "new folder",
            schemes=tuple(QuantizationScheme),
            calibration=made.sources / "images.npy",
            target=TARGET,
            samples=20,
        )
    )


@tensorflow
def test_every_scheme_of_a_keras_model_follows_its_source_on_the_target_runtime(
    report: convert.ConversionReport,
) -> None:
    assert report.failures == {}
    assert [made.scheme for made in report.files] == list(QuantizationScheme)
    for made in report.files:
        assert made.inspection.scheme is made.scheme
        assert made.fidelity.reason is None
        assert made.fidelity.sqnr_db is not None
        assert made.fidelity.sqnr_db > 15
        assert made.path.name == f"cnn-{made.scheme.value}.tflite"
        assert 0 < made.compressed_bytes < made.inspection.size_bytes
    assert [file.name for file in report.files[0].path.parent.iterdir() if ".part" in file.name] == []


@tensorflow
def test_the_edges_of_each_scheme_have_the_promised_types(report: convert.ConversionReport) -> None:
    edges = {
        made.scheme.value: (
            made.inspection.inputs[0].dtype,
            made.inspection.outputs[0].dtype,
            made.inspection.integer_only,
        )
        for made in report.files
    }

    assert edges == {
        "float32": ("float32", "float32", False),
        "float16": ("float32", "float32", False),
        "dynamic_range": ("float32", "float32", False),
        "int8": ("float32", "float32", False),
        "int8_io_uint8": ("uint8", "uint8", True),
        "int8_io_int8": ("int8", "int8", True),
        "int16x8": ("float32", "float32", False),
    }


@tensorflow
def test_a_target_runtime_keeps_dynamic_range_to_ops_that_it_knows(report: convert.ConversionReport) -> None:
    (dynamic,) = [made for made in report.files if made.scheme is QuantizationScheme.DYNAMIC_RANGE]

    versions = {op.name: op.version for op in dynamic.inspection.requirements.ops}

    assert versions["FULLY_CONNECTED"] <= 10


@tensorflow
def test_the_same_source_gives_the_same_bytes_in_another_process_and_order(
    report: convert.ConversionReport, made: Made
) -> None:
    by_scheme = {entry.scheme.value: entry.path.read_bytes() for entry in report.files}

    for scheme in ("int8_io_uint8", "dynamic_range"):
        assert made.file("cnn", scheme).read_bytes() == by_scheme[scheme]


@tensorflow
def test_keras_3_h5_and_keras_2_h5_are_each_read_by_their_own_library(made: Made) -> None:
    assert "read by keras 3" in made.found["cnn3"]["notes"][0]
    assert "read by tf_keras 2" in made.found["keras2"]["notes"][0]
    assert inspect_model(made.file("keras2", "int8_io_int8")).integer_only


@tensorflow
def test_several_inputs_and_outputs_keep_the_order_of_the_model(made: Made) -> None:
    schemes = ["float32", "int8_io_int8"]
    for found in (inspect_model(made.file("two", scheme)) for scheme in schemes):
        assert [spec.name for spec in found.inputs] == ["second", "first"]
        assert [spec.name for spec in found.outputs] == made.found["two"]["outputs"]
        assert [spec.shape for spec in found.outputs] == [(1, 3), (1, 2)]
    assert follows(made, "two", schemes) == dict.fromkeys(schemes)


@tensorflow
@pytest.mark.parametrize("name", ["both_ways", "recurrent2"])
def test_recurrent_layers_of_every_make_are_unrolled_and_quantized(made: Made, name: str) -> None:
    assert inspect_model(made.file(name, "int8")).subgraphs[1:] == ()
    assert follows(made, name, ["int8"]) == {"int8": None}


@tensorflow
def test_weights_that_are_no_numbers_are_refused_by_name(made: Made) -> None:
    kind, message = made.refusal("broken")

    assert kind == "ModelError"
    assert message.startswith("weights 'dense")
    assert "/bias' hold NaN (2 of 2 values)" in message


@tensorflow
def test_what_the_quantizer_does_not_know_is_written_as_what_it_knows(made: Made) -> None:
    assert made.found["negative"]["failures"] == {}
    assert inspect_model(made.file("negative", "int8_io_uint8")).integer_only
    assert follows(made, "negative", ["int8_io_uint8", "int16x8"]) == {"int8_io_uint8": None, "int16x8": None}


@tensorflow
def test_outputs_that_no_runtime_gives_are_refused_by_name(made: Made) -> None:
    words = made.found["complex"]["failures"]["float32"]

    assert words.startswith("what TensorFlow makes of it can't run: tensor 'answer' is of type complex64")


@tensorflow
def test_code_in_a_model_is_refused_unless_allowed(made: Made) -> None:
    for name in ("lambda", "lambda_h5"):
        kind, message = made.refusal(name)
        assert kind == "ModelError"
        assert "is a Lambda: it carries Python code" in message
        assert "--allow-code" in message
    assert made.file("lambda_allowed", "float32").exists()
    kind, message = made.refusal("python")
    assert (kind, "EagerPyFunc" in message) == ("ModelError", True)


@tensorflow
def test_an_op_that_can_not_be_quantized_is_named(made: Made) -> None:
    failures = made.found["floor"]["failures"]

    assert list(failures) == ["int8_io_uint8"]
    assert failures["int8_io_uint8"].startswith("FLOOR (1) can't be quantized")
    assert inspect_model(made.file("floor", "int8")).float_ops == (("FLOOR", 1),)
    assert inspect_model(made.file("floor", "int16x8")).float_ops == (("FLOOR", 1),)


@tensorflow
def test_models_that_keras_can_not_complete_are_refused_in_one_line(made: Made) -> None:
    kind, message = made.refusal("custom")
    assert (kind, "Thrice" in message) == ("ModelError", True)
    kind, message = made.refusal("unbuilt")
    assert (kind, "--input-shapes" in message) == ("UsageError", True)
    assert inspect_model(made.file("unbuilt_shaped", "float32")).inputs[0].shape == (1, 3)
    kind, message = made.refusal("wrong_shape")
    assert (kind, "contradicts input 'image', which is ?,8,8,1" in message) == ("UsageError", True)


@tensorflow
def test_signatures_are_chosen_by_name(made: Made) -> None:
    assert made.refusal("no_signature") == (
        "UsageError",
        f"{made.sources / 'saved'} has several signatures; choose one with --signature: double, triple",
    )
    assert "did you mean 'triple'?" in made.refusal("wrong_signature")[1]
    assert "input 'rows' is ?,?; fix what is unknown: --input-shapes rows=N,N" in made.refusal("unknown")[1]
    assert made.found["triple"]["outputs"] == ["answer"]
    assert follows(made, "triple", ["float32"]) == {"float32": None}


@tensorflow
def test_a_frozen_graph_is_cut_where_it_is_told_to(made: Made) -> None:
    whole = inspect_model(made.file("graph", "float32"))
    inside = inspect_model(made.file("graph_inside", "float32"))

    assert [spec.name for spec in whole.inputs] == ["left", "right"]
    assert [spec.shape for spec in whole.outputs] == [(1, 2), (1, 2)]
    assert follows(made, "graph", ["float32"]) == {"float32": None}
    assert [spec.shape for spec in inside.inputs] == [(1, 2)]
    assert OpRequirement(name="FULLY_CONNECTED", version=1) not in inside.requirements.ops
    assert made.file("graph_text", "float32").exists()


@tensorflow
def test_nodes_of_a_frozen_graph_are_proposed(made: Made) -> None:
    notes = made.found["graph_all"]["notes"]

    assert notes[:2] == [
        "--output-arrays scores,strange was taken: nothing consumes it",
        "--input-arrays left,right was taken: the graph's placeholders",
    ]
    assert made.found["graph_all"]["failures"] == {"float32": "TFLite has no operator for MatrixInverse"}
    assert made.refusal("graph_typo") == (
        "UsageError",
        "--output-arrays: the graph has no node 'score'; did you mean 'scores'?",
    )
    assert "the outputs also need 'right'" in made.refusal("graph_half")[1]
    assert "no output depends on 'scores'" in made.refusal("graph_unused")[1]
    assert "not frozen, it has variables (weights" in made.refusal("unfrozen")[1]


@tensorflow
def test_data_that_do_not_fit_are_refused_before_anything_is_converted(made: Made) -> None:
    assert made.refusal("no_data")[0] == "DatasetError"
    kind, message = made.refusal("other_data")
    assert kind == "DatasetError"
    assert "a sample of shape (4,) does not fit input 'image' of shape (1, 8, 8, 1)" in message


@tensorflow
def test_a_crash_of_the_converter_costs_one_scheme_which_the_command_says(made: Made, tmp_path: Path) -> None:
    out = tmp_path / "it's $(out)"
    # A loop longer than is unrolled: TensorFlow 2.21 dies of quantizing it.
    arguments = ["--scheme", "float32", "--scheme", "int8", "--scheme", "dynamic_range", "--json", "-o", str(out)]
    arguments += ["--calibration", str(made.sources / "series.npy")]

    done = subprocess.run(
        [sys.executable, "-m", "tflotilla.host", "convert", str(made.sources / "long_lstm.keras"), *arguments],
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )

    assert done.returncode == 12, done.stderr
    last = done.stderr.splitlines()[-1]
    assert "int8: TensorFlow's converter died" in last
    assert "(SIG" in last
    document = json.loads(done.stdout)
    assert [entry["path"] for entry in document["files"]] == [
        str(out / f"long_lstm-{scheme}.tflite") for scheme in ("float32", "dynamic_range")
    ]
    assert all(entry["fidelity"]["sqnr_db"] > 20 for entry in document["files"])
    assert list(document["failures"]) == ["int8"]
    # Four units: too few weights for TFLite to quantize any, so the two files are the same model.
    assert [note for note in document["notes"] if note.startswith("dynamic_range: no weight was quantized")]
    assert sorted(entry.name for entry in out.iterdir()) == [
        "long_lstm-dynamic_range.tflite",
        "long_lstm-float32.tflite",
    ]


def follows(made: Made, name: str, schemes: Sequence[str], runtime: str = "tflite-runtime") -> dict[str, str | None]:
    """Return, per scheme, what is wrong with the file on a runtime."""
    pytest.importorskip(runtime.replace("-", "_"))
    files = {QuantizationScheme(scheme): made.file(name, scheme) for scheme in schemes}
    found = fidelity.measure(files, made.folder / name / "reference.npz", runtime)
    return {scheme.value: entry.reason for scheme, entry in found.items()}


@pytest.mark.parametrize("text", ["tflite-runtime", "torch==2.0", "tflite-runtime==", "tflite-runtime>=2.14"])
def test_target_runtimes_that_make_no_sense_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"like tflite-runtime==2\.14\.0"):
        parse_target(text)


def test_schemes_are_read_in_order_without_repetition() -> None:
    assert parse_schemes(["int8", "float32", "int8"]) == (QuantizationScheme.INT8, QuantizationScheme.FLOAT32)
    assert parse_schemes(["int8-io-uint8"]) == (QuantizationScheme.INT8_IO_UINT8,)
    assert list(parse_schemes(["int8", "all"])) == [
        QuantizationScheme.INT8,
        *(scheme for scheme in QuantizationScheme if scheme is not QuantizationScheme.INT8),
    ]
    assert parse_target("litert==2.3.0") == RuntimeOffer(name="ai-edge-litert", version="2.3.0")


def test_requests_that_contradict_themselves_are_refused_at_once(tmp_path: Path) -> None:
    source, occupied = tmp_path / "m.keras", tmp_path / "file"
    occupied.write_text("")
    both = parse_schemes(["float32", "float16"])

    request = ConversionRequest(source=source, output=tmp_path / "o", schemes=both)

    with pytest.raises(UsageError, match="is one file and 2 schemes are asked"):
        convert.convert(replace(request, output=tmp_path / "x.tflite"))
    with pytest.raises(UsageError, match="exists and is not a folder"):
        convert.convert(replace(request, output=occupied))
    with pytest.raises(UsageError, match="int8: activations are quantized"):
        convert.convert(replace(request, schemes=parse_schemes(["int8"])))
    with pytest.raises(UsageError, match="no scheme"):
        convert.convert(replace(request, schemes=()))
    with pytest.raises(UsageError, match="expected one of raw, unit"):
        convert.convert(replace(request, preprocess="imagenet"))
    with pytest.raises(UsageError, match="--samples must be at least 1"):
        convert.convert(replace(request, samples=0))


def test_bad_calibration_data_are_refused_before_tensorflow_is_loaded(tmp_path: Path) -> None:
    source = tmp_path / "m.pb"
    source.write_bytes(b"\x0a\x06\x0a\x01a\x12\x01b")
    empty = tmp_path / "photos"
    empty.mkdir()

    with pytest.raises(DatasetError, match="holds no image"):
        convert.convert(
            ConversionRequest(
                source=source,
                output=tmp_path / "o",
                schemes=(QuantizationScheme.INT8,),
                calibration=empty,
                preprocess="unit",
            )
        )
    assert not (tmp_path / "o").exists()


def test_the_oldest_runtimes_that_accept_the_ops_are_named(tmp_path: Path) -> None:
    from tests import models_made

    file = tmp_path / "m.tflite"
    file.write_bytes(models_made.read("tiny_classifier"))
    assert "tflite-runtime ≥ " in convert.accepting(inspect_model(file))
    file.write_bytes(models_made.read("op_version_too_high"))
    assert convert.accepting(inspect_model(file)) == ""


def test_noise_is_the_same_every_time() -> None:
    from tflotilla.host.models import samples
    from tflotilla.shared.contract.tensors import TensorSpec

    spec = TensorSpec(name="x", shape=(1, 4), dtype="float32")

    (one,), (other,) = (samples.noise((spec,), None, count=1) for _ in range(2))

    assert np.array_equal(one[0], other[0])
