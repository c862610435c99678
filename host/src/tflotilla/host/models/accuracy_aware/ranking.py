"""What each layer loses by itself: it alone is quantized, all others stay float, and the outputs are compared.

The figure is noise power / signal power, summed over the outputs: what the layer's rounded inputs, weights and output
add, as it comes out at the end. A layer that only carries on what an earlier one spoiled has none of that.

Files are made where TensorFlow is, and run in children of that process: a runtime beside TensorFlow crashes now and
then. What it does NOT do: order the layers (`search.ranked`).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tflotilla.host.models import child
from tflotilla.host.models.accuracy_aware.search import Layer
from tflotilla.shared.contract.errors import ConversionError, ModelError
from tflotilla.shared.inference import runtime as runtimes
from tflotilla.shared.inference.preprocessing import from_real
from tflotilla.shared.inference.quantization import dequantize

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from numpy.typing import NDArray

    from tflotilla.host.models.accuracy_aware.operators import Operator
    from tflotilla.host.models.accuracy_aware.variants import Variants

    Tensors = tuple[NDArray[Any], ...]

SAMPLES = 16
#: As many files as fit into this are run by one child.
_CHUNK_BYTES = 1 << 27
#: Not infinity, which JSON has no word for.
_NO_NUMBER = 1e12


class Ranking:
    """Measures layers against one float file, on a few samples."""

    def __init__(self, reference: Path, samples: Sequence[Tensors], runtime: str, folder: Path) -> None:
        """Keep samples spread evenly over those given.

        Args:
            reference: the float file.
            samples: the inputs of each inference, real-valued.
            runtime: its PyPI name.
            folder: for files on the way.

        """
        count = min(SAMPLES, len(samples))
        chosen = [samples[i * len(samples) // count] for i in range(count)]
        self._samples = folder / "ranking.npz"
        np.savez(
            self._samples, **{f"{i}-{j}": tensor for i, sample in enumerate(chosen) for j, tensor in enumerate(sample)}
        )
        self._reference = reference
        self._runtime = runtime
        self._folder = folder

    def measure(
        self, variants: Variants, *, skipped: Collection[str], say: Callable[[str, int, int], None]
    ) -> list[Layer]:
        """Return every layer that can be kept, in the order of execution.

        Args:
            variants: makes the files.
            skipped: layers that can't be measured: never kept.
            say: called before each layer with its name, its number and how many there are.

        """
        found: list[Layer] = []
        chunk: list[tuple[Operator, Path]] = []
        size = 0
        chosen = [operator for operator in variants.choices() if operator.name not in skipped]
        for number, operator in enumerate(chosen, 1):
            say(operator.name, number, len(chosen))
            try:
                data = variants.alone(operator.name)
            except ConversionError:
                continue
            path = self._folder / f"layer-{number}.tflite"
            path.write_bytes(data)
            chunk.append((operator, path))
            size += len(data)
            if size >= _CHUNK_BYTES:
                found += self._layers(chunk)
                chunk, size = [], 0
        return found + self._layers(chunk)

    def _layers(self, chunk: Sequence[tuple[Operator, Path]]) -> list[Layer]:
        errors = self._errors([path for _, path in chunk])
        for _, path in chunk:
            path.unlink()
        return [
            Layer(name=operator.name, op=operator.op, error=error, extra_bytes=operator.extra_bytes)
            for (operator, _), error in zip(chunk, errors, strict=True)
            if error is not None
        ]

    def _errors(self, files: Sequence[Path]) -> list[float | None]:
        """Return the error of each file; None for one that the runtime can't run. After a crash, one by one."""
        if not files:
            return []
        try:
            found: list[float | None] = child.call(
                f"{__name__}:run_here",
                {
                    "files": [str(path) for path in files],
                    "reference": str(self._reference),
                    "samples": str(self._samples),
                    "runtime": self._runtime,
                },
            )
        except ModelError:
            return [None] if len(files) == 1 else [error for path in files for error in self._errors([path])]
        return found


def run_here(*, files: Sequence[str], reference: str, samples: str, runtime: str) -> list[float | None]:
    """Compare files with the reference in this process; `Ranking` calls it in a child."""
    engine = runtimes.find(runtime)
    with np.load(samples, allow_pickle=False) as archive:
        places = sorted(tuple(map(int, name.split("-"))) for name in archive.files)
        inputs = [
            tuple(archive[f"{i}-{j}"] for i, j in places if i == sample) for sample in sorted({i for i, _ in places})
        ]
    expected = _answers(engine, Path(reference), inputs)
    errors: list[float | None] = []
    for file in files:
        try:
            errors.append(noise(expected, _answers(engine, Path(file), inputs)))
        except ModelError:
            errors.append(None)
    return errors


def _answers(engine: runtimes.Runtime, file: Path, samples: Sequence[Tensors]) -> list[Tensors]:
    loaded = engine.load(file, runtimes.LoadOptions())
    answers = []
    for sample in samples:
        loaded.set_inputs(tuple(from_real(v, spec) for v, spec in zip(sample, loaded.inputs, strict=True)))
        loaded.invoke()
        outputs = loaded.get_outputs()
        answers.append(tuple(dequantize(v, spec) for v, spec in zip(outputs, loaded.outputs, strict=True)))
    return answers


def noise(expected: Sequence[Tensors], actual: Sequence[Tensors]) -> float:
    """Return noise power / signal power over all samples, summed over the outputs; 10^12 where one is no number.

    An output whose shape depends on its values counts as its signal when the shapes differ.
    """
    total = 0.0
    for output in range(len(expected[0])):
        power = error = 0.0
        for theirs, ours in zip(expected, actual, strict=True):
            one, other = theirs[output].astype(np.float64), ours[output].astype(np.float64)
            usable = np.isfinite(one)
            power += float(np.sum(one[usable] ** 2))
            if one.shape != other.shape:
                error += float(np.sum(one[usable] ** 2))
            elif not np.isfinite(other[usable]).all():
                return _NO_NUMBER
            else:
                error += float(np.sum((one[usable] - other[usable]) ** 2))
        total += error / power if power else 0.0
    return total
