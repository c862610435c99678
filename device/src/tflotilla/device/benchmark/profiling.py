"""The operators' pass in a process of its own: hundreds of cut graphs go through a runtime, and may take it down.

The cell's figures are there already; whatever happens here is a note beside them. What it does NOT do: time anything
(`operators` does, or the board's own program that `benchmark_model` asks).
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from tflotilla.device import child, one_shot
from tflotilla.device.benchmark import benchmark_model
from tflotilla.device.bundle_folder import BundleFolder
from tflotilla.device.reports import CellSpec
from tflotilla.shared.contract import codec
from tflotilla.shared.contract.benchmark import OperatorProfile
from tflotilla.shared.contract.errors import BoardError, TflotillaError
from tflotilla.shared.contract.manifest import MODEL

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tflotilla.shared.contract.benchmark import Configuration
    from tflotilla.shared.inference.runtime import Tensor

#: Of the time, for the board's own program.
_PROGRAM_SHARE = 0.3


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileSpec:
    """Which cell's operators, and roughly how long."""

    cell: CellSpec
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileReport:
    """What came out: a profile, or the reason why there is none."""

    profile: OperatorProfile | None = None
    reason: str | None = None


def ask(cell: CellSpec, *, seconds: float, timeout_s: float) -> OperatorProfile:
    """Time the operators in a child. Raises BoardError with the reason why that can't be had."""
    try:
        ended = one_shot.ask("benchmark.profiling", ProfileSpec(cell=cell, seconds=seconds), timeout_s=timeout_s)
    except TimeoutError as error:
        raise BoardError(str(error)) from error
    try:
        report = codec.decode(ProfileReport, json.loads(ended.answer), "the operators' pass")
    except (ValueError, TflotillaError) as error:
        how = f"was ended by signal {-ended.code}" if ended.code < 0 else f"ended with code {ended.code}"
        message = f"its process {how} ({ended.last_words})"
        raise BoardError(message) from error
    if report.profile is None:
        raise BoardError(report.reason or "no reason was given")
    return report.profile


def main() -> int:
    """Answer one ProfileSpec with one ProfileReport."""
    return child.answer_once(ProfileSpec, profile)


def profile(spec: ProfileSpec) -> ProfileReport:
    """Time the operators; never raises an error of ours."""
    from tflotilla.device.benchmark import inputs
    from tflotilla.shared.inference import goldens

    cell = spec.cell
    try:
        bundle = BundleFolder.open(Path(cell.bundle))
        vectors = goldens.load(bundle.goldens())
        batch = cell.configuration.batch
        rows = inputs.stack([vectors.inputs[i % len(vectors)] for i in range(batch)])
        # An agent's home holds its bundles, and may hold the board's own program.
        program = benchmark_model.find(bundle.path.parent.parent / "bin") if batch == 1 else None
        found = best(bundle.path / MODEL, cell.configuration, rows, seconds=spec.seconds, program=program)
        return ProfileReport(profile=found)
    except (TflotillaError, ValueError, RuntimeError, OSError, MemoryError) as error:
        return ProfileReport(reason=" ".join(str(error).split()) or type(error).__name__)


def best(
    model: Path, configuration: Configuration, rows: Sequence[Tensor], *, seconds: float, program: Path | None
) -> OperatorProfile:
    """Let the board's own `benchmark_model` profile the model; where that is no help, time the operators ourselves.

    Raises:
        TflotillaError: neither could be done; see `operators.profile`.

    """
    from tflotilla.device.benchmark import operators

    begin = time.monotonic()
    trouble, text = None, None
    if program is not None:
        try:
            return benchmark_model.profile(program, model, configuration.inference, seconds=seconds * _PROGRAM_SHARE)
        except benchmark_model.NotUnderstoodError as error:
            trouble, text = str(error), error.text
        except BoardError as error:
            trouble = str(error)
    left_s = max(seconds / 2, seconds - (time.monotonic() - begin))
    found = operators.profile(model, configuration.inference, rows, seconds=left_s, batch=configuration.batch)
    if trouble is None:
        return found
    return replace(found, note=f"{found.note} The board's own benchmark_model was no help: {trouble}.", text=text)


if __name__ == "__main__":
    sys.exit(main())
