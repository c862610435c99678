"""`tflotilla qat`: an int8 model whose training knew that it would be one."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import TYPE_CHECKING, Annotated

import typer

from tflotilla.host.cli import compression, output

if TYPE_CHECKING:
    from tflotilla.host.models.compression.quantization_aware import QatReport


def qat(
    source: Annotated[Path, typer.Argument(metavar="SOURCE", help="Keras model: .keras or .h5, of Keras 2 or 3.")],
    out: Annotated[Path, typer.Option("-o", "--output", metavar="OUT", help="File for the int8 model: .tflite.")],
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
    keras: Annotated[
        Path | None, typer.Option(help="File to keep the trained weights in, as a float Keras model: .keras or .h5.")
    ] = None,
    scheme: Annotated[str, typer.Option(help="int8 (float I/O), int8_io_uint8 or int8_io_int8.")] = "int8",
    layers: compression.Layers = None,
    skip_layers: compression.SkipLayers = None,
    epochs: compression.Epochs = 2,
    batch_size: compression.BatchSize = 32,
    learning_rate: compression.LearningRate = 1e-4,
    loss: compression.Loss = "auto",
    optimizer: compression.Optimizer = "adam",
    seed: compression.Seed = 0,
    checkpoint: compression.Checkpoint = None,
    checkpoint_every: compression.CheckpointEvery = None,
    logs: compression.Logs = None,
    target_runtime: compression.TargetRuntime = None,
    runtime: compression.Runtimes = None,
    allow_code: compression.AllowCode = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Train a Keras model with int8's rounding in its forward pass, and convert it with the ranges that it learned.

    Example: tflotilla qat digits.h5 -o digits.tflite --data train/ --preprocess unit --scheme int8_io_uint8

    tfmot does it, on Keras 2; a Keras 3 model of common layers is rebuilt there.

    Exit codes: 0 trained, 2 usage, 3 the model or the data can't be used, 12 the model can't be trained quantized.
    """
    from tflotilla.host.models import convert
    from tflotilla.host.models.compression import quantization_aware
    from tflotilla.shared.contract.errors import UsageError

    schemes = convert.parse_schemes([scheme])
    if len(schemes) != 1:
        raise UsageError(f"--scheme {scheme}: one file is made; give one scheme")
    asked = quantization_aware.QatRequest(
        source=source,
        output=out,
        data=data,
        validation=validation,
        preprocess=preprocess,
        labels=labels,
        label_offset=label_offset,
        scheme=schemes[0],
        keras=keras,
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
            scheme=[scheme],
            target_runtime=target_runtime,
            runtime=runtime,
            tflite=None,
            allow_code=allow_code,
        ),
    )
    with output.progress(f"training {source.name}") as say:
        report = quantization_aware.train(asked, compression.spare(say))
    if as_json:
        output.emit_json(
            compression.document(report)
            | {
                "scheme": report.scheme.value,
                "trained": None if report.trained is None else str(report.trained),
                "quantized_layers": list(report.quantized_layers),
                "left_layers": list(report.left_layers),
            }
        )
    else:
        _show(report)


def _show(report: QatReport) -> None:
    compression.show(report)
    output.note(f"{len(report.quantized_layers)} layers were trained quantized; the file is {report.output}")
