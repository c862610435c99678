"""What most cases do with a source: convert it, and judge the files on labelled data. This tool's own commands.

What it does NOT do: choose what is published.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tflotilla.host.models import convert, evaluate
from tflotilla.host.reproductions import mnist
from tflotilla.shared.contract.errors import ConversionError
from tflotilla.shared.contract.tensors import QuantizationScheme

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from tflotilla.host.reproductions.desk import Desk

LITERT = "ai-edge-litert"
_SEED = 7


def files(
    desk: Desk,
    source: Path,
    schemes: Sequence[QuantizationScheme],
    *,
    calibration: Path | None = None,
    preprocess: str | None = None,
) -> Mapping[QuantizationScheme, Path]:
    """Convert to every scheme. Raises ConversionError when one of them can't be made."""
    report = convert.convert(
        convert.ConversionRequest(
            source=source,
            output=desk.made("converted"),
            schemes=tuple(schemes),
            calibration=calibration,
            preprocess=preprocess,
        ),
        desk.say,
    )
    for scheme, reason in report.failures.items():
        raise ConversionError(f"{source.name}: {scheme.value}: {reason}")
    return {made.scheme: made.path for made in report.files}


def noise_images(desk: Desk, side: int, count: int) -> Path:
    """Return an .npy of seeded random pictures in -1..1: what calibrates random weights as well as any."""
    target = desk.made(f"noise-{side}-{count}.npy")
    if not target.exists():
        rng = np.random.default_rng(_SEED)
        np.save(target, rng.random((count, side, side, 3), dtype=np.float32) * 2 - 1)
    return target


def mnist_accuracies(desk: Desk, models: Sequence[Path]) -> list[float]:
    """Return the accuracy of every file on MNIST's 10,000 test images, on LiteRT."""
    report = evaluate.evaluate(
        evaluate.EvaluationRequest(
            models=tuple(models), data=mnist.arrays(desk, "test"), preprocess="unit", runtimes=(LITERT,)
        ),
        desk.say,
    )
    by_model = {score.model: score.value for score in report.scores}
    return [by_model[model] for model in models]


def schemes(*names: str) -> tuple[QuantizationScheme, ...]:
    """Return schemes by name."""
    return tuple(QuantizationScheme(name) for name in names)
