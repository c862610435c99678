"""`.keras`: a zip of config.json, metadata.json and weights, written by Keras 3 or by the last versions of Keras 2."""

from __future__ import annotations

import json
import zipfile
from typing import TYPE_CHECKING, Any

from tflotilla.host.models.sources import keras_code
from tflotilla.shared.contract.errors import ModelError

if TYPE_CHECKING:
    from pathlib import Path

    from tflotilla.host.models.sources import SourceModel, SourceOptions

_CONFIGURATION, _METADATA = "config.json", "metadata.json"
_BROKEN = (zipfile.BadZipFile, KeyError, ValueError, OSError, RuntimeError, EOFError)


def recognizes(path: Path, head: bytes) -> bool:
    """Whether it is a zip that holds a Keras configuration, or calls itself one."""
    if not head.startswith(b"PK\x03\x04"):
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            return _CONFIGURATION in archive.namelist()
    except _BROKEN:
        return path.suffix == ".keras"


def load(path: Path, options: SourceOptions) -> SourceModel:
    """Read the archive with the Keras that wrote it, the other one when that fails. Raises ModelError."""
    libraries = readers(path, options)

    from tflotilla.host.models.sources import keras_models

    return keras_models.load_with(path, libraries, options, suffix=".keras")


def readers(path: Path, options: SourceOptions) -> list[str]:
    """Check the archive, and name the libraries that may read it, its own generation's first. Raises ModelError."""
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
            configuration: Any = json.loads(archive.read(_CONFIGURATION))
            metadata: Any = json.loads(archive.read(_METADATA)) if _METADATA in archive.namelist() else {}
    except _BROKEN as error:
        raise ModelError(f"{path}: corrupt or truncated .keras file ({error})") from error
    if damaged is not None:
        raise ModelError(f"{path}: corrupt .keras file: the checksum of its {damaged} is wrong")
    if not options.allow_code:
        keras_code.refuse_code(configuration, str(path))

    from tflotilla.host.models.sources import keras_models

    libraries = [keras_models.KERAS_3, keras_models.KERAS_2]
    if str(metadata.get("keras_version", "3")).startswith("2"):
        libraries.reverse()
    return libraries
