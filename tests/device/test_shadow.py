"""A candidate beside what serves, on the board's own inputs: real models in a real child."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from tests import models_made
from tests.device import running_bundles
from tests.device.children import RUNTIMES, ask
from tflotilla.device import shadow
from tflotilla.device.reports import ShadowSpec
from tflotilla.shared.contract import codec, digest
from tflotilla.shared.contract.agent_config import InferenceConfig, SourceConfig
from tflotilla.shared.contract.deployment import ShadowReport
from tflotilla.shared.contract.manifest import LABELS, MANIFEST, FileEntry, Manifest
from tflotilla.shared.contract.processing import Postprocessing

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

INFERENCE = codec.decode(InferenceConfig, {"runtime": RUNTIMES[-1]}, "test")
SHIFTED = models_made.read("tiny_classifier_shifted")


def _spec(champion: Path, challenger: Path, source: SourceConfig, *, inputs: int = 20) -> ShadowSpec:
    return ShadowSpec(
        champion=str(champion),
        champion_inference=INFERENCE,
        challenger=str(challenger),
        challenger_inference=INFERENCE,
        source=source,
        inputs=inputs,
        at_most_s=60.0,
    )


def _ask(spec: ShadowSpec) -> ShadowReport:
    done = ask("shadow", spec)
    assert done.returncode == 0, done.stderr
    return codec.decode(ShadowReport, codec.parse_json(done.stdout, "shadow"), "shadow")


@pytest.fixture
def images(tmp_path: Path) -> SourceConfig:
    return SourceConfig(kind="folder", path=str(running_bundles.write_images(tmp_path / "images")), loop=True)


@pytest.fixture
def champion(tmp_path: Path) -> Path:
    return running_bundles.write(tmp_path / "champion")


def _with_labels(folder: Path, labels: tuple[str, ...]) -> Path:
    data = "".join(f"{label}\n" for label in labels).encode()
    (folder / LABELS).write_bytes(data)
    manifest = Manifest.from_bytes((folder / MANIFEST).read_bytes())
    files = {**manifest.files, LABELS: FileEntry(size=len(data), sha256=digest.of_bytes(data))}
    (folder / MANIFEST).write_bytes(replace(manifest, files=files).to_bytes())
    return folder


def test_the_same_answers_agree(tmp_path: Path, champion: Path, images: SourceConfig) -> None:
    report = _ask(_spec(champion, running_bundles.write(tmp_path / "b", changes={"version": "2"}), images))

    assert (report.inputs, report.agreed, report.reason) == (20, 20, None)
    assert report.champion_score == report.challenger_score
    assert report.champion_score is not None
    assert report.champion_score > 0.9
    assert report.champion_p50_ns
    assert report.challenger_p50_ns


def test_other_answers_do_not(tmp_path: Path, champion: Path, images: SourceConfig) -> None:
    report = _ask(_spec(champion, running_bundles.write(tmp_path / "b", model=SHIFTED), images))

    assert (report.inputs, report.agreed) == (20, 0)


def test_labels_are_compared_not_their_numbers(tmp_path: Path, champion: Path, images: SourceConfig) -> None:
    """Trained again with the classes in another order it is the same model to whoever reads its labels."""
    shift = _winner(tmp_path, SHIFTED)
    labels = tuple(models_made.LABELS[(n - shift) % models_made.CLASSES] for n in range(models_made.CLASSES))
    challenger = _with_labels(running_bundles.write(tmp_path / "b", model=SHIFTED), labels)

    report = _ask(_spec(champion, challenger, images))

    assert (report.inputs, report.agreed) == (20, 20)


def _winner(tmp_path: Path, model: bytes) -> int:
    """Return which class a model finds in the image of class 0."""
    from tflotilla.shared.inference import runtime

    path = tmp_path / "asked.tflite"
    path.write_bytes(model)
    loaded = runtime.find(RUNTIMES[-1]).load(path, runtime.LoadOptions())
    loaded.set_inputs((running_bundles.image(0),))
    loaded.invoke()
    return int(loaded.get_outputs()[0].argmax())


def test_made_up_tensors_do_as_well(tmp_path: Path, champion: Path) -> None:
    report = _ask(_spec(champion, running_bundles.write(tmp_path / "b"), SourceConfig(), inputs=7))

    assert (report.inputs, report.agreed) == (7, 7)


def test_pictures_that_can_not_be_read_are_left_out(tmp_path: Path, champion: Path, images: SourceConfig) -> None:
    assert images.path is not None
    (tmp_path / "images" / "broken.png").write_bytes(b"no picture")

    report = _ask(_spec(champion, running_bundles.write(tmp_path / "b"), images, inputs=11))

    assert (report.inputs, report.agreed) == (10, 10)


@pytest.mark.parametrize(
    ("changes", "source", "words"),
    [
        (
            {"postprocessing": Postprocessing(kind="raw")},
            "folder",
            "answers with classification, the candidate with raw",
        ),
        ({"preprocessing": None}, "folder", "takes no images"),
    ],
)
def test_what_can_not_be_compared_is_a_reason(
    tmp_path: Path, champion: Path, images: SourceConfig, changes: dict[str, Any], source: str, words: str
) -> None:
    assert source == images.kind

    report = _ask(_spec(champion, running_bundles.write(tmp_path / "b", changes=changes), images))

    assert (report.inputs, report.agreed) == (0, 0)
    assert words in (report.reason or "")


def test_two_that_give_raw_numbers_have_no_answers_to_compare(tmp_path: Path, images: SourceConfig) -> None:
    raw = {"postprocessing": Postprocessing(kind="raw")}
    one = running_bundles.write(tmp_path / "a", changes=raw)

    assert "raw numbers" in (_ask(_spec(one, running_bundles.write(tmp_path / "b", changes=raw), images)).reason or "")


def test_a_source_without_inputs_is_a_reason(tmp_path: Path, champion: Path) -> None:
    (tmp_path / "empty").mkdir()
    ticking = _ticks(1.0)
    source = SourceConfig(kind="folder", path=str(tmp_path / "empty"), loop=False)

    report = shadow.compare(_spec(champion, running_bundles.write(tmp_path / "b"), source), clock=lambda: next(ticking))

    assert report == ShadowReport(inputs=0, agreed=0, reason="no input came from the board's source (folder)")


def test_what_is_not_done_in_time_does_not_count(tmp_path: Path, champion: Path) -> None:
    ticking = _ticks(1.0)

    report = shadow.compare(
        _spec(champion, running_bundles.write(tmp_path / "b"), SourceConfig(), inputs=10_000),
        clock=lambda: next(ticking),
    )

    # Sixty seconds by this clock: half for each, loading included.
    assert 0 < report.inputs <= 30
    assert report.agreed == report.inputs


def _ticks(step_s: float) -> Iterator[float]:
    now = 0.0
    while True:
        yield now
        now += step_s


def test_a_bundle_that_rotted_is_a_reason(tmp_path: Path, champion: Path, images: SourceConfig) -> None:
    rotten = running_bundles.write(tmp_path / "b")
    (rotten / "model.tflite").write_bytes(b"rot")

    report = _ask(_spec(champion, rotten, images))

    assert "bytes have changed" in (report.reason or "")


def test_the_worker_goes_first(tmp_path: Path, champion: Path) -> None:
    spec = _spec(champion, running_bundles.write(tmp_path / "b"), SourceConfig())
    code = "import os, sys; from tflotilla.device.shadow import main; main(); print('\\n', os.nice(0), file=sys.stderr)"

    done = subprocess.run(
        [sys.executable, "-c", code], input=codec.canonical_json(spec), capture_output=True, check=True
    )

    assert int(done.stderr.splitlines()[-1]) >= 10
