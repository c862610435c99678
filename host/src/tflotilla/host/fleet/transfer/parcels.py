"""A file as it goes over the line: compressed once, sent to every board that lacks it, from wherever that one has it.

A parcel is blocks of 256 KiB, each compressed by itself (zlib, flushed fully), so that a board that has the first half
gets the rest without anything being compressed again but the block that broke. Blocks are made when first asked for and
shared. Bytes that don't compress are stored: deflating noise costs both ends 30 ms a megabyte for nothing.

Which compression: measured on int8 MobileNetV2, whole (3.6 MB): zlib 6 2.85 MB in 0.12 s, xz 6 2.81 MB in 1.4 s. As a
difference, all weights ±0.1 %: zlib with run lengths alone 260 kB in 0.02 s, zlib 6 264 kB in 0.1 s, xz 3 257 kB in
0.16 s, xz 6 207 kB in 2 s. So zlib everywhere, run lengths for differences.

What it does NOT do: decide what is sent as a difference (`files`), or frame it (`sessions`).
"""

from __future__ import annotations

import threading
import zlib
from collections import OrderedDict
from concurrent.futures import Future
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator

    from tflotilla.shared.contract.session import Piece

BLOCK_BYTES = 256 << 10
_LEVEL = 6
_RAW = -15
_MEMORY = 9
_HEADER = b"\x78\x9c"
#: An empty last block, of fixed codes.
_END = b"\x03\x00"
#: A block that becomes no smaller than that share is stored.
_WORTH = 0.97
_SAMPLE_BYTES = 16 << 10
_ADLER_BASE = 65521


class Parcel:
    """One file's content, or its difference to a base, in compressed blocks. Safe to use from many threads."""

    def __init__(
        self,
        size: int,
        read: Callable[[int, int], bytes],
        *,
        base: str | None = None,
        pieces: tuple[Piece, ...] | None = None,
    ) -> None:
        """Begin one of `size` bytes; `read(at, size)` returns so many of them."""
        self.size = size
        self.base = base
        self.pieces = pieces
        self._read = read
        self._lock = threading.Lock()
        self._blocks: dict[int, tuple[bytes, int]] = {}

    @property
    def kept_bytes(self) -> int:
        """What the finished blocks take in memory."""
        with self._lock:
            return sum(len(data) for data, _check in self._blocks.values())

    def packed_bytes(self) -> int:
        """Return how many bytes go over the line for the whole; makes all blocks."""
        return sum(len(self._block(number)[0]) for number in range(self._count))

    def stream(self, offset: int) -> Iterator[tuple[bytes, int]]:
        """Yield a zlib stream of everything from `offset` on: a part of it, and how much of the file is sent by then.

        Every part can be inflated up to its end, so a board whose line breaks keeps what it got. Only the last reaches
        `size`.
        """
        check, sent = 1, offset
        head = _HEADER
        for number in range(offset // BLOCK_BYTES, self._count):
            end = min((number + 1) * BLOCK_BYTES, self.size)
            if sent > number * BLOCK_BYTES:
                data, block_check = self._made(sent, end)
            else:
                data, block_check = self._block(number)
            check = _joined(check, block_check, end - sent)
            sent = end
            if sent < self.size:
                yield head + data, sent
                head = b""
            else:
                head += data
        yield head + _END + check.to_bytes(4, "big"), sent

    @property
    def _count(self) -> int:
        return -(-self.size // BLOCK_BYTES)

    def _block(self, number: int) -> tuple[bytes, int]:
        # One at a time: the second board that needs a block waits for the first one's.
        with self._lock:
            found = self._blocks.get(number)
            if found is None:
                start = number * BLOCK_BYTES
                found = self._blocks[number] = self._made(start, min(start + BLOCK_BYTES, self.size))
            return found

    def _made(self, start: int, end: int) -> tuple[bytes, int]:
        plain = self._read(start, end - start)
        if len(plain) != end - start:
            message = f"{end - start} bytes were to be read at {start}, {len(plain)} came"
            raise EOFError(message)
        return _deflated(plain, runs=self.base is not None), zlib.adler32(plain)


def _deflated(plain: bytes, *, runs: bool) -> bytes:
    """Compress to raw deflate blocks that end on a byte and that later ones don't refer to."""
    if runs:
        found = _flushed(plain, 1, zlib.Z_RLE)
        return found if len(found) < len(plain) * _WORTH else _flushed(plain, 0)
    sample = plain[:_SAMPLE_BYTES]
    if len(_flushed(sample, 1)) >= len(sample) * _WORTH and len(plain) > len(sample):
        middle = plain[len(plain) // 2 :][:_SAMPLE_BYTES]
        if len(_flushed(middle, 1)) >= len(middle) * _WORTH:
            return _flushed(plain, 0)
    found = _flushed(plain, _LEVEL)
    return found if len(found) < len(plain) * _WORTH else _flushed(plain, 0)


def _flushed(plain: bytes, level: int, strategy: int = zlib.Z_DEFAULT_STRATEGY) -> bytes:
    packer = zlib.compressobj(level, zlib.DEFLATED, _RAW, _MEMORY, strategy)
    return packer.compress(plain) + packer.flush(zlib.Z_FULL_FLUSH)


def _joined(first: int, second: int, second_size: int) -> int:
    """Return the Adler-32 (RFC 1950, section 8.2) of two strings one after the other, from those of each."""
    low = (first & 0xFFFF) + (second & 0xFFFF) - 1
    high = (first >> 16) + (second >> 16) + second_size * ((first & 0xFFFF) - 1)
    return high % _ADLER_BASE << 16 | low % _ADLER_BASE


class Shelf:
    """Parcels by key, each made once however many boards ask for it at once; the longest unused go when it is full."""

    def __init__(self, *, limit_bytes: int) -> None:
        """Hold about that much memory at most, besides what is being sent."""
        self._limit_bytes = limit_bytes
        self._lock = threading.Lock()
        self._parcels: OrderedDict[Hashable, Future[Parcel | None]] = OrderedDict()

    def get(self, key: Hashable, make: Callable[[], Parcel | None]) -> Parcel | None:
        """Return what `make` returned when the key was first asked for; what it raises reaches all who wait."""
        with self._lock:
            found = self._parcels.get(key)
            if found is None:
                ours = self._parcels[key] = Future()
            else:
                self._parcels.move_to_end(key)
        if found is not None:
            return found.result()
        try:
            ours.set_result(make())
        except BaseException as error:
            ours.set_exception(error)
            with self._lock:
                self._parcels.pop(key, None)
            raise
        self._make_room()
        return ours.result()

    def _make_room(self) -> None:
        with self._lock:
            held = {key: _held_bytes(parcel) for key, parcel in self._parcels.items()}
            total = sum(held.values())
            for key, size in held.items():
                if total <= self._limit_bytes:
                    return
                del self._parcels[key]
                total -= size


def _held_bytes(parcel: Future[Parcel | None]) -> int:
    made = parcel.result() if parcel.done() and parcel.exception() is None else None
    # A difference is held as it is besides: a block that breaks is compressed from it.
    return 0 if made is None else made.kept_bytes + (made.size if made.base is not None else 0)
