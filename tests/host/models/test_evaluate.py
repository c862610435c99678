"""Accuracy and latency of real (tiny) models on real runtimes."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from tests import catalogue, models_made
from tests.host.bundles import making
from tflotilla.host.bundles import archive, subjects
from tflotilla.host.models import flatbuffer, metrics
from tflotilla.host.models.evaluate import EvaluationRequest, evaluate
from tflotilla.host.models.evaluation import plan
from tflotilla.host.models.inspect import inspect_model
from tflotilla.host.models.metrics import Metric
from tflotilla.shared.contract.errors import DatasetError, ModelError, UsageError
from tflotilla.shared.contract.tensors import QuantizationScheme

if TYPE_CHECKING:
    from pathlib import Path

LITERT = "ai-edge-litert"
PREPROCESS = "unit"


def class_folders(folder: Path, *, per_class: int = 2) -> Path:
    for label in range(models_made.CLASSES):
        for number in range(per_class):
            file = folder / str(label) / f"{number}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(models_made.noisy(label, number)).save(file)
    return folder


def test_one_table_for_models_and_runtimes_with_the_float_model_as_the_measure(tmp_path: Path) -> None:
    models = tuple(
        making.model(tmp_path, name) for name in ("tiny_classifier_float", "tiny_classifier", "tiny_classifier_shifted")
    )
    told: list[str] = []

    report = evaluate(
        EvaluationRequest(models=models, data=class_folders(tmp_path / "data"), preprocess=PREPROCESS), told.append
    )

    by_model = [(score.model.stem, score.accuracy, score.float_accuracy) for score in report.scores]
    runtimes = {score.runtime for score in report.scores}
    assert by_model == [
        (name, accuracy, 1.0)
        for name, accuracy in (
            ("tiny_classifier_float", 1.0),
            ("tiny_classifier", 1.0),
            ("tiny_classifier_shifted", 0.0),
        )
        for _ in runtimes
    ]
    assert report.refusals == ()
    score = report.scores[0]
    assert (score.samples, score.scheme, score.top5) == (20, QuantizationScheme.FLOAT32, 1.0)
    assert set(score.stages) == {"decode", "preprocess", "invoke", "postprocess", "total"}
    assert score.stages["decode"].count == 20
    assert score.stages["total"].p50_ns > score.stages["invoke"].p50_ns > 0
    assert not score.enough_for_p90


def test_a_bundle_brings_its_own_preprocessing_and_labels(tmp_path: Path) -> None:
    bundle = tmp_path / "tiny.tflb"
    archive.write(bundle, making.members(tmp_path))
    data = tmp_path / "data"
    for label, name in enumerate(models_made.LABELS):
        (data / name).mkdir(parents=True)
        Image.fromarray(models_made.pattern(label)).save(data / name / "1.png")

    report = evaluate(
        EvaluationRequest(models=(subjects.unpack(bundle, tmp_path / "unpacked"),), data=data, runtimes=(LITERT,))
    )

    assert [score.accuracy for score in report.scores] == [1.0]


def test_arrays_of_pixels_and_of_real_numbers_score_the_same(tmp_path: Path) -> None:
    pixels = np.stack([models_made.noisy(label, 1) for label in range(models_made.CLASSES)])
    labels = np.arange(models_made.CLASSES)
    np.savez(tmp_path / "pixels.npz", x=pixels, y=labels)
    np.savez(tmp_path / "real.npz", x=(pixels / 255).astype(np.float32), y=labels)
    model = making.model(tmp_path, "tiny_classifier")

    for name in ("pixels", "real"):
        request = EvaluationRequest(
            models=(model,), data=tmp_path / f"{name}.npz", preprocess=PREPROCESS, runtimes=(LITERT,), limit=5
        )
        (score,) = evaluate(request).scores
        assert (score.accuracy, score.samples) == (1.0, 5)


def test_a_runtime_that_refuses_a_model_costs_that_row_and_not_the_others(tmp_path: Path) -> None:
    good, bad = making.model(tmp_path, "tiny_classifier"), making.model(tmp_path, "op_version_too_high")
    data = class_folders(tmp_path / "data", per_class=1)

    report = evaluate(EvaluationRequest(models=(bad, good), data=data, preprocess=PREPROCESS, runtimes=(LITERT,)))

    assert [score.model for score in report.scores] == [good]
    (refusal,) = report.refusals
    assert refusal.model == bad
    assert "FULLY_CONNECTED" in refusal.reason
    with pytest.raises(ModelError, match="FULLY_CONNECTED"):
        evaluate(EvaluationRequest(models=(bad,), data=data, preprocess=PREPROCESS, runtimes=(LITERT,)))


def test_labels_that_do_not_fit_the_outputs_are_refused_before_anything_runs(tmp_path: Path) -> None:
    labels = tmp_path / "labels.txt"
    labels.write_text("cat\ndog\n")
    model = making.model(tmp_path, "tiny_classifier")
    data = class_folders(tmp_path / "data", per_class=1)

    with pytest.raises(DatasetError, match="has 10 outputs and 2 labels"):
        evaluate(EvaluationRequest(models=(model,), data=data, preprocess=PREPROCESS, labels=labels))
    with pytest.raises(DatasetError, match=r"label 19 has no output; the model has 10 \(0\.\.9\)"):
        evaluate(EvaluationRequest(models=(model,), data=data, preprocess=PREPROCESS, label_offset=10))


def test_what_can_not_be_evaluated_is_said_in_one_line(tmp_path: Path) -> None:
    model = making.model(tmp_path, "tiny_classifier")
    data = class_folders(tmp_path / "data", per_class=1)
    np.savez(tmp_path / "wide.npz", x=np.zeros((2, 9, 9), np.float32), y=np.array([0, 1]))
    (tmp_path / "bad.tflite").write_bytes(b"nonsense")
    (tmp_path / "photo.png").write_bytes((data / "0" / "0.png").read_bytes())
    flat = tmp_path / "flat"
    flat.mkdir()
    (flat / "photo.png").write_bytes((data / "0" / "0.png").read_bytes())

    with pytest.raises(UsageError, match="say it with --preprocess"):
        evaluate(EvaluationRequest(models=(model,), data=data))
    with pytest.raises(UsageError, match="known runtimes are tflite-runtime, ai-edge-litert"):
        evaluate(EvaluationRequest(models=(model,), data=data, runtimes=("onnx",)))
    with pytest.raises(UsageError, match="say colour=gray"):
        evaluate(EvaluationRequest(models=(model,), data=data, preprocess="unit,colour=rgb", runtimes=(LITERT,)))
    with pytest.raises(ModelError, match="no TFL3 mark"):
        evaluate(EvaluationRequest(models=(tmp_path / "bad.tflite",), data=data))
    with pytest.raises(DatasetError, match="images without labels; labelled data is a folder with one subfolder"):
        evaluate(EvaluationRequest(models=(model,), data=flat, preprocess=PREPROCESS))
    with pytest.raises(DatasetError, match=r"a sample has shape \(9, 9\), the model takes \(1, 8, 8, 1\)"):
        evaluate(EvaluationRequest(models=(model,), data=tmp_path / "wide.npz", runtimes=(LITERT,)))
    (data / "3" / "0.png").write_bytes(b"no image")
    with pytest.raises(DatasetError, match=r"3/0\.png is not an image"):
        evaluate(EvaluationRequest(models=(model,), data=data, preprocess=PREPROCESS, runtimes=(LITERT,)))


@pytest.mark.catalogue
def test_a_real_classifier_recognizes_real_photos_with_its_background_class() -> None:
    request = EvaluationRequest(
        models=(catalogue.path("models/imagenet/coral/mobilenet_v2_1.0_224_quant.tflite"),),
        data=catalogue.path("data/caltech101_imagenet_subset"),
        preprocess="mobilenet",
        runtimes=(LITERT,),
        limit=56,
        label_offset=1,
    )

    (score,) = evaluate(request).scores

    assert score.value > 0.6
    assert score.top5 is not None
    assert score.top5 > 0.8


def test_a_preprocessing_that_saturates_a_quantized_input_is_refused(tmp_path: Path) -> None:
    model = making.model(tmp_path, "tiny_classifier")
    data = class_folders(tmp_path / "data", per_class=1)

    with pytest.raises(UsageError, match=r"makes 0 to 255 of pixels, input .* was calibrated for 0 to 1; is it unit\?"):
        evaluate(EvaluationRequest(models=(model,), data=data, preprocess="raw"))


@pytest.mark.catalogue
def test_a_detector_without_boxes_is_refused(tmp_path: Path) -> None:
    detector = catalogue.path("models/detection/coco_ssd_mobilenet_v1_1.0_quant_2018_06_29.tflite")

    with pytest.raises(DatasetError, match=r"no labelled boxes; a detector is judged on a folder with boxes\.csv"):
        evaluate(EvaluationRequest(models=(detector,), data=tmp_path, preprocess="mobilenet"))
    with pytest.raises(ModelError, match="this model has 1 and 4; judge it on its outputs"):
        evaluate(EvaluationRequest(models=(detector,), data=tmp_path, preprocess="mobilenet", metric=Metric.ACCURACY))


def outputs_too(name: str, tensor: int) -> bytes:
    """Return a tiny model that gives one of its inner tensors as a second output."""
    model = flatbuffer.read(models_made.read(name))
    graph = model.subgraphs[0]
    graph.outputs = [*graph.outputs, tensor]
    return flatbuffer.write(model)


def two_inputs() -> bytes:
    """Return the float classifier with its bias as a second input."""
    model = flatbuffer.read(models_made.read("tiny_classifier_float"))
    graph = model.subgraphs[0]
    graph.tensors[2].buffer = 0
    graph.inputs = [*graph.inputs, 2]
    return flatbuffer.write(model)


def test_a_model_of_several_outputs_is_compared_with_float_output_by_output(tmp_path: Path) -> None:
    reference, model = tmp_path / "float.tflite", tmp_path / "int8.tflite"
    reference.write_bytes(outputs_too("tiny_classifier_float", 3))
    model.write_bytes(outputs_too("tiny_classifier", 4))
    np.save(tmp_path / "x.npy", np.stack([models_made.noisy(label, 2) for label in range(10)]))
    request = EvaluationRequest(
        models=(model, reference),
        data=tmp_path / "x.npy",
        preprocess=PREPROCESS,
        runtimes=(LITERT,),
        reference=reference,
    )

    quantized, itself = evaluate(request).scores

    assert (quantized.metric, quantized.accuracy, quantized.samples) == (Metric.COSINE, None, 10)
    assert 0.99 < quantized.value < 1.0
    assert quantized.value == min(each.cosine for each in quantized.outputs)
    assert {each.name for each in quantized.outputs} == {"scores", "logits"}
    assert quantized.outputs[0].sqnr_db < quantized.outputs[1].sqnr_db, "the worst output is named first"
    assert (itself.value, itself.outputs[0].sqnr_db) == (1.0, metrics.BEST_SQNR_DB)
    (by_noise,) = evaluate(dataclasses.replace(request, models=(model,), metric=Metric.SQNR)).scores
    assert by_noise.value == quantized.outputs[0].sqnr_db
    assert (by_noise.float_value, 0 < metrics.drop(Metric.SQNR, 0, by_noise.value) < 0.01) == (200.0, True)


def test_likeness_of_single_numbers_is_told_by_noise_not_by_angle(tmp_path: Path) -> None:
    """The cosine of two positive numbers is 1, whatever they are: any scheme met any bound."""
    model = tmp_path / "float.tflite"
    model.write_bytes(models_made.read("tiny_classifier_float"))
    vector = inspect_model(model)
    number = dataclasses.replace(vector, outputs=(dataclasses.replace(vector.outputs[0], shape=(-1, 1)),))
    both = dataclasses.replace(vector, outputs=vector.outputs + number.outputs)

    assert [plan.likeness(found) for found in (vector, number, both)] == [Metric.COSINE, Metric.SQNR, Metric.SQNR]


def test_a_model_of_several_inputs_takes_an_array_for_each(tmp_path: Path) -> None:
    model = tmp_path / "two.tflite"
    model.write_bytes(two_inputs())
    random = np.random.default_rng(1)
    np.savez(
        tmp_path / "x.npz",
        bias=random.random((5, 10), dtype=np.float32),
        image=random.random((5, 8, 8, 1), dtype=np.float32),
    )
    np.savez(tmp_path / "one.npz", image=random.random((5, 8, 8, 1)))
    request = EvaluationRequest(models=(model,), data=tmp_path / "x.npz", runtimes=(LITERT,), reference=model)

    (score,) = evaluate(request).scores

    assert (score.value, score.samples, score.metric) == (1.0, 5, Metric.COSINE)
    with pytest.raises(DatasetError, match="holds image; expected one array for each of image, bias"):
        evaluate(dataclasses.replace(request, data=tmp_path / "one.npz"))
    with pytest.raises(ModelError, match="this model has 2 and 1; judge it on its outputs: --reference"):
        evaluate(dataclasses.replace(request, reference=None))


def test_a_classifier_beside_its_float_twin_says_how_often_they_agree(tmp_path: Path) -> None:
    good, shifted = making.model(tmp_path, "tiny_classifier"), making.model(tmp_path, "tiny_classifier_shifted")
    data = class_folders(tmp_path / "data", per_class=1)
    request = EvaluationRequest(
        models=(good, shifted),
        data=data,
        preprocess=PREPROCESS,
        runtimes=(LITERT,),
        reference=making.model(tmp_path, "tiny_classifier_float"),
    )

    by_labels = evaluate(request).scores
    by_outputs = evaluate(dataclasses.replace(request, metric=Metric.COSINE)).scores

    assert [(each.accuracy, each.float_accuracy, each.agreement) for each in by_labels] == [(1, 1, 1), (0, 1, 0)]
    assert [each.metric for each in by_labels] == [Metric.ACCURACY] * 2
    assert [each.agreement for each in by_outputs] == [1.0, 0.0]
    assert by_outputs[0].value > 0.99 > by_outputs[1].value
    assert all(each.top5_agreement is not None for each in by_labels)


def test_labels_that_are_off_by_one_are_noticed(tmp_path: Path) -> None:
    images = np.stack([models_made.pattern(label % 10) for label in range(20)])
    np.savez(tmp_path / "x.npz", x=images, y=np.arange(20) % 10)
    model = making.model(tmp_path, "tiny_classifier_shifted")

    (score,) = evaluate(
        EvaluationRequest(models=(model,), data=tmp_path / "x.npz", preprocess=PREPROCESS, runtimes=(LITERT,))
    ).scores

    assert score.accuracy == 0.0
    assert score.hint is not None
    assert "18 of 20 answers are the label +1" in score.hint
    assert "--label-offset 1 more" in score.hint


def test_a_reference_that_is_another_model_is_refused(tmp_path: Path) -> None:
    model, other = making.model(tmp_path, "tiny_classifier"), making.model(tmp_path, "tiny_classifier_rgb")
    two = tmp_path / "two.tflite"
    two.write_bytes(outputs_too("tiny_classifier_float", 3))
    np.save(tmp_path / "x.npy", np.zeros((2, 8, 8), np.uint8))
    request = EvaluationRequest(
        models=(model,), data=tmp_path / "x.npy", preprocess=PREPROCESS, runtimes=(LITERT,), reference=other
    )

    with pytest.raises(ModelError, match=r"shape \(1, 8, 8, 1\), the reference's .* it is not the same model"):
        evaluate(request)
    with pytest.raises(ModelError, match="the model has 1 outputs, the reference 2"):
        evaluate(dataclasses.replace(request, reference=two))
    with pytest.raises(UsageError, match="--metric sqnr compares with the float model: give it with --reference"):
        evaluate(dataclasses.replace(request, reference=None, metric=Metric.SQNR))
    with pytest.raises(ModelError, match="mAP is for detectors that end in TFLite_Detection_PostProcess"):
        evaluate(dataclasses.replace(request, reference=None, metric=Metric.MAP))


#: What is in some of the catalogue's pictures, by eye: file, label, xmin, ymin, xmax, ymax in pixels.
SEEN = """file,label,xmin,ymin,xmax,ymax
tflite_support/cats_and_dogs.jpg,cat,82,402,412,600
tflite_support/cats_and_dogs.jpg,cat,885,410,1081,600
tflite_support/cats_and_dogs.jpg,dog,390,219,640,600
tflite_support/cats_and_dogs.jpg,dog,617,155,909,600
coral/cat_720p.jpg,cat,130,78,905,720
coral/hot_dog.jpg,hot dog,93,83,481,227
coral/owl.jpg,bird,160,14,332,381
coral/parrot.jpg,bird,100,102,464,900
"""


@pytest.mark.catalogue
def test_a_real_detector_finds_what_is_in_real_pictures(tmp_path: Path) -> None:
    detector = catalogue.path("models/detection/coco_ssd_mobilenet_v1_1.0_quant_2018_06_29.tflite")
    pictures = catalogue.path("data/images")
    for folder in ("coral", "tflite_support"):
        (tmp_path / folder).symlink_to(pictures / folder)
    (tmp_path / "boxes.csv").write_text(SEEN)
    request = EvaluationRequest(models=(detector,), data=tmp_path, preprocess="mobilenet", runtimes=(LITERT,))

    (score,) = evaluate(request).scores

    found = {each.name: each.average_precision for each in score.classes}
    assert (score.metric, score.samples, score.accuracy) == (Metric.MAP, 5, None)
    assert score.value == pytest.approx(sum(found.values()) / 4)
    assert score.value > 0.6
    assert (found["bird"], found["hot dog"]) == (1.0, 1.0)
    numbered = tmp_path / "numbered"
    numbered.mkdir()
    for folder in ("coral", "tflite_support"):
        (numbered / folder).symlink_to(pictures / folder)
    # COCO's own numbers begin at 1, the detector's at 0.
    table = SEEN
    for name, number in (("hot dog", 58), ("cat", 17), ("dog", 18), ("bird", 16)):
        table = table.replace(f",{name},", f",{number},")
    (numbered / "boxes.csv").write_text(table)
    (off,) = evaluate(dataclasses.replace(request, data=numbered)).scores
    assert off.value < 0.1
    assert off.hint is not None
    assert "give --label-offset -1 more" in off.hint
