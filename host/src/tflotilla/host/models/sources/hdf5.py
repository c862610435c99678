"""`.h5` and `.hdf5`: a whole Keras model in HDF5, of Keras 1, 2 or 3.

Keras 3 can't load many files of Keras 2 (DepthwiseConv2D's `groups`): the library of the file's own generation reads
it, and the other one only when that fails.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from tflotilla.host.models.sources import keras_code
from tflotilla.shared.contract.errors import ModelError

if TYPE_CHECKING:
    from pathlib import Path

    from tflotilla.host.models.sources import SourceModel, SourceOptions

_SIGNATURE = b"\x89HDF\r\n\x1a\n"


def recognizes(path: Path, head: bytes) -> bool:
    """Whether it begins with HDF5's signature."""
    del path
    return head.startswith(_SIGNATURE)


def load(path: Path, options: SourceOptions) -> SourceModel:
    """Read the model with tf_keras or Keras 3, whichever generation wrote it. Raises ModelError."""
    libraries = readers(path, options)

    from tflotilla.host.models.sources import keras_models

    return keras_models.load_with(path, libraries, options, suffix=".h5")


def readers(path: Path, options: SourceOptions) -> list[str]:
    """Check the file, and name the libraries that may read it, its own generation's first. Raises ModelError."""
    configuration, version = _read_configuration(path)
    if not options.allow_code:
        keras_code.refuse_code(configuration, str(path))

    from tflotilla.host.models.sources import keras_models

    libraries = [keras_models.KERAS_2, keras_models.KERAS_3]
    if version.startswith("3"):
        libraries.reverse()
    return libraries


def _read_configuration(path: Path) -> tuple[Any, str]:
    import h5py

    try:
        with h5py.File(path, "r") as file:
            attributes = dict(file.attrs)
    except (OSError, RuntimeError, KeyError, ValueError) as error:
        raise ModelError(f"{path}: corrupt or truncated HDF5 file ({error})") from error
    text = attributes.get("model_config")
    if text is None:
        raise ModelError(f"{path}: holds weights only, no model; save the whole model with model.save(…)")
    try:
        return json.loads(text), _text(attributes.get("keras_version", "2"))
    except (ValueError, TypeError) as error:
        raise ModelError(f"{path}: its model_config is not valid JSON ({error})") from error


def _text(value: Any) -> str:  # noqa: ANN401 - HDF5 gives bytes or text
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
