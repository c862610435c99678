"""The layers of environments, built and cached on the host: folders become archives named by what they hold.

Cache: $TFLOTILLA_CACHE or ~/.cache/tflotilla. Rules it keeps: an archive is visible only whole; two builders of one
environment take turns; equal content gives equal bytes. gzip at level 1: 115 MB become 41 MB in 2.6 s (level 6: 36 MB
in 6.9 s; xz: 22 MB in 34 s), and boards unpack it with the standard library.
What it does NOT do: import tflotilla.device; its files are payload.
"""

from __future__ import annotations

import contextlib
import fcntl
import gzip
import hashlib
import importlib.util
import io
import os
import shutil
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tflotilla.host.fleet.agents import environments
from tflotilla.host.packages import locks, uv, wheels
from tflotilla.shared.contract import codec, digest
from tflotilla.shared.contract.errors import BoardError, ContractError, InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from tflotilla.host.fleet.agents.environments import Target

CACHE_VARIABLE = "TFLOTILLA_CACHE"
_LEVEL = 1
#: Packages of the board's side, by import name.
_PAYLOAD = ("tflotilla.shared", "tflotilla.device")
_ARCHIVE = "layer.tar.gz"
_NOTE = "layer.json"
#: Archives that this process has read and found whole, by place, inode, size, time of change and digest.
_SEEN_WHOLE: set[tuple[object, ...]] = set()


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One archive: its name (`digest`), and what a board must know to take it."""

    digest: str
    archive: Path
    archive_sha256: str
    archive_bytes: int
    unpacked_bytes: int
    #: Digest of the layer that this one links to.
    packages: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Note:
    digest: str
    archive_sha256: str
    archive_bytes: int
    unpacked_bytes: int


def environment(target: Target, *, on_step: Callable[[str], None] = lambda _text: None) -> tuple[Layer, Layer]:
    """Return the packages for a target and the agent on top of them, from the cache or built.

    Raises:
        BoardError: the packages can't be had for this target.
        InputError: the cache can't be written.

    """
    try:
        packages = _packages(target, on_step)
        return packages, _payload(packages.digest)
    except OSError as error:
        message = f"the cache {cache()} can't be written: {error.strerror or error} (set ${CACHE_VARIABLE})"
        raise InputError(message) from error


def cache() -> Path:
    """Return the folder of built environments."""
    given = os.environ.get(CACHE_VARIABLE)
    return Path(given).absolute() if given else Path.home() / ".cache" / "tflotilla"


def _packages(target: Target, on_step: Callable[[str], None]) -> Layer:
    requirements = locks.find(f"device-{target.requirements}")
    recipe = f"{environments.RECIPE} {target.platform} {target.python} {digest.of_file(requirements)}"
    folder = cache() / "environments" / digest.of_bytes(recipe.encode())
    with _turn(folder):
        found = _load(folder)
        if found is not None:
            return found
        on_step(f"building the environment {target}")
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".build-") as scratch:
            _install(Path(scratch), requirements, target)
            on_step(f"packing the environment {target}")
            return _store(folder, ((path, Path(scratch) / path) for path in _tree(Path(scratch), environments.needed)))


def _install(folder: Path, requirements: Path, target: Target) -> None:
    if target.requirements == environments.ARM_32:
        kept = cache() / "wheels"
        wheels.install_for(
            folder, requirements, platform=target.platform, python=target.python, name=str(target), cache=kept
        )
    else:
        uv.install_for(folder, requirements, platform=target.platform, python=target.python, name=str(target))


def sources() -> tuple[str, ...]:
    """Return the kinds of sources that the agent knows, as it is sent: one file each."""
    spec = importlib.util.find_spec("tflotilla.device")
    roots = () if spec is None else spec.submodule_search_locations or ()
    return tuple(sorted(p.stem for root in roots for p in Path(root, "sources").glob("*.py") if p.stem != "__init__"))


def _payload(packages: str) -> Layer:
    files: list[tuple[str, Path]] = []
    for name in _PAYLOAD:
        spec = importlib.util.find_spec(name)
        if spec is None or not spec.submodule_search_locations:
            message = f"{name} is not installed beside tflotilla.host; install tflotilla-device"
            raise BoardError(message)
        root = Path(next(iter(spec.submodule_search_locations)))
        inner = name.replace(".", "/")
        files += [(f"{inner}/{path}", root / path) for path in _tree(root, environments.needed)]
    recipe = environments.layer_digest(_digests(files), packages)
    folder = cache() / "agents" / recipe
    with _turn(folder):
        return _load(folder, packages) or _store(folder, files, packages)


def _tree(root: Path, wanted: Callable[[str], bool]) -> Iterator[str]:
    for path in sorted(root.rglob("*")):
        relative = path.relative_to(root).as_posix()
        if path.is_file() and "__pycache__" not in path.parts and wanted(relative):
            yield relative


def _digests(files: Iterable[tuple[str, Path]]) -> Iterator[tuple[str, int, str]]:
    for name, path in files:
        yield name, _mode(path), digest.of_file(path)


def _mode(path: Path) -> int:
    return 0o755 if os.access(path, os.X_OK) else 0o644


@contextlib.contextmanager
def _turn(folder: Path) -> Iterator[None]:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / f".{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _load(folder: Path, packages: str | None = None) -> Layer | None:
    archive = folder / _ARCHIVE
    try:
        note = codec.decode(_Note, codec.parse_json((folder / _NOTE).read_bytes(), _NOTE), _NOTE)
        whole = _is_whole(archive, note)
    except (OSError, ContractError):
        return None
    # A damaged cache is built again, never sent.
    return _layer(folder, note, packages) if whole else None


def _is_whole(archive: Path, note: _Note) -> bool:
    """Whether an archive is what its note says; many boards at once must not each read 40 MB for it."""
    status = archive.stat()
    seen = (str(archive), status.st_ino, status.st_size, status.st_mtime_ns, note.archive_sha256)
    if seen in _SEEN_WHOLE:
        return True
    if status.st_size != note.archive_bytes or digest.of_file(archive) != note.archive_sha256:
        return False
    _SEEN_WHOLE.add(seen)
    return True


def _layer(folder: Path, note: _Note, packages: str | None) -> Layer:
    return Layer(
        digest=note.digest,
        archive=folder / _ARCHIVE,
        archive_sha256=note.archive_sha256,
        archive_bytes=note.archive_bytes,
        unpacked_bytes=note.unpacked_bytes,
        packages=packages,
    )


def _store(folder: Path, files: Iterable[tuple[str, Path]], packages: str | None = None) -> Layer:
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".pack-") as scratch:
        archive = Path(scratch) / _ARCHIVE
        listing, unpacked = _pack(archive, files)
        note = _Note(
            digest=environments.layer_digest(listing, packages),
            archive_sha256=digest.of_file(archive),
            archive_bytes=archive.stat().st_size,
            unpacked_bytes=unpacked,
        )
        (Path(scratch) / _NOTE).write_bytes(codec.canonical_json(note))
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for name in (_ARCHIVE, _NOTE):
            (Path(scratch) / name).replace(folder / name)
    return _layer(folder, note, packages)


def _pack(archive: Path, files: Iterable[tuple[str, Path]]) -> tuple[list[tuple[str, int, str]], int]:
    listing, unpacked = [], 0
    with (
        archive.open("wb") as raw,
        gzip.GzipFile(filename="", mode="wb", compresslevel=_LEVEL, fileobj=raw, mtime=0) as stream,
        tarfile.open(fileobj=stream, mode="w|", format=tarfile.PAX_FORMAT) as members,
    ):
        for name, path in sorted(files):
            data = path.read_bytes()
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(data), _mode(path)
            members.addfile(info, io.BytesIO(data))
            listing.append((name, info.mode, hashlib.sha256(data).hexdigest()))
            # On a disk of 4 KiB blocks.
            unpacked += -(-len(data) // 4096) * 4096
    return listing, unpacked
