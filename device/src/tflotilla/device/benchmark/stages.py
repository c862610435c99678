"""The way of one inference from the encoded picture to the report's bytes, stage by stage, in a pass of its own.

decode → resize → quantize (with the copy in) → invoke → dequantize (with the copy out) → postprocess → publish; the
stages of a run add up to its end_to_end. A model that takes no image begins at quantize, or at invoke where only ready
tensors are known. With a batch a stage is that of all its samples. Pictures are those that were sent, else made ones.
What it does NOT do: hand anything over. Publishing is what the worker does for it: the result as JSON.
"""

from __future__ import annotations

import io
import itertools
import time
from array import array
from typing import TYPE_CHECKING, Any

import numpy as np

from tflotilla.device.benchmark.inputs import stack
from tflotilla.device.window import Window
from tflotilla.shared import statistics
from tflotilla.shared.contract.benchmark import StageFigures
from tflotilla.shared.contract.errors import ModelError
from tflotilla.shared.inference.postprocessing import Answerer
from tflotilla.shared.inference.preprocessing import Preprocessor, from_real
from tflotilla.shared.inference.quantization import dequantize

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tflotilla.device.benchmark.loops import Clock, Limits
    from tflotilla.device.bundle_folder import BundleFolder
    from tflotilla.shared.contract.benchmark import BenchmarkStage
    from tflotilla.shared.contract.manifest import Manifest
    from tflotilla.shared.inference.runtime import LoadedModel, Tensor
    from tflotilla.shared.inference.sample_set import SampleSet

    Tensors = tuple[Tensor, ...]
    #: Each takes what the one before it gave.
    Step = tuple[BenchmarkStage, Callable[[Any], Any]]

#: What cameras give, and what they are scaled down from.
MADE_SIZE = (640, 480)
_MADE = 4


def run(
    model: LoadedModel,
    invoke: Callable[[], object],
    bundle: BundleFolder,
    *,
    rows: Sequence[Tensors],
    samples: SampleSet | None,
    batch: int,
    seed: int,
    limits: Limits,
    clock: Clock = time.perf_counter_ns,
) -> tuple[StageFigures, ...]:
    """Time the stages until both minima are reached or the maximum is over.

    Args:
        model: loaded, for `batch` samples at once.
        invoke: its bare call.
        bundle: says how images become tensors and tensors answers.
        rows: ready tensors, for a model of which nothing earlier is known.
        samples: what was sent.
        batch: samples in one invoke.
        seed: of made pictures.
        limits: how long.
        clock: nanoseconds.

    Raises:
        DatasetError: a sample can't be used.
        ModelError: an answer can't be made of the outputs.

    """
    sources, steps = _steps(model, invoke, bundle, rows, samples, batch, seed)
    taken = [array("q") for _ in steps]
    whole = array("q")
    # Decoders and tables are loaded by the first pictures.
    for source in itertools.islice(itertools.cycle(sources), 2):
        _once(source, steps, clock)
    begin = now = clock()
    earliest, latest = begin + limits.min_ns, begin + limits.max_ns
    for source in itertools.cycle(sources):
        if whole and not (now < latest and (now < earliest or len(whole) < limits.min_runs)):
            break
        stamps = _once(source, steps, clock)
        for stage, first, second in zip(taken, stamps, stamps[1:]):  # noqa: B905 - one stamp more
            stage.append(second - first)
        now = stamps[-1]
        whole.append(now - stamps[0])
    figures = [
        StageFigures(stage=step[0], latency=statistics.distribution(stage))
        for step, stage in zip(steps, taken, strict=True)
    ]
    return (*figures, StageFigures(stage="end_to_end", latency=statistics.distribution(whole)))


def _once(source: object, steps: Sequence[Step], clock: Clock) -> list[int]:
    value = source
    stamps = [clock()]
    for _, step in steps:
        value = step(value)
        stamps.append(clock())
    return stamps


def _steps(
    model: LoadedModel,
    invoke: Callable[[], object],
    bundle: BundleFolder,
    rows: Sequence[Tensors],
    samples: SampleSet | None,
    batch: int,
    seed: int,
) -> tuple[list[Any], list[Step]]:
    manifest = bundle.manifest
    sources, steps = _way_in(model, manifest, rows, samples, batch, seed)
    answerer = Answerer(manifest.postprocessing, manifest.outputs, bundle.labels())
    window = Window(with_results=True)
    times = (0, 0, 0, 0, 0)

    def take(_: object) -> list[Tensors]:
        outputs = model.get_outputs()
        for output, spec in zip(outputs, manifest.outputs, strict=True):
            if spec.dtype != "string":
                dequantize(output, spec)
        return [_part(outputs, number, batch) for number in range(batch)]

    def answer(parts: list[Tensors]) -> list[Any]:
        try:
            return [answerer.answer(part) for part in parts]
        except ValueError as error:
            raise ModelError(str(error)) from error

    def publish(answers: list[Any]) -> bytes:
        for top in answers:
            window.add("benchmark", 0.0, times, top)
        return window.take_results()

    def run_model(_: object) -> object:
        return invoke()

    steps += [("invoke", run_model), ("dequantize", take), ("postprocess", answer), ("publish", publish)]
    return sources, steps


def _way_in(
    model: LoadedModel, manifest: Manifest, rows: Sequence[Tensors], samples: SampleSet | None, batch: int, seed: int
) -> tuple[list[Any], list[Step]]:
    specs = manifest.inputs
    if samples is not None and samples.tensors:
        together = [
            [samples.tensors[(begin + i) % len(samples)] for i in range(batch)]
            for begin in range(0, len(samples), batch)
        ]

        def quantize_tensors(several: list[Tensors]) -> None:
            ready = [tuple(from_real(t, s) for t, s in zip(row, specs, strict=True)) for row in several]
            model.set_inputs(stack(ready))

        return list(together), [("quantize", quantize_tensors)]
    if manifest.preprocessing is None or len(specs) != 1:
        # Only ready tensors are known of this model: each run is fed, and that is nobody's stage.
        model.set_inputs(rows[0])
        return [rows[0]], []
    from tflotilla.shared.inference.images import open_image

    preprocessor = Preprocessor(manifest.preprocessing, specs[0])
    draft = preprocessor.draft_size
    images = samples.images if samples is not None else made_pictures(seed)
    sources = [[images[(begin + i) % len(images)] for i in range(batch)] for begin in range(0, len(images), batch)]

    def decode(encoded: list[bytes]) -> list[Any]:
        return [open_image(image, draft_size=draft) for image in encoded]

    def resize(decoded: list[Any]) -> list[Any]:
        return [preprocessor.resize(image) for image in decoded]

    def quantize(pixels: list[Any]) -> None:
        model.set_inputs(stack([(preprocessor.quantize(image),) for image in pixels]))

    return list(sources), [("decode", decode), ("resize", resize), ("quantize", quantize)]


def made_pictures(seed: int) -> tuple[bytes, ...]:
    """Return JPEGs of 640x480 like a camera's: smooth shapes with some noise, as decoding depends on it."""
    from PIL import Image

    generator = np.random.default_rng(seed)
    pictures = []
    for _ in range(_MADE):
        rough = Image.fromarray(generator.integers(0, 256, (12, 16, 3), dtype=np.uint8))
        smooth = np.asarray(rough.resize(MADE_SIZE, Image.Resampling.BICUBIC), dtype=np.int16)
        noisy = np.clip(smooth + generator.integers(-6, 7, smooth.shape), 0, 255).astype(np.uint8)
        target = io.BytesIO()
        Image.fromarray(noisy).save(target, "JPEG", quality=90)
        pictures.append(target.getvalue())
    return tuple(pictures)


def _part(outputs: Tensors, number: int, batch: int) -> Tensors:
    if batch == 1:
        return outputs
    each = [output.shape[0] // batch if output.ndim else 0 for output in outputs]
    return tuple(
        output[number * size : (number + 1) * size] if size else output
        for output, size in zip(outputs, each, strict=True)
    )
