"""What the child is told, and the data that it then opens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tflotilla.host.models import datasets, detection_data
from tflotilla.host.models.evaluation import plan
from tflotilla.host.models.evaluation.feeding import Samples
from tflotilla.host.models.metrics import Metric
from tflotilla.host.models.samples import evenly
from tflotilla.shared.contract.errors import DatasetError, UsageError
from tflotilla.shared.contract.processing import Preprocessing

if TYPE_CHECKING:
    from tflotilla.host.models.inspect import ModelInspection


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What the child is told."""

    model: str
    runtime: str
    num_threads: int
    data: str
    metric: Metric
    preprocessing: Preprocessing | None = None
    #: Names of the classes by their numbers.
    labels: Mapping[str, str]
    label_offset: int = 0
    limit: int | None = None
    reference: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Data:
    """Samples, and what is true of them, as far as the metric asks."""

    samples: Samples
    labels: tuple[int, ...] = ()
    boxes: detection_data.BoxedData | None = None


def open_data(task: Task, inspection: ModelInspection) -> Data:
    """Open what the metric needs.

    Raises:
        DatasetError: unreadable, empty, or labels that the model has no output for.
        UsageError: pixels without preprocessing.

    """
    path = Path(task.data)
    if task.metric is Metric.ACCURACY:
        data = _labelled(task, path, inspection)
    elif task.metric is Metric.MAP:
        names = {int(index): name for index, name in task.labels.items()}
        if (path / datasets.LABELS).is_file():
            names = detection_data.read_label_map(path / datasets.LABELS)
        boxed = detection_data.open_boxed(path, names=names, offset=task.label_offset).take(task.limit)
        data = Data(samples=Samples(path=path, files=boxed.files), boxes=boxed)
    else:
        files, arrays = datasets.open_unlabelled(path, inspection.inputs)
        rows = evenly(len(files) or len(arrays[0]), task.limit)
        samples = Samples(
            path=path,
            files=tuple(files[row] for row in rows) if files else (),
            arrays=arrays if len(rows) == len(arrays[0] if arrays else files) else tuple(a[rows] for a in arrays),
        )
        data = Data(samples=samples)
    _refuse_bare_pixels(data.samples, task, inspection)
    return data


def _labelled(task: Task, path: Path, inspection: ModelInspection) -> Data:
    classes = plan.class_count(inspection)
    if task.labels and len(task.labels) != max(classes, 2):
        raise DatasetError(f"{task.model}: has {classes} outputs and {len(task.labels)} labels")
    names = tuple(name for _, name in sorted(task.labels.items(), key=lambda item: int(item[0])))
    found = datasets.open_labelled(path, names=names, classes=classes, offset=task.label_offset).take(task.limit)
    arrays = () if found.array is None else (found.array,)
    return Data(samples=Samples(path=path, files=found.files, arrays=arrays), labels=found.labels)


def _refuse_bare_pixels(samples: Samples, task: Task, inspection: ModelInspection) -> None:
    pixels = bool(samples.files) or any(
        array.dtype == np.uint8 and spec.dtype == "float32"
        for array, spec in zip(samples.arrays, inspection.inputs, strict=True)
    )
    if task.metric is Metric.ACCURACY and samples.arrays:
        pixels = samples.arrays[0].dtype == np.uint8 and inspection.inputs[0].dtype != "uint8"
    if pixels and task.preprocessing is None and len(inspection.inputs) == 1:
        raise UsageError(
            f"{task.data} holds pixels, and how they become inputs is half the model; say it with --preprocess "
            "(raw: 0..255, unit: 0..1, mobilenet: -1..1, …)"
        )
