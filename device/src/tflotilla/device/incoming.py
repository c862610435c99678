"""A blob on its way: a compressed stream in, bytes into `incoming/`, then the verified blob in the store.

The stream is of the blob itself, or of its difference to a blob that the board has: a byte of the stream plus one of
the base, modulo 256. What is written is the blob's own bytes in either case, so a transfer that broke goes on where it
broke, as a difference or whole.

Rules it keeps: no more is written than was announced, whatever a few bytes of stream unpack to; a base is read, never
believed: the digest of what came of it decides. What it does NOT do: know where files lie (`store`).
"""

from __future__ import annotations

import functools
import zlib
from typing import TYPE_CHECKING

from tflotilla.shared.contract.errors import BoardError, ContractError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tflotilla.shared.contract.session import Piece

    #: (at, size) → that many bytes of the base.
    ReadBase = Callable[[int, int], bytes]

#: What one step unpacks at most: each is added and written at once.
_STEP_BYTES = 256 << 10


class Incoming:
    """One blob. Dropping it early keeps what has arrived; a later transfer goes on there."""

    def __init__(
        self,
        offset: int,
        size: int,
        *,
        write: Callable[[bytes, int], None],
        finish: Callable[[], None],
        base: Base | None = None,
    ) -> None:
        """`write` takes bytes and where they belong; `finish` verifies and stores."""
        self._offset = offset
        self._size = size
        self._inflater = zlib.decompressobj()
        self._base = base
        self._write = write
        self._finish = finish

    def write(self, compressed: bytes) -> None:
        """Take the next piece of the stream.

        Raises:
            ContractError: it isn't one, or holds more than was announced.
            BusyError: another session sends the same blob.
            BoardError: the disk is full or failing; what had arrived is removed.

        """
        more = bool(compressed)
        while more:
            # In steps: what unpacks to gigabytes is refused at the first byte too many.
            data, more = self._inflated(compressed)
            compressed = b""
            if len(data) > self._size - self._offset:
                message = "blob: more bytes came than its manifest says"
                raise ContractError(message)
            if self._inflater.unused_data:
                message = "blob: bytes came after the end of the stream"
                raise ContractError(message)
            if data:
                self._write(data if self._base is None else self._base.added(data, self._offset), self._offset)
            self._offset += len(data)

    def _inflated(self, data: bytes) -> tuple[bytes, bool]:
        """Return what `data` unpacks to, a step of it, and whether there is more without further data."""
        inflater = self._inflater
        try:
            unpacked = inflater.decompress(inflater.unconsumed_tail + data, _STEP_BYTES)
        except zlib.error as error:
            message = f"blob: not a zlib stream ({error})"
            raise ContractError(message) from error
        # A full step may have left output behind in the inflater, even with all input taken.
        return unpacked, bool(inflater.unconsumed_tail) or len(unpacked) == _STEP_BYTES

    def finish(self) -> None:
        """Verify and store. Raises VerificationError, ContractError (bytes are missing), BoardError."""
        if self._offset != self._size:
            message = f"blob: {self._size - self._offset} bytes are missing at the end of the stream"
            raise ContractError(message)
        self._finish()


class Base:
    """What a difference is added to."""

    def __init__(self, pieces: Sequence[Piece], read: ReadBase, *, size: int, base_size: int) -> None:
        """Check the pieces of a blob of `size` bytes against a base of `base_size`.

        Raises:
            ContractError: one lies outside of either, is empty, or overlaps the one before it.

        """
        end = 0
        for number, piece in enumerate(pieces):
            inside = piece.at >= end and piece.size > 0 and piece.at + piece.size <= size
            if not (inside and 0 <= piece.base_at <= base_size - piece.size):
                message = (
                    f"session request.pieces[{number}]: {piece.size} bytes at {piece.at} (base: {piece.base_at}) are "
                    f"not apart, in order, and inside of a file of {size} and a base of {base_size} bytes"
                )
                raise ContractError(message)
            end = piece.at + piece.size
        self._pieces = pieces
        self._read = read
        #: The first piece that may still be needed: streams only go forward.
        self._next = 0

    def added(self, data: bytes, at: int) -> bytes:
        """Return the stream's bytes from `at` on with the base's added where there is a piece; `at` never goes back.

        Raises:
            BoardError: the base has become shorter meanwhile, or can't be read.

        """
        end = at + len(data)
        done: list[bytes] = []
        while at < end:
            while self._next < len(self._pieces) and _end(self._pieces[self._next]) <= at:
                self._next += 1
            piece = self._pieces[self._next] if self._next < len(self._pieces) else None
            if piece is None or piece.at >= end:
                done.append(data[len(data) - (end - at) :])
                break
            if at < piece.at:
                done.append(data[len(data) - (end - at) : len(data) - (end - piece.at)])
                at = piece.at
            upto = min(end, _end(piece))
            stream = data[len(data) - (end - at) : len(data) - (end - upto)]
            base = self._read(piece.base_at + at - piece.at, len(stream))
            if len(base) != len(stream):
                message = "the file that the difference is to is damaged on this board; send the file whole"
                raise BoardError(message)
            done.append(add(stream, base))
            at = upto
        return done[0] if len(done) == 1 else b"".join(done)


def _end(piece: Piece) -> int:
    return piece.at + piece.size


def add(one: bytes, other: bytes) -> bytes:
    """Add two byte strings of the same length byte by byte, modulo 256.

    As one great number each, without carries from byte to byte: the seven low bits of each byte are added, and the
    eighth, whose carry is lost, by exclusive or. A hundred times as fast as a loop over the bytes, and numpy's import
    alone would take longer than a session.
    """
    length = len(one)
    low, high = _masks(length)
    a, b = int.from_bytes(one, "little"), int.from_bytes(other, "little")
    return (((a & low) + (b & low)) ^ ((a ^ b) & high)).to_bytes(length, "little")


@functools.lru_cache(maxsize=2)
def _masks(length: int) -> tuple[int, int]:
    return int.from_bytes(b"\x7f" * length, "little"), int.from_bytes(b"\x80" * length, "little")
