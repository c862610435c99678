"""How good and how fast models are, with the runtimes that boards use and the code that runs there.

Classifiers are judged on labels (accuracy), detectors on boxes (mAP), everything on its likeness to a float model
(cosine, SQNR); `metrics` says what these are. Every (model, runtime) pair is one child process. The latency is that of
single runs, as a board makes them, and this machine's; only a board's own benchmark says what a board takes.

What it does NOT do: decide how much loss is too much.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tflotilla.host.models import child, compatibility, datasets, detection_data
from tflotilla.host.models.evaluation import plan
from tflotilla.host.models.evaluation import task as tasks
from tflotilla.host.models.inspect import ModelInspection, inspect_model
from tflotilla.host.models.metrics import Metric
from tflotilla.shared.contract import codec, messages
from tflotilla.shared.contract.board import RuntimeOffer
from tflotilla.shared.contract.errors import BoardError, DatasetError, ModelError, TflotillaError, UsageError
from tflotilla.shared.contract.processing import Preprocessing
from tflotilla.shared.contract.tensors import QuantizationScheme
from tflotilla.shared.inference import preprocessing
from tflotilla.shared.inference import runtime as runtimes
from tflotilla.shared.statistics import minimum_runs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

RUNTIME_NAMES = {"litert": "ai-edge-litert"} | {name: name for name in runtimes.ADAPTERS}
_IMAGE_DIMENSIONS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """One model with all that is known about it: `given` is what the user named, `file` the .tflite."""

    given: Path
    file: Path
    inspection: ModelInspection
    preprocessing: Preprocessing | None
    labels: tuple[str, ...]
    #: The labels as they stand in their file, where it is known: a detector's may have gaps.
    labels_file: Path | None = None


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
    #: Samples in which it had the reference's shape; an output that lists what was found may not.
    samples: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassScore:
    """How one class is found by a detector."""

    index: int
    name: str
    #: Average precision at an intersection over union of 0.5.
    average_precision: float
    #: Boxes of that class in the data.
    boxes: int


#: Scores are counted in so many bins.
_TENTHS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """What a classifier answered to all samples, whether right or wrong."""

    #: How often each class won; those that never did are missing.
    winners: Mapping[str, int]
    #: How many winners scored in [0, 0.1), [0.1, 0.2), … [0.9, 1], outputs read as scores, and as logits.
    scores: tuple[int, ...]
    softmax_scores: tuple[int, ...]

    def __post_init__(self) -> None:
        """Refuse what no evaluation says: files are written by hand, too. Raises ValueError."""
        if not all(index.isascii() and index.isdigit() for index in self.winners):
            message = "winners are named by the numbers of their classes"
            raise ValueError(message)
        counts = (*self.winners.values(), *self.scores, *self.softmax_scores)
        if {len(self.scores), len(self.softmax_scores)} != {_TENTHS} or min(counts) < 0:
            message = f"answers have {_TENTHS} bins of scores, and no count below 0"
            raise ValueError(message)


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
    #: What `value` is: what the model was judged by. Of several outputs (cosine, sqnr), the worst one's.
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
    #: Samples that the reference has right and this model wrong, and the other way round.
    lost: int | None = None
    won: int | None = None
    #: Against the reference, worst first; empty where there is none, or answers were judged.
    outputs: tuple[OutputScore, ...] = ()
    #: Per class of a detector.
    classes: tuple[ClassScore, ...] = ()
    #: Of a classifier.
    answers: Answers | None = None
    #: What is probably wrong with the labels, when nearly nothing is right.
    hint: str | None = None
    #: decode, preprocess, invoke, postprocess, total of single runs; on this machine. `count` says how many.
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
        UsageError: an unknown runtime, images without preprocessing, or likeness without a reference.
        ModelError: a model is corrupt, can't be judged by that metric, or no runtime here runs any of them.
        DatasetError: the data are unlabelled, unreadable, or their labels don't fit a model's outputs.
        BoardError: no runtime is installed here.

    """
    names = runtime_names(request)
    scores: list[Score] = []
    refusals: list[Refusal] = []
    first: TflotillaError | None = None
    subjects = [subject_of(each, request) for each in request.models]
    metrics = [metric_of(subject, request) for subject in subjects]
    # A child looks at its data before it runs anything, so the first one's are not read twice.
    for subject, metric in list(zip(subjects, metrics, strict=True))[1:]:
        tasks.open_data(task_of(subject, names[0], metric, request), subject.inspection)
    for subject, metric in zip(subjects, metrics, strict=True):
        for name in names:
            try:
                scores.append(_score(subject, name, metric, request, on_progress))
            except (ModelError, BoardError) as error:
                first = first or _naming(subject, error)
                # A runtime that nobody asked for and that can't be imported here is as good as absent.
                if request.runtimes or not isinstance(error, BoardError):
                    refusals.append(Refusal(model=subject.given, runtime=name, reason=str(error)))
    if not scores and first is not None:
        raise first
    return EvaluationReport(data=request.data, scores=tuple(_with_float(scores)), refusals=tuple(refusals))


def metric_of(subject: Subject, request: EvaluationRequest) -> Metric:
    """Choose the metric, and look whether the reference is the same model. Raises ModelError, UsageError."""
    try:
        metric = plan.choose(subject.inspection, request.data, request.metric, request.reference)
        if request.reference is not None:
            reference = inspect_model(request.reference)
            plan.pair(subject.inspection.inputs, reference.inputs, "input")
            plan.pair(subject.inspection.outputs, reference.outputs, "output")
    except ModelError as error:
        raise _naming(subject, error) from error
    return metric


def _naming(subject: Subject, error: TflotillaError) -> TflotillaError:
    """Begin the sentence with the model, where nobody did."""
    message = str(error)
    return error if message.startswith(str(subject.given)) else type(error)(f"{subject.given}: {message}")


def runtime_names(request: EvaluationRequest) -> tuple[str, ...]:
    """Return the PyPI names of the runtimes that are asked for, or installed. Raises UsageError, BoardError."""
    for name in request.runtimes:
        if name not in RUNTIME_NAMES:
            raise UsageError(f"--runtime {name!r}: known runtimes are {', '.join(runtimes.ADAPTERS)}")
    if request.runtimes:
        return tuple(dict.fromkeys(RUNTIME_NAMES[name] for name in request.runtimes))
    # Whether an installed one can be imported, the child finds out: importing is what may crash.
    found = tuple(name for name in runtimes.ADAPTERS if _version(name) is not None)
    if not found:
        raise BoardError(f"no runtime is installed here; known are {', '.join(runtimes.ADAPTERS)}")
    return found


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def subject_of(given: Path | Subject, request: EvaluationRequest) -> Subject:
    """Return a model with what the request says of all. Raises ModelError, UsageError, DatasetError."""
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
    if not labels and plan.is_detector(inspection):
        labels = datasets.packed_labels(given, inspection.associated_files)
    return Subject(
        given=given,
        file=given,
        inspection=inspection,
        preprocessing=chosen,
        labels=labels,
        labels_file=request.labels,
    )


def task_of(subject: Subject, runtime: str, metric: Metric, request: EvaluationRequest) -> tasks.Task:
    """Return what the child is told about one model on one runtime. Raises DatasetError."""
    names = dict(enumerate(subject.labels))
    if metric is Metric.MAP and subject.labels_file is not None:
        names = detection_data.read_label_map(subject.labels_file)
    elif metric is Metric.MAP and subject.labels:
        names = detection_data.label_map(subject.labels, str(subject.given))
    elif metric is Metric.ACCURACY and names:
        classes = plan.class_count(subject.inspection)
        if len(names) != max(classes, 2):
            raise DatasetError(f"{subject.given}: has {classes} outputs and {len(names)} labels")
    return tasks.Task(
        model=str(subject.file),
        runtime=runtime,
        num_threads=request.num_threads,
        data=str(request.data),
        metric=metric,
        preprocessing=subject.preprocessing,
        labels={str(index): name for index, name in names.items()},
        label_offset=request.label_offset,
        limit=request.limit,
        reference=None if request.reference is None else str(request.reference),
    )


def _score(
    subject: Subject,
    runtime: str,
    metric: Metric,
    request: EvaluationRequest,
    on_progress: Callable[[str], None] | None,
) -> Score:
    _check_ops(subject, runtime)
    say: Callable[[str], None] | None = None
    if on_progress is not None:
        tell = on_progress

        def say(text: str) -> None:
            tell(f"{subject.given.name} on {runtime}: {text}")

    task = task_of(subject, runtime, metric, request)
    found = child.call(
        "tflotilla.host.models.evaluation.here:run",
        {"task": task},
        doing=f"{subject.given} on {runtime}",
        on_progress=say,
    )
    stages = {stage: codec.decode(messages.StageLatency, entry, stage) for stage, entry in found["stages"].items()}
    outputs = tuple(codec.decode(OutputScore, entry, "outputs") for entry in found.get("outputs", ()))
    float_value = found.get("float_value", metric.of_the_float_model)
    return Score(
        model=subject.given,
        sha256=subject.inspection.sha256,
        size_bytes=subject.inspection.size_bytes,
        scheme=subject.inspection.scheme,
        runtime=found["runtime"],
        num_threads=request.num_threads,
        samples=found["samples"],
        metric=metric,
        value=_value(metric, found, outputs),
        float_value=float_value,
        accuracy=found.get("accuracy"),
        top5=found.get("top5"),
        float_accuracy=float_value if metric is Metric.ACCURACY else None,
        agreement=found.get("agreement"),
        top5_agreement=found.get("top5_agreement"),
        lost=found.get("lost"),
        won=found.get("won"),
        outputs=outputs,
        classes=tuple(_class_score(entry, task.labels) for entry in found.get("classes", ())),
        answers=None if "answers" not in found else codec.decode(Answers, found["answers"], "answers"),
        hint=found.get("hint"),
        stages=stages,
        enough_for_p90=stages["invoke"].count >= minimum_runs(90),
        enough_for_p99=stages["invoke"].count >= minimum_runs(99),
    )


def _value(metric: Metric, found: Mapping[str, Any], outputs: Sequence[OutputScore]) -> float:
    if metric is Metric.COSINE:
        return min(each.cosine for each in outputs)
    if metric is Metric.SQNR:
        return min(each.sqnr_db for each in outputs)
    return float(found[metric.value])


def _class_score(entry: Mapping[str, Any], names: Mapping[str, str]) -> ClassScore:
    index = entry["index"]
    return ClassScore(
        index=index,
        name=names.get(str(index), str(index)),
        average_precision=entry["average_precision"],
        boxes=entry["boxes"],
    )


def _check_ops(subject: Subject, runtime: str) -> None:
    """Say in our words, by op and version, what the runtime can't run; its own words are worse. Raises ModelError."""
    version = _version(runtime)
    if version is None:
        return  # whoever loads it says so
    found = subject.inspection
    verdict = compatibility.check_runtime(
        found.requirements, RuntimeOffer(name=runtime, version=version), tensors=(*found.inputs, *found.outputs)
    )
    if not verdict.ok and not verdict.assumed:
        raise ModelError(str(verdict))


def _with_float(scores: Sequence[Score]) -> Iterator[Score]:
    """Give every score that has none the value of the first float32 model on the same runtime."""
    floats: dict[tuple[str, Metric], float] = {}
    for score in scores:
        if score.scheme is QuantizationScheme.FLOAT32:
            floats.setdefault((score.runtime, score.metric), score.value)
    for score in scores:
        if score.float_value is not None:
            yield score
            continue
        fields = {name: getattr(score, name) for name in score.__slots__}
        fields["float_value"] = floats.get((score.runtime, score.metric))
        if score.metric is Metric.ACCURACY:
            fields["float_accuracy"] = fields["float_value"]
        yield Score(**fields)
