"""A bundle on disk: a folder, or one `.tflb` file, which is a zip of the same flat set of files.

Rules it keeps:
- reading is safe on hostile input: plain names only, each once, no links, nothing that the manifest doesn't name, no
  file larger than the manifest says; zip members are stored, never compressed, so there is nothing to inflate;
- writing is deterministic (sorted, stored, fixed times, fixed modes) and atomic: a reader sees the old or the new one;
- `read` gives checked bytes only. `open_file` gives raw ones: the board checks what it receives.

What it does NOT do: decide whether a signature is good (`signing`), or understand the files.

A test that needs a tampered bundle takes it apart and writes it again, signature and all:

    members = archive.members(path)
    archive.write(target, members | {"model.tflite": other_bytes})
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import re
import shutil
import stat
import struct
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

from tflotilla.shared.contract import digest as digests
from tflotilla.shared.contract.errors import ContractError, InputError, VerificationError
from tflotilla.shared.contract.manifest import MANIFEST, SIGNATURE, Manifest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

SUFFIX = ".tflb"
#: A flatbuffer's offsets end here, so a model can't be larger.
MAX_FILE_BYTES = 2 << 30
MAX_MANIFEST_BYTES = 1 << 20
MAX_SIGNATURE_BYTES = 64 << 10
_MAX_MEMBERS = 64
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_ZIP_EPOCH = (1980, 1, 1, 0, 0, 0)
_ZIP_START = b"PK\x03\x04"
_UNIX = 3
_FILE_MODE = 0o644
#: The fixed part of a zip's local header; the last two fields say how long name and extra are.
_LOCAL_HEADER = struct.Struct("<26xHH")
_PIECE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """One bundle whose shape was checked; whether its bytes are the manifest's, `verify_files` says."""

    path: Path
    manifest: Manifest
    manifest_bytes: bytes
    #: The armoured SSHSIG over `manifest_bytes`; None when nobody signed it.
    signature: bytes | None
    #: SHA-256 of `manifest_bytes`: the bundle's name on boards.
    digest: str

    @classmethod
    def open(cls, path: Path) -> Bundle:
        """Open a folder or a `.tflb` file.

        Raises:
            InputError: nothing is there, or it is neither.
            ContractError: it is not a bundle: names, manifest, or files that don't belong together.
            VerificationError: a file's size is not what the manifest says.

        """
        sizes = _sizes(path)
        if MANIFEST not in sizes:
            raise ContractError(f"{path}: not a bundle, it has no {MANIFEST}")
        for name, limit in ((MANIFEST, MAX_MANIFEST_BYTES), (SIGNATURE, MAX_SIGNATURE_BYTES)):
            if sizes.get(name, 0) > limit:
                raise ContractError(f"{path}: {name} is larger than {limit} bytes")
        manifest_bytes = _read(path, MANIFEST, sizes[MANIFEST])
        manifest = Manifest.from_bytes(manifest_bytes, where=f"{path.name}: {MANIFEST}")
        _check_shape(path, manifest, sizes)
        return cls(
            path=path,
            manifest=manifest,
            manifest_bytes=manifest_bytes,
            signature=_read(path, SIGNATURE, sizes[SIGNATURE]) if SIGNATURE in sizes else None,
            digest=digests.of_bytes(manifest_bytes),
        )

    @property
    def size_bytes(self) -> int:
        """What all files of the manifest take together."""
        return sum(entry.size for entry in self.manifest.files.values())

    def read(self, name: str) -> bytes:
        """Return a file of the manifest. Raises VerificationError when it isn't the one the manifest names."""
        entry = self.manifest.files[name]
        data = _read(self.path, name, entry.size)
        if digests.of_bytes(data) != entry.sha256:
            raise VerificationError(_edited(self.path, name))
        return data

    @contextlib.contextmanager
    def open_file(self, name: str) -> Iterator[IO[bytes]]:
        """Open a file of the manifest for reading and seeking; its bytes are NOT checked."""
        if name not in self.manifest.files:
            raise KeyError(name)
        with _open_member(self.path, name) as stream:
            yield stream

    def verify_files(self) -> None:
        """Hash every file. Raises VerificationError naming the first that isn't the one the manifest names."""
        for name, entry in sorted(self.manifest.files.items()):
            with self.open_file(name) as stream:
                actual = _hash(stream)
            if actual != entry.sha256:
                raise VerificationError(_edited(self.path, name))


def members(path: Path) -> dict[str, bytes]:
    """Return every file of a bundle, manifest and signature too, unchecked: for taking one apart."""
    return {name: _read(path, name, size) for name, size in _sizes(path).items()}


def write(target: Path, files: Mapping[str, bytes]) -> Path:
    """Write a bundle atomically: a zip when `target` ends in `.tflb`, otherwise a folder; returns `target`.

    An older bundle at `target` is replaced; any other folder there is refused.

    Raises:
        InputError: the folder can't be written, or `target` is something else.

    """
    for name in files:
        if not _NAME.fullmatch(name):
            raise ContractError(f"{name!r} is not a plain file name")
    try:
        if target.suffix == SUFFIX:
            _write_zip(target, files)
        else:
            _write_folder(target, files)
    except OSError as error:
        raise InputError(f"{target}: can't be written: {error.strerror or error}") from error
    return target


def _check_shape(path: Path, manifest: Manifest, sizes: Mapping[str, int]) -> None:
    strangers = sorted(sizes.keys() - manifest.files.keys() - {MANIFEST, SIGNATURE})
    if strangers:
        raise ContractError(f"{path}: holds {strangers[0]!r}, which its manifest doesn't name")
    for name, entry in sorted(manifest.files.items()):
        if name not in sizes:
            raise ContractError(f"{path}: {name} is missing; the manifest names it")
        if entry.size > MAX_FILE_BYTES:
            raise ContractError(f"{path}: {name} is {entry.size} bytes; no file of a bundle is larger than 2 GiB")
        if sizes[name] != entry.size:
            raise VerificationError(
                f"{path}: {name} is {sizes[name]} bytes and the manifest says {entry.size}: "
                "it was edited after the manifest was made"
            )


def _sizes(path: Path) -> dict[str, int]:
    """List the files, name → size in bytes. Every way in goes through here: a name that isn't plain ends it."""
    try:
        found = _folder_sizes(path) if path.is_dir() else _zip_sizes(path)
    except FileNotFoundError as error:
        raise InputError(f"{path}: there is no such bundle") from error
    except OSError as error:
        raise InputError(f"{path}: can't be read: {error.strerror or error}") from error
    if len(found) > _MAX_MEMBERS:
        raise ContractError(f"{path}: more than {_MAX_MEMBERS} files; this is not a bundle")
    return found


def _folder_sizes(path: Path) -> dict[str, int]:
    found = {}
    if not (path / MANIFEST).exists():
        raise ContractError(f"{path}: not a bundle, it has no {MANIFEST}")
    for entry in os.scandir(path):
        _check_name(path, entry.name)
        status = entry.stat(follow_symlinks=False)
        if not stat.S_ISREG(status.st_mode):
            raise ContractError(f"{path}: {entry.name} is not a plain file; links and folders don't belong in a bundle")
        found[entry.name] = status.st_size
    return found


def _zip_sizes(path: Path) -> dict[str, int]:
    found: dict[str, int] = {}
    total = path.stat().st_size
    with path.open("rb") as stream:
        if stream.read(len(_ZIP_START)) != _ZIP_START:
            raise ContractError(f"{path}: not a bundle; one is a {SUFFIX} file or a folder with a {MANIFEST}")
    with _zip(path) as archive:
        for info in archive.infolist():
            _check_name(path, info.filename)
            if info.filename in found:
                raise ContractError(f"{path}: holds {info.filename} twice")
            if info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size or info.flag_bits & 1:
                raise ContractError(
                    f"{path}: {info.filename} is compressed or encrypted; a bundle holds its files as they are"
                )
            if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG):
                raise ContractError(f"{path}: {info.filename} is not a plain file; links don't belong in a bundle")
            if not 0 <= info.header_offset <= total - info.file_size:
                # Believed, such a figure would be asked of the memory before it is asked of the file.
                raise ContractError(f"{path}: not a complete bundle: {info.filename} does not lie in the file")
            found[info.filename] = info.file_size
    return found


def _check_name(path: Path, name: str) -> None:
    if not _NAME.fullmatch(name):
        raise ContractError(f"{path}: holds {name[:80]!r}, which is not a plain file name; this is not a bundle")


@contextlib.contextmanager
def _zip(path: Path) -> Iterator[zipfile.ZipFile]:
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except (zipfile.BadZipFile, NotImplementedError, EOFError, UnicodeDecodeError) as error:
        raise ContractError(f"{path}: not a complete bundle: {error}") from error


class _Slice(io.RawIOBase):
    """A stored member, read where it lies: seekable without reading what stands before, and without zip's CRC.

    The manifest's SHA-256 is the check; a CRC that fails first would only blur the message.
    """

    def __init__(self, stream: IO[bytes], start: int, size: int) -> None:
        super().__init__()
        self._stream, self._start, self._size, self._at = stream, start, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        self._at = min(max(0, base + offset), self._size)
        return self._at

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        self._stream.seek(self._start + self._at)
        data = self._stream.read(min(len(buffer), self._size - self._at))
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)

    def close(self) -> None:
        self._stream.close()
        super().close()


def _open_member(path: Path, name: str) -> IO[bytes]:
    """Open one file. Callers close it; what they raise meanwhile is theirs."""
    try:
        if path.is_dir():
            descriptor = os.open(path / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            return os.fdopen(descriptor, "rb")
        with _zip(path) as archive:
            info = archive.getinfo(name)
        stream = path.open("rb")
    except KeyError as error:
        raise ContractError(f"{path}: {name} is missing") from error
    except OSError as error:
        raise InputError(f"{path}: {name} can't be read: {error.strerror or error}") from error
    stream.seek(info.header_offset)
    header = stream.read(_LOCAL_HEADER.size)
    if len(header) < _LOCAL_HEADER.size:
        stream.close()
        raise ContractError(f"{path}: not a complete bundle: {name} ends before it begins")
    name_bytes, extra_bytes = _LOCAL_HEADER.unpack(header)
    start = info.header_offset + _LOCAL_HEADER.size + name_bytes + extra_bytes
    return io.BufferedReader(_Slice(stream, start, info.file_size), _PIECE_BYTES)


def _read(path: Path, name: str, size: int) -> bytes:
    """Read one file whole, never more than it should have."""
    with _open_member(path, name) as stream:
        data = stream.read(size + 1)
    if len(data) != size:
        raise VerificationError(_edited(path, name))
    return data


def _hash(stream: IO[bytes]) -> str:
    digest = hashlib.sha256()
    while piece := stream.read(_PIECE_BYTES):
        digest.update(piece)
    return digest.hexdigest()


def _edited(path: Path, name: str) -> str:
    return f"{path}: {name} is not the file that the manifest names: it was edited after the manifest was made"


def _write_zip(target: Path, files: Mapping[str, bytes]) -> None:
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(files):
            info = zipfile.ZipInfo(name, _ZIP_EPOCH)
            info.create_system = _UNIX
            info.external_attr = (stat.S_IFREG | _FILE_MODE) << 16
            archive.writestr(info, files[name])
    with tempfile.NamedTemporaryFile(dir=target.parent, prefix=f".{target.name}.", delete=False) as temporary:
        try:
            temporary.write(memory.getbuffer())
            temporary.flush()
            os.fsync(temporary.fileno())
            Path(temporary.name).chmod(_FILE_MODE)
            Path(temporary.name).replace(target)
        except BaseException:
            Path(temporary.name).unlink(missing_ok=True)
            raise


def _write_folder(target: Path, files: Mapping[str, bytes]) -> None:
    if target.exists() and not (target / MANIFEST).is_file():
        raise InputError(f"{target} exists and is not a bundle; name another folder, or a file that ends in {SUFFIX}")
    new = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
    try:
        for name in sorted(files):
            (new / name).write_bytes(files[name])
            (new / name).chmod(_FILE_MODE)
        new.chmod(0o755)
        if target.exists():
            # A folder can't be replaced in one step; the old one steps aside and goes last.
            old = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
            target.rename(old / "old")
            new.rename(target)
            shutil.rmtree(old)
        else:
            new.rename(target)
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        raise
