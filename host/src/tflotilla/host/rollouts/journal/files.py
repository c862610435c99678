"""The files around an SQLite journal: its lock, its audit head, and how a saved one takes a damaged one's place.

    rollouts.db.head                  number and digest of the last audit entry
    rollouts.db.damaged-TIME[-wal]    what was damaged, as it was found
    rollouts.db.saved[-head]          what could be saved, complete: from here on the exchange is only finished

Rules it keeps: a power cut at any step leaves the damaged one to be saved once more, or the exchange to be finished; a
write-ahead log never comes to lie beside a database that isn't its own.
What it does NOT do: read or write databases.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import tempfile
import time
from typing import TYPE_CHECKING

from tflotilla.host.rollouts.journal.audit import Head
from tflotilla.shared.contract import codec
from tflotilla.shared.contract.errors import ContractError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_LOG = "-wal"
#: Belongs to processes that have the database open, and holds nothing that lasts.
_INDEX = "-shm"
_HEADER, _SMALLEST_PAGE = 100, 512
_SAVED = ".saved"
_SAVED_HEAD = ".saved-head"


def head_file(database: Path) -> Path:
    """Return where the head of a database's audit log is kept."""
    return _beside(database, ".head")


def head(file: Path | None) -> Head | None:
    """Return the audit entry that was last known; None where nobody knows."""
    if file is None:
        return None
    try:
        return codec.decode(Head, codec.parse_json(file.read_bytes(), file.name), file.name)
    except (OSError, ContractError):
        return None


def keep_head(file: Path | None, last: Head) -> None:
    """Remember the last audit entry, as far as that can be written: the log itself is safe already."""
    known = head(file)
    if file is None or (known is not None and known.number >= last.number):
        return
    with contextlib.suppress(OSError):
        _write(file, last)


def has_bytes(file: Path) -> bool:
    """Whether there is such a file and anything in it. Raises OSError when that can't be told."""
    try:
        return file.stat().st_size > 0
    except FileNotFoundError:
        return False


def is_cut_off(database: Path) -> bool:
    """Whether a database ends within a page, which SQLite takes for one that ends in zeros, or for an empty one.

    Raises OSError. Its header is described in https://sqlite.org/fileformat2.html#the_database_header
    """
    try:
        with database.open("rb") as stream:
            header = stream.read(_HEADER)
            size = os.fstat(stream.fileno()).st_size
    except FileNotFoundError:
        return False
    # 1 stands for 65536, which is no multiple of 512.
    page = int.from_bytes(header[16:18], "big") if len(header) == _HEADER else _SMALLEST_PAGE
    return 0 < size < _SMALLEST_PAGE or (page >= _SMALLEST_PAGE and size % page != 0)


def what_is_left(database: Path) -> str:
    """Return in words what became of a database that can't be opened as one."""
    return "cut off" if has_bytes(database) else "empty" if database.exists() else "gone"


def there(database: Path) -> bool:
    """Whether there is a journal, or anything that was part of one."""
    parts = (database, _beside(database, _LOG), _beside(database, _SAVED), head_file(database))
    return any(map(has_bytes, parts))


def contents(database: Path) -> tuple[bytes, bytes]:
    """Return the bytes of a database and of its write-ahead log; empty where one is not there."""
    return _read(database), _read(_beside(database, _LOG))


@contextlib.contextmanager
def locked(database: Path) -> Iterator[None]:
    """Keep other processes from saving the same file at once. Raises OSError."""
    with _beside(database, ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def scratch(database: Path) -> Path:
    """Return where what can be saved is to be written; whatever an interrupted attempt left there is gone."""
    path = _beside(database, ".saving")
    for part in ("", "-journal", _LOG, _INDEX):
        _beside(path, part).unlink(missing_ok=True)
    return path


def set_aside(database: Path, at: float) -> Path:
    """Keep a damaged database and its log under a name of their own, where they are also left; return the name."""
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(at))
    kept = _beside(database, f".damaged-{stamp}")
    number = 1
    while kept.exists():
        number += 1
        kept = _beside(database, f".damaged-{stamp}-{number}")
    for part in ("", _LOG):
        if has_bytes(_beside(database, part)):
            shutil.copyfile(_beside(database, part), _beside(kept, part))
    return kept


def exchange(database: Path, saved: Path, last: Head) -> None:
    """Put what was saved in the damaged one's place."""
    _write(_beside(database, _SAVED_HEAD), last)
    saved.replace(_beside(database, _SAVED))
    _sync(database.parent)
    finish(database)


def finish(database: Path) -> None:
    """Finish an exchange that was interrupted; nothing to do where there was none."""
    saved = _beside(database, _SAVED)
    if not saved.exists():
        return
    for part in (_LOG, _INDEX):
        _beside(database, part).unlink(missing_ok=True)
    with contextlib.suppress(FileNotFoundError):
        _beside(database, _SAVED_HEAD).replace(head_file(database))
    _sync(database.parent)
    saved.replace(database)
    _sync(database.parent)


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""


def _write(file: Path, last: Head) -> None:
    handle, temporary = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
    with os.fdopen(handle, "w") as stream:
        stream.write(json.dumps(codec.encode(last)) + "\n")
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(temporary, file)  # noqa: PTH105 - what mkstemp returns is a text


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
