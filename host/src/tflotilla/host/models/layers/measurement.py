"""Runs a quantized file beside its reference, in a child process, and takes the errors of every layer.

Rules it keeps: no TensorFlow; foreign files are run only in the child; nothing is written. What it does NOT do: judge.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tflotilla.shared.contract.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tflotilla.host.models.layers.report import LayerReport
    from tflotilla.shared.contract.processing import Preprocessing

DEFAULT_SAMPLES = 20


def measure(
    quantized: Path,
    *,
    against: Path | None = None,
    data: Path | None = None,
    preprocess: str | Preprocessing | None = None,
    samples: int = DEFAULT_SAMPLES,
    runtime: str | None = None,
    on_progress: Callable[[str], None] | None = None,
) -> LayerReport:
    """Measure every layer of a quantized file, the worst first.

    Args:
        quantized: any .tflite with quantized weights or activations.
        against: the float .tflite it was made from; without it the reference is the file's float twin, which has the
            same (rounded) weights.
        data: image folder, .npy or .npz; seeded noise when None.
        preprocess: how pixels become inputs, as behind `--preprocess`, or the value itself.
        samples: how many samples to run at most, spread evenly over the data.
        runtime: PyPI name of the runtime; None takes LiteRT, else what is installed.
        on_progress: told what goes on.

    Raises:
        ModelError: corrupt, nothing in it is quantized, or no runtime can run it.
        DatasetError: the data can't be read or don't fit.
        UsageError: an unknown runtime or preprocessing; images without any.
        BoardError: no runtime is installed here.

    """
    del against, data, preprocess, samples, runtime, on_progress
    raise ModelError(f"{quantized}: layers can't be measured yet")
