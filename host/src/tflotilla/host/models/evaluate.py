"""Accuracy and latency of models on labelled data, with the runtimes that boards use and the code that runs there.

Every (model, runtime) pair is one child process: it decodes, preprocesses, invokes and postprocesses sample by sample,
as the board's worker does. The latency is this machine's; only a board's own benchmark says what a board takes.

What it does NOT do: batch, or judge detections: classification only.
"""

from __future__ import annotations

import importlib.metadata
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from tflotilla.host.models import child, compatibility, datasets
from tflotilla.host.models.inspect import ModelInspection, inspect_model
from tflotilla.host.models.metrics import Metric
from tflotilla.shared.contract import codec, messages
from tflotilla.shared.contract.board import RuntimeOffer
from tflotilla.shared.contract.errors import BoardError, DatasetError, ModelError, TflotillaError, UsageError
from tflotilla.shared.contract.processing import Postprocessing, Preprocessing
from tflotilla.shared.contract.tensors import QuantizationScheme
from tflotilla.shared.inference import images, preprocessing
from tflotilla.shared.inference import runtime as runtimes
from tflotilla.shared.inference.pipeline import Pipeline
from tflotilla.shared.inference.postprocessing import Answerer
from tflotilla.shared.inference.preprocessing import Preprocessor, from_real
from tflotilla.shared.statistics import minimum_runs, summarize

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from tflotilla.shared.contract.tensors import TensorSpec
    from tflotilla.shared.inference.pipeline import Result

RUNTIME_NAMES = {"litert": "ai-edge-litert"} | {name: name for name in runtimes.ADAPTERS}
_TOP = 5
_WARM_UP_RUNS = 3
_PROGRESS_EVERY_S = 0.5
_IMAGE_DIMENSIONS = 4
_STAGES: tuple[messages.Stage, ...] = ("decode", "preprocess", "invoke", "postprocess", "total")


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """One model with all that is known about it: `given` is what the user named, `file` the .tflite."""

    given: Path
    file: Path
    inspection: ModelInspection
    preprocessing: Preprocessing | None
    labels: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationRequest:
    """What to evaluate, on what."""

    #: `.tflite` files, or subjects that bring their own preprocessing and labels, as bundles do.
    models: tuple[Path | Subject, ...]
    data: Path
    #: As behind `--preprocess`, or the value itself; for models that are no bundles.
    preprocess: str | Preprocessing | None = None
    #: A labels.txt, for models that are no bundles.
    labels: Path | None = None
    #: PyPI names; empty means every runtime that is installed here.
    runtimes: tuple[str, ...] = ()
    num_threads: int = 1
    #: At most so many samples, spread evenly.
    limit: int | None = None
    #: Added to labels given as numbers: 1 for models whose class 0 is "background".
    label_offset: int = 0
    #: None: by model and data. Detectors on boxes: map; labels: accuracy; unlabelled data with a reference: cosine.
    metric: Metric | None = None
    #: The float `.tflite` that cosine, sqnr and agreement are measured against.
    reference: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputScore:
    """How one output follows the float model's."""

    name: str
    #: Mean over the samples.
    cosine: float
    sqnr_db: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassScore:
    """How one class is found by a detector."""

    name: str
    #: Average precision at an intersection over union of 0.5.
    average_precision: float
    #: Boxes of that class in the data.
    boxes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """One model on one runtime; field names are also those of `EvaluationSummary`."""

    model: Path
    sha256: str
    size_bytes: int
    scheme: QuantizationScheme
    #: Name and version: `ai-edge-litert==2.1.0`.
    runtime: str
    num_threads: int
    samples: int
    #: What `value` is: what the model was judged by.
    metric: Metric
    value: float
    #: The same of the float model on the same runtime: the reference, else the first float32 one that was evaluated.
    float_value: float | None = None
    #: Share of samples whose best class is the right one; None where classes are not what was judged.
    accuracy: float | None
    #: Share of samples whose right class is among the best five; None with fewer than six classes.
    top5: float | None
    #: Accuracy of the float model on the same runtime, when it was evaluated too.
    float_accuracy: float | None
    #: Share of samples whose best class is the reference's, and whose is among the reference's best five.
    agreement: float | None = None
    top5_agreement: float | None = None
    #: Against the reference, worst first; empty where there is none, or answers were judged.
    outputs: tuple[OutputScore, ...] = ()
    #: Per class of a detector.
    classes: tuple[ClassScore, ...] = ()
    #: decode, preprocess, invoke, postprocess, total; on this machine.
    stages: Mapping[str, messages.StageLatency]
    #: Whether there were enough samples for these percentiles at 99 % confidence.
    enough_for_p90: bool
    enough_for_p99: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """One model that one runtime can't run."""

    model: Path
    runtime: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationReport:
    """Scores in the order of the models, then of the runtimes."""

    data: Path
    scores: tuple[Score, ...]
    refusals: tuple[Refusal, ...]


def evaluate(request: EvaluationRequest, on_progress: Callable[[str], None] | None = None) -> EvaluationReport:
    """Evaluate every model on every runtime.

    Raises:
        UsageError: an unknown runtime, or images without preprocessing.
        ModelError: a model is corrupt, is no classifier, or no runtime here runs any of them.
        DatasetError: the data are unlabelled, unreadable, or their labels don't fit a model's outputs.
        BoardError: no runtime is installed here.

    """
    if request.metric not in (None, Metric.ACCURACY) or request.reference is not None:
        raise UsageError("only --metric accuracy is there yet")
    names = _runtime_names(request)
    scores: list[Score] = []
    refusals: list[Refusal] = []
    first: TflotillaError | None = None
    subjects = [_subject(each, request) for each in request.models]
    for subject in subjects:
        open_data(subject, request)
    for subject in subjects:
        for name in names:
            try:
                scores.append(_score(subject, name, request, on_progress))
            except (ModelError, BoardError) as error:
                first = first or _naming(subject, error)
                refusals.append(Refusal(model=subject.given, runtime=name, reason=str(error)))
    if not scores and first is not None:
        raise first
    return EvaluationReport(data=request.data, scores=tuple(_with_float(scores)), refusals=tuple(refusals))


def open_data(subject: Subject, request: EvaluationRequest) -> datasets.LabelledData:
    """Open the labelled data for one model. Raises DatasetError, UsageError."""
    try:
        classes = class_count(subject.inspection)
    except ModelError as error:
        raise _naming(subject, error) from error
    if subject.labels and len(subject.labels) != max(classes, 2):
        raise DatasetError(f"{subject.given}: has {classes} outputs and {len(subject.labels)} labels")
    data = datasets.open_labelled(
        request.data, names=subject.labels, classes=classes, offset=request.label_offset
    ).take(request.limit)
    pixels = data.array is None or (data.array.dtype == np.uint8 and subject.inspection.inputs[0].dtype != "uint8")
    if pixels and subject.preprocessing is None:
        raise UsageError(
            f"{request.data} holds pixels, and how they become inputs is half the model; say it with --preprocess "
            "(raw: 0..255, unit: 0..1, mobilenet: -1..1, …)"
        )
    return data


def _naming(subject: Subject, error: TflotillaError) -> TflotillaError:
    """Begin the sentence with the model, where nobody did."""
    message = str(error)
    return error if message.startswith(str(subject.given)) else type(error)(f"{subject.given}: {message}")


def class_count(inspection: ModelInspection) -> int:
    """Return the number of classes a classifier tells apart: the size of its only output. Raises ModelError."""
    if len(inspection.inputs) != 1 or len(inspection.outputs) != 1:
        raise ModelError(
            f"evaluation is for classifiers of one input and one output; this model has {len(inspection.inputs)} "
            f"and {len(inspection.outputs)}"
        )
    return math.prod(abs(size) for size in inspection.outputs[0].shape)


def _runtime_names(request: EvaluationRequest) -> tuple[str, ...]:
    for name in request.runtimes:
        if name not in RUNTIME_NAMES:
            raise UsageError(f"--runtime {name!r}: known runtimes are {', '.join(runtimes.ADAPTERS)}")
    if request.runtimes:
        return tuple(dict.fromkeys(RUNTIME_NAMES[name] for name in request.runtimes))
    found = tuple(
        name for name in runtimes.ADAPTERS if child.call("tflotilla.host.models.evaluate:is_present", {"name": name})
    )
    if not found:
        raise BoardError(f"no runtime is installed here; known are {', '.join(runtimes.ADAPTERS)}")
    return found


def is_present(*, name: str) -> bool:
    """Whether a runtime can be imported; in a child, because importing is what may crash."""
    try:
        runtimes.find(name)
    except BoardError:
        return False
    return True


def _subject(given: Path | Subject, request: EvaluationRequest) -> Subject:
    if isinstance(given, Subject):
        return given
    inspection = inspect_model(given)
    chosen = request.preprocess
    if isinstance(chosen, str):
        shape = inspection.inputs[0].shape if inspection.inputs else ()
        chosen = preprocessing.parse(chosen, channels=shape[-1] if len(shape) == _IMAGE_DIMENSIONS else None)
    if chosen is not None and inspection.inputs:
        datasets.refuse_foreign_range(chosen, inspection.inputs[0])
    labels = datasets.read_labels(request.labels) if request.labels is not None else ()
    return Subject(given=given, file=given, inspection=inspection, preprocessing=chosen, labels=labels)


def _score(
    subject: Subject, runtime: str, request: EvaluationRequest, on_progress: Callable[[str], None] | None
) -> Score:
    _check_ops(subject, runtime)
    say: Callable[[str], None] | None = None
    if on_progress is not None:
        tell = on_progress

        def say(text: str) -> None:
            tell(f"{subject.given.name} on {runtime}: {text}")

    found = child.call(
        "tflotilla.host.models.evaluate:run_here",
        {
            "model": str(subject.file),
            "runtime": runtime,
            "num_threads": request.num_threads,
            "data": str(request.data),
            "preprocess": subject.preprocessing,
            "labels": list(subject.labels),
            "limit": request.limit,
            "label_offset": request.label_offset,
        },
        doing=f"{subject.given} on {runtime}",
        on_progress=say,
    )
    samples = found["samples"]
    return Score(
        model=subject.given,
        sha256=subject.inspection.sha256,
        size_bytes=subject.inspection.size_bytes,
        scheme=subject.inspection.scheme,
        runtime=found["runtime"],
        num_threads=request.num_threads,
        samples=samples,
        metric=Metric.ACCURACY,
        value=found["best"] / samples,
        accuracy=found["best"] / samples,
        top5=found["among"] / samples if class_count(subject.inspection) > _TOP else None,
        float_accuracy=None,
        stages={stage: codec.decode(messages.StageLatency, entry, stage) for stage, entry in found["stages"].items()},
        enough_for_p90=samples >= minimum_runs(90),
        enough_for_p99=samples >= minimum_runs(99),
    )


def _check_ops(subject: Subject, runtime: str) -> None:
    """Say in our words, by op and version, what the runtime can't run; its own words are worse. Raises ModelError."""
    try:
        offer = RuntimeOffer(name=runtime, version=importlib.metadata.version(runtime))
    except importlib.metadata.PackageNotFoundError:
        return  # whoever loads it says so
    found = subject.inspection
    verdict = compatibility.check_runtime(found.requirements, offer, tensors=(*found.inputs, *found.outputs))
    if not verdict.ok and not verdict.assumed:
        raise ModelError(str(verdict))


def _with_float(scores: Sequence[Score]) -> Iterator[Score]:
    """Give every score the accuracy of the first float32 model on the same runtime."""
    floats: dict[str, float] = {}
    for score in scores:
        if score.scheme is QuantizationScheme.FLOAT32:
            floats.setdefault(score.runtime, score.value)
    for score in scores:
        fields = {name: getattr(score, name) for name in score.__slots__}
        value = floats.get(score.runtime)
        yield Score(**(fields | {"float_accuracy": value, "float_value": value}))


def run_here(
    *,
    model: str,
    runtime: str,
    num_threads: int,
    data: str,
    preprocess: Mapping[str, Any] | None,
    labels: Sequence[str],
    limit: int | None,
    label_offset: int,
) -> dict[str, Any]:
    """Evaluate in this process; `evaluate` calls it in a child."""
    engine = runtimes.find(runtime)
    loaded = engine.load(Path(model), runtimes.LoadOptions(num_threads=num_threads))
    spec, outputs = loaded.inputs[0], loaded.outputs
    classes = math.prod(abs(size) for size in outputs[0].shape)
    labelled = datasets.open_labelled(Path(data), names=labels, classes=classes, offset=label_offset).take(limit)
    chosen = None if preprocess is None else codec.decode(Preprocessing, dict(preprocess), "preprocessing")
    preprocessor = None if chosen is None else _preprocessor(chosen, spec)
    answerer = Answerer(Postprocessing(top_k=min(_TOP, max(1, classes))), outputs, ())
    pipeline = Pipeline(loaded, preprocessor, answerer)
    stages: dict[messages.Stage, list[int]] = {stage: [] for stage in _STAGES}
    best = among = 0
    said = time.monotonic()
    for number, (label, decode_ns, run) in enumerate(_runs(labelled, spec, preprocessor, pipeline)):
        if number == 0:
            for _ in range(_WARM_UP_RUNS):
                run()
        result = run()
        top = [candidate.index for candidate in result.top]
        if classes == 1:
            top = [int(result.top[0].score > 0.5)]  # noqa: PLR2004 - one sigmoid: no or yes
        best += top[0] == label
        among += label in top
        for stage, value in result.stages_ns(decode_ns).items():
            stages[stage].append(value)
        if time.monotonic() - said > _PROGRESS_EVERY_S:
            said = time.monotonic()
            child.report_progress(f"{number + 1} of {len(labelled.labels)}")
    return {
        "runtime": str(engine.offer),
        "samples": len(labelled.labels),
        "best": best,
        "among": among,
        "stages": {stage: codec.encode(summarize(values)) for stage, values in stages.items()},
    }


def _preprocessor(chosen: Preprocessing, spec: TensorSpec) -> Preprocessor:
    try:
        return Preprocessor(chosen, spec)
    except ModelError as error:
        # What doesn't fit is what the user said about the images, not the file.
        raise UsageError(str(error)) from error


def _runs(
    data: datasets.LabelledData, spec: TensorSpec, preprocessor: Preprocessor | None, pipeline: Pipeline
) -> Iterator[tuple[int, int, Callable[[], Result]]]:
    """Yield, per sample, its label, the nanoseconds of its decoding, and the call that infers it."""
    if data.array is None:
        draft = None if preprocessor is None else preprocessor.draft_size
        for label, file in zip(data.labels, data.files, strict=True):
            start = time.perf_counter_ns()
            image = images.open_image(file, draft_size=draft)
            decode_ns = time.perf_counter_ns() - start
            yield label, decode_ns, lambda image=image: pipeline.infer_image(image)  # type: ignore[misc]
        return
    shape = tuple(1 if size == -1 else size for size in spec.shape)
    for number, (label, sample) in enumerate(zip(data.labels, data.array, strict=True)):
        if [d for d in sample.shape if d != 1] != [d for d in shape if d != 1]:
            raise DatasetError(f"{data.path}: a sample has shape {sample.shape}, the model takes {shape}")
        if sample.dtype == np.uint8 and preprocessor is not None:
            image = _image(sample.reshape(shape[1:]))
            yield label, 0, lambda image=image: pipeline.infer_image(image)  # type: ignore[misc]
            continue
        if sample.dtype.kind == "f" and not np.isfinite(sample).all():
            raise DatasetError(f"{data.path}: sample {number} holds NaN or infinity")
        as_is = sample.dtype == np.dtype(spec.dtype)
        tensor = sample.reshape(shape) if as_is else from_real(sample, spec)
        yield label, 0, lambda tensor=tensor: pipeline.infer((tensor,))  # type: ignore[misc]


def _image(pixels: NDArray[np.uint8]) -> Image.Image:
    squeezed = pixels[..., 0] if pixels.shape[-1] == 1 else pixels
    return Image.fromarray(np.ascontiguousarray(squeezed))
