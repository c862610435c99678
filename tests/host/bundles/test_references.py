"""References: what a model answers on data like its own, from an evaluation or from data, as a board would say it."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from tests import models_made
from tests.host.bundles import making
from tflotilla.device.window import Window
from tflotilla.host.bundles import build, references
from tflotilla.host.bundles.build import BundleRequest
from tflotilla.host.models.evaluate import Answers, EvaluationRequest, evaluate
from tflotilla.host.models.evaluation import judges
from tflotilla.shared.contract import codec
from tflotilla.shared.contract.manifest import Reference
from tflotilla.shared.contract.processing import Postprocessing, Preprocessing
from tflotilla.shared.contract.tensors import TensorSpec
from tflotilla.shared.inference.postprocessing import Answerer

if TYPE_CHECKING:
    from pathlib import Path

GRAY = Preprocessing(colour="gray", std=(255.0,))


def photos(folder: Path) -> Path:
    """Write five zeros, three sevens and a nine."""
    folder.mkdir()
    for number, label in enumerate([0] * 5 + [7] * 3 + [9]):
        Image.fromarray(models_made.noisy(label, number)).save(folder / f"{number}.png")
    return folder


def request(folder: Path) -> BundleRequest:
    labels = folder / "labels.txt"
    labels.write_bytes(models_made.LABELS_TXT)
    return BundleRequest(
        model=making.model(folder),
        name="tiny",
        version="1.0.0",
        output=folder / "tiny-1.0.0.tflb",
        labels=labels,
        preprocessing=GRAY,
        golden_count=2,
    )


SEEN = Reference(samples=9, labels={"nine": 1, "seven": 3, "zero": 5}, scores=(0,) * 9 + (9,), data="calibration")


def test_the_data_of_the_goldens_makes_the_reference(tmp_path: Path) -> None:
    bundle = build.create(dataclasses.replace(request(tmp_path), goldens=photos(tmp_path / "photos")))

    assert SEEN == bundle.manifest.reference


def test_representative_data_goes_before_that_of_the_goldens(tmp_path: Path) -> None:
    one = tmp_path / "one.png"
    Image.fromarray(models_made.noisy(3, 0)).save(one)

    bundle = build.create(
        dataclasses.replace(request(tmp_path), goldens=one, representative=photos(tmp_path / "photos"))
    )

    assert SEEN == bundle.manifest.reference


def test_noise_is_like_nothing_and_that_is_said(tmp_path: Path) -> None:
    notes: list[str] = []

    bundle = build.create(request(tmp_path), note=notes.append)

    assert bundle.manifest.reference is None
    assert any("nothing can tell whether boards' answers drift" in note for note in notes)


def test_an_evaluation_says_what_was_answered_right_or_wrong(tmp_path: Path) -> None:
    """Its JSON makes the bundle's reference, under the bundle's labels."""
    data = tmp_path / "data"
    for label, count in ((0, 5), (7, 3), (9, 1)):
        (data / str((label + 1) % 10)).mkdir(parents=True)
        for number in range(count):
            file = data / str((label + 1) % 10) / f"{number}.png"
            Image.fromarray(models_made.noisy(label, number)).save(file)
    made = request(tmp_path)
    (score, *_) = evaluate(EvaluationRequest(models=(made.model,), data=data, preprocess="unit")).scores
    report = tmp_path / "report.json"
    report.write_text(json.dumps({"scores": [codec.encode(score) | {"model": str(score.model)}]}))

    summary, answers = build.read_evaluation(report, made.model)
    bundle = build.create(dataclasses.replace(made, evaluation=summary, answers=answers))

    assert 0.0 == summary.accuracy
    assert dataclasses.replace(SEEN, data="evaluation") == bundle.manifest.reference


def test_logits_are_read_as_the_bundle_reads_them() -> None:
    answers = Answers(winners={"1": 4, "7": 1}, scores=(0,) * 10, softmax_scores=(0,) * 8 + (2, 3))

    found = references.of_evaluation(answers, Postprocessing(kind="classification", softmax=True), ("a", "b"))

    assert Reference(samples=5, labels={"7": 1, "b": 4}, scores=(0,) * 8 + (2, 3)) == found


@pytest.mark.parametrize("kind", ["detection", "raw"])
def test_an_evaluation_says_nothing_of_what_is_no_class(kind: str) -> None:
    answers = Answers(winners={"1": 4}, scores=(0,) * 9 + (4,), softmax_scores=(0,) * 9 + (4,))

    assert references.of_evaluation(answers, codec.decode(Postprocessing, {"kind": kind}, "p"), ()) is None


@pytest.mark.parametrize("softmax", [False, True])
def test_winners_and_tenths_are_those_that_a_board_counts(softmax: bool) -> None:  # noqa: FBT001 - both readings
    outputs = np.random.default_rng(5).uniform(-0.3, 1.3, (400, 1, 6)).astype(np.float32)
    outputs[0, 0] = (0, 0, 1.0, 0, 0, 0)
    outputs[1, 0] = (0, 0, 0.3, 0, 0, 0)
    spec = TensorSpec(name="scores", shape=(1, 6), dtype="float32")
    answerer = Answerer(Postprocessing(kind="classification", softmax=softmax), (spec,), ())
    window = Window(with_results=False)
    for output in outputs:
        window.add("item", 0.0, (1, 1, 1, 1, 4), answerer.answer((output,)))
    reported = json.loads(window.metrics(window_ns=1, dropped=0, rss_bytes=1, temperature_c=None))

    found = judges.winners(outputs, spec)

    scores = found.softmax_scores if softmax else found.scores
    assert reported["scores"] == judges.tenths(scores).tolist()
    counted = {label["label"]: label["count"] for label in reported["labels"]}
    assert counted == {str(index): n for index, n in enumerate(np.bincount(found.indices).tolist()) if n}


def test_one_output_is_always_the_winner() -> None:
    found = judges.winners(
        np.array([[[0.2]], [[0.9]]], np.float32), TensorSpec(name="s", shape=(1, 1), dtype="float32")
    )

    assert ([0, 0], [0.2, 0.9]) == (found.indices.tolist(), found.scores.tolist())


def test_a_model_without_answers_has_no_reference(tmp_path: Path) -> None:
    processing = Postprocessing(kind="raw")

    found = references.of_data(
        making.model(tmp_path), photos(tmp_path / "photos"), GRAY, processing, (), runtime="ai-edge-litert"
    )

    assert found is None
