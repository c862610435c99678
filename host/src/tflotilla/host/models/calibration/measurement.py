"""Measures what calibration data do to a model: everything that `tflotilla calibrate` says, each part in a child.

    (child, TensorFlow) float file, int8 files, evidence → (child, a runtime) ranges, saturation, curve
    → (children, a runtime) accuracy on labelled data, also under other preprocessings → warnings

What it does NOT do: show, or write files for the user.
"""

from __future__ import annotations

import dataclasses
import math
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tflotilla.host.models import child, evaluate, sources
from tflotilla.host.models.calibration import curve, making, rivals, suspicion
from tflotilla.host.models.calibration.curve import CurvePoint
from tflotilla.host.models.calibration.evidence import Evidence
from tflotilla.host.models.calibration.ranges import TensorRange
from tflotilla.host.models.calibration.report import CalibrationReport
from tflotilla.host.models.calibration.saturation import TensorSaturation
from tflotilla.host.models.calibration.suspicion import Suspicion
from tflotilla.host.models.datasets import Calibration, read_labels
from tflotilla.host.models.inspect import inspect_model
from tflotilla.host.models.metrics import Metric
from tflotilla.host.models.sources import SourceOptions
from tflotilla.shared.contract import codec
from tflotilla.shared.contract.errors import BoardError, DatasetError, ModelError, UsageError
from tflotilla.shared.contract.processing import Preprocessing
from tflotilla.shared.contract.tensors import TensorSpec
from tflotilla.shared.inference import preprocessing as preprocessings
from tflotilla.shared.inference import runtime as runtimes

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tflotilla.host.models.evaluate import EvaluationReport

DEFAULT_SAMPLES = 100
#: LiteRT first: it has more operators, and int8 in seconds.
_PREFERRED = tuple(sorted(runtimes.ADAPTERS))
#: Labelled samples that other preprocessings are tried on: fewer where each of them takes longer.
_TRIED_ON = 200
_TRIED_ON_SMALL = 1000
_SMALL = 64 * 64 * 3


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationRequest:
    """What to report on."""

    source: Path
    calibration: Path
    #: As behind `--preprocess`, or the value itself.
    preprocess: str | Preprocessing | None = None
    samples: int = DEFAULT_SAMPLES
    #: Labelled data as `evaluate` takes them, with labels and an offset as there.
    data: Path | None = None
    labels: Path | None = None
    label_offset: int = 0
    #: At most so many labelled samples.
    limit: int | None = None
    #: PyPI name; None takes LiteRT, else what is installed.
    runtime: str | None = None
    options: SourceOptions = field(default_factory=SourceOptions)


def calibrate(request: CalibrationRequest, on_progress: Callable[[str], None] | None = None) -> CalibrationReport:
    """Report on calibration data.

    Raises:
        UsageError: options that contradict each other or the model.
        ModelError: the source can't be read, or no runtime here runs its float file.
        DatasetError: the calibration or the labelled data can't be used.
        ConversionError: the source can't be converted even to float32.
        BoardError: no runtime is installed here.

    """
    if request.samples < 1:
        raise UsageError(f"--samples must be at least 1, not {request.samples}")
    if isinstance(request.preprocess, str):
        preprocessings.parse(request.preprocess)
    name = sources.detect(request.source)
    Calibration.open(request.calibration)
    if request.labels is not None:
        read_labels(request.labels)
    say = on_progress or _say_nothing
    with tempfile.TemporaryDirectory(prefix="tflotilla-calibrate-") as folder:
        made = _make(request, name, Path(folder), say)
        return _report(request, name, made, Path(folder), say)


def _say_nothing(text: str) -> None:
    del text


def _make(request: CalibrationRequest, name: str, folder: Path, say: Callable[[str], None]) -> dict[str, Any]:
    made: dict[str, Any] = child.call(
        "tflotilla.host.models.calibration.making:run",
        {
            "source": str(request.source.absolute()),
            "format": name,
            "options": request.options,
            "calibration": str(request.calibration.absolute()),
            "preprocess": request.preprocess,
            "samples": request.samples,
            "folder": str(folder),
        },
        doing=f"calibrating {request.source}",
        on_progress=say,
    )
    return made


def _report(
    request: CalibrationRequest, name: str, made: Mapping[str, Any], folder: Path, say: Callable[[str], None]
) -> CalibrationReport:
    decode = codec.decode
    chosen = None if made["preprocessing"] is None else decode(Preprocessing, made["preprocessing"], "preprocessing")
    total, loaded = int(made["samples"]), int(made["loaded"])
    notes = list(made["notes"])
    if made["problem"] is not None:
        notes.append(f"no int8 file, so neither saturation nor a curve: {made['problem']}")
    # Samples that calibration has not seen, where the data have some left; else the last ones it saw.
    first = total if loaded > total else max(0, total - making.COMPARED)
    seen = _observe(request, folder, made, first, say)
    rungs = [count for count in curve.ladder(total) if count in made["counts"]]
    scores = _accuracies(request, folder, chosen, [None, *rungs], say)
    points = []
    for count in rungs:
        entry = seen["compared"][making.int8_name(count)]
        if entry["reason"] is not None:
            notes.append(f"int8 calibrated with {count} samples: {entry['reason']}")
            continue
        points.append(
            CurvePoint(
                samples=count, sqnr_db=entry["sqnr_db"], agreement=entry["agreement"], accuracy=scores.shares.get(count)
            )
        )
    evidence = decode(Evidence, made["evidence"], "evidence")
    evidence = _with_accuracies(request, folder, evidence, scores, say)
    if evidence.fits and not any(fit.misfit or fit.answers or fit.accuracy for fit in evidence.fits):
        notes.append(
            "whether range and order of colours are those of the training could not be checked: the model has no batch "
            "normalization that remembers them, and is no classifier; labelled data (--data) would tell"
        )
    return CalibrationReport(
        source=request.source,
        format=name,
        calibration=request.calibration,
        inputs=tuple(decode(TensorSpec, entry, "inputs") for entry in made["inputs"]),
        preprocessing=chosen,
        samples=total,
        distinct=int(made["distinct"]),
        runtime=seen["runtime"],
        ranges=tuple(decode(TensorRange, entry, "ranges") for entry in seen["ranges"]),
        saturation=tuple(decode(TensorSaturation, entry, "saturation") for entry in seen["saturation"]),
        calibrated_with=curve.half(total),
        held_out=total - curve.half(total),
        curve=tuple(points),
        compared_on=loaded - first,
        compared_on_held_out=loaded > total,
        float_accuracy=scores.shares.get(None),
        labelled=scores.samples,
        enough=curve.enough(points, compared_on=loaded - first, labelled=scores.samples),
        evidence=evidence,
        warnings=(
            *(decode(Suspicion, entry, "alike") for entry in made["alike"]),
            *suspicion.judge(evidence),
        ),
        notes=tuple(notes),
    )


def _observe(
    request: CalibrationRequest, folder: Path, made: Mapping[str, Any], first: int, say: Callable[[str], None]
) -> dict[str, Any]:
    total, counts = int(made["samples"]), made["counts"]
    half = curve.half(total)
    known = folder / making.int8_name(half)
    answer: dict[str, Any] = child.call(
        "tflotilla.host.models.calibration.observation:run_here",
        {
            "model": str(folder / making.FLOAT),
            "half": str(known) if half < total and half in counts else None,
            "variants": {making.int8_name(count): str(folder / making.int8_name(count)) for count in counts},
            "samples": str(folder / making.SAMPLES),
            "calibrated_with": half,
            "watched": total,
            "compare_from": first,
            "names": list(_runtimes(request)),
        },
        doing=f"running the float file of {request.source}",
        on_progress=say,
    )
    return answer


def _runtimes(request: CalibrationRequest) -> tuple[str, ...]:
    if request.runtime is None:
        return _PREFERRED
    name = evaluate.RUNTIME_NAMES.get(request.runtime)
    if name is None:
        raise UsageError(f"--runtime {request.runtime!r}: known runtimes are {', '.join(runtimes.ADAPTERS)}")
    return (name,)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Scores:
    """Accuracy on the labelled data; `None` is the float file, a number the int8 file of that many samples."""

    shares: Mapping[int | None, float]
    samples: int
    #: The runtime they were measured on.
    runtime: str | None


def _accuracies(
    request: CalibrationRequest,
    folder: Path,
    chosen: Preprocessing | None,
    counts: Sequence[int | None],
    say: Callable[[str], None],
) -> _Scores:
    if request.data is None:
        return _Scores(shares={}, samples=0, runtime=None)
    files = {count: folder / (making.FLOAT if count is None else making.int8_name(count)) for count in counts}
    first: BoardError | None = None
    for name in _runtimes(request):
        try:
            report = _evaluate(request, [_subject(request, file, chosen) for file in files.values()], name, say)
        except BoardError as error:
            first = first or error
            continue
        found = {score.model: score.accuracy for score in report.scores if score.accuracy is not None}
        shares = {count: found[file] for count, file in files.items() if file in found}
        return _Scores(shares=shares, samples=report.scores[0].samples, runtime=name)
    raise first or BoardError("no runtime is installed here")


def _subject(request: CalibrationRequest, file: Path, chosen: Preprocessing | None) -> evaluate.Subject:
    labels = () if request.labels is None else read_labels(request.labels)
    return evaluate.Subject(given=file, file=file, inspection=inspect_model(file), preprocessing=chosen, labels=labels)


def _evaluate(
    request: CalibrationRequest,
    subjects: Sequence[evaluate.Subject],
    runtime: str,
    say: Callable[[str], None],
    limit: int | None = None,
) -> EvaluationReport:
    assert request.data is not None  # noqa: S101 - the callers looked
    asked = evaluate.EvaluationRequest(
        models=tuple(subjects),
        data=request.data,
        runtimes=(runtime,),
        limit=request.limit if limit is None else limit,
        label_offset=request.label_offset,
        metric=Metric.ACCURACY,
    )
    try:
        return evaluate.evaluate(asked, say)
    except (ModelError, DatasetError) as error:
        # The files are ours and temporary: the user knows the source.
        message = str(error)
        for subject in subjects:
            message = message.replace(str(subject.file), str(request.source))
        raise type(error)(message) from error


def _with_accuracies(
    request: CalibrationRequest, folder: Path, found: Evidence, scores: _Scores, say: Callable[[str], None]
) -> Evidence:
    """Try the rivals on labelled pixels: nothing says more about a preprocessing."""
    if request.data is None or scores.runtime is None or not found.pixels or not _pixels(request.data):
        return found
    file = folder / making.FLOAT
    small = math.prod(abs(size) for size in inspect_model(file).inputs[0].shape) <= _SMALL
    most = _TRIED_ON_SMALL if small else _TRIED_ON
    limit = most if request.limit is None else min(request.limit, most)
    fits = []
    samples = found.samples
    for fit in found.fits:
        say(f"trying --preprocess {rivals.spell(fit.preprocessing)} on labelled samples")
        report = _evaluate(request, [_subject(request, file, fit.preprocessing)], scores.runtime, _say_nothing, limit)
        samples = report.scores[0].samples
        fits.append(dataclasses.replace(fit, accuracy=report.scores[0].accuracy))
    return dataclasses.replace(found, fits=tuple(fits), labelled=samples)


def _pixels(data: Path) -> bool:
    """Whether labelled data are pixels that a preprocessing is applied to."""
    if data.suffix != ".npz":
        return True
    with np.load(data, allow_pickle=False) as archive:
        return "x" in archive.files and bool(archive["x"].dtype == np.uint8)
