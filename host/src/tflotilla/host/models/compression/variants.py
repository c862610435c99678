"""TFLite files of a model before and after: size, zipped size, accuracy, and latency taken in turns on every runtime.

The runs of all files are interleaved (A B C A B C …), so that a machine that grows busy or hot slows all alike; a
figure is the median of runs that each follow one of the same file. What it does NOT do: speak for a board; it is this
machine's latency.
"""

from __future__ import annotations

import statistics
import time
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tflotilla.host.models import child
from tflotilla.host.models.compression import tasks
from tflotilla.host.models.compression.tasks import Task
from tflotilla.shared.contract import codec
from tflotilla.shared.contract.errors import BoardError, DatasetError, ModelError
from tflotilla.shared.inference import runtime as runtimes
from tflotilla.shared.inference.preprocessing import from_real
from tflotilla.shared.inference.quantization import dequantize

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

_BUDGET_NS = 6_000_000_000
_LEAST_ROUNDS, _MOST_ROUNDS = 11, 200
_WARM_UP_RUNS = 3
_JUDGED_NS = 20_000_000_000
_COMPARED = 16
_TIMEOUT_S = 1800.0
_REASON_LENGTH = 240


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One file on one runtime; without figures, `reason` says why it doesn't run there."""

    runtime: str
    reason: str | None = None
    #: Share of samples classified right; for an autoencoder the mean squared error stands in `error`.
    accuracy: float | None = None
    error: float | None = None
    samples: int = 0
    #: Median of one invocation on one thread.
    p50_ns: int | None = None
    runs: int = 0
    delegated_nodes: int = 0
    #: Greatest difference from the first file's outputs on a few samples.
    difference: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """One TFLite file."""

    #: "before" or "after".
    of: str
    #: A quantization scheme, or "sparse": float32 with sparse weights.
    scheme: str
    size_bytes: int
    #: With zlib at level 9.
    compressed_bytes: int
    measured: tuple[Measured, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """A file to measure; outputs are compared with those of the file named `like`."""

    of: str
    scheme: str
    path: Path
    like: str | None = None

    @property
    def name(self) -> str:
        """What tells it from the others."""
        return f"{self.of} {self.scheme}"


def measure(
    files: Sequence[File],
    arrays: Path,
    task: Task,
    names: Sequence[str],
    on_progress: Callable[[str], None] | None = None,
) -> tuple[Variant, ...]:
    """Measure every file on every runtime that is installed; a file that a runtime refuses is said, not raised.

    Args:
        files: distinct by name.
        arrays: an .npz of x, real numbers, and y, class indices (none for an autoencoder).
        task: what the outputs are.
        names: PyPI names of runtimes; empty means all that are installed.
        on_progress: hears what goes on.

    """
    found: dict[str, list[Measured]] = {file.name: [] for file in files}
    for runtime in names or tuple(runtimes.ADAPTERS):
        if on_progress is not None:
            on_progress(f"measuring {len(files)} files on {runtime}")
        try:
            for name, measured in _on_runtime(files, arrays, task, runtime).items():
                found[name].append(measured)
        except BoardError as error:
            if names:
                for file in files:
                    found[file.name].append(Measured(runtime=runtime, reason=str(error)))
    return tuple(
        Variant(
            of=file.of,
            scheme=file.scheme,
            size_bytes=file.path.stat().st_size,
            compressed_bytes=compressed_bytes(file.path),
            measured=tuple(found[file.name]),
        )
        for file in files
    )


def compressed_bytes(path: Path) -> int:
    """Return a file's size with zlib at level 9: about what a download takes."""
    return len(zlib.compress(path.read_bytes(), 9))


def _on_runtime(files: Sequence[File], arrays: Path, task: Task, runtime: str) -> dict[str, Measured]:
    """Measure in one child; where a file crashes it, each in one of its own."""
    try:
        answer = child.call(
            "tflotilla.host.models.compression.variants:run_here",
            {
                "files": [{"name": file.name, "path": str(file.path), "like": file.like} for file in files],
                "arrays": str(arrays),
                "task": task.value,
                "runtime": runtime,
            },
            doing=f"{runtime} on the converted files",
            timeout_s=_TIMEOUT_S,
        )
    except ModelError as error:
        if len(files) == 1:
            return {files[0].name: Measured(runtime=runtime, reason=str(error))}
        found: dict[str, Measured] = {}
        for file in files:
            found |= _on_runtime([file], arrays, task, runtime)
        return found
    return {name: codec.decode(Measured, entry, "measured") for name, entry in answer.items()}


def run_here(*, files: Sequence[Mapping[str, Any]], arrays: str, task: str, runtime: str) -> dict[str, Any]:
    """Measure in this process; `measure` calls it in a child."""
    engine = runtimes.find(runtime)
    with np.load(arrays, allow_pickle=False) as archive:
        x = archive["x"]
        y = archive["y"] if "y" in archive.files else None
    loaded: dict[str, runtimes.LoadedModel] = {}
    found: dict[str, Measured] = {}
    for file in files:
        try:
            model = engine.load(Path(file["path"]), runtimes.LoadOptions())
            _infer(model, x[0])
        except (ModelError, DatasetError, ValueError) as error:
            found[file["name"]] = Measured(runtime=str(engine.offer), reason=_first_sentence(error))
            continue
        loaded[file["name"]] = model
    times = _race(loaded, x[0])
    likes = {file["name"]: file["like"] for file in files}
    for name, model in loaded.items():
        like = loaded.get(likes[name] or "")
        figures = _judge(model, x, y, Task(task), statistics.median(times[name]))
        found[name] = Measured(
            runtime=str(engine.offer),
            p50_ns=int(statistics.median(times[name])),
            runs=len(times[name]),
            delegated_nodes=model.delegated_nodes,
            difference=None if like is None else _difference(model, like, x),
            **figures,
        )
    return {name: codec.encode(measured) for name, measured in found.items()}


def rounds(estimate_ns: float) -> int:
    """Return how often to go round the files when one round takes `estimate_ns`."""
    return max(_LEAST_ROUNDS, min(_MOST_ROUNDS, int(_BUDGET_NS / max(1.0, estimate_ns))))


def _first_sentence(error: Exception) -> str:
    """Return a runtime's reason without the advice behind it, which is for whoever builds runtimes."""
    return " ".join(str(error).split()).split(". ", maxsplit=1)[0][:_REASON_LENGTH]


def _race(loaded: Mapping[str, runtimes.LoadedModel], sample: NDArray[Any]) -> dict[str, list[int]]:
    for model in loaded.values():
        model.set_inputs((from_real(sample, model.inputs[0]),))
        for _ in range(_WARM_UP_RUNS):
            model.invoke()
    times: dict[str, list[int]] = {name: [] for name in loaded}
    start = time.perf_counter_ns()
    wanted, done = 1, 0
    while loaded and done < wanted:
        for name, model in loaded.items():
            # Untimed first: the one before it in turn left its own weights in the caches, and its time slice used up.
            model.invoke()
            begun = time.perf_counter_ns()
            model.invoke()
            times[name].append(time.perf_counter_ns() - begun)
        done += 1
        if done == 1:
            wanted = rounds(time.perf_counter_ns() - start)
    return times


def _judge(
    model: runtimes.LoadedModel, x: NDArray[Any], y: NDArray[Any] | None, task: Task, each_ns: float
) -> dict[str, Any]:
    count = max(1, min(len(x), int(_JUDGED_NS / max(1.0, each_ns))))
    chosen = np.arange(count) * len(x) // count
    hits, error = 0, 0.0
    for index in chosen:
        output = _infer(model, x[index])
        if y is None:
            error += float(np.mean((output.reshape(-1) - x[index].reshape(-1)) ** 2))
        else:
            hits += tasks.right(task, output.reshape(1, -1), y[index : index + 1])
    if y is None:
        return {"error": error / count, "samples": count}
    return {"accuracy": hits / count, "samples": count}


def _difference(model: runtimes.LoadedModel, like: runtimes.LoadedModel, x: NDArray[Any]) -> float:
    return max(float(np.max(np.abs(_infer(model, sample) - _infer(like, sample)))) for sample in x[:_COMPARED])


def _infer(model: runtimes.LoadedModel, sample: NDArray[Any]) -> NDArray[np.float32]:
    model.set_inputs((from_real(sample, model.inputs[0]),))
    model.invoke()
    return np.asarray(dequantize(model.get_outputs()[0], model.outputs[0]), dtype=np.float32)
