"""Ops of a TensorFlow graph that run Python or touch files, and what they mean for trust. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tflotilla.shared.contract.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Iterable

#: SaveV2 and RestoreV2 stand in every SavedModel and run only when asked for; these run in the forward pass.
UNSAFE = frozenset({"PyFunc", "PyFuncStateless", "EagerPyFunc", "ReadFile", "WriteFile", "WholeFileReaderV2"})


def refuse_code(ops: Iterable[str], where: str) -> None:
    """Raise ModelError when a graph holds an op that runs Python or opens files."""
    found = sorted(UNSAFE.intersection(ops))
    if found:
        raise ModelError(
            f"{where}: its graph has {', '.join(found)}, which runs code or opens files; "
            "if you trust the model, give --allow-code"
        )
