"""Bytes to a board that lacks them: the files of a bundle, from where the last attempt broke off.

A file goes as its difference to one that the board has from another bundle, where this machine has that too and the
difference is smaller; else whole. Either is compressed once for all boards of this process.

What it does NOT do: decide whether they may be sent (`push.preflight`), connect, or try again.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from tflotilla.host.fleet.agents import layers
from tflotilla.host.fleet.transfer import blob_cache, deltas
from tflotilla.host.fleet.transfer.parcels import Parcel, Shelf
from tflotilla.shared.contract.errors import BoardError, ContractError, VerificationError

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence

    from tflotilla.host.bundles.archive import Bundle
    from tflotilla.host.fleet.sessions import Session
    from tflotilla.shared.contract.session import MissingBlob

#: Smaller files are not worth a question.
LEAST_BYTES = 16 << 10
#: A difference so much smaller than the file is taken without looking how small the file becomes by itself.
_PLAINLY_SMALLER = 0.5
_SHELF = Shelf(limit_bytes=256 << 20)


def send(
    session: Session,
    board: str,
    bundle: Bundle,
    missing: Sequence[MissingBlob],
    *,
    on_bytes: Callable[[int, int], None],
) -> None:
    """Send what is missing; `on_bytes` hears how much of it is there and how much there is, in bytes.

    Raises:
        ContractError: the board asks for what is not in the bundle.
        VerificationError, BoardError, UnreachableError: as `Session.blob`.

    """
    total = sum(blob.size for blob in missing)
    gone = 0
    for blob in missing:
        file = next((name for name, entry in bundle.manifest.files.items() if entry.sha256 == blob.sha256), None)
        if file is None or blob.size != bundle.manifest.files[file].size:
            message = f"{board} asks for a file that the bundle doesn't hold"
            raise ContractError(message)
        _keep(bundle, file)
        heard = functools.partial(_report, on_bytes, gone, total)
        smaller = _difference(bundle, file, blob)
        if smaller is None or not _sent(session, blob, smaller, heard):
            # The manifest is asked about again: a refused difference may have left nothing, or all.
            rest = blob if smaller is None else _still_missing(session, blob)
            if rest is not None:
                session.blob(rest, _whole(bundle, file), on_bytes=heard)
        gone += blob.size


def _report(on_bytes: Callable[[int, int], None], before: int, total: int, sent: int) -> None:
    on_bytes(before + sent, total)


def _sent(session: Session, blob: MissingBlob, parcel: Parcel, on_bytes: Callable[[int], None]) -> bool:
    """Send a difference; False when the board can't make the file of it: then it gets the whole."""
    try:
        session.blob(blob, parcel, on_bytes=on_bytes)
    except (VerificationError, BoardError, ContractError):
        return False
    return True


def _still_missing(session: Session, blob: MissingBlob) -> MissingBlob | None:
    return next((each for each in session.missing_again() if each.sha256 == blob.sha256), None)


def _keep(bundle: Bundle, file: str) -> None:
    entry = bundle.manifest.files[file]
    if entry.size >= LEAST_BYTES:
        with bundle.open_file(file) as stream:
            _cache().keep(entry.sha256, entry.size, stream)


def _cache() -> blob_cache.BlobCache:
    return blob_cache.BlobCache(layers.cache() / blob_cache.FOLDER)


def _identity(bundle: Bundle, file: str) -> tuple[Hashable, ...]:
    """Name the very bytes on this disk: a file that somebody edits is another one, whatever its manifest says."""
    path = bundle.path / file if bundle.path.is_dir() else bundle.path
    status = path.stat()
    return (str(path), file, status.st_ino, status.st_mtime_ns, status.st_size)


def _whole(bundle: Bundle, file: str) -> Parcel:
    size = bundle.manifest.files[file].size

    def read(at: int, count: int) -> bytes:
        with bundle.open_file(file) as stream:
            stream.seek(at)
            return stream.read(count)

    found = _SHELF.get((*_identity(bundle, file), "whole"), lambda: Parcel(size, read))
    return found or Parcel(size, read)


def _difference(bundle: Bundle, file: str, blob: MissingBlob) -> Parcel | None:
    """Return the smallest difference to what the board has; None when there is none that is worth it."""
    if blob.size < LEAST_BYTES:
        return None
    cache = _cache()
    found = []
    for base in blob.bases:
        if cache.has(base):
            key = (*_identity(bundle, file), "difference", base)
            found.append(_SHELF.get(key, functools.partial(_compared, bundle, file, base, cache)))
    worth = [parcel for parcel in found if parcel is not None]
    return min(worth, key=Parcel.packed_bytes, default=None)


def _compared(bundle: Bundle, file: str, base: str, cache: blob_cache.BlobCache) -> Parcel | None:
    below = cache.read(base)
    if below is None:
        return None
    try:
        target = bundle.read(file)
    except VerificationError:
        # Edited after signing: the board says so in its own words.
        return None
    laid = deltas.pieces(below, target)
    if not laid:
        return None
    stream = deltas.difference(below, target, laid)
    parcel = Parcel(len(stream), lambda at, size: stream[at : at + size], base=base, pieces=laid)
    if parcel.packed_bytes() < len(target) * _PLAINLY_SMALLER:
        return parcel
    return parcel if parcel.packed_bytes() < _whole(bundle, file).packed_bytes() else None
