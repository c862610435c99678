"""What a file is against one that the board has: pieces of the base, and a stream to be added to them, byte by byte.

A retrained model of one architecture has its weights where they were, most of them a step away or the same: the
byte-wise difference is nearly all zeros and compresses twentyfold and more, where a binary diff finds nothing equal.
Files of equal length are laid over each other as they are. Others are laid over each other from both ends, parted where
most bytes fit, or, of two TFLite files, buffer by buffer: equally large ones in the same order hold the same weights.

Rules it keeps: `applied(base, difference(base, target, laid), laid) == target` for any bytes; pieces are apart and in
order. What it does NOT do: compress (`parcels`), or check digests: the board does.
"""

from __future__ import annotations

import difflib
import struct
from typing import TYPE_CHECKING

import numpy as np

from tflotilla.shared.contract.session import Piece

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

#: A frame of the contract is bounded, and a piece saves nothing below some size.
MAX_PIECES = 2000
_LEAST_PIECE_BYTES = 64
_IDENTIFIER = b"TFL3"
#: Fields of the schema's tables: Model.buffers, Buffer.data.
_MODEL_BUFFERS = 4
_BUFFER_DATA = 0


def pieces(base: bytes, target: bytes) -> tuple[Piece, ...]:
    """Return which bytes of `base` are to be laid under which of `target`; none when nothing fits."""
    best: tuple[Piece, ...] = ()
    most_zeros = _zeros(base, target, ())
    for candidate in (_from_both_ends(base, target), _by_buffers(base, target)):
        zeros = _zeros(base, target, candidate)
        # The first of equally good ones: it is the shorter to say.
        if zeros > most_zeros:
            best, most_zeros = candidate, zeros
    return best


def difference(base: bytes, target: bytes, laid: Sequence[Piece]) -> bytes:
    """Return the stream: `target` less the base's bytes under it, modulo 256."""
    return _difference(base, target, laid).tobytes()


def applied(base: bytes, stream: bytes, laid: Sequence[Piece]) -> bytes:
    """Return the target again, as a board makes it."""
    below, result = np.frombuffer(base, np.uint8), np.frombuffer(stream, np.uint8).copy()
    for piece in laid:
        result[piece.at : piece.at + piece.size] += below[piece.base_at : piece.base_at + piece.size]
    return result.tobytes()


def _difference(base: bytes, target: bytes, laid: Sequence[Piece]) -> NDArray[np.uint8]:
    below, result = np.frombuffer(base, np.uint8), np.frombuffer(target, np.uint8).copy()
    for piece in laid:
        result[piece.at : piece.at + piece.size] -= below[piece.base_at : piece.base_at + piece.size]
    return result


def _zeros(base: bytes, target: bytes, laid: Sequence[Piece]) -> int:
    return len(target) - int(np.count_nonzero(_difference(base, target, laid)))


def _worth_it(laid: Iterable[Piece]) -> tuple[Piece, ...]:
    return tuple(piece for piece in laid if piece.size >= _LEAST_PIECE_BYTES)


def _from_both_ends(base: bytes, target: bytes) -> tuple[Piece, ...]:
    """Lay front on front and back on back, parted where most bytes are equal: as if one place had grown or shrunk."""
    grown = len(target) - len(base)
    below, above = np.frombuffer(base, np.uint8), np.frombuffer(target, np.uint8)
    front, back = np.zeros(len(target) + 1, np.int64), np.zeros(len(target) + 1, np.int64)
    room = min(len(base), len(target))
    # How many bytes before each place fit laid from the front, and from the back.
    front[1 : room + 1] = below[:room] == above[:room]
    back[len(target) - room + 1 :] = below[len(base) - room :] == above[len(target) - room :]
    np.cumsum(front, out=front)
    np.cumsum(back, out=back)
    # The last of the best places: equally long files are one piece.
    parted = len(target) - int(np.argmax((front - back)[::-1]))
    behind = max(parted, grown)
    return _worth_it(
        [
            Piece(at=0, base_at=0, size=min(parted, len(base))),
            Piece(at=behind, base_at=behind - grown, size=len(target) - behind),
        ]
    )


def _by_buffers(base: bytes, target: bytes) -> tuple[Piece, ...]:
    """Lay equally large buffers of two TFLite files over each other, in their order."""
    try:
        old, new = buffers(base), buffers(target)
    except (struct.error, IndexError, ValueError):
        # Corrupt, or no TFLite file at all: whatever lies in it, it is only not aligned.
        return ()
    same = difflib.SequenceMatcher(None, [size for _at, size in old], [size for _at, size in new], autojunk=False)
    found = [
        Piece(at=new[match.b + step][0], base_at=old[match.a + step][0], size=new[match.b + step][1])
        for match in same.get_matching_blocks()
        for step in range(match.size)
    ]
    # The largest first where there are too many; then in order, and apart: a corrupt file's buffers may overlap.
    kept: list[Piece] = []
    largest = sorted(_worth_it(found), key=lambda piece: -piece.size)[:MAX_PIECES]
    for piece in sorted(largest, key=lambda piece: piece.at):
        if not kept or piece.at >= kept[-1].at + kept[-1].size:
            kept.append(piece)
    return tuple(kept)


def buffers(model: bytes) -> list[tuple[int, int]]:
    """Return place and size of every buffer of a TFLite file that isn't empty, in the schema's order.

    Raises:
        ValueError, IndexError, struct.error: it isn't one, or an offset leads out of it.

    """
    if model[4:8] != _IDENTIFIER:
        message = "no TFLite file"
        raise ValueError(message)
    found = []
    vector = _field(model, _follow(model, 0), _MODEL_BUFFERS)
    if vector is None:
        return []
    (count,) = struct.unpack_from("<I", model, vector)
    if count > len(model) // 4:
        message = "more buffers than there is room for"
        raise ValueError(message)
    for number in range(count):
        data = _field(model, _follow(model, vector + 4 + 4 * number), _BUFFER_DATA)
        if data is not None:
            (size,) = struct.unpack_from("<I", model, data)
            if size and data + 4 + size <= len(model):
                found.append((data + 4, size))
    return found


def _follow(model: bytes, at: int) -> int:
    (offset,) = struct.unpack_from("<I", model, at)
    return at + int(offset)


def _field(model: bytes, table: int, number: int) -> int | None:
    """Return where the vector or table of a table's field begins; None where the field is absent."""
    (back,) = struct.unpack_from("<i", model, table)
    vtable = table - back
    if vtable < 0:
        message = "a table outside of the file"
        raise ValueError(message)
    (size,) = struct.unpack_from("<H", model, vtable)
    place = 4 + 2 * number
    if place + 2 > size:
        return None
    (offset,) = struct.unpack_from("<H", model, vtable + place)
    return None if offset == 0 else _follow(model, table + int(offset))
