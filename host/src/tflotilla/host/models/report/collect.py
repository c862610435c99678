"""Gathers a report: inspects, evaluates, measures layers, looks at samples. One file's trouble is not the others'.

What it does NOT do: render (`pages`), or stop at the first thing that can't be measured: a note says what and why.
"""

from __future__ import annotations

import dataclasses
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tflotilla.host.models import compatibility, datasets, detection_data, evaluate, latency
from tflotilla.host.models.evaluate import EvaluationRequest, Score, Subject
from tflotilla.host.models.layers import measure as measure_layers
from tflotilla.host.models.layers.report import BEST_DB
from tflotilla.host.models.metrics import Metric
from tflotilla.host.models.report import pictures
from tflotilla.host.models.report.contents import Broken, Figures, Fit, LayerNoise, Report, Sample, Variant
from tflotilla.shared.contract.board import RuntimeOffer
from tflotilla.shared.contract.errors import BoardError, DatasetError, ModelError, TflotillaError, UsageError
from tflotilla.shared.contract.processing import Preprocessing
from tflotilla.shared.contract.tensors import QuantizationScheme
from tflotilla.shared.statistics import minimum_runs

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from tflotilla.host.models.inspect import ModelInspection
    from tflotilla.shared.contract.tensors import TensorSpec

DEFAULT_PICTURES = 6
_LAYERS = 20
_LAYER_SAMPLES = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportRequest:
    """What to report on."""

    #: `.tflite` files, or subjects that bring their own preprocessing and labels, as bundles do.
    models: tuple[Path | Subject, ...]
    data: Path | None = None
    preprocess: str | Preprocessing | None = None
    labels: Path | None = None
    label_offset: int = 0
    #: The float `.tflite`; None takes the first float32 one among the models.
    reference: Path | None = None
    runtimes: tuple[str, ...] = ()
    limit: int | None = None
    pictures: int = DEFAULT_PICTURES
    title: str = "Model report"


def collect(request: ReportRequest, on_progress: Callable[[str], None] | None = None) -> Report:
    """Gather everything.

    Raises:
        ModelError: no model can be read.
        UsageError, DatasetError: the data don't fit any model, or how pixels become inputs is not said.
        BoardError: no runtime is installed here.

    """
    say = on_progress or _say_nothing
    asked = EvaluationRequest(
        models=request.models,
        data=request.data or Path(),
        preprocess=request.preprocess,
        labels=request.labels,
        runtimes=request.runtimes,
        limit=request.limit,
        label_offset=request.label_offset,
    )
    runtimes = evaluate.runtime_names(asked)
    subjects, broken = _open(request, asked)
    names = _names([subject.given for subject in subjects])
    reference = request.reference or next(
        (subject.file for subject in subjects if subject.inspection.scheme is QuantizationScheme.FLOAT32), None
    )
    notes: list[str] = []
    if reference is None:
        notes.append("There is no float model among them: nothing says what quantization lost. --reference names one.")
    figures = _figures(request, subjects, names, asked, reference, runtimes, notes, say)
    variants = []
    for subject in subjects:
        name = names[subject.given]
        is_reference = subject.file == reference
        layers, layers_note = ((), "") if is_reference else _layers(request, subject, name, reference, say)
        base = _variant(subject.inspection, subject.file, name, is_reference=is_reference)
        variants.append(
            dataclasses.replace(base, figures=figures.get(name, ()), layers=layers, layers_note=layers_note)
        )
    return Report(
        title=request.title,
        data=None if request.data is None else request.data.name,
        variants=tuple(variants),
        broken=tuple(broken),
        samples=_samples(request, subjects, names, asked, reference, runtimes, notes, say),
        notes=tuple(notes),
    )


def _say_nothing(text: str) -> None:
    del text


def _open(request: ReportRequest, asked: EvaluationRequest) -> tuple[list[Subject], list[Broken]]:
    subjects: list[Subject] = []
    broken: list[Broken] = []
    first: TflotillaError | None = None
    for given in request.models:
        try:
            subjects.append(evaluate.subject_of(given, asked))
        except ModelError as error:
            first = first or error
            path = given if isinstance(given, Path) else given.given
            broken.append(Broken(name=path.name, reason=str(error)))
    if not subjects and first is not None:
        raise first
    return subjects, broken


def _names(paths: Sequence[Path]) -> Mapping[Path, str]:
    """Name every file by as much of its path as tells it apart."""
    depth = 1
    while True:
        names = {path: "/".join(path.parts[-depth:]) for path in paths}
        if len(set(names.values())) == len(set(paths)) or depth > max(len(path.parts) for path in paths):
            return names
        depth += 1


def _variant(inspection: ModelInspection, file: Path, name: str, *, is_reference: bool) -> Variant:
    fits = []
    for table in sorted(compatibility.known_tables(), key=lambda t: (t.name, compatibility.version_key(t.version))):
        verdict = compatibility.check_runtime(
            inspection.requirements,
            RuntimeOffer(name=table.name, version=table.version),
            tensors=(*inspection.inputs, *inspection.outputs),
        )
        fits.append(Fit(runtime=table.name, version=table.version, ok=verdict.ok, reason=str(verdict)))
    return Variant(
        name=name,
        sha256=inspection.sha256,
        scheme=inspection.scheme,
        size_bytes=inspection.size_bytes,
        compressed_bytes=len(zlib.compress(file.read_bytes(), 9)),
        inputs=_edges(inspection.inputs),
        outputs=_edges(inspection.outputs),
        ops=sum(op.count for op in inspection.ops),
        float_ops=dict(inspection.float_ops),
        is_reference=is_reference,
        fits=tuple(fits),
    )


def _edges(specs: Sequence[TensorSpec]) -> str:
    return ", ".join(f"{spec.dtype} {'×'.join(map(str, spec.shape)) or 'scalar'}" for spec in specs)


def _figures(
    request: ReportRequest,
    subjects: Sequence[Subject],
    names: Mapping[Path, str],
    asked: EvaluationRequest,
    reference: Path | None,
    runtimes: Sequence[str],
    notes: list[str],
    say: Callable[[str], None],
) -> dict[str, tuple[Figures, ...]]:
    if request.data is None:
        notes.append("No data were given (--data): latency was measured on noise, accuracy and agreement were not.")
        return {names[subject.given]: _latencies(subject, runtimes, say) for subject in subjects}
    if not request.data.exists():
        raise DatasetError(f"{request.data}: there is no such folder or file")
    found: dict[str, tuple[Figures, ...]] = {}
    first: TflotillaError | None = None
    for subject in subjects:
        name = names[subject.given]
        # The float model itself has nothing to be compared with.
        compared = reference if reference != subject.file else None
        try:
            found[name] = _evaluated(dataclasses.replace(asked, models=(subject,)), compared, say)
        except UsageError:
            raise
        except (ModelError, DatasetError) as error:
            first = first or error
            notes.append(f"{name} was not judged: {error}")
            found[name] = _latencies(subject, runtimes, say)
    if first is not None and all(figure.metric is None for figures in found.values() for figure in figures):
        raise first
    return _with_gains(found, names, reference)


def _evaluated(asked: EvaluationRequest, reference: Path | None, say: Callable[[str], None]) -> tuple[Figures, ...]:
    try:
        report = evaluate.evaluate(dataclasses.replace(asked, reference=reference), say)
    except ModelError:
        if reference is None:
            raise
        # Another model than the reference can still be judged by itself.
        report = evaluate.evaluate(asked, say)
    refused = (Figures(runtime=each.runtime, refused=each.reason) for each in report.refusals)
    return (*map(_figure, report.scores), *refused)


def _figure(score: Score) -> Figures:
    invoke = score.stages["invoke"]
    return Figures(
        runtime=score.runtime,
        metric=score.metric.value,
        value=score.value,
        top5=score.top5,
        agreement=score.agreement,
        top5_agreement=score.top5_agreement,
        samples=score.samples,
        p50_ns=invoke.p50_ns,
        p90_ns=invoke.p90_ns,
        runs=invoke.count,
        enough_for_p90=score.enough_for_p90,
    )


def _with_gains(
    found: dict[str, tuple[Figures, ...]], names: Mapping[Path, str], reference: Path | None
) -> dict[str, tuple[Figures, ...]]:
    """Give every figure its distance from the float variant's, where that was judged by the same metric."""
    base: dict[tuple[str, str | None], float] = {
        (figure.runtime, figure.metric): figure.value
        for path, name in names.items()
        if path == reference
        for figure in found.get(name, ())
        if figure.value is not None
    }
    return {
        name: tuple(
            figure
            if figure.value is None or (figure.runtime, figure.metric) not in base
            else dataclasses.replace(figure, gained=figure.value - base[figure.runtime, figure.metric])
            for figure in figures
        )
        for name, figures in found.items()
    }


def _latencies(subject: Subject, runtimes: Sequence[str], say: Callable[[str], None]) -> tuple[Figures, ...]:
    found = []
    for runtime in runtimes:
        say(f"timing {subject.given.name} on {runtime}")
        try:
            (measured,) = latency.compare([subject.file], runtime)
        except BoardError:
            continue
        except ModelError as error:
            found.append(Figures(runtime=runtime, refused=str(error)))
            continue
        invoke = measured.invoke
        found.append(
            Figures(
                runtime=measured.runtime,
                p50_ns=invoke.p50_ns,
                p90_ns=invoke.p90_ns,
                runs=invoke.count,
                enough_for_p90=invoke.count >= minimum_runs(90),
            )
        )
    return tuple(found)


def _layers(
    request: ReportRequest, subject: Subject, name: str, reference: Path | None, say: Callable[[str], None]
) -> tuple[tuple[LayerNoise, ...], str]:
    say(f"measuring the layers of {name}")
    problem = ""
    for against in dict.fromkeys((reference, None)):
        try:
            report = measure_layers(
                subject.file,
                against=against,
                data=request.data,
                preprocess=subject.preprocessing,
                samples=_LAYER_SAMPLES,
                on_progress=say,
            )
        except TflotillaError as error:
            problem = problem or str(error)
            continue
        layers = tuple(
            LayerNoise(
                layer=f"{layer.operator} {layer.op}",
                op=layer.op,
                tensor=layer.tensor,
                sqnr_db=decibels,
                rmse_over_scale=layer.local_rmse_over_scale or layer.rmse_over_scale,
                saturated_share=layer.saturated_share or 0.0,
            )
            for layer in report.layers
            if (decibels := layer.local_sqnr_db if layer.local_sqnr_db is not None else layer.sqnr_db) is not None
            and decibels < BEST_DB
        )
        whose = "the float model" if against is not None else "its float twin (the same weights in exact arithmetic)"
        return layers[:_LAYERS], f"against {whose}, {report.samples} samples, {report.runtime}"
    return (), problem


def _samples(
    request: ReportRequest,
    subjects: Sequence[Subject],
    names: Mapping[Path, str],
    asked: EvaluationRequest,
    reference: Path | None,
    runtimes: Sequence[str],
    notes: list[str],
    say: Callable[[str], None],
) -> tuple[Sample, ...]:
    if request.data is None or request.pictures < 1:
        return ()
    say("looking at samples")
    labelled = datasets.is_labelled(request.data) and not detection_data.has_boxes(request.data)
    limited = dataclasses.replace(asked, limit=request.pictures, reference=reference)
    problem = ""
    for runtime in sorted(runtimes):
        tasks = {}
        try:
            for subject in subjects:
                metric = pictures.metric_for_looking(subject.inspection, labelled=labelled)
                if detection_data.has_boxes(request.data):
                    metric = Metric.MAP
                tasks[names[subject.given]] = evaluate.task_of(subject, runtime, metric, limited)
            shown = next((names[each.given] for each in subjects if each.file == reference), None)
            return pictures.look(tasks, shown)
        except (ModelError, BoardError, DatasetError, UsageError) as error:
            problem = problem or str(error)
    notes.append(f"No samples are shown: {problem}")
    return ()
