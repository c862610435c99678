"""What a calibration report says: values. What it does NOT do: measure, or show."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tflotilla.host.models.calibration.curve import CurvePoint
from tflotilla.host.models.calibration.evidence import Evidence
from tflotilla.host.models.calibration.ranges import TensorRange
from tflotilla.host.models.calibration.saturation import TensorSaturation
from tflotilla.host.models.calibration.suspicion import Suspicion
from tflotilla.shared.contract.processing import Preprocessing
from tflotilla.shared.contract.tensors import TensorSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationReport:
    """Everything that was found out about one source and its calibration data."""

    source: Path
    format: str
    calibration: Path
    inputs: tuple[TensorSpec, ...]
    preprocessing: Preprocessing | None
    #: How many samples were used, and how many of them differ.
    samples: int
    distinct: int
    #: Name and version of the runtime that ran the files; None when none could.
    runtime: str | None
    #: Worst first.
    ranges: tuple[TensorRange, ...]
    #: Worst first; empty when there is no int8 file, or only one sample.
    saturation: tuple[TensorSaturation, ...]
    #: Samples that ranges were calibrated with, and that were held out, for `saturation`.
    calibrated_with: int
    held_out: int
    #: By number of samples; empty when there is no int8 file.
    curve: tuple[CurvePoint, ...]
    #: On how many samples the curve's SQNR and agreement were measured, and whether calibration never saw them.
    compared_on: int
    compared_on_held_out: bool
    #: Accuracy of the float model on the labelled data.
    float_accuracy: float | None
    labelled: int
    #: From which number of samples on more change nothing.
    enough: int | None
    evidence: Evidence
    warnings: tuple[Suspicion, ...]
    notes: tuple[str, ...]
