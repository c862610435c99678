"""Pruning, clustering and training for int8 of tiny models of both Keras, with TensorFlow, in two children."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.host.models import compression_cases as cases
from tflotilla.host.models import child
from tflotilla.host.models.inspect import inspect_model

pytestmark = [pytest.mark.slow, pytest.mark.tensorflow]
TIMEOUT_S = 1200.0
ROOT = Path(__file__).parents[2]


def _run(function: str, folder: Path) -> dict[str, Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))
        answer: dict[str, Any] = child.call(
            f"tests.host.models.compression_cases:{function}", {"folder": str(folder)}, timeout_s=TIMEOUT_S
        )
    return answer


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return _run("keras_3", tmp_path_factory.mktemp("keras3"))


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return _run("keras_2", tmp_path_factory.mktemp("keras2"))


def reached(answer: dict[str, Any]) -> dict[str, float]:
    return {layer["layer"]: round(layer["zeros"] / layer["weights"], 2) for layer in answer["layers"]}


# Keras 3


@pytest.mark.timeout(TIMEOUT_S)
def test_a_keras_3_model_reaches_the_sparsity_that_was_asked_and_still_tells_classes_apart(
    three: dict[str, Any],
) -> None:
    whole = three["whole"]

    assert whole["engine"] == own_name()
    assert reached(whole) == {"conv": 0.75, "dense": 0.75, "head": 0.75}
    assert {layer["asked"] for layer in whole["layers"]} == {0.75}
    assert whole["after"]["accuracy"] >= 0.9
    assert whole["parameters"] > whole["zeros"] >= sum(layer["zeros"] for layer in whole["layers"])


def own_name() -> str:
    from tflotilla.host.models.compression.own_pruning import NAME

    return NAME


def test_the_delivered_file_has_its_zeros_and_no_wrapper(three: dict[str, Any]) -> None:
    assert [[path, round(share, 2)] for path, share in three["kernels"]] == [
        ["conv", 0.75],
        ["dense", 0.75],
        ["head", 0.75],
    ]


@pytest.mark.parametrize(
    ("name", "case", "suffix"), [("three", "whole", ".keras"), ("two", "pattern", ".keras"), ("two", "nested", ".h5")]
)
def test_no_file_carries_the_optimizer_of_this_training(
    name: str, case: str, suffix: str, request: pytest.FixtureRequest
) -> None:
    folder = Path(request.getfixturevalue(name)[case]["folder"])

    before, after = ((folder / f"{what}{suffix}").stat().st_size for what in ("before", "after"))

    assert after < 1.2 * before


def test_everything_that_is_measured_later_is_there(three: dict[str, Any]) -> None:
    assert three["whole"]["files"] == [
        "after.keras",
        "before.keras",
        "calibration.npy",
        "sparse.tflite",
        "validation.npz",
    ]


def test_tensorboard_sees_loss_accuracy_and_the_sparsity_of_each_layer(three: dict[str, Any]) -> None:
    steps = 6 * 6

    assert set(three["logs"]) == {
        "loss",
        "accuracy",
        "validation_loss",
        "validation_accuracy",
        "sparsity_asked",
        "sparsity/conv",
        "sparsity/dense",
        "sparsity/head",
    }
    assert three["logs"]["loss"] == list(range(1, steps + 1))
    assert three["logs"]["validation_loss"] == list(range(6, steps + 1, 6))


def test_only_the_chosen_layers_are_pruned(three: dict[str, Any]) -> None:
    found = reached(three["chosen"])

    assert found == {"backbone/inner_conv": 0.75, "backbone/inner_dense": 0.75, "head": 0.0}
    assert [layer["asked"] for layer in three["chosen"]["layers"]] == [0.75, 0.75, None]


@pytest.mark.parametrize("name", ["three", "two"])
def test_two_of_four_is_held_wherever_there_are_four(name: str, request: pytest.FixtureRequest) -> None:
    layers = {layer["layer"]: layer for layer in request.getfixturevalue(name)["pattern"]["layers"]}

    assert all(layer["pattern_held"] and layer["pattern"] == "2:4" for layer in layers.values())
    # One channel: nothing can go.
    assert [layers[layer]["zeros"] / layers[layer]["weights"] for layer in ("conv", "dense", "head")] == [0, 0.5, 0.5]


def test_blocks_are_for_dense_layers_and_become_tflites_sparse_kernel(three: dict[str, Any]) -> None:
    from tflotilla.host.models.compression import sparse_encoding

    blocks = three["blocks"]

    assert [layer["pattern"] for layer in blocks["layers"]] == [None, "1x4", "1x4"]
    assert [layer["pattern_held"] for layer in blocks["layers"]] == [None, True, True]
    encoding = sparse_encoding.look((Path(blocks["folder"]) / "sparse.tflite").read_bytes())
    assert encoding.sparse_layers == 2


def test_an_autoencoder_is_trained_on_data_without_labels(three: dict[str, Any]) -> None:
    found = three["autoencoder"]

    assert found["task"] == "mse"
    assert found["after"]["accuracy"] is None
    assert found["after"]["loss"] > 0


@pytest.mark.parametrize("name", ["three", "two"])
def test_a_training_that_died_goes_on_to_the_same_bits(name: str, request: pytest.FixtureRequest) -> None:
    found = request.getfixturevalue(name)["resumed"]

    assert found["first"] == []
    assert found["same"]
    assert found["note"] == f"went on from the checkpoint at step {(cases.DYING_STEP - 1) // 3 * 3}"


@pytest.mark.parametrize("name", ["three", "two"])
def test_a_checkpoint_of_another_training_is_not_taken_up(name: str, request: pytest.FixtureRequest) -> None:
    other = request.getfixturevalue(name)["resumed"]["other"]

    assert other["error"] == "UsageError"
    assert "is of another training: data, seed, validation differed" in other["message"]


@pytest.mark.parametrize(
    ("case", "kind", "words"),
    [
        ("wrong layer", "UsageError", "'densee': the model has no such layer; the nearest are dense"),
        ("no kernel", "ModelError", "no layer has weights that are pruned; it has Flatten, InputLayer, Softmax"),
        ("two inputs", "ModelError", "has 2 inputs and 1 outputs"),
        ("lambda", "ModelError", "is a Lambda: it carries Python code"),
        ("one class", "DatasetError", "all 20 samples are of class 0"),
        ("too many", "DatasetError", "label 4 has no output; the model has 3"),
        ("nan", "DatasetError", "sample 0 holds NaN"),
        ("no preprocessing", "UsageError", "say it with --preprocess"),
        ("begins late", "UsageError", "--begin-step 10000 is never reached: training has 12 steps"),
        ("blocks on convolutions", "UsageError", "--pattern 1x4 fits none of the chosen layers"),
        ("no autoencoder", "DatasetError", "no autoencoder"),
        ("diverges", "ModelError", "the learning rate of 1e+30 is too high"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(three: dict[str, Any], case: str, kind: str, words: str) -> None:
    found = three["refused"][case]

    assert found.get("error") == kind, found
    assert words in found["message"]
    assert "\n" not in found["message"]


# Keras 2, and tfmot


@pytest.mark.timeout(TIMEOUT_S)
def test_our_schedules_are_tfmots(two: dict[str, Any]) -> None:
    for ours_update, their_update, ours, theirs in two["schedules"]:
        assert ours_update == their_update
        assert ours == pytest.approx(theirs, abs=1e-6)


def test_our_masks_are_tfmots(two: dict[str, Any]) -> None:
    assert two["masks"] == [True] * len(two["masks"])
    assert len(two["masks"]) == 32


def test_tfmot_prunes_what_it_can_wrap_and_the_wrappers_are_gone(two: dict[str, Any]) -> None:
    whole = two["whole"]

    assert whole["engine"].startswith("tensorflow-model-optimization ")
    assert reached(whole) == {"conv": 0.75, "dense": 0.75, "head": 0.75}
    assert {layer["kind"] for layer in whole["layers"]} == {"Conv2D", "Dense"}


def test_what_tfmot_cannot_wrap_is_pruned_all_the_same_and_said(two: dict[str, Any]) -> None:
    nested = two["nested"]

    assert nested["engine"] == own_name()
    assert reached(nested) == {"backbone/inner_conv": 0.75, "backbone/inner_dense": 0.75, "head": 0.75}
    assert any("tfmot can't reach into a nested layer, 'backbone'" in note for note in nested["notes"])


@pytest.mark.parametrize("case", ["clustered", "clustered 3"])
def test_clustered_layers_have_as_few_values_as_asked(two: dict[str, Any], case: str) -> None:
    layers = two[case]["layers"]

    assert [(layer["layer"], layer["asked"]) for layer in layers] == [("conv", 6), ("dense", 6), ("head", 6)]
    assert all(layer["values"] <= 6 for layer in layers)


def test_a_model_inside_a_model_is_clustered_too(two: dict[str, Any]) -> None:
    layers = two["clustered nested"]["layers"]

    assert [layer["layer"] for layer in layers] == ["backbone/inner_conv", "backbone/inner_dense", "head"]
    assert all(layer["values"] <= 6 for layer in layers)


def test_a_keras_3_model_is_rebuilt_in_keras_2_and_that_is_said(two: dict[str, Any]) -> None:
    assert two["clustered 3"]["keras"].startswith("tf_keras ")
    assert any("rebuilt in Keras 2" in note for note in two["clustered 3"]["notes"])


def test_quantization_aware_training_gives_integers_from_edge_to_edge(two: dict[str, Any]) -> None:
    found = two["qat"]

    inspection = inspect_model(Path(found["folder"]) / "quantized.tflite")

    assert inspection.integer_only
    assert [spec.dtype for spec in (*inspection.inputs, *inspection.outputs)] == ["uint8", "uint8"]
    assert found["left"] == []
    assert found["saved"]


def test_ranges_begin_where_activations_are_and_not_where_tfmot_guesses(two: dict[str, Any]) -> None:
    found = two["settled"]

    assert found["raw"] > 0.2
    assert found["settled"] < 0.1
    assert found["same weights"] == 1.0


def test_nested_models_are_made_one_for_tfmot(two: dict[str, Any]) -> None:
    found = two["qat nested 3"]

    inspection = inspect_model(Path(found["folder"]) / "quantized.tflite")

    assert [spec.dtype for spec in (*inspection.inputs, *inspection.outputs)] == ["float32", "float32"]
    assert "CONV_2D" not in dict(inspection.float_ops)
    assert any("nested models were made one" in note for note in found["notes"])


def test_a_wrong_layer_for_quantized_training_is_refused_with_the_nearest(two: dict[str, Any]) -> None:
    assert two["qat wrong layer"]["error"] == "UsageError"
    assert "the nearest are head" in two["qat wrong layer"]["message"]
