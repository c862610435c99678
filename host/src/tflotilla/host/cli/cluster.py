"""`tflotilla cluster`: few distinct weights by fine-tuning, which zip well."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import TYPE_CHECKING, Annotated

import typer

from tflotilla.host.cli import compression, output
from tflotilla.shared.contract import codec

if TYPE_CHECKING:
    from tflotilla.host.models.compression.clustering import ClusteringReport


def cluster(
    source: Annotated[Path, typer.Argument(metavar="SOURCE", help="Keras model: .keras or .h5, of Keras 2 or 3.")],
    out: Annotated[
        Path, typer.Option("-o", "--output", metavar="OUT", help="File for the clustered model: .keras or .h5.")
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
    clusters: Annotated[int, typer.Option(help="Distinct values per layer.")] = 16,
    init: Annotated[str, typer.Option(help="Where values begin: kmeans++, linear, density or random.")] = "kmeans++",
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
    scheme: compression.Schemes = None,
    target_runtime: compression.TargetRuntime = None,
    runtime: compression.Runtimes = None,
    tflite: compression.TFLiteFolder = None,
    allow_code: compression.AllowCode = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Cluster a Keras model's weights while fine-tuning it, and measure what that gave.

    Example: tflotilla cluster digits.h5 -o clustered.h5 --data train/ --preprocess unit --clusters 16

    tfmot does it, on Keras 2; a Keras 3 model of common layers is rebuilt there, and saved as Keras 2 saves.

    Exit codes: 0 clustered, 2 usage, 3 the model or the data can't be used, 12 the model can't be clustered.
    """
    from tflotilla.host.models.compression import clustering

    asked = clustering.ClusteringRequest(
        source=source,
        output=out,
        data=data,
        validation=validation,
        preprocess=preprocess,
        labels=labels,
        label_offset=label_offset,
        clusters=clusters,
        init=init,
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
    with output.progress(f"clustering {source.name}") as say:
        report = clustering.cluster(asked, compression.spare(say))
    if as_json:
        output.emit_json(compression.document(report) | {"layers": codec.encode(report.layers)})
    else:
        _show(report)


def _show(report: ClusteringReport) -> None:
    output.emit_table(
        f"{report.source.name} → {report.output.name}",
        ("layer", "kind", "weights", "values asked", "values"),
        [
            (
                layer.layer,
                layer.kind,
                f"{layer.weights:,}",
                "" if layer.asked is None else str(layer.asked),
                f"{layer.values:,}",
            )
            for layer in report.layers
        ],
        right=("weights", "values asked", "values"),
    )
    compression.show(report)
