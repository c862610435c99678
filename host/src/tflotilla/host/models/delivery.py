"""Files that appear whole or not at all.

What it does NOT do: find out beforehand whether there is room; a full disk ends with the old file, or none, in place.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from tflotilla.shared.contract.errors import InputError


def deliver(made: Path | bytes | str, target: Path) -> None:
    """Write beside the target, then rename: a reader sees the old file or the new one, never a part.

    A text is written in UTF-8; missing folders are made.

    Raises:
        InputError: the target can't be written; nothing of it stays.

    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _place(made, target)
    except OSError as error:
        raise InputError(f"{target} can't be written: {error.strerror or error}") from error


def check_writable(target: Path) -> None:
    """Find out before minutes of work whether `target` (or, when it is to be a folder, files in it) can be made.

    Raises:
        InputError: it can't.

    """
    folder = target.absolute()
    if folder.is_file():
        folder = folder.parent
    while not folder.exists():
        folder = folder.parent
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise InputError(f"{target} can't be written: {folder} is not a folder of yours")


def _place(made: Path | bytes | str, target: Path) -> None:
    descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.stem[:40]}-", suffix=".part")
    try:
        with os.fdopen(descriptor, "wb") as part:
            if isinstance(made, Path):
                with made.open("rb") as whole:
                    shutil.copyfileobj(whole, part)
            else:
                part.write(made.encode() if isinstance(made, str) else made)
            part.flush()
            os.fsync(part.fileno())
        Path(name).chmod(0o644)
        Path(name).replace(target)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
