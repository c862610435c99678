"""Train a model with int8's rounding in it, deliver the int8 file, and tell whether that beat calibration alone.

What it does NOT do: other schemes; float16 and dynamic range need no training.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tflotilla.host.models import delivery
from tflotilla.host.models.compression import request, variants
from tflotilla.host.models.compression.procedures import AFTER, BEFORE, CALIBRATION, VALIDATION
from tflotilla.host.models.compression.request import CompressionReport, CompressionRequest
from tflotilla.host.models.compression.tasks import Task
from tflotilla.shared.contract.errors import UsageError
from tflotilla.shared.contract.tensors import QuantizationScheme

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

SCHEMES = (QuantizationScheme.INT8, QuantizationScheme.INT8_IO_UINT8, QuantizationScheme.INT8_IO_INT8)
#: What the Keras file is saved as while the work goes on; it is delivered under the user's own suffix.
_SUFFIX = ".keras"
_QUANTIZED = "quantized.tflite"


@dataclass(frozen=True, slots=True, kw_only=True)
class QatRequest(CompressionRequest):
    """What to train; `output` is the int8 file, `keras` the trained weights in float (None keeps none)."""

    scheme: QuantizationScheme = QuantizationScheme.INT8
    keras: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class QatReport(CompressionReport):
    """What came of it."""

    scheme: QuantizationScheme
    #: Where the trained weights lie as a float Keras model.
    trained: Path | None
    quantized_layers: tuple[str, ...]
    #: Those that tfmot has no way for; they are quantized by calibration.
    left_layers: tuple[str, ...]


def train(asked: QatRequest, on_progress: Callable[[str], None] | None = None) -> QatReport:
    """Train, convert, deliver, measure.

    Raises:
        UsageError: options that make no sense, alone or for this model; layers that it hasn't.
        ModelError: the source can't be read or trained.
        DatasetError: the data can't be trained on.
        ConversionError: tfmot, Keras 2, or int8 can't take the model.
        InputError: something can't be written.

    """
    request.check(asked, suffixes=(".tflite",))
    if asked.scheme not in SCHEMES:
        raise UsageError(f"--scheme {asked.scheme.value}: expected one of {', '.join(s.value for s in SCHEMES)}")
    _check_keras(asked)
    suffix = _SUFFIX if asked.keras is None else asked.keras.suffix
    with tempfile.TemporaryDirectory(prefix="tflotilla-qat-") as name:
        folder = Path(name)
        answer = request.train(
            "tflotilla.host.models.compression.tfmot_qat:qat_here",
            asked,
            {"scheme": asked.scheme.value, "target": asked.target},
            folder,
            on_progress,
            suffix=suffix,
        )
        notes = list(answer["notes"])
        quantized, trained = folder / _QUANTIZED, folder / f"{AFTER}{suffix}"
        delivery.deliver(quantized, asked.output)
        kept = asked.keras if asked.keras is not None and trained.exists() else None
        if kept is not None:
            delivery.deliver(trained, kept)
        if on_progress is not None:
            on_progress("converting the model before training")
        before = folder / f"{BEFORE}{suffix}"
        files = request.to_tflite(before, BEFORE, asked, folder / CALIBRATION, folder, notes)
        files.append(variants.File(of=AFTER, scheme=asked.scheme.value, path=quantized))
        made = variants.measure(files, folder / VALIDATION, Task(answer["task"]), asked.runtimes, on_progress)
        request.keep(files, asked)
        sizes = [request.sized("source", asked.source, asked.source)]
        if kept is not None:
            sizes.append(request.sized("trained, in float, without optimizer", trained, kept))
    return QatReport(
        source=asked.source,
        output=asked.output,
        files=tuple(sizes),
        variants=made,
        findings=tuple(_findings(made, asked.scheme)),
        notes=tuple(notes),
        scheme=asked.scheme,
        trained=kept,
        quantized_layers=tuple(answer["quantized"]),
        left_layers=tuple(answer["left"]),
        **request.decoded(answer),
    )


def _check_keras(asked: QatRequest) -> None:
    target = asked.keras
    if target is None:
        return
    if target.suffix not in request.KERAS_SUFFIXES:
        raise UsageError(f"--keras {target}: the file must end in {' or '.join(request.KERAS_SUFFIXES)}")
    if target.exists() and target.samefile(asked.source):
        raise UsageError(f"--keras {target} is the source itself, which is not written over; give another file")
    delivery.check_writable(target)


def _findings(made: Sequence[variants.Variant], scheme: QuantizationScheme) -> list[str]:
    """Say on each runtime what training gave over calibration alone."""
    by_name = {(variant.of, variant.scheme): variant for variant in made}
    trained = by_name.get((AFTER, scheme.value))
    calibrated = by_name.get((BEFORE, scheme.value))
    plain = by_name.get((BEFORE, QuantizationScheme.FLOAT32.value))
    if trained is None or calibrated is None or plain is None:
        return []
    found = []
    for after, before, exact in zip(trained.measured, calibrated.measured, plain.measured, strict=True):
        figures = [_judged(measured) for measured in (exact, before, after)]
        if all(figure is not None for figure in figures):
            found.append(
                f"on {after.runtime}: float {figures[0]}, {scheme.value} by calibration alone {figures[1]}, after "
                f"training {figures[2]} ({after.samples:,} samples)"
            )
    return found


def _judged(measured: variants.Measured) -> str | None:
    if measured.accuracy is not None:
        return f"{measured.accuracy:.2%}"
    return None if measured.error is None else f"error {measured.error:.5f}"
