"""One process per role and home: a locked file that holds the process id of whoever has the lock.

The lock is the kernel's (flock), so it ends with its process however that dies; the number in the file is only
believed while the lock is held. What it does NOT do: signal anybody.
"""

from __future__ import annotations

import fcntl
import os
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_PATIENCE_S = 0.5
_POLL_S = 0.01


class PidLock:
    """Held from a successful `acquire` to `release`, or to the end of the process."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._handle: int | None = None

    def acquire(self) -> bool:
        """Take the lock and write our process id; False when another process has it. Raises OSError."""
        handle = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        # Somebody who only looks (`holder`) has it for microseconds: that is no reason to give up.
        deadline = time.monotonic() + _PATIENCE_S
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    os.close(handle)
                    return False
                time.sleep(_POLL_S)
        os.ftruncate(handle, 0)
        os.pwrite(handle, b"%d\n" % os.getpid(), 0)
        self._handle = handle
        return True

    def release(self) -> None:
        """Give the lock back; the file stays, because removing it would race with the next owner."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None


def holder(path: Path) -> int | None:
    """Return the process id of whoever holds the lock, None when nobody does."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        digits = os.read(handle, 32).strip()
        return int(digits) if digits.isdigit() else None
    finally:
        os.close(handle)
    return None
