"""Wheels for platforms that uv has no name for, which is 32-bit ARM: uv says where they lie, the rest happens here.

Rules it keeps: only what the lock's hashes name is unpacked, into an empty folder, under plain relative names; what was
fetched once needs no network again.
What it does NOT do: resolve, compile, or run anything of a wheel; choose an index (uv's is asked).
"""

from __future__ import annotations

import http.client
import re
import tempfile
import tomllib
import urllib.error
import urllib.parse
import urllib.request
import zipfile
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from tflotilla.host.packages import uv
from tflotilla.shared.contract import digest
from tflotilla.shared.contract.errors import BoardError

if TYPE_CHECKING:
    from collections.abc import Iterator

_TIMEOUT_S = 120.0
#: Above any wheel of a board, below what would fill the memory of this machine.
_MAX_BYTES = 256 << 20
_ENTRY = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)==\S+")
_HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")
_MANYLINUX = re.compile(r"manylinux_(\d+)_(\d+)_(\w+)")
#: Where a wheel keeps what belongs beside its packages; the rest of its data (scripts, headers) no board needs.
_LIBRARIES = ("purelib", "platlib")


def install_for(folder: Path, requirements: Path, *, platform: str, python: str, name: str, cache: Path) -> None:
    """Unpack what a lock file names into an empty folder, wheels only, every hash checked.

    Args:
        folder: where to.
        requirements: the lock: every package of it once, all that it needs named.
        platform: `armv7l-manylinux_2_36`.
        python: its Python: 3.11.
        name: what the environment is called when it can't be built.
        cache: where fetched wheels are kept.

    Raises:
        BoardError: there is no wheel for the target, or it can't be fetched.

    """
    known = _hashes(requirements.read_text())
    with tempfile.TemporaryDirectory(prefix="tflotilla-") as scratch:
        located = tomllib.loads(uv.locate(Path(scratch), requirements, python=python, name=name))
        for package in located.get("packages", []):
            wheel = choose(package, platform=platform, python=python, hashes=known.get(package["name"], frozenset()))
            if wheel is None:
                message = f"the environment {name} can't be built: {package['name']} {package['version']} has no wheel"
                raise BoardError(message)
            _unpack(_fetched(wheel, cache, Path(scratch), name), folder, name)


def choose(package: dict[str, Any], *, platform: str, python: str, hashes: frozenset[str]) -> dict[str, Any] | None:
    """Return the wheel of one package of a pylock that fits best, None when none does: compiled before pure."""
    arch, _, manylinux = platform.partition("-manylinux_")
    glibc = tuple(int(part) for part in manylinux.split("_"))
    interpreter = "cp" + python.replace(".", "")
    fitting = []
    for wheel in package.get("wheels", ()):
        pythons, abis, platforms = (tag.split(".") for tag in _file_name(wheel).removesuffix(".whl").split("-")[-3:])
        if wheel["hashes"].get("sha256") not in hashes:
            continue
        if "any" in platforms and "none" in abis and "py3" in pythons:
            fitting.append((0, 0, wheel))
        elif interpreter in pythons and interpreter in abis:
            oldest = [(int(m[1]), int(m[2])) for m in map(_MANYLINUX.fullmatch, platforms) if m and m[3] == arch]
            fitting += [(*needed, wheel) for needed in oldest if needed <= glibc]
    return max(fitting, key=lambda each: each[:2])[2] if fitting else None


def _hashes(lock: str) -> dict[str, frozenset[str]]:
    """Return every package of a lock, by its normal name, with the SHA-256 of its files."""
    found: dict[str, frozenset[str]] = {}
    for entry in lock.replace("\\\n", " ").splitlines():
        named = _ENTRY.match(entry.strip())
        if named is not None:
            name = re.sub(r"[-_.]+", "-", named[1]).lower()
            found[name] = found.get(name, frozenset()) | frozenset(_HASH.findall(entry))
    return found


def _file_name(wheel: dict[str, Any]) -> str:
    place: str = wheel.get("name") or urllib.parse.unquote(
        urllib.parse.urlsplit(wheel.get("url") or wheel["path"]).path
    )
    return PurePosixPath(place).name


def _fetched(wheel: dict[str, Any], cache: Path, folder: Path, name: str) -> Path:
    """Return a whole and right wheel in the cache."""
    sha256: str = wheel["hashes"]["sha256"]
    kept = cache / sha256 / _file_name(wheel)
    if kept.is_file() and digest.of_file(kept) == sha256:
        return kept
    url = wheel.get("url") or (folder / wheel["path"]).resolve().as_uri()
    try:
        # Any scheme will do: what doesn't have the lock's hash is thrown away.
        with urllib.request.urlopen(url, timeout=_TIMEOUT_S) as answer:  # noqa: S310
            data: bytes = answer.read(_MAX_BYTES)
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        message = (
            f"the environment {name} can't be built: {kept.name} can't be fetched ({reason}); "
            f"go online, or put that file into {kept.parent}"
        )
        raise BoardError(message) from error
    if digest.of_bytes(data) != sha256:
        message = f"the environment {name} can't be built: {kept.name} is not the file that the lock names"
        raise BoardError(message)
    kept.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=kept.parent, delete=False) as stream:
        stream.write(data)
    Path(stream.name).replace(kept)
    return kept


def _unpack(wheel: Path, folder: Path, name: str) -> None:
    try:
        with zipfile.ZipFile(wheel) as archive:
            for member, place in _members(archive):
                target = folder.joinpath(*place.parts)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(archive.read(member))
                if member.external_attr >> 16 & 0o100:
                    target.chmod(0o755)
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise BoardError(f"the environment {name} can't be built: {wheel.name}: {error}") from error


def _members(archive: zipfile.ZipFile) -> Iterator[tuple[zipfile.ZipInfo, PurePosixPath]]:
    for member in archive.infolist():
        if member.is_dir():
            continue
        parts = member.filename.split("/")
        if "" in parts or ".." in parts or "." in parts or "\\" in member.filename:
            message = f"{member.filename!r} is no plain file name"
            raise ValueError(message)
        if parts[0].endswith(".data"):
            if len(parts) < 3 or parts[1] not in _LIBRARIES:  # noqa: PLR2004 - NAME.data/purelib/FILE
                continue
            parts = parts[2:]
        yield member, PurePosixPath(*parts)
