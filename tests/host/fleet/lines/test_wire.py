"""The socket under a connection: everything arrives once, in order, whoever sends it and however little it takes."""

from __future__ import annotations

import threading

import pytest

from tflotilla.host.fleet.lines.wire import GATHERED_BYTES, Meter, Wire


class _Socket:
    """Takes `room` bytes at most at once, and waits in vain as often as `slow` says."""

    def __init__(self, room: int = 1 << 30, slow: int = 0) -> None:
        self.sent: list[bytes] = []
        self.room = room
        self.slow = slow
        self.closed = False

    def send(self, data: bytes) -> int:
        if self.slow:
            self.slow -= 1
            raise TimeoutError
        self.sent.append(bytes(data[: self.room]))
        return len(self.sent[-1])

    def close(self) -> None:
        self.closed = True

    def gettimeout(self) -> float:
        return 0.1


def test_what_is_gathered_leaves_as_one_and_is_counted() -> None:
    socket, meter = _Socket(), Meter()
    wire = Wire(meter, socket)

    with wire.gathering():
        assert [wire.send(b"one "), wire.send(b"two")] == [4, 3]
        assert socket.sent == []
        assert meter.sent_bytes == 0

    assert socket.sent == [b"one two"]
    assert meter.sent_bytes == 7


def test_nothing_waits_when_nobody_gathers() -> None:
    socket = _Socket(room=2)

    assert Wire(Meter(), socket).send(b"abc") == 2
    assert socket.sent == [b"ab"]


def test_no_more_is_gathered_than_there_is_room_for() -> None:
    socket = _Socket()
    wire = Wire(Meter(), socket)

    with wire.gathering():
        wire.send(bytes(GATHERED_BYTES + 1))
        assert sum(map(len, socket.sent)) == GATHERED_BYTES + 1


def test_another_thread_sends_what_waits_before_its_own() -> None:
    """A keep-alive, or a key exchange: packets are numbered, so their order is the line's."""
    socket = _Socket()
    wire = Wire(Meter(), socket)

    with wire.gathering():
        wire.send(b"first ")
        other = threading.Thread(target=wire.send, args=(b"second ",))
        other.start()
        other.join()
        assert b"".join(socket.sent) == b"first second "
        wire.send(b"third")

    assert b"".join(socket.sent) == b"first second third"


def test_a_socket_that_takes_little_and_late_gets_all() -> None:
    socket = _Socket(room=3, slow=5)
    wire = Wire(Meter(), socket)

    with wire.gathering():
        wire.send(b"abcdefgh")

    assert b"".join(socket.sent) == b"abcdefgh"


def test_a_socket_that_was_closed_is_waited_for_no_longer() -> None:
    socket = _Socket(slow=1 << 30)
    wire = Wire(Meter(), socket)
    wire.close()

    with pytest.raises(TimeoutError), wire.gathering():
        wire.send(b"lost")
    assert socket.closed


def test_a_line_that_takes_nothing_any_more_is_an_error() -> None:
    wire = Wire(Meter(), _Socket(room=0))

    with pytest.raises(OSError, match="no more bytes"), wire.gathering():
        wire.send(b"lost")


def test_in_everything_else_it_is_the_socket() -> None:
    assert Wire(Meter(), _Socket()).gettimeout() == 0.1
