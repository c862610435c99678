"""The pinned host keys: OpenSSH's known_hosts, one line per board, the board's name as its comment.

What it does NOT do: decide whether a key is to be trusted, or speak SSH.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from tflotilla.host.fleet import state_files

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_FIELDS = 4


def read(path: Path) -> Mapping[str, tuple[str, str]]:
    """Return each board's key, as type and base64; nothing where there is no file. Raises OSError."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return {}
    return _read(path, (status.st_ino, status.st_mtime_ns, status.st_size))


def change(path: Path, lines: Mapping[str, str | None]) -> None:
    """Pin keys (lines of known_hosts without comment), or forget them (None). Raises OSError."""
    try:
        kept = [line for line in path.read_text().splitlines() if not set(line.split()[3:]) & set(lines)]
    except FileNotFoundError:
        kept = []
    kept += [f"{line} {name}" for name, line in lines.items() if line is not None]
    state_files.replace(path, "".join(f"{line}\n" for line in kept).encode())


@functools.lru_cache(maxsize=4)
def _read(path: Path, _version: tuple[int, int, int]) -> Mapping[str, tuple[str, str]]:
    # A file that is replaced has another inode: what is kept here is the file as it is, read once for 10,000 boards.
    found: dict[str, tuple[str, str]] = {}
    for line in path.read_text().splitlines():
        fields = line.split()
        if len(fields) == _FIELDS:
            found.setdefault(fields[3], (fields[1], fields[2]))
    return found
