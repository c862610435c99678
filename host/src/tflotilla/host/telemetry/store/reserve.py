"""Room on a disk for the moment when there is none: on a full disk even forgetting needs some.

A file beside the store that holds blocks and nothing else: given away, it lets a database write that it has less.
What it does NOT do: keep others from taking what it gave away; it is taken back when there is room again.
"""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_BYTES = 4 << 20
#: Taken only where that much is left for others.
_MOST_SHARE = 2


class Reserve:
    """The reserve of one file."""

    def __init__(self, file: Path) -> None:
        self._path = file.with_name(f"{file.name}-reserve")

    def take(self) -> None:
        """Have it, where there is room; nothing where there isn't, or where it is there."""
        with suppress(OSError):
            if self._path.exists() or shutil.disk_usage(self._path.parent).free < _MOST_SHARE * _BYTES:
                return
            handle = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            try:
                os.posix_fallocate(handle, 0, _BYTES)
            except OSError:
                self._path.unlink()
            finally:
                os.close(handle)

    def give(self) -> bool:
        """Give it away; whether there was one."""
        try:
            self._path.unlink()
        except OSError:
            return False
        return True
