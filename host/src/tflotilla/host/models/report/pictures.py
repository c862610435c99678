"""A few samples as pictures, and what every variant says of them, in one child process.

What it does NOT do: choose the interesting ones. They are spread evenly, so that nobody is flattered.
"""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from tflotilla.host.models import child
from tflotilla.host.models.evaluation import here, plan
from tflotilla.host.models.evaluation.feeding import Feeder
from tflotilla.host.models.evaluation.task import Task, open_data
from tflotilla.host.models.inspect import inspect_model
from tflotilla.host.models.metrics import Metric
from tflotilla.host.models.report.contents import Answer, Box, Guess, Sample
from tflotilla.shared.contract import codec
from tflotilla.shared.contract.processing import Postprocessing
from tflotilla.shared.inference import detections, images
from tflotilla.shared.inference import runtime as runtimes
from tflotilla.shared.inference.postprocessing import Answerer

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from tflotilla.host.models.evaluation.feeding import Samples
    from tflotilla.host.models.inspect import ModelInspection

_TOP = 3
_MOST_BOXES = 8
_LEAST_SCORE = 0.3
#: Longest edge of a picture on the page, in pixels; a phone is 390 wide.
_EDGE = 240
_QUALITY = 72
_IMAGE_DIMENSIONS = 4
_PICTURE_CHANNELS = (1, 3)


def look(tasks: Mapping[str, Task], reference: str | None) -> tuple[Sample, ...]:
    """Return samples with the answers of every variant, by name.

    Raises:
        ModelError: a variant crashes or can't be run; DatasetError, UsageError: the data don't fit.

    """
    answer = child.call(
        "tflotilla.host.models.report.pictures:run_here",
        {"tasks": dict(tasks), "reference": reference},
        doing="looking at samples",
    )
    return tuple(codec.decode(Sample, entry, "samples") for entry in answer)


def run_here(*, tasks: Mapping[str, Any], reference: str | None) -> list[Any]:
    """Look in this process; `look` calls it in a child."""
    wanted = {name: codec.decode(Task, dict(entry), "task") for name, entry in tasks.items()}
    first = next(iter(wanted.values()))
    inspection = inspect_model(Path(first.model))
    data = open_data(first, inspection)
    samples = data.samples
    said = {name: _answers(task, samples) for name, task in wanted.items()}
    labels = {int(index): name for index, name in first.labels.items()}
    found = []
    for row in range(samples.count):
        answers = [said[name][row] for name in wanted]
        tops = [answer["top"][0].label if answer["top"] else None for answer in answers]
        best = dict(zip(wanted, tops, strict=True))
        sure = reference is not None and best.get(reference) is not None
        truth = labels.get(data.labels[row], str(data.labels[row])) if data.labels else None
        found.append(
            Sample(
                name=samples.files[row].name if samples.files else f"sample {row}",
                picture=_picture(samples, row, inspection),
                truth=truth,
                answers=tuple(
                    Answer(
                        variant=name,
                        top=tuple(answer["top"]),
                        boxes=tuple(answer["boxes"]),
                        agrees=best[name] == best[reference] if sure and reference and name != reference else None,
                    )
                    for name, answer in zip(wanted, answers, strict=True)
                ),
            )
        )
    return [codec.encode(sample) for sample in found]


def _answers(task: Task, samples: Samples) -> list[dict[str, Any]]:
    file = Path(task.model)
    inspection = inspect_model(file)
    loaded = runtimes.find(task.runtime).load(file, runtimes.LoadOptions())
    feeder = Feeder(samples, inspection.inputs, task.preprocessing)
    labels = {int(index): name for index, name in task.labels.items()}
    detector = plan.is_detector(inspection)
    order = here.output_order(file) if detector else ()
    classes = 0 if detector or not plan.classifies(inspection) else plan.class_count(inspection)
    answerer = Answerer(Postprocessing(top_k=min(_TOP, classes)), loaded.outputs, ()) if classes else None
    found = []
    for row in range(samples.count):
        loaded.set_inputs(feeder.single(row)[0])
        loaded.invoke()
        outputs = loaded.get_outputs()
        top: list[Guess] = []
        boxes: list[Box] = []
        if answerer is not None:
            top = [
                Guess(label=labels.get(each.index, str(each.index)), score=each.score)
                for each in answerer.answer(outputs)
            ]
        elif detector:
            boxes = _boxes([outputs[i] for i in order], [loaded.outputs[i] for i in order], labels)
        found.append({"top": top, "boxes": boxes})
    return found


def _boxes(outputs: Sequence[NDArray[Any]], specs: Sequence[Any], labels: Mapping[int, str]) -> list[Box]:
    found = [each for each in detections.read(outputs, specs).found if each.score >= _LEAST_SCORE]
    return [
        Box(
            label=labels.get(each.index, str(each.index)),
            score=each.score,
            ymin=each.box[0],
            xmin=each.box[1],
            ymax=each.box[2],
            xmax=each.box[3],
        )
        for each in found[:_MOST_BOXES]
    ]


def _picture(samples: Samples, row: int, inspection: ModelInspection) -> str:
    """Return a small picture of a sample as a data URI; "" when it is none."""
    if samples.files:
        image = images.open_image(samples.files[row], draft_size=(_EDGE, _EDGE)).convert("RGB")
        image.thumbnail((_EDGE, _EDGE))
        return _uri(image, "JPEG")
    shape = inspection.inputs[0].shape
    if len(samples.arrays) != 1 or len(shape) != _IMAGE_DIMENSIONS or shape[-1] not in _PICTURE_CHANNELS:
        return ""
    values = np.asarray(samples.arrays[0][row], np.float64).reshape(shape[1:])
    low, high = float(values.min()), float(values.max())
    if samples.arrays[0].dtype != np.uint8:
        values = (values - low) / ((high - low) or 1.0) * 255
    pixels = np.ascontiguousarray(np.rint(values).clip(0, 255).astype(np.uint8))
    return _uri(Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels), "PNG")


def _uri(image: Image.Image, form: str) -> str:
    with io.BytesIO() as stream:
        image.save(stream, form, **({"quality": _QUALITY} if form == "JPEG" else {"optimize": True}))
        return f"data:image/{form.lower()};base64,{base64.b64encode(stream.getvalue()).decode()}"


def metric_for_looking(inspection: ModelInspection, *, labelled: bool) -> Metric:
    """Return the metric under whose rules the samples are opened: labels where there are any."""
    return Metric.ACCURACY if labelled and plan.classifies(inspection) else Metric.COSINE
