"""Small graphs of TensorFlow 1 whose ops TFLite doesn't have, each with inputs and what TensorFlow answers.

Everything here runs in child processes: `attempt` builds, runs and converts every case with one load of TensorFlow,
`answer` runs the converted files on one runtime.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tflotilla.shared.contract.errors import TflotillaError
from tflotilla.shared.inference import runtime as runtimes

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    #: Builds a graph that ends in `out` (or `out_0`, `out_1` …), given TensorFlow; returns what to feed it, in turn.
    Case = Callable[[Any], list[dict[str, Any]]]

RUNTIMES = ("tflite-runtime", "ai-edge-litert")
_RNG = np.random.default_rng(3)
CASES: dict[str, Case] = {}


def _case(build: Case) -> Case:
    CASES[build.__name__.removeprefix("_")] = build
    return build


def _floats(*shape: int) -> Any:  # noqa: ANN401 - an array
    return _RNG.random(shape, dtype=np.float32)


def _input(tf: Any, name: str, shape: list[int], dtype: str = "float32") -> Any:  # noqa: ANN401 - TensorFlow has no types
    return tf.compat.v1.placeholder(dtype, shape, name=name)


def _loop(tf: Any, steps: Any, step: Any, values: Any) -> Any:  # noqa: ANN401 - TensorFlow has no types
    """Loop over 0, 1, … below `steps`; return what `values` became."""
    return tf.while_loop(lambda i, *_: i < steps, lambda i, *now: (i + 1, *step(i, *now)), (0, *values))[1:]


@_case
def _rows_found_in_each_step(tf: Any) -> list[dict[str, Any]]:  # noqa: ANN401
    rows, least, steps = _input(tf, "rows", [6, 4]), _input(tf, "least", []), _input(tf, "steps", [], "int32")
    found = tf.TensorArray("float32", 0, dynamic_size=True, infer_shape=False, element_shape=[None, 4])

    def step(i: Any, found: Any) -> Any:  # noqa: ANN401
        scaled = rows * (tf.cast(i, tf.float32) + 1.0)
        return (found.write(i, tf.boolean_mask(scaled, scaled[:, 0] > least)),)

    (found,) = _loop(tf, steps, step, (found,))
    tf.identity(found.concat(), name="out")
    values = _floats(6, 4)
    return [
        {"rows": values, "least": np.float32(least), "steps": np.int32(steps)}
        for least, steps in ((0.5, 3), (99.0, 3), (0.2, 5), (0.5, 0))
    ]


@_case
def _map_over_rows(tf: Any) -> list[dict[str, Any]]:  # noqa: ANN401
    rows = _input(tf, "rows", [5, 3])
    tf.identity(tf.map_fn(lambda row: tf.nn.softmax(row) * 2.0, rows), name="out")
    return [{"rows": _floats(5, 3)} for _ in range(2)]


@_case
def _recurrent(tf: Any) -> list[dict[str, Any]]:  # noqa: ANN401
    steps = _input(tf, "steps", [7, 1, 3])
    kernel = tf.constant(_floats(7, 4) - 0.5)
    inputs = tf.TensorArray("float32", 7).unstack(steps)
    outputs = tf.TensorArray("float32", 7)

    def step(i: Any, state: Any, outputs: Any) -> Any:  # noqa: ANN401
        state = tf.tanh(tf.matmul(tf.concat([inputs.read(i), state], 1), kernel))
        return state, outputs.write(i, state)

    state, outputs = _loop(tf, 7, step, (tf.zeros([1, 4]), outputs))
    tf.identity(state, name="out_0")
    tf.identity(outputs.stack(), name="out_1")
    return [{"steps": _floats(7, 1, 3)} for _ in range(2)]


@_case
def _written_backwards(tf: Any) -> list[dict[str, Any]]:  # noqa: ANN401
    row = _input(tf, "row", [3])
    made = tf.TensorArray("float32", 4, clear_after_read=False)
    (made,) = _loop(tf, 4, lambda i, made: (made.write(3 - i, row * tf.cast(i, tf.float32)),), (made,))
    tf.identity(made.stack(), name="out_0")
    tf.identity(made.gather([2, 0]), name="out_1")
    tf.identity(made.read(1), name="out_2")
    return [{"row": _floats(3)}]


@_case
def _as_many_as_asked(tf: Any) -> list[dict[str, Any]]:  # noqa: ANN401
    row, steps = _input(tf, "row", [3]), _input(tf, "steps", [], "int32")
    made = tf.TensorArray("float32", 0, dynamic_size=True, element_shape=[3])
    (made,) = _loop(tf, steps, lambda i, made: (made.write(i, row * tf.cast(i, tf.float32)),), (made,))
    tf.identity(made.stack(), name="out_0")
    tf.identity(made.size(), name="out_1")
    return [{"row": _floats(3), "steps": np.int32(steps)} for steps in (4, 1, 0, 9)]


@_case
def _written_in_a_row(tf: Any) -> list[dict[str, Any]]:  # noqa: ANN401
    row = _input(tf, "row", [3])
    made = tf.TensorArray("float32", 3).write(0, row).write(1, row * 2.0).write(2, row + 1.0)
    tf.identity(made.concat(), name="out_0")
    joined = tf.TensorArray("float32", 2, infer_shape=False, element_shape=[None])
    tf.identity(joined.write(0, row).write(1, row[:2]).concat(), name="out_1")
    return [{"row": _floats(3)}]


@_case
def _concatenated_backwards(tf: Any) -> list[dict[str, Any]]:  # noqa: ANN401
    row = _input(tf, "row", [3])
    made = tf.TensorArray("float32", 3, infer_shape=False, element_shape=[None])
    (made,) = _loop(tf, 3, lambda i, made: (made.write(2 - i, row[: i + 1]),), (made,))
    tf.identity(made.concat(), name="out")
    return [{"row": _floats(3)}]


def _boxes(count: int, low: float, high: float) -> Any:  # noqa: ANN401 - an array
    return (low + (high - low) * _floats(count, 4)).astype(np.float32)


def _crops(tf: Any, **options: Any) -> list[dict[str, Any]]:  # noqa: ANN401
    image, boxes = _input(tf, "image", [2, 9, 7, 3]), _input(tf, "boxes", [20, 4])
    indices = _input(tf, "indices", [20], "int32")
    tf.raw_ops.CropAndResize(image=image, boxes=boxes, box_ind=indices, name="out", **options)
    picture = _floats(2, 9, 7, 3) * 255
    return [
        {"image": picture, "boxes": boxes, "indices": _RNG.integers(0, 2, 20).astype(np.int32)}
        for boxes in (
            _boxes(20, 0, 1),
            _boxes(20, -1, 2),
            np.tile(np.array([0, 0, 1, 1], np.float32), (20, 1)),
            np.tile(np.array([0.25, 0.5, 0.25, 0.5], np.float32), (20, 1)),
        )
    ]


@_case
def _crops_bilinear(tf: Any) -> list[dict[str, Any]]:  # noqa: ANN401
    return _crops(tf, crop_size=[5, 6], extrapolation_value=0.0)


@_case
def _crops_bilinear_on_grey(tf: Any) -> list[dict[str, Any]]:  # noqa: ANN401
    return _crops(tf, crop_size=[4, 1], extrapolation_value=128.0)


@_case
def _crops_nearest(tf: Any) -> list[dict[str, Any]]:  # noqa: ANN401
    return _crops(tf, crop_size=[5, 6], method="nearest", extrapolation_value=-1.0)


@_case
def _crops_of_a_size_that_is_computed(tf: Any) -> list[dict[str, Any]]:  # noqa: ANN401
    return _crops(tf, crop_size=_input(tf, "size", [2], "int32"))


@_case
def _boxes_that_overlap_little(tf: Any) -> list[dict[str, Any]]:  # noqa: ANN401
    boxes, scores, most = _input(tf, "boxes", [30, 4]), _input(tf, "scores", [30]), _input(tf, "most", [], "int32")
    tf.raw_ops.NonMaxSuppressionV2(boxes=boxes, scores=scores, max_output_size=10, iou_threshold=0.3, name="out_0")
    tf.raw_ops.NonMaxSuppressionV3(
        boxes=boxes, scores=scores, max_output_size=most, iou_threshold=0.5, score_threshold=0.6, name="out_1"
    )
    tf.raw_ops.NonMaxSuppression(boxes=boxes, scores=scores, max_output_size=30, iou_threshold=0.1, name="out_2")
    return [{"boxes": _boxes(30, 0, 1), "scores": _floats(30) * scale, "most": np.int32(7)} for scale in (1, 0.5)]


@_case
def _detector(tf: Any) -> list[dict[str, Any]]:  # noqa: ANN401
    """A cascade in small: boxes above a threshold, cropped and judged again, unless there are none."""
    image, boxes, scores = _input(tf, "image", [1, 8, 8, 3]), _input(tf, "boxes", [12, 4]), _input(tf, "scores", [12])
    likely = scores > 0.5
    boxes = tf.boolean_mask(boxes, likely)
    kernel = tf.constant(_floats(48, 2) - 0.5)

    def judge() -> Any:  # noqa: ANN401
        crops = tf.image.crop_and_resize(image, boxes, tf.zeros([tf.shape(boxes)[0]], tf.int32), [4, 4])
        again = tf.nn.softmax(tf.matmul(tf.reshape(crops, [-1, 48]), kernel))[:, 1]
        kept = tf.raw_ops.NonMaxSuppressionV2(boxes=boxes, scores=again, max_output_size=12, iou_threshold=0.5)
        return tf.gather(boxes, kept), tf.gather(again, kept)

    kept, again = tf.cond(tf.shape(boxes)[0] > 0, judge, lambda: (tf.zeros([0, 4]), tf.zeros([0])))
    tf.identity(kept, name="out_0")
    tf.identity(again, name="out_1")
    corners = np.sort(_boxes(12, 0, 1).reshape(12, 2, 2), 1).reshape(12, 4)
    return [
        {"image": _floats(1, 8, 8, 3), "boxes": corners, "scores": _floats(12) * scale} for scale in (1, 0.1, 0.7, 1)
    ]


@_case
def _dropout(tf: Any) -> list[dict[str, Any]]:  # noqa: ANN401
    row, keep, rate = _input(tf, "row", [1, 3]), _input(tf, "keep", []), _input(tf, "rate", [])
    kept = tf.floor(keep + tf.random.uniform(tf.shape(row), 0.0, 1.0))
    hidden = tf.matmul(tf.divide(row, keep) * kept, tf.constant(_floats(3, 3)))
    mask = tf.cast(tf.random.uniform(tf.shape(hidden)) >= rate, tf.float32)
    tf.identity(hidden * (1.0 / (1.0 - rate)) * mask, name="out")
    return [{"row": _floats(1, 3)}]


def attempt(*, folder: str, faces: list[str] | None) -> dict[str, Any]:
    """Build, run and convert every case; return each one's notes, or its error. Files are called after the case.

    `faces` are MTCNN's graph and a picture, when they are there.
    """
    import tensorflow as tf

    tf.compat.v1.disable_control_flow_v2()
    found = {name: _attempt(tf, name, Path(folder)) for name in CASES}
    if faces is not None:
        found["faces"] = _attempt_faces(tf, Path(faces[0]), Path(faces[1]), Path(folder))
    return found


def _attempt(tf: Any, name: str, folder: Path) -> dict[str, Any]:  # noqa: ANN401
    from tflotilla.host.models.sources import SourceOptions, frozen_graph

    graph = tf.Graph()
    with graph.as_default():
        feeds = CASES[name](tf)
    outputs = sorted(node.name for node in graph.as_graph_def().node if node.name.split("_")[0] == "out")
    try:
        model = frozen_graph.cut(graph.as_graph_def(), name, SourceOptions(output_arrays=tuple(outputs)))
        return _write(model, feeds, folder / name)
    except TflotillaError as error:
        return {"error": type(error).__name__, "message": str(error)}


def _attempt_faces(tf: Any, path: Path, picture: Path, folder: Path) -> dict[str, Any]:  # noqa: ANN401
    from PIL import Image

    from tflotilla.host.models.sources import SourceOptions, frozen_graph

    with Image.open(picture) as opened:
        image = np.asarray(opened.convert("RGB"), np.float32)[..., ::-1]
    others = {
        "min_size": np.float32(40),
        "thresholds": np.array([0.6, 0.7, 0.7], np.float32),
        "factor": np.float32(0.7),
    }
    images = [image, np.zeros_like(image), _floats(*image.shape) * 255, np.full_like(image, 128), image]
    feeds = [{"input": each, **others} for each in images]
    options = SourceOptions(input_shapes={"input": image.shape}, output_arrays=("box", "prob", "landmarks"))
    model = frozen_graph.load(path, options)
    made = _write(model, feeds, folder / "faces")
    smaller = model.converter()
    smaller.optimizations = [tf.lite.Optimize.DEFAULT]
    (folder / "faces_smaller.tflite").write_bytes(smaller.convert())
    (folder / "faces_smaller.npz").write_bytes((folder / "faces.npz").read_bytes())
    return made


def _write(model: Any, feeds: list[dict[str, Any]], stem: Path) -> dict[str, Any]:  # noqa: ANN401 - a SourceModel
    names = [spec.name for spec in model.inputs]
    answers = [model.run(tuple(feed[name] for name in names)) for feed in feeds]
    stem.with_suffix(".tflite").write_bytes(model.converter().convert())
    save(stem.with_suffix(".npz"), [[feed[name] for name in names] for feed in feeds], answers)
    return {"notes": list(model.notes), "inputs": names, "loops": model.loops}


def save(path: Path, inputs: Sequence[Sequence[Any]], answers: Sequence[Sequence[Any]]) -> None:
    """Write what is fed and what is to come of it, for `answer`."""
    arrays = {
        f"{kind}_{number}_{i}": value
        for kind, runs in (("in", inputs), ("out", answers))
        for number, run in enumerate(runs)
        for i, value in enumerate(run)
    }
    np.savez(path, **arrays)


def load(path: Path, kind: str) -> list[list[Any]]:
    """Read what `save` wrote, of the kind `in` or `out`."""
    with np.load(path) as arrays:
        numbers = sorted({int(name.split("_")[1]) for name in arrays.files if name.startswith(kind)})
        counts = {number: sum(name.startswith(f"{kind}_{number}_") for name in arrays.files) for number in numbers}
        return [[arrays[f"{kind}_{number}_{i}"] for i in range(count)] for number, count in counts.items()]


def answer(*, folder: str, runtime: str) -> dict[str, str]:
    """Run every file on one runtime, one interpreter for all inputs of a case; return what failed."""
    failed: dict[str, str] = {}
    engine = runtimes.find(runtime)
    for path in sorted(Path(folder).glob("*.tflite")):
        try:
            loaded = engine.load(path, runtimes.LoadOptions())
            answers = []
            for inputs in load(path.with_suffix(".npz"), "in"):
                loaded.set_inputs(tuple(np.asarray(value) for value in inputs))
                loaded.invoke()
                answers.append(loaded.get_outputs())
            save(path.with_suffix(f".{runtime}.npz"), [], answers)
        except (TflotillaError, ValueError) as error:
            failed[path.stem] = str(error)
    return failed
