"""The only door to durable files: few operations, each one step of a power cut's story.

Rules it keeps: `write` is all or nothing, also after a power cut; a name is durable only after `sync_folder` of the
folder it stands in, contents only after they were written here (every file is fsynced before it gets its name).
What it does NOT do: decide what is kept, or translate errors (`store` does).
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from pathlib import Path

_OWNER_ONLY = 0o600
_FOLDER_OWNER_ONLY = 0o700
#: Ends the name of a file that is not finished; one found at start is a leftover.
UNFINISHED = ".new"


class Disk(Protocol):
    """The port; all of its operations may raise OSError."""

    def create(self, path: Path, data: bytes) -> None:
        """Write and fsync a file; its name is not durable yet."""

    def append(self, path: Path, data: bytes) -> None:
        """Add to a file, not durably; on an error the file holds some of `data`."""

    def sync_file(self, path: Path) -> None:
        """Make the contents of a file durable."""

    def sync_folder(self, path: Path) -> None:
        """Make the names in a folder durable."""

    def replace(self, source: Path, target: Path) -> None:
        """Rename atomically over whatever stands at `target`."""

    def link(self, source: Path, target: Path) -> None:
        """Give a file a second name."""

    def symlink(self, text: str, path: Path) -> None:
        """Make a symbolic link that reads `text`."""

    def make_folder(self, path: Path) -> None:
        """Make a folder for the owner only; one that exists is kept."""

    def remove(self, path: Path) -> None:
        """Remove a file, a link or a whole folder; what is absent already is fine."""

    def free_bytes(self, path: Path) -> int:
        """Return how much an unprivileged writer may still write on the file system of `path`."""


class RealDisk:
    """The kernel's file systems."""

    def create(self, path: Path, data: bytes) -> None:
        """Write and fsync a file."""
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, _OWNER_ONLY)
        with open(handle, "wb") as stream:  # noqa: PTH123 - the mode must hold from the first moment
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())

    def append(self, path: Path, data: bytes) -> None:
        """Write without buffering, so that nothing fails later than here."""
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, _OWNER_ONLY)
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(handle, view) :]
        finally:
            os.close(handle)

    def sync_file(self, path: Path) -> None:
        """Open and fsync."""
        _sync(path, os.O_RDONLY)

    def sync_folder(self, path: Path) -> None:
        """Open and fsync."""
        _sync(path, os.O_RDONLY | os.O_DIRECTORY)

    def replace(self, source: Path, target: Path) -> None:
        """Call rename(2)."""
        source.replace(target)

    def link(self, source: Path, target: Path) -> None:
        """Make a hard link."""
        target.hardlink_to(source)

    def symlink(self, text: str, path: Path) -> None:
        """Make a symbolic link."""
        path.symlink_to(text)

    def make_folder(self, path: Path) -> None:
        """Call mkdir(2)."""
        path.mkdir(mode=_FOLDER_OWNER_ONLY, exist_ok=True)

    def remove(self, path: Path) -> None:
        """unlink(2), or the folder with everything in it."""
        if path.is_dir() and not path.is_symlink():
            # It brings every compression there is along, and few sessions remove a folder.
            import shutil

            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)

    def free_bytes(self, path: Path) -> int:
        """statvfs(3): f_bavail, which leaves out what is reserved for root."""
        figures = os.statvfs(path)
        return figures.f_bavail * figures.f_frsize


def _sync(path: Path, flags: int) -> None:
    handle = os.open(path, flags | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write(disk: Disk, path: Path, data: bytes) -> None:
    """Replace a file: after a power cut it holds the old bytes or the new, never a mixture."""
    unfinished = path.with_name(path.name + UNFINISHED)
    try:
        disk.create(unfinished, data)
    except OSError:
        disk.remove(unfinished)
        raise
    disk.replace(unfinished, path)
    disk.sync_folder(path.parent)


def point(disk: Disk, link: Path, text: str | None) -> None:
    """Switch a symbolic link atomically and durably; None removes it."""
    if text is None:
        disk.remove(link)
    else:
        unfinished = link.with_name(link.name + UNFINISHED)
        disk.remove(unfinished)
        disk.symlink(text, unfinished)
        disk.replace(unfinished, link)
    disk.sync_folder(link.parent)
