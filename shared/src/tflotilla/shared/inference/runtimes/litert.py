"""The adapter of LiteRT (`ai-edge-litert`), the successor of tflite-runtime: Python 3.10 and later, 64 bit."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tflotilla.shared.inference.runtimes.interpreter import InterpreterRuntime, import_runtime

if TYPE_CHECKING:
    from tflotilla.shared.inference.runtime import Runtime

NAME = "ai-edge-litert"


def runtime() -> Runtime:
    """Import LiteRT. Raises BoardError when it is absent or was built for another machine."""
    module, version = import_runtime(NAME, "ai_edge_litert")
    return InterpreterRuntime(NAME, version, module)
