"""How much is under way to a command: little where the board says soon what it took, more where it says so late."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING, Any

import pytest

from tflotilla.host.fleet.lines.duplex import PACKET_BYTES, UNDER_WAY_BYTES, Duplex
from tflotilla.shared.contract.errors import UnreachableError

if TYPE_CHECKING:
    from collections.abc import Iterator

_WINDOW_BYTES = 2 << 20


class _Channel:
    """A board that takes everything at once and says so whenever `every` bytes have come together."""

    def __init__(self, every: int) -> None:
        self.out_window_size = _WINDOW_BYTES
        self.lock = threading.Lock()
        self.out_buffer_cv = threading.Condition(self.lock)
        self.closed = False
        self.eof_sent = False
        self.most_under_way = 0
        self.received = 0
        self._every = every
        self._untold = 0

    def send(self, data: bytes) -> int:
        with self.lock:
            if self.closed:
                message = "Socket is closed"
                raise OSError(message)
            self.out_window_size -= len(data)
            self.most_under_way = max(self.most_under_way, _WINDOW_BYTES - self.out_window_size)
            self.received += len(data)
            self._untold += len(data)
            if self._untold >= self._every:
                self.out_window_size += self._untold
                self._untold = 0
                self.out_buffer_cv.notify_all()
            return len(data)


class _Link:
    """A connection that stands, and a wire that keeps nothing back."""

    board = "pi-1"

    def __init__(self) -> None:
        self.flushes = 0

    def flush(self) -> None:
        self.flushes += 1

    @contextlib.contextmanager
    def gathering(self) -> Iterator[_Link]:
        yield self

    @contextlib.contextmanager
    def translated(self, doing: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            message = f"{doing}: {error}"
            raise UnreachableError(message) from error


def _duplex(channel: _Channel) -> Duplex:
    link: Any = _Link()
    return Duplex(channel, link, room_patience_s=0.01)


def test_no_more_is_under_way_than_a_board_takes_easily() -> None:
    channel = _Channel(every=4 * PACKET_BYTES)
    heard: list[int] = []

    _duplex(channel).write(bytes(4_000_000), on_sent=heard.append)

    assert channel.received == 4_000_000
    assert channel.most_under_way <= UNDER_WAY_BYTES
    assert heard == sorted(heard)
    assert heard[-1] == 4_000_000


@pytest.mark.parametrize("every", [_WINDOW_BYTES // 2, _WINDOW_BYTES - PACKET_BYTES])
def test_a_server_that_says_late_what_was_taken_gets_more_instead_of_silence(every: int) -> None:
    channel = _Channel(every=every)

    _duplex(channel).write(bytes(6_000_000))

    assert channel.received == 6_000_000


def test_a_command_that_ends_while_we_wait_ends_the_waiting() -> None:
    channel = _Channel(every=1 << 30)
    channel.out_window_size = 0
    duplex = _duplex(channel)

    def close() -> None:
        with channel.lock:
            channel.closed = True
            channel.out_buffer_cv.notify_all()

    threading.Thread(target=close).start()
    with pytest.raises(UnreachableError, match="Socket is closed"):
        duplex.write(b"data")
