"""Bundles for tests: real ones, quickly made, and taken apart to be spoilt."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests import models_made
from tflotilla.host.bundles import archive, build, sshsig
from tflotilla.host.bundles.archive import Bundle
from tflotilla.host.models.inspect import inspect_model
from tflotilla.shared.contract.manifest import GOLDENS, LABELS, MODEL, SCHEMA, FileEntry, GoldenPolicy, Manifest
from tflotilla.shared.contract.processing import Postprocessing, Preprocessing

if TYPE_CHECKING:
    from pathlib import Path


def model(folder: Path, name: str = "tiny_classifier") -> Path:
    """Write a committed model; its name in the folder is `NAME.tflite`."""
    path = folder / f"{name}.tflite"
    path.write_bytes(models_made.read(name))
    return path


def key(folder: Path, name: str = "key") -> Path:
    """Make a key without a passphrase."""
    return sshsig.generate_key(folder / name, comment=name)


def allowed_signers(folder: Path, *keys: Path) -> Path:
    """Write the file that lets these keys sign bundles, under the names of their files."""
    path = folder / "allowed_signers"
    path.write_text(
        "".join(
            f'{each.name} namespaces="tflotilla-bundle" {each.with_name(each.name + ".pub").read_text()}'
            for each in keys
        )
    )
    return path


def members(folder: Path, *, signed_by: Path | None = None, release: int = 1) -> dict[str, bytes]:
    """Return the members of a bundle whose goldens nobody made: enough for everything that doesn't run it."""
    path = model(folder)
    found = inspect_model(path)
    unknown = FileEntry(size=0, sha256="0" * 64)
    manifest = Manifest(
        schema=SCHEMA,
        name="tiny",
        version="1.0.0",
        release=release,
        created="2026-01-01T00:00:00Z",
        scheme=found.scheme,
        files={MODEL: unknown, GOLDENS: unknown},
        requirements=found.requirements,
        inputs=found.inputs,
        outputs=found.outputs,
        preprocessing=Preprocessing(colour="gray", std=(255.0,)),
        postprocessing=Postprocessing(),
        goldens=GoldenPolicy(count=1, runtime="none==1"),
    )
    files = {MODEL: path.read_bytes(), GOLDENS: b"not read here", LABELS: models_made.LABELS_TXT}
    return build.seal(manifest, files, key=signed_by)


def bundle(folder: Path, *, signed_by: Path | None = None, name: str = "tiny-1.0.0.tflb", release: int = 1) -> Bundle:
    """Write such a bundle and open it."""
    return Bundle.open(archive.write(folder / name, members(folder, signed_by=signed_by, release=release)))
