"""An SSD MobileNet with TFLite_Detection_PostProcess, uint8: boxes on a real picture, on every runtime here."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from tflotilla.host.models import child
from tflotilla.host.models.datasets import read_labels
from tflotilla.host.reproductions.reproduction import Reproduction, Row
from tflotilla.shared.contract.errors import BoardError
from tflotilla.shared.inference import detections, images, preprocessing
from tflotilla.shared.inference import runtime as runtimes
from tflotilla.shared.inference.preprocessing import Preprocessor

if TYPE_CHECKING:
    from tflotilla.host.reproductions.desk import Desk

TITLE = "SSD MobileNet with TFLite_Detection_PostProcess, uint8"
NEEDS = "coco_ssd_mobilenet*.tflite, coco_labels.txt, cats_and_dogs.jpg"
MINUTES = 1
_LEAST_SCORE = 0.5


def run(desk: Desk) -> Reproduction:
    """Do the case."""
    model, picture = desk.find("*ssd_mobilenet*.tflite"), desk.find("cats_and_dogs.jpg")
    labels = read_labels(desk.find("coco_labels.txt"))
    rows = []
    for name in runtimes.ADAPTERS:
        try:
            found = child.call(
                "tflotilla.host.reproductions.cases.ssd_mobilenet:detect_here",
                {"model": str(model), "picture": str(picture), "runtime": name},
                doing=f"{name} on {model.name}",
            )
        except BoardError as error:
            rows.append(Row(what=name, published="runs", ours=str(error)))
            continue
        boxes = "; ".join(
            f"{_label(labels, index)} {score:.0%} at {_spell(box)}" for index, score, box in found["found"]
        )
        seen = {_label(labels, index) for index, _, _ in found["found"]}
        rows.append(Row(what=found["runtime"], published="runs", ours=boxes, holds={"cat", "dog"} <= seen))
    return Reproduction(
        name="ssd-mobilenet",
        title=TITLE,
        rows=tuple(rows),
        remarks=(
            f"Boxes that score {_LEAST_SCORE:.0%} or more on {picture.name}: ymin, xmin, ymax, xmax of the image.",
        ),
    )


def detect_here(*, model: str, picture: str, runtime: str) -> dict[str, Any]:
    """Detect in this process; called in a child."""
    engine = runtimes.find(runtime)
    loaded = engine.load(Path(model), runtimes.LoadOptions())
    prepare = Preprocessor(preprocessing.parse("mobilenet", channels=3), loaded.inputs[0])
    loaded.set_inputs((prepare.prepare(images.open_image(Path(picture), draft_size=prepare.draft_size)),))
    loaded.invoke()
    found = detections.read(loaded.get_outputs(), loaded.outputs).found
    return {
        "runtime": str(engine.offer),
        "found": [(each.index, each.score, each.box) for each in found if each.score >= _LEAST_SCORE],
    }


def _label(labels: tuple[str, ...], index: int) -> str:
    return labels[index] if index < len(labels) else str(index)


def _spell(box: tuple[float, ...]) -> str:
    return "(" + ", ".join(f"{edge:.2f}" for edge in box) + ")"
