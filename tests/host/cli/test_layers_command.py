"""`tflotilla layers` as users run it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests import models_made
from tests.host.bundles import making
from tests.host.cli.test_model_commands import refused, tflotilla

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def images(tmp_path: Path) -> Path:
    path = tmp_path / "images.npy"
    np.save(path, np.stack([models_made.noisy(label, seed=label) for label in range(models_made.CLASSES)]))
    return path


def test_layers_shows_the_worst_first_with_range_scale_zero_point_and_errors(tmp_path: Path, images: Path) -> None:
    plot = tmp_path / "layers.svg"
    done = tflotilla(
        *("layers", making.model(tmp_path, "tiny_classifier"), "--calibration", images, "--preprocess", "unit"),
        *("--plot", plot),
    )

    assert done.returncode == 0, done.stderr
    head, first = done.stdout.splitlines()[:2]
    for column in ("tensor", "range", "scale", "zero", "RMSE/scale", "SQNR dB", "cut off"):
        assert column in head
    assert "FULLY_CONNECTED  logits" in first
    assert "-8.533 … 8.467" in first
    assert "0.06667" in first
    assert "end to end, scores:" in done.stderr
    assert plot.read_text().startswith("<svg")


def test_layers_gives_the_same_as_json(tmp_path: Path, images: Path) -> None:
    model, reference = (making.model(tmp_path, name) for name in ("tiny_classifier", "tiny_classifier_float"))
    done = tflotilla(
        *("layers", model, "--against", reference, "--calibration", images, "--preprocess", "unit"),
        *("--sort", "operator", "--json"),
    )

    document = json.loads(done.stdout)
    assert [layer["operator"] for layer in document["layers"]] == [-1, 0, 1, 2, 3]
    assert document["layers"][2]["reference_tensor"] == "logits"
    assert document["layers"][2]["local_rmse_over_scale"] == pytest.approx(0.29, abs=0.1)
    assert document["weights"][0]["sqnr_db"] > 30
    assert document["samples"] == 10


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (("--sort", "name"), 2, "expected one of local, accumulated, rmse, operator"),
        (("--plot", "layers.pdf"), 2, "plots are written as .svg or .png"),
        (("--plot", f"{__file__}/layers.svg"), 3, "can't be written"),
        (("--calibration", "nowhere/"), 3, "there is no such folder"),
        (("--preprocess", "imagenet"), 2, "expected one of raw, unit, mobilenet"),
        (("--runtime", "tensorrt"), 2, "known runtimes are"),
        (("--against", "nowhere.tflite"), 3, "nowhere.tflite"),
    ],
    ids=["order", "plot format", "plot place", "data", "preprocessing", "runtime", "reference"],
)
def test_what_can_not_be_done_is_one_line(tmp_path: Path, options: tuple[str, ...], code: int, words: str) -> None:
    found, said = refused(tflotilla("layers", making.model(tmp_path, "tiny_classifier"), *options))

    assert (found, words in said) == (code, True), said


def test_a_float_model_is_one_line(tmp_path: Path) -> None:
    code, said = refused(tflotilla("layers", making.model(tmp_path, "tiny_classifier_float")))

    assert code == 3
    assert "nothing in it is quantized" in said
