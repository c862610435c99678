"""`tflotilla prune`: a sparse model by fine-tuning, and the truth about what that gave."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tflotilla.host.cli import compression, output
from tflotilla.shared.contract import codec

if TYPE_CHECKING:
    from tflotilla.host.models.compression.pruning import PrunedLayer, PruningReport


def prune(
    source: Annotated[Path, typer.Argument(metavar="SOURCE", help="Keras model: .keras or .h5, of Keras 2 or 3.")],
    out: Annotated[
        Path, typer.Option("-o", "--output", metavar="OUT", help="File for the pruned model: .keras or .h5.")
    ],
    data: Annotated[
        Path,
        typer.Option(help="To train on: class folders, folder with labels.csv, .npz with x and y, .npy for x alone."),
    ],
    validation: Annotated[
        Path | None, typer.Option(help="To judge with, like --data. Default: every fifth sample of --data.")
    ] = None,
    preprocess: compression.Preprocess = None,
    labels: compression.Labels = None,
    label_offset: compression.LabelOffset = 0,
    schedule: Annotated[str, typer.Option(help="polynomial or constant.")] = "polynomial",
    initial_sparsity: Annotated[float, typer.Option(help="Share of zeros at the first update.")] = 0.5,
    final_sparsity: Annotated[float, typer.Option(help="Share of zeros from the last update on.")] = 0.9,
    begin_step: Annotated[int, typer.Option(help="Batch at which pruning begins.")] = 0,
    end_step: Annotated[
        int | None, typer.Option(help="Batch of the last update. Default: three quarters of all batches.")
    ] = None,
    frequency: Annotated[
        int | None, typer.Option(help="Batches from update to update. Default: ten updates, at most 100 batches apart.")
    ] = None,
    power: Annotated[float, typer.Option(help="Exponent of the polynomial.")] = 3.0,
    pattern: Annotated[
        str | None,
        typer.Option(
            help="2:4 (two of every four inputs stay), N:M, or 1x4 (blocks, which TFLite's dense layers use)."
        ),
    ] = None,
    layers: compression.Layers = None,
    skip_layers: compression.SkipLayers = None,
    epochs: compression.Epochs = 4,
    batch_size: compression.BatchSize = 32,
    learning_rate: compression.LearningRate = 1e-3,
    loss: compression.Loss = "auto",
    optimizer: compression.Optimizer = "adam",
    seed: compression.Seed = 0,
    checkpoint: compression.Checkpoint = None,
    checkpoint_every: compression.CheckpointEvery = None,
    logs: compression.Logs = None,
    scheme: compression.Schemes = None,
    target_runtime: compression.TargetRuntime = None,
    runtime: compression.Runtimes = None,
    tflite: compression.TFLiteFolder = None,
    allow_code: compression.AllowCode = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Prune a Keras model while fine-tuning it, and measure what that gave: bytes, accuracy, latency.

    Example: tflotilla prune digits.keras -o pruned.keras --data train/ --preprocess unit --final-sparsity 0.9
    --epochs 4 --checkpoint run/ --logs run/logs

    With --checkpoint a run that was interrupted goes on where it stood when it is started again, to the same end.

    Exit codes: 0 pruned, 2 usage, 3 the model or the data can't be used.
    """
    from tflotilla.host.models.compression import pruning
    from tflotilla.host.models.compression.schedule import ScheduleOptions

    asked = pruning.PruningRequest(
        source=source,
        output=out,
        data=data,
        validation=validation,
        preprocess=preprocess,
        labels=labels,
        label_offset=label_offset,
        schedule=ScheduleOptions(
            kind=schedule,
            initial_sparsity=initial_sparsity,
            final_sparsity=final_sparsity,
            begin_step=begin_step,
            end_step=end_step,
            frequency=frequency,
            power=power,
        ),
        pattern=pattern,
        **compression.common(
            layers=layers,
            skip_layers=skip_layers,
            epochs=epochs,
            batch_size=batch_size,
            learning_rate=learning_rate,
            loss=loss,
            optimizer=optimizer,
            seed=seed,
            checkpoint=checkpoint,
            checkpoint_every=checkpoint_every,
            logs=logs,
            scheme=scheme,
            target_runtime=target_runtime,
            runtime=runtime,
            tflite=tflite,
            allow_code=allow_code,
        ),
    )
    with output.progress(f"pruning {source.name}") as say:
        report = pruning.prune(asked, compression.spare(say))
    if as_json:
        output.emit_json(_document(report))
    else:
        _show(report)


def _show(report: PruningReport) -> None:
    output.emit_table(
        f"{report.source.name} → {report.output.name}: {report.sparsity:.1%} of {report.parameters:,} weights are zero",
        ("layer", "kind", "weights", "asked", "reached", "pattern"),
        [_row(layer) for layer in report.layers],
        right=("weights", "asked", "reached"),
    )
    compression.show(report)


def _row(layer: PrunedLayer) -> tuple[str, ...]:
    held = "" if layer.pattern is None else f"{layer.pattern}{'' if layer.pattern_held else ' broken'}"
    return (
        layer.layer
        if layer.weight in ("kernel", "pointwise_kernel", "embeddings")
        else f"{layer.layer}: {layer.weight}",
        layer.kind,
        f"{layer.weights:,}",
        "" if layer.asked is None else f"{layer.asked:.1%}",
        f"{layer.sparsity:.1%}",
        held,
    )


def _document(report: PruningReport) -> dict[str, Any]:
    return compression.document(report) | {
        "schedule": codec.encode(report.schedule),
        "layers": [codec.encode(layer) | {"sparsity": layer.sparsity} for layer in report.layers],
        "parameters": report.parameters,
        "zeros": report.zeros,
        "sparsity": report.sparsity,
    }
