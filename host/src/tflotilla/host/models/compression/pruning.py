"""Prune a Keras model while it is fine-tuned, and tell what came of it: sparsity, bytes, accuracy, measured time.

What it does NOT do: make dense kernels faster. Zeros make a download smaller; the report says what else they gave.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tflotilla.host.models import delivery
from tflotilla.host.models.compression import masks, request, sparse_encoding, variants
from tflotilla.host.models.compression.procedures import AFTER, BEFORE, CALIBRATION, SPARSE, VALIDATION
from tflotilla.host.models.compression.request import CompressionReport, CompressionRequest
from tflotilla.host.models.compression.schedule import Schedule, ScheduleOptions
from tflotilla.host.models.compression.tasks import Task
from tflotilla.shared.contract import codec
from tflotilla.shared.contract.tensors import QuantizationScheme

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_SAME = 1e-4


@dataclass(frozen=True, slots=True, kw_only=True)
class PruningRequest(CompressionRequest):
    """What to prune, and how far."""

    schedule: ScheduleOptions = field(default_factory=ScheduleOptions)
    #: As behind `--pattern`: 2:4, 1x4.
    pattern: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PrunedLayer:
    """One tensor of weights; `asked` is None where it was not to be pruned."""

    layer: str
    weight: str
    kind: str
    shape: tuple[int, ...]
    weights: int
    zeros: int
    asked: float | None
    pattern: str | None
    pattern_held: bool | None

    @property
    def sparsity(self) -> float:
        """The share of zeros."""
        return self.zeros / self.weights if self.weights else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PruningReport(CompressionReport):
    """What came of it."""

    schedule: Schedule
    layers: tuple[PrunedLayer, ...]
    #: Of all trainable weights, biases and scales too.
    parameters: int
    zeros: int

    @property
    def sparsity(self) -> float:
        """The share of zeros in the whole model."""
        return self.zeros / self.parameters if self.parameters else 0.0


def prune(asked: PruningRequest, on_progress: Callable[[str], None] | None = None) -> PruningReport:
    """Prune, deliver, measure.

    Raises:
        UsageError: options that make no sense, alone or for this model; layers that it hasn't.
        ModelError: the source can't be read or trained, or has nothing to prune.
        DatasetError: the data can't be trained on.
        InputError: something can't be written.

    """
    request.check(asked)
    asked.schedule.check()
    if asked.pattern is not None:
        masks.parse_pattern(asked.pattern)
    settings = {"schedule": asked.schedule, "pattern": asked.pattern}
    suffix = asked.output.suffix
    with tempfile.TemporaryDirectory(prefix="tflotilla-prune-") as name:
        folder = Path(name)
        answer = request.train(
            "tflotilla.host.models.compression.procedures:prune_here",
            asked,
            settings,
            folder,
            on_progress,
            suffix=suffix,
        )
        after = folder / f"{AFTER}{suffix}"
        delivery.deliver(after, asked.output)
        notes = list(answer["notes"])
        files, made = _measure(asked, answer, folder, notes, on_progress)
        request.keep(files, asked)
        sizes = (
            request.sized("source", asked.source, asked.source),
            request.sized("unpruned, without optimizer", folder / f"{BEFORE}{suffix}"),
            request.sized("pruned, without optimizer", after, asked.output),
        )
        findings = [*request.same_speed(made), *_sparse_finding(files, made, answer["sparse_problem"])]
    return PruningReport(
        source=asked.source,
        output=asked.output,
        files=sizes,
        variants=made,
        findings=tuple(findings),
        notes=tuple(notes),
        schedule=codec.decode(Schedule, answer["schedule"], "schedule"),
        layers=tuple(codec.decode(PrunedLayer, entry, "layers") for entry in answer["layers"]),
        parameters=answer["parameters"],
        zeros=answer["zeros"],
        **request.decoded(answer),
    )


def _measure(
    asked: PruningRequest,
    answer: dict[str, Any],
    folder: Path,
    notes: list[str],
    on_progress: Callable[[str], None] | None,
) -> tuple[list[variants.File], tuple[variants.Variant, ...]]:
    say = on_progress or _say_nothing
    files: list[variants.File] = []
    for of in (BEFORE, AFTER):
        say(f"converting the model {of} pruning")
        path = folder / f"{of}{asked.output.suffix}"
        files += request.to_tflite(path, of, asked, folder / CALIBRATION, folder, notes)
    if answer["sparse_problem"] is None:
        like = f"{AFTER} {QuantizationScheme.FLOAT32.value}"
        files.append(variants.File(of=AFTER, scheme="sparse", path=folder / SPARSE, like=like))
    made = variants.measure(files, folder / VALIDATION, Task(answer["task"]), asked.runtimes, on_progress)
    return files, made


def _say_nothing(text: str) -> None:
    del text


def _sparse_finding(files: Sequence[variants.File], made: Sequence[variants.Variant], problem: str | None) -> list[str]:
    if problem is not None:
        return [f"sparse encoding: TensorFlow's converter can't: {problem}"]
    by_name = {(variant.of, variant.scheme): variant for variant in made}
    paths = {(file.of, file.scheme): file.path for file in files}
    key, sparse_key = (AFTER, QuantizationScheme.FLOAT32.value), (AFTER, "sparse")
    if key not in by_name or sparse_key not in by_name:
        return []
    dense, sparse = by_name[key], by_name[sparse_key]
    races, findings = [], []
    for old, new in zip(dense.measured, sparse.measured, strict=True):
        if new.p50_ns is None or old.p50_ns is None:
            findings.append(f"sparse encoding: {new.runtime} refuses it: {new.reason}")
            continue
        if new.difference is not None and new.difference > _SAME:
            findings.append(f"sparse encoding: on {new.runtime} its outputs differ by up to {new.difference:.2g}")
        races.append(sparse_encoding.Race(runtime=new.runtime, dense_ns=old.p50_ns, sparse_ns=new.p50_ns))
    said = sparse_encoding.sentence(
        sparse_encoding.look(paths[sparse_key].read_bytes()),
        races,
        bytes_dense=dense.size_bytes,
        bytes_sparse=sparse.size_bytes,
        missing=sparse_encoding.missing_for_xnnpack(paths[key].read_bytes()),
        avx=sparse_encoding.has_avx(),
    )
    return [said, *findings]
