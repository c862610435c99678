"""Files of bundles that were pushed, on this machine: what a difference to the next release is taken against.

Rules it keeps: a file is named by its digest and verified each time it is read; it is visible only whole; the longest
unused go when there is no room. A cache that can't be written or read is no cache, never an error.
What it does NOT do: know which board has what (the board says so), or keep anything that is needed: it may be deleted.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from pathlib import Path
from typing import IO

from tflotilla.shared.contract import digest

LIMIT_BYTES = 2 << 30
FOLDER = "blobs"


class BlobCache:
    """A folder of files by digest; safe to use from several processes and threads at once."""

    def __init__(self, folder: Path, *, limit_bytes: int = LIMIT_BYTES) -> None:
        """Use a folder, made when something is kept."""
        self._folder = folder
        self._limit_bytes = limit_bytes

    def keep(self, sha256: str, size: int, source: IO[bytes]) -> None:
        """Keep a file, from its beginning; one that is here already was used just now."""
        path = self._path(sha256)
        with contextlib.suppress(OSError):
            if path.exists():
                os.utime(path)
                return
            if size > self._limit_bytes // 2:
                return
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".blob-")
            try:
                with os.fdopen(handle, "wb") as stream:
                    shutil.copyfileobj(source, stream, 1 << 20)
                Path(temporary).replace(path)
            except BaseException:
                Path(temporary).unlink(missing_ok=True)
                raise
            self._make_room(path)

    def has(self, sha256: str) -> bool:
        """Whether there is such a file; whether it is sound, `read` says."""
        return self._path(sha256).is_file()

    def read(self, sha256: str) -> bytes | None:
        """Return a file's bytes; None when it isn't here, or isn't what its name says."""
        path = self._path(sha256)
        with contextlib.suppress(OSError):
            data = path.read_bytes()
            if digest.of_bytes(data) == sha256:
                os.utime(path)
                return data
            path.unlink()
        return None

    def _path(self, sha256: str) -> Path:
        """Raises ValueError for what is no digest."""
        return self._folder / digest.check(sha256)

    def _make_room(self, newest: Path) -> None:
        found = []
        for entry in os.scandir(self._folder):
            with contextlib.suppress(FileNotFoundError):
                if entry.is_file(follow_symlinks=False):
                    status = entry.stat(follow_symlinks=False)
                    found.append((status.st_mtime_ns, status.st_size, entry.path))
        total = sum(size for _used, size, _path in found)
        for _used, size, path in sorted(found):
            if total <= self._limit_bytes:
                return
            if path != str(newest):
                # Somebody else may have made room already.
                with contextlib.suppress(FileNotFoundError):
                    Path(path).unlink()
                total -= size
