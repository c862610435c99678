"""The samples that a benchmark was sent: files in the home by their digest, there until the benchmark is over.

Rules it keeps: a file is visible only under its verified digest; nothing larger than the contract allows is taken;
space is asked for before it is written. They are looked at and never run, so nobody signs them.
What it does NOT do: look into them (the child that measures does).
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from tflotilla.device.disk import Disk, RealDisk
from tflotilla.device.incoming import Incoming
from tflotilla.shared.contract import digest
from tflotilla.shared.contract.errors import BoardError, ContractError, VerificationError
from tflotilla.shared.contract.session import MAX_SAMPLES_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from pathlib import Path

    from tflotilla.device.store import Store

_PART = ".part"


class Samples:
    """The samples of one home."""

    def __init__(self, store: Store, disk: Disk | None = None, clock: Callable[[], float] = time.time) -> None:
        """`store` says how much space there is."""
        self._store = store
        self._folder = store.home.samples
        self._disk = disk or RealDisk()
        self._clock = clock

    def path(self, sha256: str) -> Path:
        """Return where samples lie. Raises BoardError when they are not here, ContractError for what is no digest."""
        try:
            path = self._folder / digest.check(sha256)
        except ValueError as error:
            raise ContractError(f"samples: {error}") from error
        if not path.is_file():
            raise BoardError(f"samples {digest.short(sha256)} are not on this board; send them first")
        return path

    def has(self, sha256: str) -> bool:
        """Whether they are here, whole; then they are as young as if they came now. Raises ContractError: no digest."""
        try:
            path = self.path(sha256)
        except BoardError:
            return False
        try:
            # Whoever asks is about to use them, and must find them when they do: `tidy` spares what is young.
            os.utime(path)
        except OSError:
            # Tidied away in this moment, or another user's: they are sent anew.
            return False
        return True

    def receive(self, sha256: str, size: int) -> Incoming:
        """Take samples that begin to come; what an earlier, broken transfer left is dropped.

        Raises:
            ContractError: the digest isn't one, or they are too large.
            BoardError: no space.

        """
        try:
            partial = self._folder / (digest.check(sha256) + _PART)
        except ValueError as error:
            raise ContractError(f"samples: {error}") from error
        if not 0 < size <= MAX_SAMPLES_BYTES:
            raise ContractError(f"samples of {size} bytes: at most {MAX_SAMPLES_BYTES >> 20} MiB can be sent")
        self._store.require_space(size)
        try:
            self._disk.make_folder(self._folder)
            self._disk.remove(partial)
        except OSError as error:
            raise self._failed(error) from error
        return Incoming(
            0, size, write=lambda data, _at: self._append(partial, data), finish=lambda: self._keep(partial, sha256)
        )

    def tidy(self, keep: Collection[str], *, older_than_s: float = 0.0) -> None:
        """Remove all samples but these and younger ones, which somebody may be about to use. Raises BoardError."""
        now = self._clock()
        try:
            for entry in tuple(self._folder.iterdir()) if self._folder.is_dir() else ():
                if entry.name not in keep and now - entry.stat().st_mtime >= older_than_s:
                    self._disk.remove(entry)
        except OSError as error:
            raise self._failed(error) from error

    def _append(self, partial: Path, data: bytes) -> None:
        try:
            self._disk.append(partial, data)
        except OSError as error:
            self._disk.remove(partial)
            raise self._failed(error) from error

    def _keep(self, partial: Path, sha256: str) -> None:
        try:
            if digest.of_file(partial) != sha256:
                self._disk.remove(partial)
                raise VerificationError(f"samples {digest.short(sha256)} arrived damaged; send them again")
            self._disk.replace(partial, self._folder / sha256)
        except OSError as error:
            raise self._failed(error) from error

    def _failed(self, error: OSError) -> BoardError:
        return BoardError(f"the board's disk failed to keep samples in {self._folder}: {error.strerror or error}")
