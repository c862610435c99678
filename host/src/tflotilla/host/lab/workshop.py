"""Where the demo's models and releases are made: trained, converted, judged, signed. All of it in one folder.

What it does NOT do: speak, or touch a board.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tflotilla.host.bundles import build
from tflotilla.host.lab import bad_releases, digits, keys
from tflotilla.host.models import child, convert, evaluate
from tflotilla.shared.contract.board import RuntimeOffer
from tflotilla.shared.contract.errors import ConversionError
from tflotilla.shared.contract.manifest import EvaluationSummary, HealthPolicy
from tflotilla.shared.contract.tensors import QuantizationScheme

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tflotilla.host.bundles.archive import Bundle
    from tflotilla.host.models.convert import ConversionReport

SCHEMES = (
    QuantizationScheme.FLOAT32,
    QuantizationScheme.FLOAT16,
    QuantizationScheme.DYNAMIC_RANGE,
    QuantizationScheme.INT8,
    QuantizationScheme.INT8_IO_UINT8,
)
SHIPPED = QuantizationScheme.INT8_IO_UINT8
#: The older of the two runtimes: what runs there runs on both.
TARGET = RuntimeOffer(name="tflite-runtime", version="2.14.0")
CALIBRATION_IMAGES = 200
_SEED = 7
_CONFIRM_S = 2.0
_NEWEST_WITH_TFLITE_RUNTIME = (3, 11)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """A trained source model, with its accuracy on the held-out digits as Keras computes it."""

    source: Path
    accuracy: float
    parameters: int


class Workshop:
    """A folder with data, models and releases."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.key = folder / "release_key"
        self.data = digits.load()
        self._calibration = folder / "calibration"
        self._labels = folder / "labels.txt"
        self.held_out = folder / "held-out"
        #: tflite-runtime's newest wheel is for Python 3.11; the boards of a lab have the Python of this machine.
        self.both_runtimes = sys.version_info[:2] <= _NEWEST_WITH_TFLITE_RUNTIME
        keys.generate(self.key, comment="demo-release")
        self._labels.write_text("".join(f"{label}\n" for label in digits.LABELS))
        chosen = slice(CALIBRATION_IMAGES)
        digits.write_class_folders(self.data.train_images[chosen], self.data.train_labels[chosen], self._calibration)
        digits.write_class_folders(self.data.held_out_images, self.data.held_out_labels, self.held_out)

    def train(self, stem: str, *, epochs: int, width: int) -> Trained:
        """Train a CNN of that width in a child process."""
        source = self.folder / f"{stem}.keras"
        made = child.call(
            "tflotilla.host.lab.digits:train",
            {"output": str(source), "epochs": epochs, "seed": _SEED, "width": width},
            doing="training the CNN",
        )
        return Trained(source=source, accuracy=made["accuracy"], parameters=made["parameters"])

    def convert(
        self,
        trained: Trained,
        schemes: tuple[QuantizationScheme, ...],
        *,
        target: RuntimeOffer | None = TARGET,
        folder: str = "converted",
        on_progress: Callable[[str], None] | None = None,
    ) -> ConversionReport:
        """Convert to these schemes, all of which must come out. Raises ConversionError."""
        report = convert.convert(
            convert.ConversionRequest(
                source=trained.source,
                output=self.folder / folder,
                schemes=schemes,
                calibration=self._calibration,
                preprocess=digits.PREPROCESSING,
                target=target,
            ),
            on_progress,
        )
        if report.failures:
            raise ConversionError("; ".join(f"{scheme.value}: {why}" for scheme, why in report.failures.items()))
        return report

    def judge(self, files: Sequence[Path]) -> list[evaluate.Score]:
        """Return accuracy and latency of each file on the held-out digits, with the newest runtime here."""
        report = evaluate.evaluate(
            evaluate.EvaluationRequest(
                models=tuple(files),
                data=self.held_out,
                preprocess=digits.PREPROCESSING,
                labels=self._labels,
                runtimes=("ai-edge-litert",),
            )
        )
        return list(report.scores)

    def release(self, model: Path, *, version: str, release: int, score: evaluate.Score | None = None) -> Bundle:
        """Sign a release of `digits`, with goldens from this machine's runtimes."""
        evaluation = None
        if score is not None:
            evaluation = EvaluationSummary(
                samples=len(self.data.held_out_images), accuracy=score.value, runtime=score.runtime
            )
        return build.create(
            build.BundleRequest(
                model=model,
                name="digits",
                version=version,
                release=release,
                output=self.folder / f"digits-{version}.tflb",
                labels=self._labels,
                preprocessing=digits.PREPROCESSING,
                goldens=self._calibration,
                evaluation=evaluation,
                answers=None if score is None else score.answers,
                health=HealthPolicy(confirm_window_s=_CONFIRM_S),
                key=self.key,
            )
        )

    def second_release(self) -> Bundle:
        """Train, convert, judge and sign a wider CNN."""
        trained = self.train("digits-2", epochs=20, width=24)
        (file,) = self.convert(trained, (SHIPPED,), folder="second").files
        (score,) = self.judge([file.path])
        return self.release(file.path, version="2.0.0", release=20, score=score)

    def future_release(self, trained: Trained, first: Bundle) -> Bundle:
        """Sign a release whose ops are newer than the older runtime knows.

        That is what TensorFlow writes for dynamic range by default. Where only LiteRT can be had, which knows those
        ops, an op is raised to a version of which no runtime has heard.
        """
        version = "1.0.1"
        if not self.both_runtimes:
            output = self.folder / f"digits-{version}.tflb"
            return bad_releases.from_the_future(first, version=version, key=self.key, output=output)
        (file,) = self.convert(trained, (QuantizationScheme.DYNAMIC_RANGE,), target=None, folder="future").files
        return self.release(file.path, version=version, release=first.manifest.release + 1)
