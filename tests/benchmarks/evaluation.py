"""What evaluating 10,000 MNIST images costs beside the loop that TensorFlow's guide to integer quantization publishes.

The loop (`run_tflite_model` of "Post-training integer quantization") takes one image after the other: scale and shift
it for an integer input, add the batch, set, invoke, get, argmax. Three comparisons, interleaved round by round:

    answers     the loop, its interpreter built and its images in memory, against the same answers in the same process:
                reading the file, checking it, trying a batch, all of it; without the single runs that time latency
    evaluation  the same loop against all that `evaluate` does in that process, its timed runs included
    commands    a script with the loop, which imports TensorFlow as the guide does, against `tflotilla evaluate`

The floor tells what kernels alone take: the least of bare single and batched invokes of a thread, shared by the cores.
No batching makes a kernel faster than it is; where kernels are all the time there is, cores are the only limit.
"""

from __future__ import annotations

import gzip
import importlib
import json
import os
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tests import catalogue, models_made
from tflotilla.host.models import child, convert
from tflotilla.host.models.evaluation import answering, batching, here, judges
from tflotilla.host.models.evaluation.feeding import Feeder, Samples
from tflotilla.host.models.evaluation.task import Task
from tflotilla.host.models.inspect import inspect_model
from tflotilla.host.models.metrics import Metric
from tflotilla.shared.contract import codec
from tflotilla.shared.contract.tensors import QuantizationScheme
from tflotilla.shared.inference import preprocessing, runtime
from tflotilla.shared.inference.runtime import LoadOptions

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

LIMIT = 5.0
COUNT = 10_000
_NEAR = 1.5
_ROUNDS = 3
_COMMAND_ROUNDS = 2
_SCHEMES = (QuantizationScheme.FLOAT32, QuantizationScheme.INT8_IO_UINT8)
_PACKAGES = {"ai-edge-litert": "ai_edge_litert", "tflite-runtime": "tflite_runtime"}
#: The catalogue's MNIST CNN, and its perceptron.
_SOURCES = ("models/mnist/mnist_model.keras", "models/mnist/mnist_model52%.keras")
_PREPROCESSING = "unit,colour=gray"


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """Seconds of wall time and of all processors, medians; of one model on one runtime."""

    model: str
    runtime: str
    loop_s: float
    answers_s: float
    evaluation_s: float
    loop_cpu_s: float
    answers_cpu_s: float
    floor_s: float
    loop_accuracy: float
    accuracy: float

    @property
    def ratio(self) -> float:
        """How many times faster the same answers came."""
        return self.loop_s / self.answers_s

    @property
    def possible(self) -> float:
        """How many times faster they could come if nothing but kernels took time."""
        return self.loop_s / self.floor_s

    @property
    def near_the_floor(self) -> bool:
        """Whether nearly nothing but kernels took time: no batching could make more of it."""
        return self.answers_s <= _NEAR * self.floor_s

    @property
    def kept(self) -> bool:
        """Whether the promise holds."""
        return self.ratio >= LIMIT


def models(folder: Path) -> dict[str, Path]:
    """Return the models by title: converted from the catalogue's, or the tests' own tiny ones."""
    found: dict[str, Path] = {}
    for source in _SOURCES:
        path = catalogue.ROOT / source
        if path.exists():
            report = convert.convert(
                convert.ConversionRequest(
                    source=path,
                    output=folder / path.stem,
                    schemes=_SCHEMES,
                    calibration=_calibration(folder),
                    preprocess=_PREPROCESSING,
                )
            )
            found |= {f"{path.stem} {file.scheme.value}": file.path for file in report.files}
    if not found:
        for name in ("tiny_classifier_float", "tiny_classifier"):
            file = folder / f"{name}.tflite"
            file.write_bytes(models_made.read(name))
            found[name] = file
    return found


def _calibration(folder: Path) -> Path:
    path = folder / "calibration.npy"
    np.save(path, _idx("train-images-idx3-ubyte.gz", 16).reshape(-1, 28, 28)[:200])
    return path


def _idx(name: str, head: int) -> NDArray[np.uint8]:
    return np.frombuffer(gzip.decompress((catalogue.ROOT / "data/mnist" / name).read_bytes()), np.uint8, offset=head)


def data(folder: Path) -> Path:
    """Write the 10,000 test images and their labels as .npz; patterns with noise where there is no catalogue."""
    path = folder / "x.npz"
    if (catalogue.ROOT / "data/mnist").exists():
        images = _idx("t10k-images-idx3-ubyte.gz", 16).reshape(-1, 28, 28)
        labels = _idx("t10k-labels-idx1-ubyte.gz", 8)
    else:
        labels = (np.arange(COUNT) % models_made.CLASSES).astype(np.uint8)
        images = np.stack([models_made.noisy(int(label), number) for number, label in enumerate(labels)])
    np.savez(path, x=images, y=labels)
    return path


def measure(file: Path, title: str, runtime_name: str, samples: Path) -> Evaluation:
    """Compare, in a process of its own."""
    command = [sys.executable, "-m", __name__, "compare", str(file), runtime_name, str(samples)]
    done = subprocess.run(command, capture_output=True, check=True, env=child.environment(samples.parent))
    return Evaluation(model=title, runtime=runtime_name, **json.loads(done.stdout.splitlines()[-1]))


def compare(model: str, name: str, data: str) -> dict[str, float]:
    """Run all sides in turns; in this process."""
    file = Path(model)
    with np.load(data) as archive:
        images, labels = archive["x"], archive["y"]
    sides: dict[str, Callable[[], float]] = {
        "loop": lambda: _loop(file, name, images, labels),
        "answers": lambda: _answers(file, name, images, labels),
        "evaluation": lambda: _evaluate(file, name, data),
    }
    wall: dict[str, list[float]] = {side: [] for side in sides}
    cpu: dict[str, list[float]] = {side: [] for side in sides}
    accuracy: dict[str, float] = {}
    for number in range(_ROUNDS + 1):
        for side in list(sides) if number % 2 else list(sides)[::-1]:
            began, busy = time.perf_counter(), time.process_time()
            accuracy[side] = sides[side]()
            wall[side].append(time.perf_counter() - began)
            cpu[side].append(time.process_time() - busy)
    assert accuracy["answers"] == accuracy["evaluation"]
    # The first round warmed caches and imports.
    medians = {f"{side}_s": statistics.median(values[1:]) for side, values in wall.items()}
    return medians | {
        "loop_cpu_s": statistics.median(cpu["loop"][1:]),
        "answers_cpu_s": statistics.median(cpu["answers"][1:]),
        "floor_s": _floor(file, name),
        "loop_accuracy": accuracy["loop"],
        "accuracy": accuracy["answers"],
    }


def _loop(file: Path, name: str, images: NDArray[np.uint8], labels: NDArray[np.uint8]) -> float:
    """Do as the guide does, image by image; its images are floats of 0..1 in memory."""
    scaled = _scaled(images)
    interpreter = importlib.import_module(f"{_PACKAGES[name]}.interpreter").Interpreter(model_path=str(file))
    return run_tflite_model(interpreter, scaled, labels)


_in_memory: list[NDArray[np.float32]] = []


def _scaled(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    if not _in_memory:
        _in_memory.append(images.astype(np.float32) / 255.0)
    return _in_memory[0]


def run_tflite_model(interpreter: Any, images: NDArray[np.float32], labels: NDArray[np.uint8]) -> float:  # noqa: ANN401
    """Return the accuracy, one image at a time."""
    interpreter.allocate_tensors()
    taken, given = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    images = images.reshape(len(images), *taken["shape"][1:])
    predictions = np.zeros(len(images), dtype=int)
    for i, image in enumerate(images):
        if taken["dtype"] in (np.uint8, np.int8):
            scale, zero_point = taken["quantization"]
            # The guide truncates here; rounding, as calibration and boards do, is what accuracy is compared by.
            image = np.rint(image / scale + zero_point)  # noqa: PLW2901 - as published
        interpreter.set_tensor(taken["index"], np.expand_dims(image, axis=0).astype(taken["dtype"]))
        interpreter.invoke()
        predictions[i] = interpreter.get_tensor(given["index"])[0].argmax()
    return float((predictions == labels).mean())


def _answers(file: Path, name: str, images: NDArray[np.uint8], labels: NDArray[np.uint8]) -> float:
    inspection = inspect_model(file)
    samples = Samples(path=file, arrays=(images,))
    chosen = preprocessing.parse(_PREPROCESSING)
    judge = judges.ClassJudge(labels.astype(np.int64), inspection.outputs)
    competitor = answering.Competitor(
        file=file, inspection=inspection, feeder=Feeder(samples, inspection.inputs, chosen)
    )
    answering.answer(runtime.find(name), [competitor], samples, judge, num_threads=1)
    return float(judge.verdict()["accuracy"])


def _evaluate(file: Path, name: str, data: str) -> float:
    task = Task(
        model=str(file),
        runtime=name,
        num_threads=1,
        data=data,
        metric=Metric.ACCURACY,
        preprocessing=preprocessing.parse(_PREPROCESSING),
        labels={},
    )
    return float(here.run(task=codec.encode(task))["accuracy"])


def _floor(file: Path, name: str) -> float:
    """Return the seconds that kernels alone need for all images on all cores."""
    inspection = inspect_model(file)
    batch = batching.size(inspection)
    engine = runtime.find(name)
    best = _invoke_s(engine.load(file, LoadOptions()))
    wide = batching.rebatched(file.read_bytes(), batch) if batch > 1 else None
    if wide is not None:
        best = min(best, _invoke_s(engine.load(wide, LoadOptions())) / batch)
    return best * COUNT / len(os.sched_getaffinity(0))


def _invoke_s(loaded: runtime.LoadedModel) -> float:
    loaded.set_inputs(tuple(np.zeros([max(1, size) for size in spec.shape], spec.dtype) for spec in loaded.inputs))
    loaded.invoke()
    taken = []
    for _ in range(7):
        began = time.process_time()
        for _ in range(50):
            loaded.invoke()
        taken.append((time.process_time() - began) / 50)
    return statistics.median(taken)


def commands(file: Path, samples: Path, folder: Path) -> dict[str, float]:
    """Return the seconds of whole commands: the guide's script, which imports TensorFlow, and ours."""
    script = [sys.executable, "-m", __name__, "script", str(file), str(samples)]
    ours = [sys.executable, "-m", "tflotilla.host", "evaluate", str(file), "--data", str(samples), "--json"]
    ours += ["--preprocess", _PREPROCESSING, "--runtime", "litert"]
    taken: dict[str, list[float]] = {"script_s": [], "command_s": []}
    for _ in range(_COMMAND_ROUNDS):
        for name, command in (("script_s", script), ("command_s", ours)):
            began = time.perf_counter()
            done = subprocess.run(command, capture_output=True, check=True, env=child.environment(folder))
            taken[name].append(time.perf_counter() - began)
            json.loads(done.stdout)
    return {name: statistics.median(values) for name, values in taken.items()}


def _script(file: str, samples: str) -> float:
    import tensorflow as tf

    with np.load(samples) as archive:
        images, labels = archive["x"].astype(np.float32) / 255.0, archive["y"]
    return run_tflite_model(tf.lite.Interpreter(model_path=file), images, labels)


if __name__ == "__main__":
    _words = sys.argv[2:]
    _result = compare(*_words) if sys.argv[1] == "compare" else _script(*_words)
    print(json.dumps(_result))  # noqa: T201 - the result
