"""What the three commands ask alike, and what their reports have in common; the parent's half of the work.

    check everything that can be wrong → train in a child → deliver → convert and measure → report

Rules it keeps: the trained model is delivered before anything is measured, so no failing measurement costs a training;
the source is never written over. What it does NOT do: know what is done to the weights.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tflotilla.host.models import child, convert, datasets, delivery
from tflotilla.host.models.compression import keras_files, variants
from tflotilla.host.models.compression.training import Epoch, Judged, TrainingOptions
from tflotilla.host.models.sources import SourceOptions
from tflotilla.shared.contract import codec
from tflotilla.shared.contract.board import RuntimeOffer
from tflotilla.shared.contract.errors import (
    ConversionError,
    DatasetError,
    InputError,
    ModelError,
    UsageError,
)
from tflotilla.shared.contract.processing import Preprocessing
from tflotilla.shared.contract.tensors import QuantizationScheme
from tflotilla.shared.inference import preprocessing as preprocessings

if TYPE_CHECKING:
    from collections.abc import Callable

KERAS_SUFFIXES = (".keras", ".h5")
DEFAULT_SCHEMES = (QuantizationScheme.DYNAMIC_RANGE, QuantizationScheme.INT8)


@dataclass(frozen=True, slots=True, kw_only=True)
class CompressionRequest:
    """What to train, on what, and where the results go."""

    source: Path
    output: Path
    data: Path
    validation: Path | None = None
    #: As behind `--preprocess`, or the value itself.
    preprocess: str | Preprocessing | None = None
    labels: Path | None = None
    label_offset: int = 0
    layers: tuple[str, ...] = ()
    skip_layers: tuple[str, ...] = ()
    training: TrainingOptions = field(default_factory=TrainingOptions)
    options: SourceOptions = field(default_factory=SourceOptions)
    #: Measured beside float32, before and after.
    schemes: tuple[QuantizationScheme, ...] = DEFAULT_SCHEMES
    target: RuntimeOffer | None = None
    #: PyPI names; empty means every runtime that is installed here.
    runtimes: tuple[str, ...] = ()
    #: A folder for the TFLite files that are measured; None keeps none.
    tflite: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SizedFile:
    """A file with what it weighs, plain and with zlib at level 9."""

    what: str
    path: Path | None
    size_bytes: int
    compressed_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CompressionReport:
    """What every kind tells."""

    source: Path
    output: Path
    #: Library and version: "keras 3.15.1".
    keras: str
    engine: str
    #: Loss that was trained.
    task: str
    train_samples: int
    before: Judged
    after: Judged
    epochs: tuple[Epoch, ...]
    files: tuple[SizedFile, ...]
    variants: tuple[variants.Variant, ...]
    #: What was found, in sentences.
    findings: tuple[str, ...]
    notes: tuple[str, ...]


def check(request: CompressionRequest, *, suffixes: tuple[str, ...] = KERAS_SUFFIXES) -> None:
    """Refuse before TensorFlow is loaded what can be seen to be wrong.

    Raises:
        UsageError, ModelError, DatasetError, InputError: naming it.

    """
    request.training.check()
    keras_files.check_trainable(request.source)
    if request.output.suffix not in suffixes:
        raise UsageError(f"{request.output}: the file must end in {' or '.join(suffixes)}")
    if request.output.is_dir():
        raise UsageError(f"{request.output} is a folder; give a file")
    if request.output.exists() and request.output.samefile(request.source):
        raise UsageError(f"{request.output} is the source itself, which is not written over; give another file")
    if isinstance(request.preprocess, str):
        preprocessings.parse(request.preprocess)
    for data in (request.data, request.validation):
        if data is not None and not data.exists():
            raise DatasetError(f"{data}: there is no such folder or file")
    if request.labels is not None:
        datasets.read_labels(request.labels)
    delivery.check_writable(request.output)
    for folder in (request.training.checkpoint, request.training.logs):
        if folder is not None:
            if Path(folder).is_file():
                raise InputError(f"{folder} is a file; give a folder")
            delivery.check_writable(Path(folder))
    if request.tflite is not None:
        if request.tflite.is_file():
            raise InputError(f"{request.tflite} is a file; give a folder")
        delivery.check_writable(request.tflite)


def train(
    function: str,
    request: CompressionRequest,
    settings: dict[str, Any],
    folder: Path,
    on_progress: Callable[[str], None] | None,
    *,
    suffix: str,
) -> dict[str, Any]:
    """Run a procedure in a child; its files lie in `folder`. Raises whatever it raises."""
    how = request.training
    folders = {
        name: None if (given := getattr(how, name)) is None else str(Path(given).absolute())
        for name in ("checkpoint", "logs")
    }
    answer: dict[str, Any] = child.call(
        function,
        {
            "source": str(request.source.absolute()),
            "options": request.options,
            "data": str(request.data.absolute()),
            "validation": None if request.validation is None else str(request.validation.absolute()),
            "preprocess": request.preprocess,
            "labels": None if request.labels is None else str(request.labels.absolute()),
            "label_offset": request.label_offset,
            "training": codec.encode(how) | folders,
            "settings": settings | {"layers": request.layers, "skip_layers": request.skip_layers},
            "folder": str(folder),
            "suffix": suffix,
        },
        doing=f"training {request.source}",
        on_progress=on_progress,
    )
    return answer


def to_tflite(
    source: Path, of: str, request: CompressionRequest, calibration: Path, folder: Path, notes: list[str]
) -> list[variants.File]:
    """Convert one model to float32 and the asked schemes; what can't be made becomes a note."""
    schemes = tuple(dict.fromkeys([QuantizationScheme.FLOAT32, *request.schemes]))
    wanted = convert.ConversionRequest(
        source=source,
        output=folder / of,
        schemes=schemes,
        calibration=calibration if any(scheme.needs_calibration for scheme in schemes) else None,
        target=request.target,
        options=SourceOptions(allow_code=request.options.allow_code),
    )
    try:
        made = convert.convert(wanted)
    except (ConversionError, ModelError) as error:
        notes.append(f"{of}: no TFLite file could be made: {error}")
        return []
    notes += [f"{of}, {scheme.value}: not made: {reason}" for scheme, reason in made.failures.items()]
    return [variants.File(of=of, scheme=file.scheme.value, path=file.path) for file in made.files]


def keep(files: list[variants.File], request: CompressionRequest) -> None:
    """Deliver the TFLite files of the model after training, where they are wanted. Raises InputError."""
    if request.tflite is None:
        return
    for file in files:
        if file.of == "after":
            delivery.deliver(file.path, request.tflite / f"{request.output.stem}-{file.scheme}.tflite")


def sized(what: str, path: Path, shown: Path | None = None) -> SizedFile:
    """Weigh a file."""
    return SizedFile(
        what=what, path=shown, size_bytes=path.stat().st_size, compressed_bytes=variants.compressed_bytes(path)
    )


def same_speed(made: tuple[variants.Variant, ...]) -> list[str]:
    """Say what the float file's latency did: dense kernels multiply zeros as fast as any number."""
    by_name = {(variant.of, variant.scheme): variant for variant in made}
    before, after = (by_name.get((of, QuantizationScheme.FLOAT32.value)) for of in ("before", "after"))
    if before is None or after is None:
        return []
    found = []
    for old, new in zip(before.measured, after.measured, strict=True):
        if old.p50_ns is not None and new.p50_ns is not None:
            found.append(
                f"dense float32 on {new.runtime}: {old.p50_ns / 1e6:.3f} ms before, {new.p50_ns / 1e6:.3f} ms after "
                f"(median of {new.runs} runs each, in turns, 1 thread)"
            )
    return found


def decoded(answer: dict[str, Any]) -> dict[str, Any]:
    """Return the fields that every procedure answers, as values."""
    return {
        "task": answer["task"],
        "keras": answer["keras"],
        "engine": answer["engine"],
        "train_samples": answer["train_samples"],
        "before": codec.decode(Judged, answer["before"], "before"),
        "after": codec.decode(Judged, answer["after"], "after"),
        "epochs": tuple(codec.decode(Epoch, entry, "epochs") for entry in answer["epochs"]),
    }
