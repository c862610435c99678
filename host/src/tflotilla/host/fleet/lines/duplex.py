"""A command that runs on a board: bytes in, lines out, an exit status at its end.

Rules it keeps: every wait has an end; what the command says on stderr is kept up to a bound; a command that ends while
the connection stands is told from a connection that broke.
What it does NOT do: start commands, or connect (`ssh` does both).
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from tflotilla.shared.contract.errors import BoardError, UnreachableError

if TYPE_CHECKING:
    from collections.abc import Callable

    from tflotilla.host.fleet.lines.ssh import Link

#: A board that takes or gives nothing for so long hangs: its connection alone may still be alive.
CHANNEL_SILENCE_S = 120
#: What fits into one packet to an OpenSSH server, by paramiko's reckoning.
PACKET_BYTES = (32 << 10) - 64
#: Sent and not yet taken by the command. What a board's sshd holds for a command that is slower grows by reallocation,
#: and costs it thrice the whole rest: 4 MB took 210 ms with 2 MiB under way, 73 ms with 512 KiB. 100 Mbit/s at 40 ms
#: round trip need no more.
UNDER_WAY_BYTES = 512 << 10
#: Longer than a board takes for that much.
_ROOM_PATIENCE_S = 0.5
_STDERR_KEPT_BYTES = 4 << 10
#: No command of ours says that much, to its end or on stderr: a board that does has gone mad, and its host must not.
MOST_OUTPUT_BYTES = 16 << 20
#: stderr shares its window with stdout, and nobody is woken by it: looked into so often while waiting.
_STDERR_EVERY_S = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Completed:
    """What a command did."""

    exit_status: int
    stdout: bytes
    stderr: bytes


class CommandEndedError(BoardError):
    """The command on the board ended before it took or gave what was expected; the connection itself stands."""


class Duplex:
    """A running command on the board: bytes in, lines out. Use as a context manager; not thread-safe."""

    def __init__(
        self,
        channel: Any,  # noqa: ANN401 - paramiko's, which `ssh` alone imports
        link: Link,
        *,
        room_patience_s: float = _ROOM_PATIENCE_S,
    ) -> None:
        """Take over an open channel on which the command was started."""
        self._channel = channel
        self._link = link
        self._buffer = bytearray()
        self._window_bytes: int = channel.out_window_size
        self._under_way_bytes = UNDER_WAY_BYTES
        self._room_patience_s = room_patience_s
        self._complaints = b""
        self._complaint_bytes = 0

    def write(self, data: bytes, *, on_sent: Callable[[int], None] = lambda _sent: None) -> None:
        """Send all of `data`; blocks while the board is slower. `on_sent` hears how much of it has gone.

        Raises:
            UnreachableError: the line broke.
            BoardError: the command has ended.

        """
        with self._link.translated("sending to"), self._link.gathering() as wire:
            position = 0
            while position < len(data):
                if not self._room(self._under_way_bytes):
                    # The board makes room when it has what we still hold.
                    wire.flush()
                    self._wait_for_room()
                sent = self._channel.send(data[position : position + PACKET_BYTES])
                if sent == 0:
                    raise self._link.lost("while we were sending")
                position += sent
                on_sent(position)

    def _room(self, most_bytes: int) -> bool:
        under_way = self._window_bytes - self._channel.out_window_size
        return bool(self._channel.out_window_size) and under_way + PACKET_BYTES <= most_bytes

    def _wait_for_room(self) -> None:
        """Wait until the board has taken half of what may be under way, or takes nothing more without getting more."""
        deadline = time.monotonic() + CHANNEL_SILENCE_S
        channel = self._channel
        with channel.lock:
            # Of a channel that was closed meanwhile, the next send says why.
            while not (self._room(self._under_way_bytes // 2) or channel.closed or channel.eof_sent):
                if channel.out_buffer_cv.wait(self._room_patience_s):
                    deadline = time.monotonic() + CHANNEL_SILENCE_S
                elif channel.out_window_size:
                    # Some servers say what was taken only when it is half of their window.
                    self._under_way_bytes += UNDER_WAY_BYTES
                    return
                elif time.monotonic() > deadline:
                    message = f"nothing was taken for {CHANNEL_SILENCE_S} s"
                    raise TimeoutError(message)

    def readline(self, *, timeout_s: float, limit_bytes: int) -> bytes:
        """Return the next line with its newline; b"" when the command has ended its output.

        Raises:
            UnreachableError: nothing came for `timeout_s` seconds, or the line broke.
            BoardError: the line is longer than `limit_bytes`.

        """
        deadline = time.monotonic() + timeout_s
        searched = 0
        while (end := self._buffer.find(b"\n", searched)) < 0:
            searched = len(self._buffer)
            if searched > limit_bytes:
                message = f"{self._link.board} sent a line of more than {limit_bytes} bytes"
                raise BoardError(message)
            if not self._receive(deadline - time.monotonic(), timeout_s):
                rest = bytes(self._buffer)
                self._buffer.clear()
                return rest
        line = bytes(self._buffer[: end + 1])
        del self._buffer[: end + 1]
        return line

    def finish(self, *, timeout_s: float) -> Completed:
        """End the input, take the rest of the output and the exit status.

        Raises:
            UnreachableError: the command doesn't end within `timeout_s` seconds, or the line broke before it did.
            BoardError: its output has no end.

        """
        deadline = time.monotonic() + timeout_s
        with self._link.translated("talking to"):
            self._channel.shutdown_write()
        while self._receive(deadline - time.monotonic(), timeout_s):
            if len(self._buffer) > MOST_OUTPUT_BYTES:
                raise self._endless()
        if not self._channel.status_event.wait(max(deadline - time.monotonic(), 1.0)):
            raise self._link.lost("before the command ended")
        status = self._channel.recv_exit_status()
        if status < 0 and not self._link.alive:
            raise self._link.lost("before the command ended")
        return Completed(exit_status=status, stdout=bytes(self._buffer), stderr=self.errors())

    def errors(self) -> bytes:
        """Return the end of what the command wrote on stderr so far. Raises BoardError when that has no end."""
        while self._channel.recv_stderr_ready():
            data = self._channel.recv_stderr(PACKET_BYTES)
            self._complaints = (self._complaints + data)[-_STDERR_KEPT_BYTES:]
            self._complaint_bytes += len(data)
            if self._complaint_bytes > MOST_OUTPUT_BYTES:
                raise self._endless()
        return self._complaints

    def _endless(self) -> BoardError:
        return BoardError(f"{self._link.board} answers without end; what runs there when we log in?")

    def close(self) -> None:
        """Close the channel; the command sees the end of its input."""
        with contextlib.suppress(Exception):
            self._channel.close()

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_details: object) -> None:
        """Close the channel."""
        self.close()

    def _receive(self, remaining_s: float, timeout_s: float) -> bool:
        deadline = time.monotonic() + remaining_s
        with self._link.translated("waiting for"):
            while True:
                self.errors()
                self._channel.settimeout(min(max(deadline - time.monotonic(), 0.001), _STDERR_EVERY_S))
                try:
                    data = self._channel.recv(PACKET_BYTES)
                    break
                except TimeoutError as error:
                    if time.monotonic() >= deadline:
                        message = f"{self._link.board} answered nothing for {timeout_s:g} s; is it overloaded?"
                        raise UnreachableError(message) from error
            self._channel.settimeout(CHANNEL_SILENCE_S)
        if not data and not self._link.alive:
            raise self._link.lost("while waiting for an answer")
        self._buffer += data
        return bool(data)
