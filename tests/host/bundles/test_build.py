"""Bundles made from real models: goldens that the runtimes reproduce, bytes that repeat, refusals in one line."""

from __future__ import annotations

import dataclasses
import importlib.util
from typing import TYPE_CHECKING, Any

import pytest

from tests import catalogue, models_made
from tests.host.bundles import making
from tflotilla.host.bundles import archive, build, goldens, signing
from tflotilla.host.bundles.archive import Bundle
from tflotilla.host.bundles.build import BundleRequest
from tflotilla.host.models import samples
from tflotilla.host.models.inspect import inspect_model
from tflotilla.shared.contract.errors import InputError, ModelError, TflotillaError, UsageError
from tflotilla.shared.contract.processing import Postprocessing, Preprocessing
from tflotilla.shared.inference import goldens as vectors
from tflotilla.shared.inference import runtime as runtimes

if TYPE_CHECKING:
    from pathlib import Path

GRAY = Preprocessing(colour="gray", std=(255.0,))
both_runtimes = pytest.mark.skipif(
    not all(importlib.util.find_spec(name) for name in ("tflite_runtime", "ai_edge_litert")),
    reason="needs tflite-runtime and LiteRT",
)


def _request(folder: Path, model: str = "tiny_classifier", **changes: Any) -> BundleRequest:  # noqa: ANN401 - its fields
    labels = folder / "labels.txt"
    labels.write_bytes(models_made.LABELS_TXT)
    request = BundleRequest(
        model=making.model(folder, model),
        name="tiny",
        version="1.0.0",
        output=folder / "tiny-1.0.0.tflb",
        labels=labels,
        preprocessing=GRAY,
        golden_count=4,
    )
    return dataclasses.replace(request, **changes)


def test_a_bundle_holds_goldens_that_every_runtime_here_reproduces(tmp_path: Path) -> None:
    key = making.key(tmp_path)

    bundle = build.create(_request(tmp_path, key=key))

    bundle.verify_files()
    assert bundle.signature is not None
    signers = making.allowed_signers(tmp_path, key)
    assert "key" == signing.verify(bundle.manifest_bytes, bundle.signature, allowed_signers=signers)
    made = vectors.load(bundle.read("goldens.npz"))
    assert 4 == len(made)
    for runtime in runtimes.present():
        loaded = runtime.load(bundle.read("model.tflite"), runtimes.LoadOptions())
        assert vectors.reproduce(loaded, made, bundle.manifest.goldens).ok


def test_goldens_tell_another_model_of_the_same_shape_apart(tmp_path: Path) -> None:
    bundle = build.create(_request(tmp_path))
    made = vectors.load(bundle.read("goldens.npz"))

    loaded = runtimes.present()[0].load(models_made.read("tiny_classifier_shifted"), runtimes.LoadOptions())

    assert not vectors.reproduce(loaded, made, bundle.manifest.goldens).ok


def test_the_same_request_gives_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    key = making.key(tmp_path)
    request = _request(tmp_path, release=1, key=key)

    first = build.create(request).path.read_bytes()
    second = build.create(dataclasses.replace(request, output=tmp_path / "again.tflb")).path.read_bytes()

    assert first == second
    assert "2023-11-14T22:13:20Z" == Bundle.open(request.output).manifest.created


def test_releases_count_up_beside_each_other(tmp_path: Path) -> None:
    """Of the same name; another model's, and junk, don't count."""
    out = tmp_path / "out"
    out.mkdir()
    making.bundle(tmp_path, name="out/tiny-0.9.tflb", release=41)
    (out / "junk.tflb").write_bytes(b"junk")

    assert 41 == build.newest_release(out, "tiny")
    assert 0 == build.newest_release(out, "other")
    assert 42 == build.create(_request(tmp_path, output=out / "tiny-1.0.0.tflb")).manifest.release


def test_a_folder_can_be_made_too(tmp_path: Path) -> None:
    bundle = build.create(_request(tmp_path, output=tmp_path / "tiny"))

    assert (tmp_path / "tiny" / "manifest.json").is_file()
    bundle.verify_files()


def test_a_sealed_bundle_can_be_put_together_with_other_files(tmp_path: Path) -> None:
    """How tests and the demo make a signed bundle whose goldens are another model's."""
    key = making.key(tmp_path)
    members = making.members(tmp_path, signed_by=key)
    manifest = Bundle.open(archive.write(tmp_path / "a.tflb", members)).manifest
    files = {name: members[name] for name in manifest.files} | {"goldens.npz": b"another's"}

    bundle = Bundle.open(archive.write(tmp_path / "b.tflb", build.seal(manifest, files, key=key)))

    bundle.verify_files()
    assert b"another's" == bundle.read("goldens.npz")


def test_what_is_said_about_a_bundle_without_key_and_labels(tmp_path: Path) -> None:
    notes: list[str] = []

    build.create(_request(tmp_path, labels=None), note=notes.append)

    assert any("no --labels" in note for note in notes)
    assert any("not signed" in note for note in notes)


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"name": "Tiny Model"}, UsageError, "name 'Tiny Model'"),
        ({"name": "$(reboot)"}, UsageError, "use lower-case letters"),
        ({"version": "1 0"}, UsageError, "version '1 0'"),
        ({"release": 0}, UsageError, "release must be at least 1"),
        ({"golden_count": 0}, UsageError, "golden-count"),
        ({"reference": "onnx"}, UsageError, "--reference 'onnx'"),
        ({"preprocessing": Preprocessing()}, ModelError, "colour=gray"),
        ({"postprocessing": Postprocessing(kind="detection")}, ModelError, "detection reads 4 outputs"),
    ],
)
def test_a_request_that_can_not_be_is_refused(
    tmp_path: Path, changes: dict[str, Any], error: type[TflotillaError], words: str
) -> None:
    request = _request(tmp_path, **changes)

    with pytest.raises(error) as caught:
        build.create(request)

    assert words in str(caught.value)
    assert not request.output.exists()


def test_labels_that_do_not_fit_are_refused_before_anything_runs(tmp_path: Path) -> None:
    request = _request(tmp_path)
    (tmp_path / "labels.txt").write_text("one\ntwo\n")

    with pytest.raises(InputError, match="holds 2 labels, the model has 10 classes"):
        build.create(request)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("custom_op", "custom op 'TflotillaUnknown'"),
        ("op_version_too_high", "FULLY_CONNECTED version 99"),
    ],
)
def test_a_model_no_runtime_here_runs_gets_no_bundle(tmp_path: Path, name: str, words: str) -> None:
    """Without goldens nobody could tell whether a board computes right."""
    with pytest.raises(ModelError, match="no goldens can be made") as caught:
        build.create(_request(tmp_path, name))
    assert words in str(caught.value)


@pytest.mark.parametrize("damage", ["empty", "truncated", "text"])
def test_a_model_that_is_none_gets_no_bundle(tmp_path: Path, damage: str) -> None:
    request = _request(tmp_path)
    data = request.model.read_bytes()
    request.model.write_bytes({"empty": b"", "truncated": data[: len(data) // 2], "text": b"hello, world"}[damage])

    with pytest.raises(ModelError) as caught:
        build.create(request)
    assert "\n" not in str(caught.value)
    assert not request.output.exists()


def test_a_missing_folder_and_a_missing_key_are_said_at_once(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        build.create(_request(tmp_path, output=tmp_path / "nowhere" / "tiny.tflb"))
    with pytest.raises(InputError, match="no such key"):
        build.create(_request(tmp_path, key=tmp_path / "nokey"))


def test_names_that_would_hurt_a_shell_are_only_names(tmp_path: Path) -> None:
    folder = tmp_path / 'it\'s "quoted" $(touch hacked) & so on'
    folder.mkdir()

    bundle = build.create(_request(folder, key=making.key(folder, "my key's $(key)")))

    bundle.verify_files()
    assert not list(tmp_path.rglob("hacked"))


@both_runtimes
def test_a_model_of_state_gets_goldens_that_repeat_from_a_fresh_start(tmp_path: Path) -> None:
    model = catalogue.path("models/troublesome_tflite/keras_lstm_mnist_ptq.tflite")

    bundle = build.create(dataclasses.replace(_request(tmp_path), model=model, labels=None, preprocessing=None))

    made = vectors.load(bundle.read("goldens.npz"))
    for runtime in runtimes.present():
        loaded = runtime.load(model, runtimes.LoadOptions())
        assert vectors.reproduce(loaded, made, bundle.manifest.goldens).ok


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("troublesome_tflite/softplus_flex.tflite", "FlexSoftplus"),
        ("troublesome_tflite/custom_sinh.tflite", "Sinh"),
        ("troublesome_tflite/string_input_model.tflite", "holds text"),
        ("troublesome_tflite/mobilenet_v1_0.25_128_quant_edgetpu.tflite", "Edge TPU"),
        ("troublesome_tflite/empty_model.tflite", "no input"),
        ("troublesome_tflite/no_subgraphs.tflite", "no subgraph"),
        ("troublesome_tflite/test_model_broken.tflite", "not a TFLite model"),
        ("troublesome_tflite/blockwise_quantized.tflite", "no goldens can be made"),
    ],
)
def test_troublesome_models_are_one_line(tmp_path: Path, path: str, words: str) -> None:
    model = catalogue.path(f"models/{path}")

    request = dataclasses.replace(_request(tmp_path), model=model, labels=None, preprocessing=None)

    with pytest.raises(ModelError) as caught:
        build.create(request)
    assert words in str(caught.value)
    assert len(str(caught.value)) < 700


def test_a_detector_is_recognized_by_its_op(tmp_path: Path) -> None:
    model = catalogue.path("models/detection/coco_ssd_mobilenet_v1_1.0_quant_2018_06_29.tflite")
    images = catalogue.path("data/images/tflite_support")
    labels = catalogue.path("labels/coco_labels.txt")

    bundle = build.create(
        dataclasses.replace(
            _request(tmp_path),
            model=model,
            labels=labels,
            preprocessing=Preprocessing(mean=(127.5,), std=(127.5,)),
            goldens=images,
            golden_count=2,
        )
    )

    assert "detection" == bundle.manifest.postprocessing.kind
    assert ("TFLite_Detection_PostProcess",) == bundle.manifest.requirements.custom_ops


def test_an_evaluation_is_found_by_the_models_hash(tmp_path: Path) -> None:
    model = making.model(tmp_path)
    report = tmp_path / "report.json"
    entry = '{"model":"x/%s","samples":90,"accuracy":0.9,"runtime":"ai-edge-litert==2.3.0"}'
    report.write_text('{"models":[' + entry % "other.tflite" + "," + entry.replace("0.9", "0.7") % model.name + "]}")

    summary, answers = build.read_evaluation(report, model)
    assert (0.7, None) == (summary.accuracy, answers)


def test_a_report_without_the_model_is_refused(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    report.write_text("[1, 2]")

    with pytest.raises(InputError, match="no report of"):
        build.read_evaluation(report, making.model(tmp_path))
    report.write_text('{"samples":5,"accuracy":null,"metric":"map","value":0.5,"runtime":"x"}')
    with pytest.raises(InputError, match="reports no accuracy, only map"):
        build.read_evaluation(report, making.model(tmp_path))


@pytest.mark.parametrize(
    ("winners", "scores", "why"),
    [
        ('{"0":-1}', [0] * 10, "no count below 0"),
        ('{"0":1}', [0] * 9, "10 bins of scores"),
        ('{"zero":1}', [0] * 10, "the numbers of their classes"),
        ('{"-1":1}', [0] * 10, "the numbers of their classes"),
    ],
)
def test_answers_that_no_evaluation_gives_are_refused(
    tmp_path: Path, winners: str, scores: list[int], why: str
) -> None:
    model = making.model(tmp_path)
    report = tmp_path / "report.json"
    answers = f'{{"winners":{winners},"scores":{scores},"softmax_scores":{[0] * 10}}}'
    report.write_text(f'{{"model":"{model.name}","samples":90,"accuracy":0.9,"runtime":"x","answers":{answers}}}')

    with pytest.raises(InputError, match=why):
        build.read_evaluation(report, model)


def test_a_model_that_crashes_a_runtime_costs_a_line_not_the_host() -> None:
    """int4 blockwise weights abort both runtimes."""
    model = catalogue.path("models/troublesome_tflite/blockwise_quantized.tflite")
    found = inspect_model(model)
    inputs = samples.load(None, found.inputs, None, limit=2)

    with pytest.raises(ModelError, match="crashed"):
        goldens.make(model, inputs, found.outputs, count=1)
