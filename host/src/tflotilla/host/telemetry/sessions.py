"""The name under which a collector has its session at the broker: the same again each time, and nobody else's.

Two of one name would take the session from each other for ever, and mosquitto tells neither why. So the name is drawn
once, stands in a file beside fleet.toml, and the file is locked while somebody goes by it.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tflotilla.shared.contract.errors import ConflictError, InputError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_DRAWN = re.compile(r"[0-9a-f]{12}")


@contextmanager
def held(folder: Path, role: str) -> Iterator[str]:
    """Hold what was drawn for `role` (a file's name) in `folder` for the time of the block.

    Raises:
        ConflictError: another process holds it.
        InputError: the file can't be made.

    """
    path = folder / f"{role}.session"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise InputError(f"{path} can't be made: {error.strerror}") from error
    with os.fdopen(handle, "r+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConflictError(
                f"a collector goes by {path} already; end it, or give this one a --name (and both a --share, to divide"
                " the work)"
            ) from error
        drawn = file.read(100).strip()
        if not _DRAWN.fullmatch(drawn):
            drawn = secrets.token_hex(6)
            file.seek(0)
            file.truncate()
            file.write(drawn + "\n")
            file.flush()
        yield drawn
