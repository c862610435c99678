"""A disk that loses what a power cut loses, and one that is full: both implement the `Disk` port over a real folder.

The model is harsher than ext4: after a cut, a name is there only if its folder was synced since, and contents only if
the file was. `survivors` says which of two worlds one wakes up in, because a cut may lose everything that was not
synced, or nothing of the names and all of the contents.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from tflotilla.device.disk import RealDisk

if TYPE_CHECKING:
    from pathlib import Path

World = Literal["only what was synced", "names without contents"]
WORLDS: tuple[World, ...] = ("only what was synced", "names without contents")


class PowerCut(BaseException):
    """Raised in place of the operation at which the power goes."""


@dataclass(slots=True, eq=False)
class _File:
    durable: bytes
    now: bytes


@dataclass(slots=True, eq=False)
class _Link:
    text: str


@dataclass(slots=True, eq=False)
class _Folder:
    durable: dict[str, _Node] = field(default_factory=dict)
    now: dict[str, _Node] = field(default_factory=dict)


_Node = _File | _Link | _Folder


class SimulatedDisk(RealDisk):
    """Does everything for real below `root`, and keeps the books of what would survive.

    Operation number `cut_at` (from 0) does not happen: the power goes.
    """

    def __init__(self, root: Path, cut_at: int | None = None) -> None:
        self._root = root
        self._cut_at = cut_at
        self.log: list[str] = []
        self._tree = _read(root)

    def create(self, path: Path, data: bytes) -> None:
        self._count("create", path)
        super().create(path, data)
        self._parent(path).now[path.name] = _File(durable=data, now=data)

    def append(self, path: Path, data: bytes) -> None:
        self._count("append", path)
        super().append(path, data)
        file = self._parent(path).now.setdefault(path.name, _File(durable=b"", now=b""))
        assert isinstance(file, _File)
        file.now += data

    def sync_file(self, path: Path) -> None:
        self._count("sync_file", path)
        file = self._parent(path).now[path.name]
        assert isinstance(file, _File)
        file.durable = file.now

    def sync_folder(self, path: Path) -> None:
        self._count("sync_folder", path)
        folder = self._folder(path)
        folder.durable = dict(folder.now)

    def replace(self, source: Path, target: Path) -> None:
        self._count("replace", target)
        super().replace(source, target)
        self._parent(target).now[target.name] = self._parent(source).now.pop(source.name)

    def link(self, source: Path, target: Path) -> None:
        self._count("link", target)
        super().link(source, target)
        self._parent(target).now[target.name] = self._parent(source).now[source.name]

    def symlink(self, text: str, path: Path) -> None:
        self._count("symlink", path)
        super().symlink(text, path)
        self._parent(path).now[path.name] = _Link(text)

    def make_folder(self, path: Path) -> None:
        self._count("make_folder", path)
        super().make_folder(path)
        self._parent(path).now.setdefault(path.name, _Folder())

    def remove(self, path: Path) -> None:
        self._count("remove", path)
        super().remove(path)
        self._parent(path).now.pop(path.name, None)

    def wake_up(self, root: Path, world: World) -> None:
        """Write what survives the cut into a new folder."""
        _write(self._tree, root, world)

    def _count(self, operation: str, path: Path) -> None:
        if len(self.log) == self._cut_at:
            raise PowerCut
        self.log.append(f"{operation} {path.relative_to(self._root)}")

    def _parent(self, path: Path) -> _Folder:
        return self._folder(path.parent)

    def _folder(self, path: Path) -> _Folder:
        node: _Node = self._tree
        for part in path.relative_to(self._root).parts:
            assert isinstance(node, _Folder)
            node = node.now[part]
        assert isinstance(node, _Folder)
        return node


class FullDisk(RealDisk):
    """Has no room from operation number `full_from` on, until `full` is set to False."""

    def __init__(self, full_from: int) -> None:
        self._left = full_from
        self.full = True

    def create(self, path: Path, data: bytes) -> None:
        self._need_room()
        super().create(path, data)

    def append(self, path: Path, data: bytes) -> None:
        # As a real one: what fits is written, then it fails.
        try:
            self._need_room()
        except OSError:
            super().append(path, data[: len(data) // 2])
            raise
        super().append(path, data)

    def link(self, source: Path, target: Path) -> None:
        self._need_room()
        super().link(source, target)

    def symlink(self, text: str, path: Path) -> None:
        self._need_room()
        super().symlink(text, path)

    def make_folder(self, path: Path) -> None:
        self._need_room()
        super().make_folder(path)

    def _need_room(self) -> None:
        self._left -= 1
        if self.full and self._left < 0:
            raise OSError(errno.ENOSPC, "No space left on device")


def _read(path: Path) -> _Folder:
    """Take what lies in a folder as durable."""
    nodes: dict[str, _Node] = {}
    files: dict[int, _File] = {}
    _read_into(nodes, path, files)
    return _Folder(durable=dict(nodes), now=nodes)


def _read_into(nodes: dict[str, _Node], path: Path, files: dict[int, _File]) -> None:
    for entry in path.iterdir():
        if entry.is_symlink():
            nodes[entry.name] = _Link(str(entry.readlink()))
        elif entry.is_dir():
            inner: dict[str, _Node] = {}
            _read_into(inner, entry, files)
            nodes[entry.name] = _Folder(durable=dict(inner), now=inner)
        else:
            data = entry.read_bytes()
            nodes[entry.name] = files.setdefault(entry.stat().st_ino, _File(durable=data, now=data))


def _write(folder: _Folder, path: Path, world: World) -> None:
    path.mkdir(parents=True, exist_ok=True)
    for name, node in (folder.durable if world == "only what was synced" else folder.now).items():
        if isinstance(node, _Folder):
            _write(node, path / name, world)
        elif isinstance(node, _Link):
            (path / name).symlink_to(node.text)
        else:
            (path / name).write_bytes(node.durable)
