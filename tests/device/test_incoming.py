"""Streams unpacked and differences added: what comes out is the file, whatever the pieces and the pace are."""

from __future__ import annotations

import random
import zlib
from typing import TYPE_CHECKING

import pytest

from tflotilla.device.incoming import Base, Incoming, add
from tflotilla.shared.contract.errors import BoardError, ContractError
from tflotilla.shared.contract.session import Piece

if TYPE_CHECKING:
    from collections.abc import Sequence

RANDOM = random.Random(5)  # noqa: S311 - reproducible bytes
BASE = RANDOM.randbytes(700_000)
TARGET = bytes(b ^ (1 if i % 997 == 0 else 0) for i, b in enumerate(BASE))


def _stream(target: bytes, base: bytes, pieces: Sequence[Piece]) -> bytes:
    """Subtract byte by byte, as slowly as it is plain."""
    made = bytearray(target)
    for piece in pieces:
        for i in range(piece.size):
            made[piece.at + i] = (target[piece.at + i] - base[piece.base_at + i]) % 256
    return bytes(made)


def _take(stream: bytes, *, base: Base | None = None, size: int, offset: int = 0, cut: int = 777) -> bytes:
    taken = bytearray(offset)
    finished: list[bool] = []

    def write(data: bytes, at: int) -> None:
        assert at == len(taken)
        taken.extend(data)

    incoming = Incoming(offset, size, write=write, finish=lambda: finished.append(True), base=base)
    packed = zlib.compress(stream)
    for start in range(0, len(packed), cut):
        incoming.write(packed[start : start + cut])
    incoming.finish()
    assert finished == [True]
    return bytes(taken)


def _base(pieces: Sequence[Piece], *, base: bytes = BASE, size: int = len(TARGET)) -> Base:
    return Base(pieces, lambda at, length: base[at : at + length], size=size, base_size=len(base))


@pytest.mark.parametrize("length", [0, 1, 7, 8, 255, 4096])
def test_bytes_are_added_without_a_carry_into_their_neighbours(length: int) -> None:
    one, other = RANDOM.randbytes(length), RANDOM.randbytes(length)

    assert bytes((a + b) % 256 for a, b in zip(one, other, strict=True)) == add(one, other)


def test_every_pair_of_bytes_is_added_right() -> None:
    one = bytes(a for a in range(256) for _b in range(256))
    other = bytes(b for _a in range(256) for b in range(256))

    assert bytes((a + b) % 256 for a in range(256) for b in range(256)) == add(one, other)


@pytest.mark.parametrize(
    "pieces",
    [
        (Piece(at=0, base_at=0, size=len(TARGET)),),
        (),
        (
            Piece(at=5, base_at=1, size=300_000),
            Piece(at=300_005, base_at=0, size=1),
            Piece(at=600_000, base_at=3, size=9),
        ),
        (Piece(at=0, base_at=600_000, size=100_000), Piece(at=262_144, base_at=0, size=262_144)),
    ],
    ids=["the same length", "no pieces", "pieces apart and together", "moved about"],
)
def test_a_difference_gives_the_file(pieces: tuple[Piece, ...]) -> None:
    stream = _stream(TARGET, BASE, pieces)

    assert TARGET == _take(stream, base=_base(pieces), size=len(TARGET))


@pytest.mark.parametrize("offset", [1, 4096, 262_144, 299_999, 600_004, len(TARGET) - 1, len(TARGET)])
def test_a_difference_goes_on_anywhere(offset: int) -> None:
    pieces = (Piece(at=100, base_at=50, size=300_000), Piece(at=600_000, base_at=0, size=10))
    stream = _stream(TARGET, BASE, pieces)[offset:]

    taken = _take(stream, base=_base(pieces), size=len(TARGET), offset=offset)

    assert TARGET[offset:] == taken[offset:]


@pytest.mark.parametrize(
    "piece",
    [
        Piece(at=-1, base_at=0, size=2),
        Piece(at=0, base_at=-1, size=2),
        Piece(at=0, base_at=0, size=-2),
        Piece(at=0, base_at=0, size=0),
        Piece(at=9, base_at=0, size=2),
        Piece(at=0, base_at=7, size=2),
        Piece(at=0, base_at=0, size=1 << 70),
    ],
)
def test_pieces_outside_of_file_or_base_are_refused(piece: Piece) -> None:
    with pytest.raises(ContractError, match=r"pieces\[0\]"):
        _base((piece,), base=bytes(8), size=10)


@pytest.mark.parametrize("at", [0, 1, 3])
def test_pieces_that_overlap_or_go_back_are_refused(at: int) -> None:
    with pytest.raises(ContractError, match=r"pieces\[1\].*apart, in order"):
        _base((Piece(at=0, base_at=0, size=4), Piece(at=at, base_at=0, size=2)), base=bytes(8), size=10)


def test_a_base_that_became_shorter_lets_the_host_send_the_file_whole() -> None:
    pieces = (Piece(at=0, base_at=0, size=8),)
    base = Base(pieces, lambda _at, _length: b"123", size=8, base_size=8)

    with pytest.raises(BoardError, match="send the file whole"):
        _take(bytes(8), base=base, size=8)


def test_what_unpacks_to_more_than_announced_is_refused_before_it_is_written() -> None:
    with pytest.raises(ContractError, match="more bytes came"):
        _take(bytes(5 << 20), size=100, cut=1 << 20)


def test_a_stream_that_breaks_off_is_told_by_what_is_missing() -> None:
    with pytest.raises(ContractError, match="1 bytes are missing"):
        _take(bytes(99), size=100)


def test_bytes_after_the_end_of_the_stream_are_refused() -> None:
    incoming = Incoming(0, 9, write=lambda _d, _a: None, finish=lambda: None)

    incoming.write(zlib.compress(b"1234"))
    with pytest.raises(ContractError, match="after the end"):
        incoming.write(zlib.compress(b"5678"))


def test_what_is_no_stream_is_refused() -> None:
    incoming = Incoming(0, 9, write=lambda _d, _a: None, finish=lambda: None)

    with pytest.raises(ContractError, match="not a zlib stream"):
        incoming.write(b"plain bytes, sent as they are")
