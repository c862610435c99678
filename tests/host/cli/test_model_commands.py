"""`tflotilla convert`, `inspect` and `evaluate` as users run them; nothing here needs TensorFlow."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests import catalogue, models_made
from tests.host.bundles import making
from tflotilla.host.bundles import archive

if TYPE_CHECKING:
    from pathlib import Path


def tflotilla(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tflotilla.host", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def refused(done: subprocess.CompletedProcess[str]) -> tuple[int, str]:
    """Return the exit code and the one line that was said."""
    lines = [line for line in done.stderr.splitlines() if line.startswith("tflotilla: ")]
    assert len(lines) == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    return done.returncode, lines[0].removeprefix("tflotilla: ")


@pytest.mark.parametrize("command", ["convert", "inspect", "evaluate"])
def test_help_shows_an_example_and_its_exit_codes_without_heavy_imports(command: str) -> None:
    best = 10.0
    for _ in range(3):
        start = time.perf_counter()
        done = tflotilla(command, "--help")
        best = min(best, time.perf_counter() - start)

    assert done.returncode == 0
    assert f"Example: tflotilla {command} " in done.stdout
    assert "Exit codes: 0 " in done.stdout
    assert best < 2.0, "TensorFlow takes more than that on a busy machine, everything else less"


def test_inspect_shows_a_model_and_the_same_as_json(tmp_path: Path) -> None:
    model = making.model(tmp_path, "tiny_classifier")

    shown = tflotilla("inspect", model, "--tensors")
    document = json.loads(tflotilla("inspect", model, "--json").stdout)

    assert shown.returncode == 0
    for words in ("int8_io_uint8", "integer only", "FULLY_CONNECTED", "1 x 8 x 8 x 1", "tflite-runtime ≥"):
        assert words in shown.stdout
    assert document["scheme"] == "int8_io_uint8"
    assert document["integer_only"] is True
    assert document["inputs"][0]["shape"] == [1, 8, 8, 1]
    assert document["requirements"]["ops"]


def test_inspect_reads_the_model_in_a_bundle(tmp_path: Path) -> None:
    bundle = tmp_path / "it's $(tiny).tflb"
    archive.write(bundle, making.members(tmp_path))

    shown = tflotilla("inspect", bundle)

    assert shown.returncode == 0
    assert "tiny-1.0.0, release 1" in shown.stdout
    assert "FULLY_CONNECTED" in shown.stdout


@pytest.mark.catalogue
def test_inspect_gives_every_troublesome_file_an_answer_or_one_line() -> None:
    for file in ("softplus_flex", "mobilenet_v1_0.25_128_quant_edgetpu", "multi_signatures", "string_input_model"):
        shown = tflotilla("inspect", catalogue.path(f"models/troublesome_tflite/{file}.tflite"))
        assert (shown.returncode, shown.stderr) == (0, "")

    for file in ("no_subgraphs", "test_model_broken"):
        code, line = refused(tflotilla("inspect", catalogue.path(f"models/troublesome_tflite/{file}.tflite")))
        assert code == 3
        assert file in line


def test_evaluate_speaks_in_a_table_and_in_json(tmp_path: Path) -> None:
    models = [making.model(tmp_path, name) for name in ("tiny_classifier_float", "tiny_classifier")]
    images = np.stack([models_made.noisy(label, 3) for label in range(models_made.CLASSES)])
    np.savez(tmp_path / "held out.npz", x=images, y=np.arange(models_made.CLASSES))
    arguments: tuple[str | Path, ...] = (
        "evaluate",
        *models,
        "--data",
        tmp_path / "held out.npz",
        "--preprocess",
        "unit",
        "--runtime",
        "litert",
    )

    shown = tflotilla(*arguments)
    document = json.loads(tflotilla(*arguments, "--json").stdout)

    assert shown.returncode == 0
    assert "100.00%" in shown.stdout
    assert "+0.00" in shown.stdout
    assert "~" in shown.stdout
    assert [(entry["samples"], entry["accuracy"]) for entry in document["scores"]] == [(10, 1.0)] * 2
    assert document["scores"][1]["runtime"].startswith("ai-edge-litert==")
    assert document["scores"][1]["float_accuracy"] == 1.0


def test_evaluate_compares_outputs_with_the_float_models(tmp_path: Path) -> None:
    model, reference = making.model(tmp_path, "tiny_classifier"), making.model(tmp_path, "tiny_classifier_float")
    np.save(tmp_path / "x.npy", np.stack([models_made.noisy(label, 3) for label in range(models_made.CLASSES)]))
    arguments: tuple[str | Path, ...] = (
        *("evaluate", model, "--data", tmp_path / "x.npy", "--preprocess", "unit", "--runtime", "litert"),
        *("--reference", reference),
    )

    shown = tflotilla(*arguments)
    document = json.loads(tflotilla(*arguments, "--metric", "sqnr", "--json").stdout)

    assert shown.returncode == 0
    for words in ("cosine", "SQNR dB", "agrees", "100.00%"):
        assert words in shown.stdout
    (score,) = document["scores"]
    assert (score["metric"], score["value"]) == ("sqnr", score["outputs"][0]["sqnr_db"])
    assert (score["accuracy"], score["agreement"], score["float_value"]) == (None, 1.0, 200.0)
    code, line = refused(tflotilla(*arguments, "--metric", "f1"))
    assert (code, "expected one of accuracy, map, cosine, sqnr" in line) == (2, True)


def test_bad_requests_are_one_line_and_an_exit_code_each(tmp_path: Path) -> None:
    model = making.model(tmp_path, "tiny_classifier")
    lambda_model = catalogue.ROOT / "models/mnist/mnist_model.keras"
    source = lambda_model if lambda_model.exists() else model
    (tmp_path / "photos").mkdir()
    out = tmp_path / "out"

    assert refused(tflotilla("evaluate", model, "--data", tmp_path / "photos", "--preprocess", "unit"))[0] == 3
    assert refused(tflotilla("evaluate", model, "--data", tmp_path / "photos", "--preprocess", "x"))[0] == 2
    code, line = refused(tflotilla("convert", model, "-o", out))
    assert (code, "quantized already (tensor" in line) == (12, True)
    assert refused(tflotilla("convert", tmp_path / "absent.h5", "-o", out))[0] == 3
    code, line = refused(tflotilla("convert", source, "-o", out, "--scheme", "int9"))
    assert (code, "expected one of float32, float16" in line) == (2, True)
    code, line = refused(tflotilla("convert", source, "-o", out, "--scheme", "int8"))
    assert (code, "give --calibration" in line) == (2, True)
    code, line = refused(tflotilla("convert", source, "-o", out, "--target-runtime", "tflite-runtime"))
    assert (code, "like tflite-runtime==2.14.0" in line) == (2, True)
    code, line = refused(tflotilla("convert", source, "-o", out, "--input-shapes", "a,b"))
    assert (code, "write NAME=1,224,224,3" in line) == (2, True)
    code, line = refused(tflotilla("convert", source, "-o", tmp_path / "x.tflite", "--scheme", "all"))
    assert (code, "--calibration" in line) == (2, True)
    assert not out.exists()
