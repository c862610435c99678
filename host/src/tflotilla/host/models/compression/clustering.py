"""Cluster a model's weights while it is fine-tuned: few distinct values, which zip well.

What it does NOT do: speed anything up; the weights are stored and multiplied as before.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tflotilla.host.models import delivery
from tflotilla.host.models.compression import request, variants
from tflotilla.host.models.compression.procedures import AFTER, BEFORE, CALIBRATION, VALIDATION
from tflotilla.host.models.compression.request import CompressionReport, CompressionRequest
from tflotilla.host.models.compression.tasks import Task
from tflotilla.shared.contract import codec
from tflotilla.shared.contract.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

#: `--init`, as tfmot knows them.
INITIALIZATIONS = ("kmeans++", "linear", "density", "random")
_FEWEST, _MOST = 2, 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusteringRequest(CompressionRequest):
    """What to cluster, and into how many values per layer."""

    clusters: int = 16
    init: str = "kmeans++"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusteredLayer:
    """One tensor of weights; `asked` is None where it was left as it is."""

    layer: str
    weight: str
    kind: str
    weights: int
    asked: int | None
    #: Distinct values that it has now.
    values: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusteringReport(CompressionReport):
    """What came of it."""

    layers: tuple[ClusteredLayer, ...]


def cluster(asked: ClusteringRequest, on_progress: Callable[[str], None] | None = None) -> ClusteringReport:
    """Cluster, deliver, measure.

    Raises:
        UsageError: options that make no sense, alone or for this model; layers that it hasn't.
        ModelError: the source can't be read or trained, or has nothing to cluster.
        DatasetError: the data can't be trained on.
        ConversionError: tfmot, or Keras 2, can't take the model.
        InputError: something can't be written.

    """
    request.check(asked)
    if not _FEWEST <= asked.clusters <= _MOST:
        raise UsageError(f"--clusters {asked.clusters}: expected {_FEWEST} to {_MOST} values per layer")
    if asked.init not in INITIALIZATIONS:
        raise UsageError(f"--init {asked.init!r}: expected one of {', '.join(INITIALIZATIONS)}")
    suffix = asked.output.suffix
    with tempfile.TemporaryDirectory(prefix="tflotilla-cluster-") as name:
        folder = Path(name)
        answer = request.train(
            "tflotilla.host.models.compression.tfmot_clustering:cluster_here",
            asked,
            {"clusters": asked.clusters, "init": asked.init},
            folder,
            on_progress,
            suffix=suffix,
        )
        after = folder / f"{AFTER}{suffix}"
        delivery.deliver(after, asked.output)
        notes = list(answer["notes"])
        files: list[variants.File] = []
        for of in (BEFORE, AFTER):
            if on_progress is not None:
                on_progress(f"converting the model {of} clustering")
            files += request.to_tflite(folder / f"{of}{suffix}", of, asked, folder / CALIBRATION, folder, notes)
        made = variants.measure(files, folder / VALIDATION, Task(answer["task"]), asked.runtimes, on_progress)
        request.keep(files, asked)
        sizes = (
            request.sized("source", asked.source, asked.source),
            request.sized("unclustered, without optimizer", folder / f"{BEFORE}{suffix}"),
            request.sized("clustered, without optimizer", after, asked.output),
        )
    return ClusteringReport(
        source=asked.source,
        output=asked.output,
        files=sizes,
        variants=made,
        findings=tuple(request.same_speed(made)),
        notes=tuple(notes),
        layers=tuple(codec.decode(ClusteredLayer, entry, "layers") for entry in answer["layers"]),
        **request.decoded(answer),
    )
