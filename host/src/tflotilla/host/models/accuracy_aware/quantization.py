"""From a trained model and a bound on what it may lose to one TFLite file: the request, the report, the file.

    check the request → (child) search: convert, judge, choose → prove → the file, whole or not at all

Rules it keeps: the file that is handed over is byte for byte one that was judged; where nothing meets the bound nothing
is handed over; figures are never claimed finer than their samples allow. What it does NOT do: search (`run`, `search`).
"""

from __future__ import annotations

import importlib.metadata
import json
import math
import tempfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from tflotilla.host.models import child, datasets, delivery, evaluate, sources
from tflotilla.host.models.accuracy_aware import intervals, run, search
from tflotilla.host.models.accuracy_aware.edges import Edges
from tflotilla.host.models.accuracy_aware.search import SCHEMES, Prefer
from tflotilla.host.models.accuracy_aware.steps import Findings, Job, Step
from tflotilla.host.models.inspect import ModelInspection, inspect_model
from tflotilla.host.models.metrics import Metric
from tflotilla.host.models.sources import SourceOptions
from tflotilla.shared.contract import codec
from tflotilla.shared.contract.board import RuntimeOffer
from tflotilla.shared.contract.errors import (
    BoardError,
    ConversionError,
    DatasetError,
    ModelError,
    UsageError,
)
from tflotilla.shared.contract.processing import Preprocessing
from tflotilla.shared.contract.tensors import QuantizationScheme
from tflotilla.shared.inference import preprocessing as preprocessings
from tflotilla.shared.inference import runtime as runtimes

if TYPE_CHECKING:
    from collections.abc import Callable

    #: Searches, and leaves the variants' files in the folder.
    Searching = Callable[[Job, Path, Callable[[str], None]], Findings]


DEFAULT_SAMPLES = 100
DEFAULT_STEPS = 40
_RESTARTS = 8
#: Newer kernels know older files.
_PREFERRED = ("ai-edge-litert", "tflite-runtime")


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizationRequest:
    """What to quantize, and what it may lose."""

    source: Path
    #: A file ending in `.tflite`.
    output: Path
    #: At most this much less than float, by `metrics.drop`: 0.01 is one point of accuracy or mAP, or 20 dB.
    max_drop: float
    #: What ranges are measured on; None: on `data`.
    calibration: Path | None = None
    #: What variants are judged on; None: on `calibration`, by likeness to float.
    data: Path | None = None
    #: As behind `--preprocess`, or the value itself.
    preprocess: str | Preprocessing | None = None
    labels: Path | None = None
    label_offset: int = 0
    #: None: by model and data.
    metric: Metric | None = None
    samples: int = DEFAULT_SAMPLES
    #: At most so many samples to judge on.
    limit: int | None = None
    schemes: tuple[QuantizationScheme, ...] = SCHEMES
    prefer: Prefer = Prefer.SIZE
    edges: Edges = Edges.UINT8
    #: PyPI name; None: the target's, else the best that is installed here.
    runtime: str | None = None
    num_threads: int = 1
    target: RuntimeOffer | None = None
    max_steps: int = DEFAULT_STEPS
    #: Whether half of the labelled data is kept for the final figure, where there are enough.
    hold_out: bool = True
    options: SourceOptions = field(default_factory=SourceOptions)


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizationReport:
    """What was tried, and what was taken."""

    source: Path
    format: str
    max_drop: float
    prefer: Prefer
    findings: Findings
    taken: Step
    output: Path
    #: With zlib at level 9: about what a download takes.
    compressed_bytes: int
    inspection: ModelInspection
    #: What the figures can't say, and what was decided for the user.
    notes: tuple[str, ...]


class NothingMeetsError(ConversionError):
    """No variant loses as little as asked; `findings` is what was tried."""

    def __init__(self, message: str, findings: Findings) -> None:
        """Take the sentence, and the path."""
        super().__init__(message)
        self.findings = findings


def quantize(
    request: QuantizationRequest,
    on_progress: Callable[[str], None] | None = None,
    *,
    searching: Searching | None = None,
) -> QuantizationReport:
    """Find the smallest (or fastest) variant that loses no more than asked, and write it.

    Args:
        request: what to quantize, and what it may lose.
        on_progress: is told what goes on.
        searching: the search; in a child process when None.

    Raises:
        UsageError: options that make no sense, alone or together.
        ModelError: the source can't be read, or carries code that nobody allowed.
        DatasetError: the data can't be used, or their labels don't fit the model.
        NothingMeetsError: nothing meets the bound: says what came nearest. No file is written.
        ConversionError: there is no float file to compare with.
        BoardError: the runtime isn't installed here.
        InputError: the output can't be written.

    """
    _check(request)
    name = sources.detect(request.source)
    _check_data(request)
    with tempfile.TemporaryDirectory(prefix="tflotilla-quantize-") as folder:
        findings = (searching or search_in_child)(_job(request, name), Path(folder), on_progress or _say_nothing)
        taken = next((step for step in findings.steps if step.taken), None)
        if taken is None:
            raise NothingMeetsError(f"{request.source}: {nothing_meets(request.max_drop, findings)}", findings)
        delivery.deliver(Path(folder) / str(taken.file), request.output)
    return QuantizationReport(
        source=request.source,
        format=name,
        max_drop=request.max_drop,
        prefer=request.prefer,
        findings=findings,
        taken=taken,
        output=request.output,
        compressed_bytes=len(zlib.compress(request.output.read_bytes(), 9)),
        inspection=(inspection := inspect_model(request.output)),
        notes=_notes(request, findings, inspection),
    )


def check_max_drop(value: float) -> float:
    """Return a bound that makes sense. Raises UsageError."""
    if not math.isfinite(value) or not 0 <= value < 1:
        raise UsageError(f"--max-drop {value:g}: expected a number from 0 to below 1; 0.01 is one point in a hundred")
    return value


def nothing_meets(max_drop: float, findings: Findings) -> str:
    """Say in one line that nothing meets the bound, and what came nearest."""
    if findings.proofs:
        proof = findings.proofs[0]
        return (
            f"what loses at most {max_drop:g} on the samples of the search loses {proof.drop:.4g} on the "
            f"{proof.samples:,} held back; allow more, or give more --data"
        )
    measured = [step for step in findings.steps if step.drop is not None]
    if not measured:
        reasons = "; ".join(f"{step.scheme.value}: {step.refused}" for step in findings.steps)
        return f"no variant could be made and run: {reasons}"
    best = sorted(measured, key=lambda step: (step.drop, step.size_bytes))
    of_each = {step.scheme: step for step in reversed(best)}
    told = [best[0], *(step for scheme, step in of_each.items() if scheme is not best[0].scheme)]
    first, *others = (f"{run.describe(step)}: {step.drop:.4g}" for step in told)
    return f"nothing loses at most {max_drop:g}: the best was {first}" + "".join(f"; {text}" for text in others)


def _check(request: QuantizationRequest) -> None:
    check_max_drop(request.max_drop)
    if request.output.suffix != ".tflite":
        raise UsageError(f"-o {request.output}: one file comes out; end its name in .tflite")
    if request.output.is_dir():
        raise UsageError(f"-o {request.output} is a folder; give a file")
    if request.calibration is None and request.data is None:
        raise UsageError(
            "ranges are measured and variants judged on data: give --calibration (images, .npy, .npz) and, for "
            "accuracy or mAP, labelled --data"
        )
    if request.metric is not None and request.metric.needs_labels and request.data is None:
        raise UsageError(f"--metric {request.metric.value} needs labelled --data")
    if isinstance(request.preprocess, str):
        preprocessings.parse(request.preprocess)
    if not request.schemes or request.samples < 1 or request.max_steps < 1:
        raise UsageError("--scheme, --samples and --max-steps can't be empty or 0")
    for scheme in request.schemes:
        if scheme not in SCHEMES:
            known = ", ".join(scheme.value for scheme in SCHEMES)
            raise UsageError(f"--scheme {scheme.value}: the search knows {known}; --edges chooses inputs and outputs")
    delivery.check_writable(request.output)


def _check_data(request: QuantizationRequest) -> None:
    """Find out before TensorFlow takes its time whether there are data, and whether ranges can be measured on them."""
    if request.data is not None and not request.data.exists():
        raise DatasetError(f"{request.data}: there is no such folder or file")
    if request.calibration is not None:
        datasets.Calibration.open(request.calibration)
    elif request.data is not None:
        try:
            datasets.Calibration.open(request.data)
        except DatasetError as error:
            raise UsageError(f"{error}; give --calibration to measure ranges on") from error


def _say_nothing(text: str) -> None:
    del text


def _runtime(request: QuantizationRequest) -> str:
    asked: str | None = request.runtime or (None if request.target is None else request.target.name)
    if request.runtime is not None and request.runtime not in evaluate.RUNTIME_NAMES:
        raise UsageError(f"--runtime {request.runtime!r}: known runtimes are {', '.join(runtimes.ADAPTERS)}")
    names: tuple[str, ...] = () if asked is None else (evaluate.RUNTIME_NAMES[asked],)
    for name in names if request.runtime is not None else (*names, *_PREFERRED):
        if _is_installed(name):
            return name
    raise BoardError(f"no runtime to judge with: {', '.join(names or _PREFERRED)} is not installed here")


def _is_installed(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _job(request: QuantizationRequest, name: str) -> Job:
    preset = request.preprocess if isinstance(request.preprocess, str) else None
    calibration = request.calibration or request.data
    data = request.data or request.calibration
    assert calibration is not None  # noqa: S101 - checked
    assert data is not None  # noqa: S101 - checked
    return Job(
        source=str(request.source.absolute()),
        format=name,
        options=request.options,
        max_drop=request.max_drop,
        calibration=str(calibration.absolute()),
        samples=request.samples,
        data=str(data.absolute()),
        preset=preset,
        preprocessing=None if preset is not None else request.preprocess,  # type: ignore[arg-type]
        labels=None if request.labels is None else str(request.labels.absolute()),
        label_offset=request.label_offset,
        limit=request.limit,
        metric=request.metric,
        by_likeness=request.metric is None and request.data is None,
        runtime=_runtime(request),
        num_threads=request.num_threads,
        target=request.target,
        schemes=request.schemes,
        prefer=request.prefer,
        edges=request.edges,
        max_steps=request.max_steps,
        hold_out=request.hold_out,
    )


def search_in_child(job: Job, folder: Path, say: Callable[[str], None]) -> Findings:
    """Search in a child process; after a crash, go on behind what crashed it. Raises what `quantize` raises."""
    for _ in range(_RESTARTS):
        (folder / run.CURRENT).unlink(missing_ok=True)
        try:
            found = child.call(
                "tflotilla.host.models.accuracy_aware.run:run",
                {"job": job, "folder": str(folder)},
                doing=f"quantizing {job.source}",
                on_progress=say,
            )
        except ModelError as error:
            current = folder / run.CURRENT
            if not current.exists():
                raise
            crashed = json.loads((folder / run.CRASHED).read_text()) if (folder / run.CRASHED).exists() else {}
            crashed[current.read_text()] = f"TensorFlow's quantizer died: {error}"
            (folder / run.CRASHED).write_text(json.dumps(crashed))
            continue
        return codec.decode(Findings, found, "findings")
    raise ModelError(f"quantizing {job.source}: TensorFlow's quantizer died {_RESTARTS} times")


def _notes(request: QuantizationRequest, findings: Findings, inspection: ModelInspection) -> tuple[str, ...]:
    notes = list(findings.notes)
    if request.calibration is None:
        notes.append("ranges were measured on --data itself; give --calibration to keep the two apart")
    if findings.metric is Metric.ACCURACY:
        notes += _on_resolution(request.max_drop, findings)
    if findings.metric is Metric.MAP:
        notes.append(f"mAP of {findings.samples:,} pictures has no interval here; on few pictures one box moves it")
    if request.data is None:
        notes.append("judged on the calibration data themselves, by likeness to float; only labelled --data say more")
    edges = sorted({spec.dtype for spec in (*inspection.inputs, *inspection.outputs)})
    if request.edges is not Edges.FLOAT and edges != [request.edges.value]:
        notes.append(
            f"inputs and outputs are {', '.join(edges)}, not all {request.edges.value}: {_why_edges(findings)}"
        )
    return tuple(notes)


def _why_edges(findings: Findings) -> str:
    taken = next(step for step in findings.steps if step.taken)
    if taken.float_edges:
        return "they alone lose too much"
    if taken.scheme is not search.WHOLE[0]:
        return f"scheme {taken.scheme.value} takes and gives real numbers"
    return "the int8 file leaves them as they are"


def _on_resolution(max_drop: float, findings: Findings) -> list[str]:
    """Say what the bound is in samples, and what the drop can be in truth."""
    samples = findings.proofs[-1].samples if findings.proofs else findings.samples
    lost = intervals.at_stake(max_drop, samples)
    notes = [f"{max_drop:g} of {samples:,} samples is {lost:,}" + _coarse(lost)]
    interval = findings.interval
    if interval is not None:
        notes.append(
            f"of them {interval.lost} were right in float and wrong now, {interval.won} the other way round: the 95 % "
            f"interval of the drop is {interval.low:+.4f} to {interval.high:+.4f}"
            + (", beyond the bound: it is likely, not proven" if interval.high > max_drop else "")
        )
    if findings.proofs:
        notes.append(f"searched on {findings.samples:,} samples, proven on {samples:,} others")
    else:
        notes.append("searched and measured on the same samples, so the figure flatters the variant that was chosen")
    return notes


def _coarse(lost: int) -> str:
    return "" if lost >= intervals.LEAST_AT_STAKE else ": too few to tell a real loss from chance; give more --data"
