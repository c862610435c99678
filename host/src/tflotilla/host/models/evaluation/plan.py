"""What a model is judged by: by itself, the data, and what the user asked for. Pure but for the names of files.

A detector (TFLite_Detection_PostProcess) is judged on boxes, a classifier (one input, one output) on labels, everything
on its likeness to a float model. What it does NOT do: read the data.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from tflotilla.host.models import datasets, detection_data
from tflotilla.host.models.metrics import Metric
from tflotilla.shared.contract.errors import DatasetError, ModelError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tflotilla.host.models.inspect import ModelInspection
    from tflotilla.shared.contract.tensors import TensorSpec

DETECTION_OP = "TFLite_Detection_PostProcess"
_DETECTOR_OUTPUTS = 4


def choose(inspection: ModelInspection, data: Path, wanted: Metric | None, reference: Path | None) -> Metric:
    """Return what to judge a model by.

    Raises:
        ModelError: it can't be judged by that; says what could be done.
        UsageError: likeness without something to be like.
        DatasetError: a detector without boxes.

    """
    metric = wanted or _by_itself(inspection, data, reference)
    if metric in (Metric.COSINE, Metric.SQNR) and reference is None:
        raise UsageError(
            f"--metric {metric.value} compares with the float model: give it with --reference FLOAT.tflite"
        )
    if metric is Metric.ACCURACY:
        class_count(inspection)
    if metric is Metric.MAP and not is_detector(inspection):
        raise ModelError(
            f"mAP is for detectors that end in {DETECTION_OP}; judge this one on its outputs: --reference FLOAT.tflite "
            "--metric cosine"
        )
    return metric


def _by_itself(inspection: ModelInspection, data: Path, reference: Path | None) -> Metric:
    if is_detector(inspection):
        if detection_data.has_boxes(data):
            return Metric.MAP
        if reference is None:
            message = f"{data}: no labelled boxes; a detector is judged on {detection_data.FORMS}"
            raise DatasetError(message + "; or on its likeness to --reference FLOAT.tflite")
        return likeness(inspection)
    if len(inspection.inputs) == len(inspection.outputs) == 1 and datasets.is_labelled(data):
        return Metric.ACCURACY
    # Whoever names no reference expects labels, and is told what is wrong with them.
    return Metric.ACCURACY if reference is None else likeness(inspection)


def likeness(inspection: ModelInspection) -> Metric:
    """Return what tells likeness to float: the cosine, or the SQNR where an output is one number (no angle, a sign)."""
    return Metric.SQNR if any(not _sizes(spec) for spec in inspection.outputs) else Metric.COSINE


def is_detector(inspection: ModelInspection) -> bool:
    """Whether a model ends in the op that lists boxes."""
    return DETECTION_OP in inspection.requirements.custom_ops and len(inspection.outputs) == _DETECTOR_OUTPUTS


def class_count(inspection: ModelInspection) -> int:
    """Return the number of classes a classifier tells apart: the size of its only output. Raises ModelError."""
    if len(inspection.inputs) != 1 or len(inspection.outputs) != 1:
        raise ModelError(
            f"accuracy is for classifiers of one input and one output; this model has {len(inspection.inputs)} "
            f"and {len(inspection.outputs)}; judge it on its outputs: --reference FLOAT.tflite"
        )
    return math.prod(abs(size) for size in inspection.outputs[0].shape)


def classifies(inspection: ModelInspection) -> bool:
    """Whether a model's only output may be scores of classes: a vector, and not a copy of its input."""
    if len(inspection.inputs) != 1 or len(inspection.outputs) != 1 or inspection.outputs[0].dtype in ("string", "bool"):
        return False
    given, scores = ([size for size in spec.shape if size not in (1, -1)] for spec in edges(inspection))
    return len(scores) == 1 and scores != given


def edges(inspection: ModelInspection) -> tuple[TensorSpec, TensorSpec]:
    """Return the first input and the first output."""
    return inspection.inputs[0], inspection.outputs[0]


def pair(mine: Sequence[TensorSpec], theirs: Sequence[TensorSpec], what: str) -> list[tuple[int, int]]:
    """Return which tensor of one model is which of another: by name where all names are known, else by order.

    Raises:
        ModelError: the numbers or the shapes differ.

    """
    if len(mine) != len(theirs):
        raise ModelError(f"the model has {len(mine)} {what}s, the reference {len(theirs)}")
    places = {spec.name: number for number, spec in enumerate(theirs)}
    by_name = len(places) == len(theirs) and all(spec.name in places for spec in mine)
    pairs = [(number, places[spec.name] if by_name else number) for number, spec in enumerate(mine)]
    for one, other in pairs:
        if _sizes(mine[one]) != _sizes(theirs[other]):
            raise ModelError(
                f"{what} {mine[one].name!r} has shape {mine[one].shape}, the reference's {theirs[other].name!r} "
                f"{theirs[other].shape}: it is not the same model"
            )
    return pairs


def _sizes(spec: TensorSpec) -> list[int]:
    return [size for size in spec.shape if size not in (1, -1)]
