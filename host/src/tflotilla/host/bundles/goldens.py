"""Make golden vectors: run candidate inputs on every runtime of this machine, and keep what boards must reproduce.

Each runtime runs in a child process, because model files crash runtimes. Whom to believe is `agreement`'s decision,
the inputs come from `samples`, and the file's format and the comparison are `shared.inference.goldens`: the code that
runs on the board. Each runtime runs with and without XNNPACK, as boards do.

Models with state are fine: their vectors are one sequence from a fresh start. Models that roll dice are refused.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tflotilla.host.bundles import agreement
from tflotilla.host.bundles.agreement import Agreement, Variant
from tflotilla.host.bundles.detector_agreement import DetectorMeasure
from tflotilla.host.models import child
from tflotilla.shared.contract.board import RuntimeOffer
from tflotilla.shared.contract.errors import BoardError, ModelError, UsageError
from tflotilla.shared.contract.manifest import GoldenPolicy
from tflotilla.shared.inference import goldens as vectors
from tflotilla.shared.inference import runtime as runtimes

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tflotilla.host.bundles.agreement import Outputs
    from tflotilla.host.models.samples import Inputs
    from tflotilla.shared.contract.tensors import TensorSpec

#: Candidates per golden: enough to find inputs on which all runtimes agree closely.
CANDIDATES_PER_GOLDEN = 4
#: The order in which runtimes are preferred as the reference: a newer kernel knows older models, not the other way.
_PREFERRED = ("ai-edge-litert", "tflite-runtime")
_RUN_TIMEOUT_S = 600
_LONGEST_REASON = 200
#: The half of the vectors that one side does not send; the format has no empty rows.
_NOTHING = (np.zeros(1, dtype=np.uint8),)


@dataclass(frozen=True, slots=True, kw_only=True)
class Goldens:
    """Golden vectors and how closely they must be met."""

    #: goldens.npz
    data: bytes
    policy: GoldenPolicy
    agreement: Agreement
    #: Runtimes of this machine that don't run the model at all, and why.
    missing: Mapping[str, str]


def make(
    model: Path,
    candidates: Sequence[Inputs],
    outputs: tuple[TensorSpec, ...],
    *,
    count: int,
    reference: str | None = None,
    tolerance_lsb: int | None = None,
    score_threshold: float | None = None,
    on_progress: Callable[[str], None] | None = None,
) -> Goldens:
    """Make goldens of a model.

    Args:
        model: the .tflite file.
        candidates: inputs to choose from.
        outputs: the model's outputs.
        count: how many goldens to keep.
        reference: name of the runtime to believe; by default that of the majority.
        tolerance_lsb: instead of the tolerance that this machine's runtimes suggest.
        score_threshold: of a detector, the score from which its boxes are reported; None for all other models.
        on_progress: is told which runtime runs.

    Raises:
        ModelError: no runtime here runs the model, they contradict each other, or it gives another answer each time.

    """
    if reference is not None and reference not in runtimes.ADAPTERS:
        raise UsageError(f"--reference {reference!r}: known runtimes are {', '.join(runtimes.ADAPTERS)}")
    runs: dict[Variant, Sequence[Outputs]] = {}
    missing: dict[str, str] = {}
    in_sequence = False
    with tempfile.TemporaryDirectory(prefix="tflotilla-goldens-") as folder:
        asked = Path(folder) / "candidates.npz"
        asked.write_bytes(
            vectors.save(vectors.GoldenVectors(inputs=tuple(candidates), outputs=(_NOTHING,) * len(candidates)))
        )
        for name in _PREFERRED:
            if on_progress is not None:
                on_progress(f"running {len(candidates)} inputs on {name}")
            try:
                reports = _run(model, name, asked, Path(folder))
            except (ModelError, BoardError) as error:
                missing[name] = str(error)
                continue
            for report in reports:
                in_sequence |= not report["repeats"]
                variant = Variant(runtime=RuntimeOffer(**report["runtime"]), xnnpack=report["xnnpack"])
                runs[variant] = vectors.load(Path(report["path"])).outputs
    if not runs:
        why = "; ".join(f"{name}: {_shortened(reason)}" for name, reason in missing.items())
        raise ModelError(f"no runtime on this machine runs it, so no goldens can be made: {why}")
    if reference in missing:
        raise ModelError(missing[reference])
    if in_sequence:
        # Later outputs depend on earlier inputs: only the beginning of the sequence can be repeated.
        runs = {variant: outputs[:count] for variant, outputs in runs.items()}
    detector = None
    if score_threshold is not None:
        detector = DetectorMeasure(outputs, score_threshold, may_skip=not in_sequence)
    found = agreement.judge(runs, count=count, reference=reference, measure=detector)
    chosen = vectors.GoldenVectors(
        inputs=tuple(candidates[i] for i in found.chosen),
        outputs=tuple(runs[found.reference][i] for i in found.chosen),
    )
    policy = GoldenPolicy(
        count=len(chosen),
        runtime=str(found.reference.runtime),
        tolerance_lsb=found.tolerance_lsb if tolerance_lsb is None else tolerance_lsb,
        tolerance_absolute=found.tolerance_absolute,
    )
    if detector is not None:
        policy = replace(
            policy,
            comparison="detections",
            min_iou=detector.min_iou(found.spread),
            min_score=detector.min_score,
        )
        if not any(detector.tells(tensors) for tensors in chosen.outputs):
            warning = f"no golden has a detection of {detector.min_score:g} or more: they prove little; give real data"
            found = replace(found, warning=found.warning or warning)
    found = _held_to(policy, found, runs, outputs)
    return Goldens(
        data=vectors.save(chosen),
        policy=replace(policy, not_reproduced_by=tuple(map(str, found.not_reproduced_by))),
        agreement=found,
        missing=missing,
    )


def _held_to(
    policy: GoldenPolicy, found: Agreement, runs: Mapping[Variant, Sequence[Outputs]], specs: tuple[TensorSpec, ...]
) -> Agreement:
    """Hold the runtimes of this machine to what boards will be held to, by the same code."""
    refused = dict(found.refused)
    for variant in found.agreeing:
        for i in found.chosen:
            verdict = vectors.compare(runs[found.reference][i], runs[variant][i], specs, policy)
            if not verdict.ok:
                refused.setdefault(variant, verdict.reason or "differs")
    if found.reference in refused:
        raise ModelError(f"{found.reference} does not reproduce its own outputs: {refused[found.reference]}")
    return replace(found, agreeing=tuple(v for v in found.agreeing if v not in refused), refused=refused)


def _run(model: Path, runtime: str, candidates: Path, folder: Path) -> Sequence[Mapping[str, Any]]:
    arguments = {"model": str(model), "runtime": runtime, "candidates": str(candidates), "folder": str(folder)}
    reports: list[dict[str, Any]] = child.call(
        "tflotilla.host.bundles.goldens:run_here",
        arguments,
        doing="running it",
        timeout_s=_RUN_TIMEOUT_S,
    )
    return reports


def run_here(model: str, runtime: str, candidates: str, folder: str) -> list[dict[str, Any]]:
    """Run every candidate in this process, with and without XNNPACK; `make` calls it in a child.

    Returns:
        One report per variant: `runtime`, `xnnpack`, `path` of the outputs, and whether the first input gives the same
        outputs again after the others (`repeats`).

    """
    found = runtimes.find(runtime)
    inputs = vectors.load(Path(candidates)).inputs
    reports: list[dict[str, Any]] = []
    failure: ModelError | None = None
    for xnnpack in (True, False):
        if not xnnpack and reports and not reports[0]["xnnpack"]:
            break  # XNNPACK took no part of the model, so this would be the same again
        try:
            report, outputs = _run_variant(found, Path(model), inputs, runtimes.LoadOptions(xnnpack=xnnpack))
        except ModelError as error:
            failure = error
            continue
        path = Path(folder) / f"{runtime}-{int(xnnpack)}.npz"
        path.write_bytes(vectors.save(vectors.GoldenVectors(inputs=(_NOTHING,) * len(outputs), outputs=outputs)))
        reports.append({**report, "runtime": {"name": runtime, "version": found.offer.version}, "path": str(path)})
    if failure is not None and not reports:
        raise failure
    return reports


def _run_variant(
    runtime: runtimes.Runtime, model: Path, inputs: Sequence[Inputs], options: runtimes.LoadOptions
) -> tuple[dict[str, Any], tuple[Outputs, ...]]:
    loaded = runtime.load(model, options)
    outputs = tuple(_outputs(loaded, tensors) for tensors in inputs)
    again = _outputs(loaded, inputs[0])
    fresh = _outputs(runtime.load(model, options), inputs[0])
    if not _same(outputs[0], fresh):
        raise ModelError("it gives another answer to the same input each time, so no board can be verified with it")
    xnnpack = options.xnnpack and loaded.delegated_nodes > 0
    return {"xnnpack": xnnpack, "repeats": _same(outputs[0], again)}, outputs


def _outputs(loaded: runtimes.LoadedModel, tensors: Inputs) -> Outputs:
    try:
        loaded.set_inputs(tensors)
    except ValueError as error:
        raise ModelError(str(error)) from error
    loaded.invoke()
    return loaded.get_outputs()


def _same(one: Outputs, other: Outputs) -> bool:
    return all(a.dtype == b.dtype and a.tobytes() == b.tobytes() for a, b in zip(one, other, strict=True))


def _shortened(reason: str) -> str:
    """Return what a runtime said, without its links to manuals and its repetitions."""
    first = reason.split(". ")[0]
    return first if len(first) <= _LONGEST_REASON else first[:_LONGEST_REASON] + "…"
