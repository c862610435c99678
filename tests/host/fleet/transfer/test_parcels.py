"""Files as they go over the line: from any offset, for any number of boards, and each block is made once."""

from __future__ import annotations

import random
import threading
import zlib

import pytest

from tflotilla.host.fleet.transfer.parcels import BLOCK_BYTES, Parcel, Shelf

_TEXT = b"".join(b"weight %d, " % number for number in range(60_000))
_NOISE = random.Random(0).randbytes(3 * BLOCK_BYTES + 17)  # noqa: S311 - bytes that don't compress


class _Source:
    """Bytes that know how often each was read."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.read_bytes = 0

    def read(self, at: int, size: int) -> bytes:
        self.read_bytes += size
        return self.data[at : at + size]

    def parcel(self) -> Parcel:
        return Parcel(len(self.data), self.read)


@pytest.mark.parametrize("data", [b"", b"a", _TEXT, _NOISE, _NOISE[:1000] + _TEXT], ids=len)
@pytest.mark.parametrize("share", [0, 0.1, 0.5, 0.999, 1])
def test_the_rest_comes_out_from_any_offset(data: bytes, share: float) -> None:
    offset = int(len(data) * share)
    parts = list(_Source(data).parcel().stream(offset))

    assert zlib.decompress(b"".join(part for part, _sent in parts)) == data[offset:]
    assert parts[-1][1] == len(data)
    assert [sent for _part, sent in parts if sent == len(data)] == [len(data)]


def test_what_arrived_before_a_cut_can_be_inflated() -> None:
    parts = list(_Source(_TEXT).parcel().stream(0))
    inflater = zlib.decompressobj()

    for part, sent in parts:
        inflater.decompress(b"")
        assert _TEXT[:sent].endswith(inflater.decompress(part))


def test_noise_is_stored_and_text_is_not() -> None:
    assert _Source(_NOISE).parcel().packed_bytes() < len(_NOISE) + 200
    assert _Source(_TEXT).parcel().packed_bytes() < len(_TEXT) / 3


def test_every_board_is_served_from_blocks_that_were_made_once() -> None:
    source = _Source(_TEXT)
    parcel = source.parcel()
    found: list[bytes] = []

    def take() -> None:
        found.append(zlib.decompress(b"".join(part for part, _sent in parcel.stream(0))))

    takers = [threading.Thread(target=take) for _number in range(8)]
    for taker in takers:
        taker.start()
    for taker in takers:
        taker.join()

    assert found == [_TEXT] * 8
    assert source.read_bytes == len(_TEXT)
    list(parcel.stream(BLOCK_BYTES + 5))
    assert source.read_bytes < len(_TEXT) + BLOCK_BYTES


def test_a_file_that_shrank_meanwhile_is_an_error() -> None:
    with pytest.raises(EOFError, match="10 bytes were to be read at 0, 3 came"):
        list(Parcel(10, lambda _at, _size: b"abc").stream(0))


def test_a_parcel_is_made_once_for_all_who_ask_at_once_and_again_when_room_was_short() -> None:
    shelf = Shelf(limit_bytes=1000)
    made: list[str] = []

    def make(name: str) -> Parcel:
        made.append(name)
        parcel = _Source(_NOISE[:900]).parcel()
        parcel.packed_bytes()
        return parcel

    first = shelf.get("a", lambda: make("a"))
    assert shelf.get("a", lambda: make("a")) is first
    shelf.get("b", lambda: make("b"))
    shelf.get("a", lambda: make("a again"))

    assert made == ["a", "b", "a again"]


def test_what_making_raised_is_raised_and_tried_again() -> None:
    shelf = Shelf(limit_bytes=1000)

    def fail() -> Parcel:
        raise EOFError

    with pytest.raises(EOFError):
        shelf.get("a", fail)

    assert shelf.get("a", lambda: None) is None
