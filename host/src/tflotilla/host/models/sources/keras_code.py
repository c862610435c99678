"""Find Python code in a Keras model's configuration before Keras does. No TensorFlow.

A Lambda layer is a marshalled function that runs when the model is loaded (CVE-2024-3660, CVE-2025-9905), a class of a
foreign module is imported by name (CVE-2025-1550). Keras' own `safe_mode` looks at some of that in some formats.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tflotilla.shared.contract.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Iterator

_OWN = ("keras", "tf_keras", "tensorflow", "builtins")


def refuse_code(configuration: Any, where: str) -> None:  # noqa: ANN401 - parsed JSON
    """Raise ModelError when a model configuration holds code, naming the layer and the way out."""
    for found in _code(configuration):
        raise ModelError(f"{where}: {found}; converting would run it. If you trust the file, give --allow-code")


def _code(value: Any) -> Iterator[str]:  # noqa: ANN401 - parsed JSON
    stack = [value]
    while stack:
        value = stack.pop()
        if isinstance(value, list):
            stack.extend(value)
        if not isinstance(value, dict):
            continue
        stack.extend(value.values())
        kind, module = value.get("class_name"), value.get("module")
        configuration = value.get("config")
        name = configuration.get("name") if isinstance(configuration, dict) else None
        if kind in ("Lambda", "__lambda__") or value.get("function_type") == "lambda":
            yield f"layer {name or kind!r} is a Lambda: it carries Python code"
        elif isinstance(module, str) and isinstance(kind, str) and module.split(".")[0] not in _OWN:
            yield f"it uses {module}.{kind}, which is code outside Keras"
