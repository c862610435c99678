"""A verified bundle as the processes that run it read it: manifest, labels, and files whose bytes are checked again.

The store verified the bundle when it came; cards decay. A corrupt model can crash a runtime or, worse, run, so the
bytes are hashed once more before each load (10 ms for 4 MB). What it does NOT do: check signatures, or write.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tflotilla.shared.contract import digest
from tflotilla.shared.contract.errors import BoardError, VerificationError
from tflotilla.shared.contract.manifest import GOLDENS, LABELS, MANIFEST, MODEL, Manifest


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleFolder:
    """One bundle's folder; `path` is absolute, as the supervisor gave it."""

    path: Path
    manifest: Manifest

    @classmethod
    def open(cls, path: Path) -> BundleFolder:
        """Read the manifest.

        Raises:
            BoardError: the folder can't be read.
            ContractError: its manifest can't be understood.

        """
        try:
            data = (path / MANIFEST).read_bytes()
        except OSError as error:
            message = f"{path}: {MANIFEST} can't be read ({error.strerror})"
            raise BoardError(message) from error
        return cls(path=path, manifest=Manifest.from_bytes(data, str(path / MANIFEST)))

    def read(self, name: str) -> bytes:
        """Return a file of the bundle, unchanged since it was signed. Raises BoardError, VerificationError."""
        entry = self.manifest.files.get(name)
        if entry is None:
            message = f"{self.path}: the manifest names no {name}"
            raise VerificationError(message)
        try:
            data = (self.path / name).read_bytes()
        except OSError as error:
            message = f"{self.path}: {name} can't be read ({error.strerror})"
            raise BoardError(message) from error
        if len(data) != entry.size or digest.of_bytes(data) != entry.sha256:
            message = f"{self.path}: {name} is not the file that was signed; its bytes have changed on this board"
            raise VerificationError(message)
        return data

    def model(self) -> Path:
        """Return the path of the model after checking its bytes: a runtime maps the file, which costs no memory."""
        self.read(MODEL)
        return self.path / MODEL

    def goldens(self) -> bytes:
        """Return the golden vectors' file, checked."""
        return self.read(GOLDENS)

    def labels(self) -> tuple[str, ...]:
        """Return the labels, one per line of the file; none when the bundle has none."""
        if LABELS not in self.manifest.files:
            return ()
        return tuple(line.strip() for line in self.read(LABELS).decode(errors="replace").splitlines())
