"""MTCNN, a frozen graph of TensorFlow 1 with four inputs, loops and boxes inside: faces on a real picture.

The graph itself, run by TensorFlow, is what the converted files are held against.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tflotilla.host.models import child, convert, sources
from tflotilla.host.models.sources import SourceOptions
from tflotilla.host.reproductions import making
from tflotilla.host.reproductions.reproduction import Reproduction, Row
from tflotilla.shared.contract.errors import BoardError
from tflotilla.shared.inference import images
from tflotilla.shared.inference import runtime as runtimes
from tflotilla.shared.inference.detections import iou

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from tflotilla.host.reproductions.desk import Desk

TITLE = "MTCNN, a frozen graph with four inputs"
NEEDS = "mtcnn.pb, mtcnn_test_image.jpg"
MINUTES = 2
_OUTPUTS = ("box", "prob", "landmarks")
#: The parameters of the graph's own demonstration.
_PARAMETERS: Mapping[str, Any] = {"min_size": 40.0, "thresholds": [0.6, 0.7, 0.7], "factor": 0.7}
_SAME_FACE = {"float32": 0.95, "dynamic_range": 0.7}


def run(desk: Desk) -> Reproduction:
    """Do the case."""
    graph, picture = desk.find("mtcnn.pb"), desk.find("mtcnn_test_image.jpg")
    pixels = _pixels(picture)
    feed = desk.made("mtcnn-inputs.npz")
    np.savez(feed, input=pixels[None], **{name: np.array([value], np.float32) for name, value in _PARAMETERS.items()})
    report = convert.convert(
        convert.ConversionRequest(
            source=graph,
            output=desk.made("converted"),
            schemes=making.schemes("float32", "dynamic_range"),
            calibration=feed,
            options=SourceOptions(input_shapes={"input": pixels.shape}, output_arrays=_OUTPUTS),
        ),
        desk.say,
    )
    desk.say("TensorFlow on the graph")
    asked = {"model": str(graph), "picture": str(picture)}
    here = "tflotilla.host.reproductions.cases.mtcnn"
    expected = child.call(f"{here}:faces_in_tensorflow", asked, doing="TensorFlow on the graph")
    rows = [Row(what="TensorFlow on the graph itself", published="runs", ours=f"{len(expected)} faces")]
    for made in report.files:
        for name in runtimes.ADAPTERS:
            what = f"{made.scheme.value}, {name}"
            try:
                found = child.call(
                    f"{here}:faces_on_runtime",
                    {"model": str(made.path), "picture": str(picture), "runtime": name},
                    doing=f"{name} on {made.path.name}",
                )
            except BoardError as error:
                rows.append(Row(what=what, published="runs", ours=str(error)))
                continue
            worst = min((max((iou(face, other) for other in found), default=0.0) for face in expected), default=0.0)
            rows.append(
                Row(
                    what=what,
                    published="runs, faces found",
                    ours=f"{len(found)} faces, each overlaps TensorFlow's by {worst:.1%} or more",
                    holds=len(found) == len(expected) and worst >= _SAME_FACE[made.scheme.value],
                )
            )
    return Reproduction(
        name="mtcnn",
        title=TITLE,
        rows=tuple(rows),
        remarks=tuple(note for note in report.notes if "became" in note or "computed" in note),
    )


def faces_in_tensorflow(*, model: str, picture: str) -> list[list[float]]:
    """Return the boxes that the graph finds in TensorFlow; called in a child."""
    pixels = _pixels(Path(picture))
    options = SourceOptions(input_shapes={"input": pixels.shape}, output_arrays=_OUTPUTS)
    source = sources.load(Path(model), "TensorFlow 1 frozen graph", options)
    return _boxes(source.run(tuple(_fed(spec.name, pixels) for spec in source.inputs)))


def faces_on_runtime(*, model: str, picture: str, runtime: str) -> list[list[float]]:
    """Return the boxes that a file finds on a runtime; called in a child."""
    pixels = _pixels(Path(picture))
    loaded = runtimes.find(runtime).load(Path(model), runtimes.LoadOptions())
    loaded.set_inputs(tuple(_fed(spec.name, pixels) for spec in loaded.inputs))
    loaded.invoke()
    return _boxes(loaded.get_outputs())


def _pixels(picture: Path) -> NDArray[np.float32]:
    """Return (H, W, 3) float32, 0..255, blue first: as the network was trained."""
    return np.ascontiguousarray(np.asarray(images.open_image(picture).convert("RGB"), np.float32)[..., ::-1])


def _fed(name: str, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    return pixels if name == "input" else np.asarray(_PARAMETERS[name], np.float32)


def _boxes(outputs: Sequence[NDArray[Any]]) -> list[list[float]]:
    """Return ymin, xmin, ymax, xmax of each face, in pixels."""
    return [[float(edge) for edge in box] for box in outputs[0].reshape(-1, 4)]
