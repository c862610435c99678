"""One file per source format, found by name, imported only when chosen.

Each module of `FORMATS` has:

    recognizes(path: Path, head: bytes) -> bool     by content, not only by suffix; no TensorFlow
    load(path: Path, options: SourceOptions) -> SourceModel     with TensorFlow, in a child process

A new format is a new file and a new line here. What this package does NOT do: convert, calibrate or judge.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from tflotilla.shared.contract.errors import ModelError

if TYPE_CHECKING:
    from pathlib import Path
    from types import ModuleType

    from numpy.typing import NDArray

    from tflotilla.shared.contract.tensors import TensorSpec

#: Format → its module in this folder, in the order in which they are asked whether a file is theirs.
FORMATS = {
    "TFLite": "tflite_file",
    "Keras .keras": "keras_archive",
    "Keras .h5": "hdf5",
    "SavedModel": "saved_model",
    "ONNX": "onnx_graph",
    "TensorFlow 1 frozen graph": "frozen_graph",
}
_HEAD_BYTES = 512
#: What people try that no module reads; first bytes (after the offset) → the sentence's end.
_REFUSED = (
    (0, b"version https://git-lfs", "is a Git LFS pointer, not the file itself; fetch it with `git lfs pull`"),
    (0, b"<", "is a web page or XML, not a model; was the download refused?"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceOptions:
    """What a user may have to say about a source. An input shape under the name "" is that of the only input."""

    input_arrays: tuple[str, ...] = ()
    output_arrays: tuple[str, ...] = ()
    input_shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    signature: str | None = None
    allow_code: bool = False


class SourceModel(Protocol):
    """A model in TensorFlow's memory, with every dimension known, ready to be converted and to be run."""

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """The inputs in the order in which `run` takes them and the TFLite file will."""

    @property
    def output_names(self) -> tuple[str, ...]:
        """The outputs in the order in which `run` returns them."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What was decided for the user, in sentences."""

    @property
    def loops(self) -> bool:
        """Whether it holds loops that end when a value says so: on random inputs perhaps never."""

    def converter(self) -> Any:  # noqa: ANN401 - TensorFlow has no types
        """Return a fresh TFLiteConverter (of TensorFlow 1 or 2: the attributes are the same), or what stands for it."""

    def run(self, inputs: tuple[NDArray[Any], ...]) -> tuple[NDArray[Any], ...]:
        """Compute in TensorFlow, in float. Raises ModelError when the graph fails on these values."""


def detect(path: Path) -> str:
    """Return the format of a source, a key of `FORMATS`.

    Raises:
        ModelError: there is no such file, or it is of no format that can be converted.

    """
    try:
        head = b"" if path.is_dir() else _head(path)
    except OSError as error:
        raise ModelError(f"{path}: {error.strerror or error}") from error
    if not path.is_dir() and not head:
        raise ModelError(f"{path}: the file is empty")
    for name in FORMATS:
        if _module(name).recognizes(path, head):
            return name
    for offset, mark, what in _REFUSED:
        if head[offset:].startswith(mark):
            raise ModelError(f"{path}: {what}")
    what = "folder holds no saved_model.pb" if path.is_dir() else "file is of no format that can be converted"
    raise ModelError(f"{path}: this {what}; known are {', '.join(FORMATS)}")


def load(path: Path, name: str, options: SourceOptions) -> SourceModel:
    """Read a source of the format `name`; imports TensorFlow.

    Raises:
        ModelError: the file is corrupt, carries code (and `allow_code` is off), or needs classes that it doesn't hold.
        UsageError: names or shapes that don't fit it.

    """
    model: SourceModel = _module(name).load(path, options)
    return model


def _head(path: Path) -> bytes:
    with path.open("rb") as stream:
        return stream.read(_HEAD_BYTES)


def _module(name: str) -> ModuleType:
    return importlib.import_module(f"{__name__}.{FORMATS[name]}")
