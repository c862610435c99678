"""What `prune`, `cluster` and `qat` have in common on the command line: options, tables, JSON. No command itself."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tflotilla.host.cli import output
from tflotilla.shared.contract import codec

if TYPE_CHECKING:
    from collections.abc import Callable

    from tflotilla.host.models.compression.request import CompressionReport
    from tflotilla.host.models.compression.variants import Measured, Variant

_KIB = 1024
_MS = 1e6

Preprocess = Annotated[
    str | None, typer.Option(help="How images become inputs: mobilenet, unit, raw, squeezenet, KEY=VALUE.")
]
Labels = Annotated[Path | None, typer.Option(help="Text file, one label a line, when classes are given by name.")]
LabelOffset = Annotated[
    int, typer.Option(help="Added to labels given as numbers: 1 for models whose class 0 is background.")
]
Layers = Annotated[
    list[str] | None, typer.Option(help="Names or globs, 'block_*'; repeated, or separated by commas. Default: all.")
]
SkipLayers = Annotated[list[str] | None, typer.Option(help="Names or globs of layers that stay as they are.")]
Epochs = Annotated[int, typer.Option(help="How often to go through the data.")]
BatchSize = Annotated[int, typer.Option(help="Samples per step.")]
LearningRate = Annotated[float, typer.Option(help="Of the optimizer.")]
Loss = Annotated[str, typer.Option(help="auto, sparse_categorical_crossentropy, binary_crossentropy or mse.")]
Optimizer = Annotated[str, typer.Option(help="adam, sgd or rmsprop.")]
Seed = Annotated[int, typer.Option(help="Of the order of samples, the split and dropout.")]
Checkpoint = Annotated[
    Path | None, typer.Option(help="Folder to save to while training; a run that finds its own there goes on with it.")
]
CheckpointEvery = Annotated[
    int | None, typer.Option(help="Batches between checkpoints. Default: every epoch, and every minute.")
]
Logs = Annotated[Path | None, typer.Option(help="Folder for TensorBoard: loss, accuracy, and what is done to layers.")]
Schemes = Annotated[
    list[str] | None,
    typer.Option(help="Quantization schemes measured beside float32; repeated. Default dynamic_range, int8."),
]
TargetRuntime = Annotated[
    str | None, typer.Option(help="NAME==VERSION that must run the TFLite files, like tflite-runtime==2.14.0.")
]
Runtimes = Annotated[
    list[str] | None, typer.Option(help="ai-edge-litert or tflite-runtime to measure on; repeated. Default: each here.")
]
TFLiteFolder = Annotated[Path | None, typer.Option(help="Folder to keep the measured TFLite files in.")]
AllowCode = Annotated[
    bool, typer.Option("--allow-code", help="Run Python that the model file carries (Lambda layers).")
]


def common(
    *,
    layers: list[str] | None,
    skip_layers: list[str] | None,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    loss: str,
    optimizer: str,
    seed: int,
    checkpoint: Path | None,
    checkpoint_every: int | None,
    logs: Path | None,
    scheme: list[str] | None,
    target_runtime: str | None,
    runtime: list[str] | None,
    tflite: Path | None,
    allow_code: bool,
) -> dict[str, Any]:
    """Return the fields of a CompressionRequest that all three commands fill alike. Raises UsageError."""
    from tflotilla.host.models import convert, evaluate
    from tflotilla.host.models.compression import request, selection
    from tflotilla.host.models.compression.training import TrainingOptions
    from tflotilla.host.models.sources import SourceOptions
    from tflotilla.shared.contract.errors import UsageError

    for name in runtime or ():
        if name not in evaluate.RUNTIME_NAMES:
            raise UsageError(f"--runtime {name!r}: known runtimes are {', '.join(sorted(evaluate.RUNTIME_NAMES))}")
    return {
        "layers": selection.parse(layers or ()),
        "skip_layers": selection.parse(skip_layers or ()),
        "training": TrainingOptions(
            epochs=epochs,
            batch_size=batch_size,
            learning_rate=learning_rate,
            loss=loss,
            optimizer=optimizer,
            seed=seed,
            checkpoint=None if checkpoint is None else str(checkpoint),
            checkpoint_every=checkpoint_every,
            logs=None if logs is None else str(logs),
        ),
        "schemes": request.DEFAULT_SCHEMES if not scheme else convert.parse_schemes(scheme),
        "target": None if target_runtime is None else convert.parse_target(target_runtime),
        "runtimes": tuple(dict.fromkeys(evaluate.RUNTIME_NAMES[name] for name in runtime or ())),
        "tflite": tflite,
        "options": SourceOptions(allow_code=allow_code),
    }


def spare(say: Callable[[str], None]) -> Callable[[str], None]:
    """Leave out the counting of batches where every change is a line of its own."""
    if output.notes().is_terminal:
        return say
    return lambda text: None if ", batch " in text else say(text)


def show(report: CompressionReport) -> None:
    """Print what all three reports have: accuracy, files, variants, findings."""
    emit_judged(report)
    output.emit_table(
        "TFLite files: accuracy and latency (median, 1 thread, runs taken in turns) on this machine",
        ("of", "scheme", "KiB", "zipped", "runtime", "samples", _judged_as(report), "p50 ms", "runs"),
        [row for variant in report.variants for row in _rows(variant)],
        right=("KiB", "zipped", "samples", _judged_as(report), "p50 ms", "runs"),
    )
    refusals = [
        f"{variant.of}, {variant.scheme}: {measured.reason}"
        for variant in report.variants
        for measured in variant.measured
        if measured.reason is not None
    ]
    for text in (*report.findings, *refusals, *report.notes):
        output.note(text)


def emit_judged(report: CompressionReport) -> None:
    """Print the model's own files with the accuracy that Keras gives them."""
    before, after = report.before, report.after
    figures = {"before": before, "after": after}
    output.emit_table(
        f"{report.keras}, {report.engine}: {report.task}, trained on {report.train_samples:,} samples",
        ("model", "samples", "loss", "accuracy"),
        [
            (
                name,
                f"{judged.samples:,}",
                f"{judged.loss:.4f}",
                "" if judged.accuracy is None else f"{judged.accuracy:.2%}",
            )
            for name, judged in figures.items()
        ],
        right=("samples", "loss", "accuracy"),
    )
    output.emit_table(
        "Keras files (zipped with zlib, level 9)",
        ("file", "KiB", "zipped"),
        [
            (file.what, f"{file.size_bytes / _KIB:,.1f}", f"{file.compressed_bytes / _KIB:,.1f}")
            for file in report.files
        ],
        right=("KiB", "zipped"),
    )


def document(report: CompressionReport) -> dict[str, Any]:
    """Return what all three JSON documents have."""
    return {
        "source": str(report.source),
        "output": str(report.output),
        "keras": report.keras,
        "engine": report.engine,
        "task": report.task,
        "train_samples": report.train_samples,
        "before": codec.encode(report.before),
        "after": codec.encode(report.after),
        "epochs": codec.encode(report.epochs),
        "files": [
            codec.encode(file) | {"path": None if file.path is None else str(file.path)} for file in report.files
        ],
        "variants": codec.encode(report.variants),
        "compression": "zlib level 9",
        "findings": list(report.findings),
        "notes": list(report.notes),
    }


def _judged_as(report: CompressionReport) -> str:
    return "error" if report.before.accuracy is None else "accuracy"


def _rows(variant: Variant) -> list[tuple[str, ...]]:
    head = (
        variant.of,
        variant.scheme,
        f"{variant.size_bytes / _KIB:,.1f}",
        f"{variant.compressed_bytes / _KIB:,.1f}",
    )
    if not variant.measured:
        return [(*head, "none here", "", "", "", "")]
    return [(*head, *_figures(measured)) for measured in variant.measured]


def _figures(measured: Measured) -> tuple[str, ...]:
    if measured.reason is not None:
        return (measured.runtime, "refused", "", "", "")
    judged = f"{measured.error:.5f}" if measured.accuracy is None else f"{measured.accuracy:.2%}"
    return (
        measured.runtime,
        f"{measured.samples:,}",
        judged,
        "" if measured.p50_ns is None else f"{measured.p50_ns / _MS:.3f}",
        str(measured.runs),
    )
