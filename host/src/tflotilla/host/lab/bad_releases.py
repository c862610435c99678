"""Releases that must not get through, each as it happens in real life.

- `from_the_future`: an op newer than any runtime of today knows;
- `tampered`: somebody changed the labels after signing, and the manifest with them;
- `mixed_up`: signed and intact, but its goldens are another model's: the wrong file was packed.
"""

from __future__ import annotations

import dataclasses
import struct
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from tflotilla.host.bundles import archive, build
from tflotilla.host.models.inspect import inspect_model
from tflotilla.shared.contract.manifest import LABELS, MANIFEST, MODEL, SIGNATURE

if TYPE_CHECKING:
    from tflotilla.host.bundles.archive import Bundle


#: Where OperatorCode keeps `version` in its vtable (schema.fbs of TFLite, field 2).
_VERSION_SLOT = 8
FUTURE_VERSION = 99


def from_the_future(good: Bundle, *, version: str, key: Path, output: Path) -> Bundle:
    """Raise one op of a bundle's model to version 99, repack and sign it properly."""
    return _repacked(good, raised(good.read(MODEL)), version=version, key=key, output=output)


def raised(model: bytes) -> bytes:
    """Return the model with its first op that says a version at `FUTURE_VERSION`. Raises ValueError without one."""
    from tflite.Model import Model

    root = Model.GetRootAs(model, 0)
    for number in range(root.OperatorCodesLength()):
        table = root.OperatorCodes(number)._tab  # noqa: SLF001 - the reader has no setter
        offset = table.Offset(_VERSION_SLOT)
        if offset:
            patched = bytearray(model)
            struct.pack_into("<i", patched, table.Pos + offset, FUTURE_VERSION)
            return bytes(patched)
    raise ValueError("every op of the model is at its first version, which the file does not write down")


def tampered(good: Bundle, *, version: str, output: Path) -> Bundle:
    """Swap two labels of a signed bundle and mend the manifest's digests; the signature stays the old one."""
    members = archive.members(good.path)
    names = members[LABELS].decode().splitlines()
    names[0], names[1] = names[1], names[0]
    files = {name: data for name, data in members.items() if name not in (MANIFEST, SIGNATURE)}
    files[LABELS] = "".join(f"{name}\n" for name in names).encode()
    later = dataclasses.replace(good.manifest, version=version, release=good.manifest.release + 1)
    forged = build.seal(later, files, key=None)
    return archive.Bundle.open(archive.write(output, {**forged, SIGNATURE: members[SIGNATURE]}))


def mixed_up(good: Bundle, other_model: bytes, *, version: str, key: Path, output: Path) -> Bundle:
    """Pack another model with the goldens of the good one, and sign it properly."""
    return _repacked(good, other_model, version=version, key=key, output=output)


def _repacked(good: Bundle, model: bytes, *, version: str, key: Path, output: Path) -> Bundle:
    members = archive.members(good.path)
    files = {name: data for name, data in members.items() if name not in (MANIFEST, SIGNATURE)}
    with tempfile.NamedTemporaryFile(suffix=".tflite") as file:
        file.write(model)
        file.flush()
        requirements = inspect_model(Path(file.name)).requirements
    later = dataclasses.replace(
        good.manifest, version=version, release=good.manifest.release + 1, requirements=requirements
    )
    return archive.Bundle.open(archive.write(output, build.seal(later, {**files, MODEL: model}, key=key)))
