"""The layers of quantized files: what is found on real runtimes, in tiny files that were made or spoiled for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tests import catalogue, models_made
from tflotilla.host.models import flatbuffer, layers
from tflotilla.host.models.layers.picture import noise_plot
from tflotilla.shared.contract.errors import DatasetError, ModelError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tflotilla.host.models.layers import LayerError, LayerReport

LOGITS, SCORES = 1, 2


@pytest.fixture
def images(tmp_path: Path) -> Path:
    path = tmp_path / "images.npy"
    np.save(path, np.stack([models_made.noisy(label, seed=label) for label in range(models_made.CLASSES)]))
    return path


def made(tmp_path: Path, name: str, change: Callable[[Any], None] | None = None) -> Path:
    path = tmp_path / f"{name}.tflite"
    data = models_made.read(name)
    if change is not None:
        model = flatbuffer.read(data)
        change(model)
        data = flatbuffer.write(model)
    path.write_bytes(data)
    return path


def measured(model: Path, data: Path, against: Path | None = None) -> LayerReport:
    return layers.measure(model, against=against, data=data, preprocess="unit", samples=10)


def of_operator(report: LayerReport, number: int) -> LayerError:
    return next(layer for layer in report.layers if layer.operator == number)


def tensor(model: Any, name: str) -> Any:  # noqa: ANN401 - generated code without types
    return next(t for t in model.subgraphs[0].tensors if flatbuffer.tensor_name(t) == name)


def test_a_sound_file_follows_its_float_twin(tmp_path: Path, images: Path) -> None:
    report = measured(made(tmp_path, "tiny_classifier"), images)

    assert report.samples == 10
    assert [layer.op for layer in sorted(report.layers, key=lambda layer: layer.operator)] == [
        *("INPUT", "QUANTIZE", "FULLY_CONNECTED", "SOFTMAX", "QUANTIZE")
    ]
    assert all(layer.sqnr_db is not None and layer.sqnr_db > 25 for layer in report.layers)
    assert [made.tensor for made in report.outputs] == ["scores"]
    assert report.unmeasured == ()


def test_a_layer_that_only_rounds_is_off_by_the_uniform_error(tmp_path: Path, images: Path) -> None:
    """1/sqrt(12) of a step, which TensorFlow's guide to its QuantizationDebugger gives as what is to be expected."""
    logits = of_operator(measured(made(tmp_path, "tiny_classifier"), images), LOGITS)

    assert logits.local_rmse_over_scale == pytest.approx(12**-0.5, abs=0.03)
    assert logits.scale == pytest.approx(1 / 15)
    assert logits.zero_point == 0
    assert (logits.representable_minimum, logits.representable_maximum) == pytest.approx((-128 / 15, 127 / 15))
    assert logits.saturated_share == 0


def test_pixels_that_need_no_rounding_have_no_error(tmp_path: Path, images: Path) -> None:
    entry = of_operator(measured(made(tmp_path, "tiny_classifier"), images), -1)

    assert entry.tensor == "image"
    assert entry.sqnr_db is not None
    assert entry.sqnr_db > 120
    assert entry.saturated_share == 0


def test_a_scale_that_is_too_small_is_the_worst_layer_and_says_how_much_it_cuts_off(
    tmp_path: Path, images: Path
) -> None:
    def spoil(model: Any) -> None:  # noqa: ANN401 - generated code without types
        tensor(model, "logits").quantization.scale = np.array([1 / 60], np.float32)

    worst = measured(made(tmp_path, "tiny_classifier", spoil), images).layers[0]

    assert (worst.operator, worst.op, worst.tensor) == (LOGITS, "FULLY_CONNECTED", "logits")
    assert worst.saturated_share == pytest.approx(0.1, abs=0.05), "of ten classes the right one is above 127/60"
    assert worst.reference_maximum is not None
    assert worst.representable_maximum is not None
    assert worst.reference_maximum > 2 * worst.representable_maximum
    assert worst.local_rmse_over_scale is not None
    assert worst.local_rmse_over_scale > 10


def test_a_scale_that_is_too_large_is_the_worst_layer_and_says_how_much_it_wastes(tmp_path: Path, images: Path) -> None:
    def spoil(model: Any) -> None:  # noqa: ANN401 - generated code without types
        tensor(model, "logits").quantization.scale = np.array([2.0], np.float32)

    worst = measured(made(tmp_path, "tiny_classifier", spoil), images).layers[0]

    assert worst.operator == LOGITS
    assert worst.saturated_share == 0
    assert worst.unused_share is not None
    assert worst.unused_share > 0.95


def test_only_the_layer_that_errs_has_a_local_error(tmp_path: Path, images: Path) -> None:
    def spoil(model: Any) -> None:  # noqa: ANN401 - generated code without types
        tensor(model, "logits").quantization.scale = np.array([1 / 60], np.float32)

    sound = of_operator(measured(made(tmp_path, "tiny_classifier"), images), SCORES)
    behind = of_operator(measured(made(tmp_path, "tiny_classifier", spoil), images), SCORES)

    assert sound.sqnr_db is not None
    assert behind.sqnr_db is not None
    assert behind.local_sqnr_db is not None
    assert behind.sqnr_db < 10 < sound.sqnr_db
    assert behind.local_sqnr_db > 30


def test_against_the_float_model_the_rounding_of_weights_counts_too(tmp_path: Path, images: Path) -> None:
    def spoil(model: Any) -> None:  # noqa: ANN401 - generated code without types
        weights = tensor(model, "weights")
        values = flatbuffer.constant(model, weights)
        assert values is not None
        flatbuffer.set_constant(model, weights, np.where(values > 0, values, values // 2).astype(np.int8))

    spoilt = made(tmp_path, "tiny_classifier", spoil)
    twin = of_operator(measured(spoilt, images), LOGITS)
    report = measured(spoilt, images, against=made(tmp_path, "tiny_classifier_float"))

    assert twin.local_sqnr_db is not None
    assert twin.local_sqnr_db > 25, "its own twin has the same wrong weights"
    assert report.layers[0].operator == LOGITS
    assert report.layers[0].reference_tensor == "logits"
    assert report.layers[0].local_sqnr_db is not None
    assert report.layers[0].local_sqnr_db < 15
    assert report.weights[0].sqnr_db is not None
    assert report.weights[0].sqnr_db < 10


def test_operators_are_found_again_under_other_names(tmp_path: Path, images: Path) -> None:
    def rename(model: Any) -> None:  # noqa: ANN401 - generated code without types
        for number, each in enumerate(model.subgraphs[0].tensors):
            each.name = f"StatefulPartitionedCall:{number}"

    report = measured(made(tmp_path, "tiny_classifier", rename), images, made(tmp_path, "tiny_classifier_float"))

    assert of_operator(report, LOGITS).reference_tensor == "logits"
    assert of_operator(report, SCORES).reference_tensor == "scores"
    assert all(layer.sqnr_db is not None and layer.sqnr_db > 25 for layer in report.layers)


def test_weights_whose_channels_differ_say_how_few_bits_the_smallest_gets(tmp_path: Path, images: Path) -> None:
    def spoil(model: Any) -> None:  # noqa: ANN401 - generated code without types
        weights = tensor(model, "weights")
        values = flatbuffer.constant(model, weights)
        assert values is not None
        changed = values.copy()
        changed[3] = np.sign(changed[3])
        flatbuffer.set_constant(model, weights, changed)

    sound = measured(made(tmp_path, "tiny_classifier"), images).weights[0]
    spoilt = measured(made(tmp_path, "tiny_classifier", spoil), images).weights[0]

    assert sound.worst_channel_bits == pytest.approx(8.0)
    assert spoilt.worst_channel_bits == pytest.approx(2.0)
    assert (spoilt.operator, spoilt.tensor, spoilt.scales) == (LOGITS, "weights", 1)


def test_a_relu_that_only_the_range_implies_is_no_saturation() -> None:
    """The first converter left RELU6 out where the uint8 range ends at 0 and 6: real files are like that."""
    model = catalogue.path("models/imagenet/mobilenet_v1_0.25_224_quant.tflite")

    report = layers.measure(model, samples=1)

    assert all(layer.saturated_share is not None and layer.saturated_share < 0.01 for layer in report.layers[:-1])
    assert any("RELU" in note for note in report.notes)


def test_mobilenet_of_another_converter_follows_its_twin() -> None:
    report = layers.measure(
        catalogue.path("models/imagenet/coral/mobilenet_v2_1.0_224_quant.tflite"),
        data=catalogue.path("data/caltech101_imagenet_subset"),
        preprocess="mobilenet",
        samples=3,
    )

    assert report.outputs[0].sqnr_db is not None
    # Of three photos' probabilities; another three gave 23 dB.
    assert report.outputs[0].sqnr_db > 15
    assert all(layer.local_sqnr_db is not None and layer.local_sqnr_db > 20 for layer in report.layers)


@pytest.mark.parametrize(
    ("name", "operators"),
    [
        ("models/troublesome_tflite/keras_lstm_mnist_ptq.tflite", 6),
        ("models/tflm/person_detect.tflite", 31),
        ("models/troublesome_tflite/single_add_a16w8.tflite", 1),
        ("models/detection/coco_ssd_mobilenet_v1_1.0_quant_2018_06_29.tflite", 63),
        ("models/mlperf_tiny/kws_dscnn/kws_ref_model_float32.tflite", 13),
    ],
    ids=["LSTM with states", "channels on a wrong axis", "int16", "boxes behind it", "dynamic range"],
)
def test_real_files_of_every_kind_are_measured(name: str, operators: int) -> None:
    report = layers.measure(catalogue.path(name), samples=1)

    found = [layer for layer in report.layers if layer.operator >= 0]
    assert len(found) == operators
    assert all(layer.local_sqnr_db is not None for layer in found)


def test_a_file_is_measured_up_to_an_operator_that_no_runtime_has(tmp_path: Path, images: Path) -> None:
    report = measured(made(tmp_path, "custom_op"), images)

    assert {layer.operator for layer in report.layers} == {-1, 0, 1, 2, 3}
    assert [(each.operator, each.op) for each in report.unmeasured] == [(4, "TflotillaUnknown")]
    assert report.outputs[0].sqnr_db is None


def test_without_data_noise_is_fed_and_said(tmp_path: Path) -> None:
    report = layers.measure(made(tmp_path, "tiny_classifier"), samples=2)

    assert report.samples == 2
    assert any("noise" in note for note in report.notes)


def test_the_same_file_gives_the_same_report(tmp_path: Path, images: Path) -> None:
    model = made(tmp_path, "tiny_classifier")

    assert measured(model, images) == measured(model, images)


def test_the_plot_names_the_layers(tmp_path: Path, images: Path) -> None:
    report = measured(made(tmp_path, "tiny_classifier"), images)

    drawn = noise_plot(report).svg()

    assert "1 FULLY_CONNECTED logits" in drawn
    assert drawn == noise_plot(report).svg()


def test_layers_can_be_ranked_in_other_ways(tmp_path: Path, images: Path) -> None:
    report = measured(made(tmp_path, "tiny_classifier"), images)

    orders = {by: layers.ranked(report.layers, by) for by in layers.Sort}

    assert orders[layers.Sort.LOCAL] == report.layers
    assert [layer.operator for layer in orders[layers.Sort.OPERATOR]] == [-1, 0, 1, 2, 3]
    so_far = [layer.sqnr_db or 0 for layer in orders[layers.Sort.ACCUMULATED]]
    assert so_far == sorted(so_far)
    steps = [layer.local_rmse_over_scale or 0 for layer in orders[layers.Sort.RMSE]]
    assert steps == sorted(steps, reverse=True)


def test_a_float_model_has_nothing_to_measure(tmp_path: Path, images: Path) -> None:
    with pytest.raises(ModelError, match="nothing in it is quantized"):
        measured(made(tmp_path, "tiny_classifier_float"), images)


def test_a_quantized_reference_is_refused(tmp_path: Path, images: Path) -> None:
    with pytest.raises(ModelError, match=r"tiny_classifier_shifted\.tflite: is quantized itself"):
        measured(made(tmp_path, "tiny_classifier"), images, against=made(tmp_path, "tiny_classifier_shifted"))


def test_another_network_is_no_reference(tmp_path: Path, images: Path) -> None:
    other = catalogue.path("models/mlperf_tiny/ad01_autoencoder/ad01_fp32.tflite")

    with pytest.raises(ModelError, match="they are not the same network"):
        measured(made(tmp_path, "tiny_classifier"), images, against=other)


def test_a_model_of_nothing_but_a_foreign_operator_is_refused_by_its_name() -> None:
    model = catalogue.path("models/troublesome_tflite/mobilenet_v1_0.25_128_quant_edgetpu.tflite")

    with pytest.raises(ModelError, match="edgetpu-custom-op"):
        layers.measure(model, samples=1)


def test_a_file_that_takes_the_runtime_down_is_one_sentence() -> None:
    model = catalogue.path("models/troublesome_tflite/blockwise_quantized.tflite")

    with pytest.raises(ModelError, match="crashed"):
        layers.measure(model, samples=1)


@pytest.mark.parametrize(
    ("content", "error", "words"),
    [
        (b"", ModelError, "empty"),
        (b"no model at all", ModelError, "not a TFLite model"),
        (models_made.read("tiny_classifier")[:900], ModelError, "corrupt or truncated"),
    ],
    ids=["empty", "text", "truncated"],
)
def test_what_is_no_model_is_refused(tmp_path: Path, content: bytes, error: type[Exception], words: str) -> None:
    path = tmp_path / "model.tflite"
    path.write_bytes(content)

    with pytest.raises(error, match=words):
        layers.measure(path)


def test_bad_data_and_names_are_refused(tmp_path: Path) -> None:
    model = made(tmp_path, "tiny_classifier")
    bad = tmp_path / "bad.npy"
    np.save(bad, np.full((2, 8, 8, 1), np.nan, np.float32))

    with pytest.raises(DatasetError, match="NaN"):
        layers.measure(model, data=bad)
    with pytest.raises(DatasetError, match="no such"):
        layers.measure(model, data=tmp_path / "nowhere")
    with pytest.raises(UsageError, match="known runtimes"):
        layers.measure(model, runtime="tensorrt")
    with pytest.raises(UsageError, match="was calibrated for"):
        layers.measure(model, preprocess="raw")


def test_a_file_that_needs_more_memory_than_there_is_is_refused(tmp_path: Path) -> None:
    def spoil(model: Any) -> None:  # noqa: ANN401 - generated code without types
        tensor(model, "image").shape = np.array([1, 8, 2**20, 2**20], np.int32)

    with pytest.raises(ModelError, match="of this machine's"):
        layers.measure(made(tmp_path, "tiny_classifier", spoil))


def test_a_quantize_of_nothing_is_a_corrupt_file(tmp_path: Path) -> None:
    def spoil(model: Any) -> None:  # noqa: ANN401 - generated code without types
        model.subgraphs[0].operators[0].outputs = None

    with pytest.raises(ModelError, match="operator 0, QUANTIZE, does not take one tensor and give one"):
        layers.measure(made(tmp_path, "tiny_classifier", spoil))
