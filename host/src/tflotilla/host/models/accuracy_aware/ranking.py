"""What each layer loses by itself: it alone is quantized, all others stay float, and the outputs are compared.

The figure is noise power / signal power, summed over the outputs: what the layer's rounded inputs, weights and output
add, as it comes out at the end. A layer that only carries on what an earlier one spoiled has none of that.

Runs in a child process. What it does NOT do: order the layers (`search.ranked`).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from tflotilla.host.models.accuracy_aware.search import Layer
from tflotilla.shared.contract.errors import TflotillaError
from tflotilla.shared.inference import runtime as runtimes
from tflotilla.shared.inference.preprocessing import from_real
from tflotilla.shared.inference.quantization import dequantize

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from tflotilla.host.models.accuracy_aware.variants import Variants

    Tensors = tuple[NDArray[Any], ...]

SAMPLES = 16


class Ranking:
    """Measures layers against one float file, on a few samples."""

    def __init__(self, reference: bytes, samples: Sequence[Tensors], runtime: str, folder: Path) -> None:
        """Run the float file on samples spread evenly over those given."""
        count = min(SAMPLES, len(samples))
        self._samples = [samples[i * len(samples) // count] for i in range(count)]
        self._engine = runtimes.find(runtime)
        self._file = folder / "layer.tflite"
        self._expected = self._run(reference)

    def measure(
        self, variants: Variants, *, skipped: Collection[str], say: Callable[[str, int, int], None]
    ) -> list[Layer]:
        """Return every layer that can be kept, in the order of execution.

        Args:
            variants: makes the files.
            skipped: layers that can't be measured: never kept.
            say: called before each layer with its name, its number and how many there are.

        """
        found = []
        chosen = [operator for operator in variants.choices() if operator.name not in skipped]
        for number, operator in enumerate(chosen, 1):
            say(operator.name, number, len(chosen))
            try:
                error = noise(self._expected, self._run(variants.alone(operator.name)))
            except TflotillaError:
                continue
            found.append(Layer(name=operator.name, op=operator.op, error=error, extra_bytes=operator.extra_bytes))
        return found

    def _run(self, data: bytes) -> list[Tensors]:
        self._file.write_bytes(data)
        loaded = self._engine.load(self._file, runtimes.LoadOptions())
        answers = []
        for sample in self._samples:
            loaded.set_inputs(tuple(from_real(v, spec) for v, spec in zip(sample, loaded.inputs, strict=True)))
            loaded.invoke()
            outputs = loaded.get_outputs()
            answers.append(tuple(dequantize(v, spec) for v, spec in zip(outputs, loaded.outputs, strict=True)))
        return answers


def noise(expected: Sequence[Tensors], actual: Sequence[Tensors]) -> float:
    """Return noise power / signal power over all samples, summed over the outputs; infinite where one is no number.

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
                return math.inf
            else:
                error += float(np.sum((one[usable] - other[usable]) ** 2))
        total += error / power if power else 0.0
    return total
