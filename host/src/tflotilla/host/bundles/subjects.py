"""A bundle as something to evaluate: its model, with the preprocessing and the labels that travel with it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tflotilla.host.bundles import archive
from tflotilla.host.models import datasets
from tflotilla.host.models.evaluate import Subject
from tflotilla.host.models.inspect import inspect_model
from tflotilla.shared.contract.manifest import LABELS, MANIFEST, MODEL

if TYPE_CHECKING:
    from pathlib import Path


def is_bundle(path: Path) -> bool:
    """Whether a path looks like a bundle: a `.tflb` file, or a folder with a manifest."""
    return path.suffix == archive.SUFFIX or (path.is_dir() and (path / MANIFEST).exists())


def unpack(path: Path, folder: Path) -> Subject:
    """Write a bundle's model and labels into `folder`, which is made.

    Raises:
        ContractError, VerificationError: not a bundle, or edited.
        ModelError: the model in it can't be read.

    """
    bundle = archive.Bundle.open(path)
    bundle.verify_files()
    folder.mkdir()
    file = folder / MODEL
    file.write_bytes(bundle.read(MODEL))
    labels: tuple[str, ...] = ()
    if LABELS in bundle.manifest.files:
        (folder / LABELS).write_bytes(bundle.read(LABELS))
        labels = datasets.read_labels(folder / LABELS)
    return Subject(
        given=path,
        file=file,
        inspection=inspect_model(file),
        preprocessing=bundle.manifest.preprocessing,
        labels=labels,
        labels_file=folder / LABELS if labels else None,
    )
