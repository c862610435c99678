"""The adapter of `tflite-runtime` (2.14 is its last release: Python up to 3.11, 32-bit ARM too)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tflotilla.shared.contract.errors import BoardError
from tflotilla.shared.inference.runtimes.interpreter import InterpreterRuntime, import_runtime

if TYPE_CHECKING:
    from tflotilla.shared.inference.runtime import Runtime

NAME = "tflite-runtime"
_FIRST_UNSUPPORTED_NUMPY = 2


def runtime() -> Runtime:
    """Import tflite-runtime. Raises BoardError when it is absent, or stands beside a numpy that kills it."""
    if int(np.__version__.split(".", 1)[0]) >= _FIRST_UNSUPPORTED_NUMPY:
        # It imports, and takes the process down when the first interpreter is built.
        message = f"{NAME} needs numpy below 2, this environment has {np.__version__}; use ai-edge-litert or numpy<2"
        raise BoardError(message)
    module, version = import_runtime(NAME, "tflite_runtime")
    return InterpreterRuntime(NAME, version, module)
