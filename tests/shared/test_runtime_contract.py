"""Every runtime adapter keeps the promises of the port, with the same models."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests import models_made
from tflotilla.shared.contract.errors import BoardError, DelegateError, ModelError
from tflotilla.shared.contract.tensors import Quantization, TensorSpec
from tflotilla.shared.inference import runtime as port
from tflotilla.shared.inference.runtime import Delegate, LoadOptions, SupportsDirectCalls
from tflotilla.shared.inference.runtimes import interpreter

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tflotilla.shared.inference.runtime import Runtime


@pytest.fixture(params=sorted(port.ADAPTERS))
def runtime(request: pytest.FixtureRequest) -> Runtime:
    name: str = request.param
    try:
        return port.find(name)
    except BoardError as error:
        pytest.skip(str(error))


def _image(label: int) -> NDArray[np.uint8]:
    return models_made.pattern(label).reshape(1, 8, 8, 1)


def test_at_least_one_runtime_is_present_where_tests_run() -> None:
    assert port.present()


def test_an_offer_names_the_distribution_and_its_version(runtime: Runtime) -> None:
    assert runtime.offer.name in port.ADAPTERS
    assert runtime.offer.version.split(".")[0].isdigit()


def test_an_unknown_runtime_is_refused_with_the_known_ones() -> None:
    with pytest.raises(BoardError, match="known are tflite-runtime, ai-edge-litert"):
        port.find("onnxruntime")


@pytest.mark.parametrize("as_file", [True, False])
def test_a_model_tells_its_inputs_and_outputs(runtime: Runtime, *, as_file: bool) -> None:
    model = models_made.DATA / "tiny_classifier.tflite" if as_file else models_made.read("tiny_classifier")

    loaded = runtime.load(model, LoadOptions())

    scale = float(np.float32(1 / 255))
    image = Quantization(scales=(scale,), zero_points=(0,))
    scores = Quantization(scales=(1 / 256,), zero_points=(0,))
    assert loaded.inputs == (TensorSpec(name="image", shape=(1, 8, 8, 1), dtype="uint8", quantization=image),)
    assert loaded.outputs == (TensorSpec(name="scores", shape=(1, 10), dtype="uint8", quantization=scores),)


@pytest.mark.parametrize("name", ["tiny_classifier", "tiny_classifier_float"])
@pytest.mark.parametrize("xnnpack", [True, False])
def test_a_classifier_tells_its_patterns_apart(runtime: Runtime, name: str, *, xnnpack: bool) -> None:
    loaded = runtime.load(models_made.read(name), LoadOptions(xnnpack=xnnpack))
    scale = 255 if loaded.inputs[0].dtype == "float32" else 1
    winners = []
    for label in range(models_made.CLASSES):
        loaded.set_inputs(((_image(label) / scale).astype(loaded.inputs[0].dtype),))
        loaded.invoke()
        winners.append(int(loaded.get_outputs()[0].argmax()))

    assert winners == list(range(models_made.CLASSES))


def test_another_model_of_the_same_shape_gives_other_answers(runtime: Runtime) -> None:
    loaded = runtime.load(models_made.read("tiny_classifier_shifted"), LoadOptions())
    loaded.set_inputs((_image(3),))
    loaded.invoke()

    assert loaded.get_outputs()[0].argmax() == 4


def test_outputs_are_copies_that_outlive_the_next_run(runtime: Runtime) -> None:
    loaded = runtime.load(models_made.read("tiny_classifier"), LoadOptions())
    loaded.set_inputs((_image(2),))
    loaded.invoke()
    first = loaded.get_outputs()[0]
    loaded.set_inputs((_image(7),))
    loaded.invoke()

    assert (int(first.argmax()), int(loaded.get_outputs()[0].argmax())) == (2, 7)


def test_inputs_are_copied_in_so_the_caller_may_reuse_its_array(runtime: Runtime) -> None:
    loaded = runtime.load(models_made.read("tiny_classifier"), LoadOptions())
    image = _image(5).copy()
    loaded.set_inputs((image,))
    image[...] = 0
    loaded.invoke()

    assert loaded.get_outputs()[0].argmax() == 5


def test_switching_xnnpack_off_leaves_no_delegated_node(runtime: Runtime) -> None:
    model = models_made.read("tiny_classifier_float")

    assert runtime.load(model, LoadOptions(xnnpack=True)).delegated_nodes == 1
    assert runtime.load(model, LoadOptions(xnnpack=False)).delegated_nodes == 0


@pytest.mark.parametrize(
    "tensors",
    [
        (),
        (np.zeros((1, 8, 8, 1), np.uint8),) * 2,
        (np.zeros((1, 8, 8, 1), np.float32),),
        (np.zeros((1, 9, 8, 1), np.uint8),),
        (np.zeros((8, 8), np.uint8),),
    ],
    ids=["none", "too many", "dtype", "shape", "rank"],
)
def test_tensors_that_do_not_fit_are_refused(runtime: Runtime, tensors: tuple[NDArray[np.uint8], ...]) -> None:
    loaded = runtime.load(models_made.read("tiny_classifier"), LoadOptions())

    with pytest.raises(ValueError, match=r"."):
        loaded.set_inputs(tensors)


def test_a_dynamic_batch_is_resized_and_back(runtime: Runtime) -> None:
    loaded = runtime.load(models_made.read("tiny_classifier_float_dynamic"), LoadOptions())
    answers = []
    for labels in ([1], [4, 5, 6], [9]):
        batch = np.concatenate([_image(label) for label in labels]).astype(np.float32) / 255
        loaded.set_inputs((batch,))
        loaded.invoke()
        answers.append(loaded.get_outputs()[0].argmax(axis=1).tolist())

    assert loaded.inputs[0].shape == (-1, 8, 8, 1)
    assert answers == [[1], [4, 5, 6], [9]]


def test_a_dynamic_input_still_refuses_what_its_fixed_dimensions_exclude(runtime: Runtime) -> None:
    loaded = runtime.load(models_made.read("tiny_classifier_float_dynamic"), LoadOptions())

    with pytest.raises(ValueError, match=r"takes shape \(-1, 8, 8, 1\), the tensor has \(1, 8, 9, 1\)"):
        loaded.set_inputs((np.zeros((1, 8, 9, 1), np.float32),))


def test_direct_calls_do_what_the_port_does(runtime: Runtime) -> None:
    loaded = runtime.load(models_made.read("tiny_classifier"), LoadOptions())
    assert isinstance(loaded, SupportsDirectCalls)
    direct = loaded.direct
    assert direct is not None
    direct.set_tensor(direct.input_index, _image(6))
    direct.invoke()

    assert direct.get_tensor(direct.output_index).argmax() == 6


def test_an_op_of_a_newer_version_is_refused_by_name_and_version(runtime: Runtime) -> None:
    with pytest.raises(ModelError, match=r"FULLY_CONNECTED.*version '99'") as caught:
        runtime.load(models_made.read("op_version_too_high"), LoadOptions())

    assert str(runtime.offer) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_custom_op_is_refused_by_name(runtime: Runtime) -> None:
    with pytest.raises(ModelError, match="TflotillaUnknown"):
        runtime.load(models_made.read("custom_op"), LoadOptions())


@pytest.mark.parametrize("content", [b"", b"TFL3", b"PK\x03\x04 something else"], ids=["empty", "short", "zip"])
def test_what_is_no_model_never_reaches_native_code(runtime: Runtime, content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "a model.tflite"
    file.write_bytes(content)

    with pytest.raises(ModelError, match=r"is not a \.tflite file"):
        runtime.load(content, LoadOptions())
    with pytest.raises(ModelError, match=r"a model\.tflite is not a \.tflite file"):
        runtime.load(file, LoadOptions())


def test_a_missing_file_is_named(runtime: Runtime) -> None:
    with pytest.raises(ModelError, match=r"/nowhere/model\.tflite can't be read: No such file"):
        runtime.load(Path("/nowhere/model.tflite"), LoadOptions())


def test_a_missing_delegate_is_named(runtime: Runtime) -> None:
    options = LoadOptions(delegate=Delegate(library="/nowhere/libdelegate.so"))

    with pytest.raises(DelegateError, match=r"delegate /nowhere/libdelegate\.so can't be loaded"):
        runtime.load(models_made.read("tiny_classifier"), options)


def test_a_library_that_is_no_delegate_is_told_from_a_missing_one(runtime: Runtime) -> None:
    options = LoadOptions(delegate=Delegate(library="libm.so.6"))

    with pytest.raises(DelegateError, match="is not an external TFLite delegate"):
        runtime.load(models_made.read("tiny_classifier"), options)


def test_less_than_one_thread_is_refused(runtime: Runtime) -> None:
    with pytest.raises(ValueError, match="num_threads must be at least 1, not 0"):
        runtime.load(models_made.read("tiny_classifier"), LoadOptions(num_threads=0))


def test_runtimes_agree_on_the_quantized_classifier_within_one_step() -> None:
    found = port.present()
    if len(found) < 2:
        pytest.skip("one runtime alone agrees with itself")
    answers = []
    for runtime in found:
        loaded = runtime.load(models_made.read("tiny_classifier"), LoadOptions())
        loaded.set_inputs((models_made.noisy(4, seed=1).reshape(1, 8, 8, 1),))
        loaded.invoke()
        answers.append(loaded.get_outputs()[0].astype(int))

    assert np.abs(answers[0] - answers[1]).max() <= 1


def test_a_refusal_without_a_word_points_to_memory() -> None:
    assert interpreter.one_line(RuntimeError("no\n such op")) == "no such op"
    assert interpreter.one_line(RuntimeError()) == "RuntimeError without a reason, as for memory that can't be had"
    assert interpreter.one_line(ValueError()) == "ValueError"
