"""Pruning, clustering and quantization-aware training as users run them: whole commands, minutes long."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tflotilla.host.lab import digits
from tflotilla.host.models import child

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = [pytest.mark.slow, pytest.mark.tensorflow, pytest.mark.timeout(3600)]
DEADLINE_S = 1800.0


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the digits and a CNN of Keras 3 that knows them."""
    folder = tmp_path_factory.mktemp("digits")
    found = digits.load()
    np.savez(folder / "train.npz", x=found.train_images[..., None], y=found.train_labels)
    np.savez(folder / "held.npz", x=found.held_out_images[..., None], y=found.held_out_labels)
    child.call(
        "tflotilla.host.lab.digits:train",
        {"output": str(folder / "digits.keras"), "epochs": 12, "seed": 1, "width": 16},
    )
    return folder


def command(place: Path, name: str, out: Path, *more: str | Path) -> list[str]:
    given: list[str | Path] = [name, place / "digits.keras", "-o", out, "--data", place / "train.npz"]
    given += ["--validation", place / "held.npz", "--preprocess", "unit", *more]
    return [sys.executable, "-m", "tflotilla.host", *map(str, given)]


def run(*arguments: Any) -> dict[str, Any]:  # noqa: ANN401 - as command
    done = subprocess.run(
        [*command(*arguments), "--json"], capture_output=True, text=True, timeout=DEADLINE_S, check=False
    )
    assert done.returncode == 0, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def wait_for(what: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not what():
        assert process.poll() is None, "it ended before"
        assert time.monotonic() < deadline
        time.sleep(0.05)


def variant(report: dict[str, Any], of: str, scheme: str) -> dict[str, Any]:
    (found,) = (entry for entry in report["variants"] if (entry["of"], entry["scheme"]) == (of, scheme))
    return dict(found)


def test_a_pruned_model_is_delivered_measured_and_told_about(place: Path, tmp_path: Path) -> None:
    out = tmp_path / "pruned.keras"

    report = run(
        place,
        "prune",
        out,
        "--epochs",
        "8",
        "--final-sparsity",
        "0.7",
        "--pattern",
        "1x4",
        "--tflite",
        tmp_path / "lite",
    )

    assert out.exists()
    assert sorted(path.name for path in (tmp_path / "lite").iterdir()) == [
        f"pruned-{scheme}.tflite" for scheme in ("dynamic_range", "float32", "int8", "sparse")
    ]
    assert 0.68 < report["sparsity"] < 0.71
    assert report["after"]["accuracy"] > 0.85
    before, after = variant(report, "before", "float32"), variant(report, "after", "float32")
    assert after["size_bytes"] == before["size_bytes"]
    assert after["compressed_bytes"] < 0.6 * before["compressed_bytes"]
    sparse = variant(report, "after", "sparse")
    assert sparse["size_bytes"] < 0.7 * after["size_bytes"]
    for measured in sparse["measured"]:
        assert measured["difference"] < 1e-4
    for dense in after["measured"]:
        assert dense["accuracy"] == pytest.approx(report["after"]["accuracy"], abs=0.005)
        assert dense["runs"] >= 11
    assert any("computed from 1x4 blocks" in text for text in report["findings"])


def test_a_run_that_is_killed_goes_on_when_it_is_started_again_and_ends_the_same(place: Path, tmp_path: Path) -> None:
    options = ("--epochs", "3", "--scheme", "float32", "--runtime", "ai-edge-litert", "--checkpoint-every", "10")
    whole = run(place, "prune", tmp_path / "whole.h5", *options)
    checkpoint = tmp_path / "run" / "training.npz"
    again = (place, "prune", tmp_path / "again.h5", *options, "--checkpoint", tmp_path / "run")
    process = subprocess.Popen(command(*again), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(checkpoint.exists, process)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert not (tmp_path / "again.h5").exists()

    resumed = run(*again)

    assert any("went on from the checkpoint at step" in note for note in resumed["notes"])
    assert resumed["epochs"] == whole["epochs"]
    assert (
        variant(resumed, "after", "float32")["compressed_bytes"]
        == variant(whole, "after", "float32")["compressed_bytes"]
    )


def test_clustering_makes_a_keras_3_model_zip_well(place: Path, tmp_path: Path) -> None:
    report = run(place, "cluster", tmp_path / "clustered.keras", "--clusters", "16", "--scheme", "float32")

    assert {layer["values"] for layer in report["layers"]} == {16}
    before, after = variant(report, "before", "float32"), variant(report, "after", "float32")
    assert after["compressed_bytes"] < 0.4 * before["compressed_bytes"]
    assert after["measured"][0]["accuracy"] > 0.85


def test_quantization_aware_training_delivers_integers_that_answer_as_well(place: Path, tmp_path: Path) -> None:
    out, float_out = tmp_path / "q.tflite", tmp_path / "q.h5"

    report = run(
        place,
        "qat",
        out,
        "--scheme",
        "int8_io_int8",
        "--keras",
        float_out,
        "--target-runtime",
        "tflite-runtime==2.14.0",
    )

    assert out.exists()
    assert float_out.exists()
    exact = variant(report, "before", "float32")["measured"][0]["accuracy"]
    for measured in variant(report, "after", "int8_io_int8")["measured"]:
        assert measured["reason"] is None
        assert measured["accuracy"] > exact - 0.05
