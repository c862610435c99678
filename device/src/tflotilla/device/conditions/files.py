"""Small files of the kernel, read so that nothing in them can hurt: bounded, and None when they tell nothing.

What this module does NOT do: know what a file means.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

#: Larger than `/proc/stat` of a machine with hundreds of interrupts; files of the kernel have no length to ask for.
_LIMIT_BYTES = 1 << 18


def text(path: Path) -> str | None:
    """Return what the file holds, None when it can't be read (a sensor that is switched off answers EINVAL, too)."""
    try:
        # Not blocking: what is a pipe in a strange tree must not hold up a measurement.
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError):
        return None
    try:
        parts = []
        left = _LIMIT_BYTES
        while left > 0 and (data := os.read(handle, left)):
            parts.append(data)
            left -= len(data)
        return b"".join(parts).decode(errors="replace")
    except OSError:
        return None
    finally:
        os.close(handle)


def word(path: Path) -> str | None:
    """Return the file's first line without the space around it, None when that is nothing or no plain text."""
    found = (text(path) or "").replace("\0", "").strip()
    line = found.splitlines()[0].strip() if found else ""
    return line if line and line.isprintable() and "\ufffd" not in line else None


def whole(path: Path, *, least: int, most: int, base: int = 10) -> int | None:
    """Return the whole number a file holds, None when it holds none from `least` to `most`."""
    return number(text(path), least=least, most=most, base=base)


def number(written: str | None, *, least: int, most: int, base: int = 10) -> int | None:
    """Return the whole number that is written there, None when it is none from `least` to `most`."""
    if written is None or not written.isascii():
        return None
    try:
        value = int(written, base)
    except ValueError:
        return None
    return value if least <= value <= most else None


def listed(folder: Path, pattern: str) -> tuple[Path, ...]:
    """Return what matches in a folder, sorted; nothing when the folder can't be read."""
    try:
        return tuple(sorted(folder.glob(pattern)))
    except OSError:
        return ()
