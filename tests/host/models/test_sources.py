"""What is told of a source without TensorFlow: its format, whether it carries code, names and shapes."""

from __future__ import annotations

import json
import re
import zipfile
from typing import TYPE_CHECKING

import pytest

from tests import catalogue
from tflotilla.host.models import sources
from tflotilla.host.models.sources import graph_code, keras_code, keras_models, shapes
from tflotilla.shared.contract.errors import ModelError, UsageError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.catalogue
@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("models/mnist/mnist_model.keras", "Keras .keras"),
        ("models/mnist/mnist_model52%.keras", "Keras .keras"),
        ("models/keras/@lstm_model.keras", "Keras .keras"),
        ("models/mnist/mnist_model.h5", "Keras .h5"),
        ("models/teachable_machine/keras_model.h5", "Keras .h5"),
        ("models/mlperf_tiny/kws_dscnn/kws_ref_model", "SavedModel"),
        ("models/savedmodel/mediapipe_tiny/saved_model.pb", "SavedModel"),
        ("models/detection/mtcnn.pb", "TensorFlow 1 frozen graph"),
        ("models/tf1_misc/mediapipe_frozen_graph_def.pb", "TensorFlow 1 frozen graph"),
    ],
)
def test_real_sources_are_told_by_their_content(file: str, name: str) -> None:
    assert sources.detect(catalogue.path(file)) == name


@pytest.mark.catalogue
def test_the_suffix_does_not_decide(tmp_path: Path) -> None:
    disguised = tmp_path / "model.pb"
    disguised.write_bytes(catalogue.path("models/mnist/mnist_model.h5").read_bytes())

    assert sources.detect(disguised) == "Keras .h5"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "the file is empty"),
        (b"<html>", "is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "is a Git LFS pointer"),
        (b"\x80\x02}q\x00.", "is of no format that can be converted; known are TFLite, Keras .keras"),
        (b"hello", "is of no format that can be converted"),
    ],
)
def test_what_is_no_source_is_refused_in_one_line(tmp_path: Path, content: bytes, words: str) -> None:
    file = tmp_path / "it's a $(model).bin"
    file.write_bytes(content)

    with pytest.raises(ModelError) as caught:
        sources.detect(file)

    assert words in str(caught.value)
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_and_an_empty_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="No such file"):
        sources.detect(tmp_path / "absent.keras")
    with pytest.raises(ModelError, match=r"folder holds no saved_model\.pb"):
        sources.detect(tmp_path)


@pytest.mark.parametrize(
    ("configuration", "words"),
    [
        ({"class_name": "Lambda", "config": {"name": "sneaky"}}, "layer 'sneaky' is a Lambda"),
        ({"layers": [{"config": {"function": {"class_name": "__lambda__"}}}]}, "is a Lambda"),
        (
            {"config": {"layers": [{"class_name": "TimeDistributed", "config": {"layer": {"class_name": "Lambda"}}}]}},
            "is",
        ),
        ({"class_name": "Lambda", "config": {"function_type": "lambda", "function": ["4wEA"]}}, "is a Lambda"),
        ({"module": "os", "class_name": "system"}, "it uses os.system, which is code outside Keras"),
        ({"module": "mypackage.layers", "class_name": "Attention"}, "it uses mypackage.layers.Attention"),
    ],
)
def test_code_in_a_keras_configuration_is_found_wherever_it_hides(configuration: dict[str, object], words: str) -> None:
    with pytest.raises(ModelError, match="give --allow-code") as caught:
        keras_code.refuse_code({"config": [configuration]}, "model.keras")

    assert words in str(caught.value)


def test_layers_of_keras_itself_are_not_code() -> None:
    keras_code.refuse_code(
        {
            "module": "keras.src.models.functional",
            "class_name": "Functional",
            "config": {"layers": [{"module": "keras.layers", "class_name": "Dense", "config": {"units": 3}}]},
        },
        "model.keras",
    )


def test_a_lambda_is_refused_before_any_library_reads_the_file(tmp_path: Path) -> None:
    file = tmp_path / "model.keras"
    with zipfile.ZipFile(file, "w") as archive:
        layer = {"module": "keras.layers", "class_name": "Lambda", "config": {"name": "run_me"}}
        archive.writestr("config.json", json.dumps({"class_name": "Sequential", "config": {"layers": [layer]}}))
        archive.writestr("metadata.json", "{}")

    with pytest.raises(ModelError, match="layer 'run_me' is a Lambda"):
        sources.load(file, sources.detect(file), sources.SourceOptions())


def test_a_damaged_archive_is_refused_by_its_checksum(tmp_path: Path) -> None:
    file = tmp_path / "model.keras"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("config.json", "{}")
        archive.writestr("model.weights.h5", b"w" * 1000)
    data = bytearray(file.read_bytes())
    data[data.index(b"w" * 100) + 50] ^= 1
    file.write_bytes(data)

    with pytest.raises(ModelError, match=r"corrupt \.keras file: the checksum of its model\.weights\.h5 is wrong"):
        sources.load(file, sources.detect(file), sources.SourceOptions())


@pytest.mark.catalogue
@pytest.mark.parametrize(
    ("file", "words"),
    [
        ("models/mnist/mnist_model.keras", r"corrupt or truncated \.keras file"),
        ("models/mnist/mnist_model.h5", "corrupt or truncated HDF5 file"),
    ],
)
def test_a_truncated_source_is_refused(tmp_path: Path, file: str, words: str) -> None:
    whole = catalogue.path(file)
    cut = tmp_path / whole.name
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])

    with pytest.raises(ModelError, match=words):
        sources.load(cut, sources.detect(cut), sources.SourceOptions())


def test_a_file_of_weights_alone_is_told_from_a_model(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    file = tmp_path / "model.weights.h5"
    with h5py.File(file, "w") as weights:
        weights["dense/kernel"] = [1.0]

    with pytest.raises(ModelError, match="holds weights only"):
        sources.load(file, sources.detect(file), sources.SourceOptions())


def test_graph_ops_that_run_python_or_touch_files_are_refused() -> None:
    graph_code.refuse_code(["MatMul", "SaveV2", "RestoreV2"], "model")

    with pytest.raises(ModelError, match="its graph has PyFunc, WriteFile"):
        graph_code.refuse_code(["MatMul", "WriteFile", "PyFunc"], "model")


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["1,224,224,3"], {"": (1, 224, 224, 3)}),
        (["a=1,2", "b=3"], {"a": (1, 2), "b": (3,)}),
        (["a=1,2;b=;c:0=4"], {"a": (1, 2), "b": (), "c:0": (4,)}),
        (["a=?,?,3"], {"a": (shapes.OPEN, shapes.OPEN, 3)}),
    ],
)
def test_input_shapes_are_read(texts: list[str], expected: dict[str, tuple[int, ...]]) -> None:
    assert shapes.parse_input_shapes(texts) == expected


def test_a_dimension_stays_open_only_where_the_source_allows_it() -> None:
    given = {"": (shapes.OPEN, 3)}

    assert shapes.fix_shape("a", [None, 3], given, ["a"], may_stay_open=True) == (shapes.OPEN, 3)
    with pytest.raises(UsageError, match="only a frozen graph may leave a dimension open"):
        shapes.fix_shape("a", [None, 3], given, ["a"])
    with pytest.raises(UsageError, match="contradicts input 'a', which is 5,3"):
        shapes.fix_shape("a", [5, 3], given, ["a"], may_stay_open=True)


@pytest.mark.parametrize("text", ["1,x", "a=0,3", "a=-1,3", "1,2;3,4"])
def test_input_shapes_that_make_no_sense_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--input-shapes"):
        shapes.parse_input_shapes([text])


def test_an_unknown_batch_becomes_one_and_nothing_else_is_guessed() -> None:
    assert shapes.fix_shape("x", [None, 28, 28], {}, ["x"]) == (1, 28, 28)
    assert shapes.fix_shape("x", [None, None, 3], {"": (2, 5, 3)}, ["x"]) == (2, 5, 3)
    assert shapes.fix_shape("x", None, {"x": ()}, ["x", "y"]) == ()
    with pytest.raises(UsageError, match=r"input 'x' is \?,\?,3; fix what is unknown: --input-shapes x=N,N,3"):
        shapes.fix_shape("x", [None, None, 3], {}, ["x"])
    with pytest.raises(UsageError, match="unknown shape"):
        shapes.fix_shape("x", None, {}, ["x"])
    with pytest.raises(UsageError, match=r"--input-shapes 1,30,28 contradicts input 'x', which is \?,28,28"):
        shapes.fix_shape("x", [None, 28, 28], {"x": (1, 30, 28)}, ["x"])


def test_shapes_of_inputs_that_do_not_exist_propose_the_nearest() -> None:
    with pytest.raises(UsageError, match="did you mean 'input_image'"):
        shapes.check_names({"input_imge": (1,)}, ["input_image", "factor"])
    with pytest.raises(UsageError, match="the model has 2 inputs"):
        shapes.check_names({"": (1,)}, ["input_image", "factor"])


def test_a_node_given_by_the_end_of_its_name_is_proposed() -> None:
    words = shapes.propose("softmax", ["net/Conv", "net/Predictions/Softmax"])

    assert words == "did you mean 'net/Predictions/Softmax'?"


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("Unknown layer: 'mine>Scale'. Please ensure …", r"save it as a SavedModel .* convert that: Unknown layer"),
        ("Could not locate class 'S'. Make sure …", r"needs a class that the file does not hold"),
        ("bad marshal data", r"damaged or of another version: bad marshal data"),
    ],
)
def test_what_keras_can_not_load_is_told_with_what_to_do(reason: str, words: str) -> None:
    assert re.search(words, keras_models.explain(reason))
