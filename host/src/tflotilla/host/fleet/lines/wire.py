"""The socket under an SSH connection: it counts what goes out, and gathers packets into few large writes.

One packet of SSH holds 32 KiB. Written one by one, each wakes the sshd of the board, which wakes the process behind it,
which waits again: on a fast line most of a transfer goes into that. Gathered, they cost both ends a fraction.

Rules it keeps: bytes leave in the order in which they came, whoever sends them; only the thread that gathers can leave
something waiting, and it never waits for an answer without having sent it (`flush`).
What it does NOT do: know SSH, or decide when a line is dead: TCP does, and says so by an error.
"""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

#: What is gathered at most.
GATHERED_BYTES = 1 << 20


class Wire:
    """A socket, or paramiko's stand-ins for one."""

    def __init__(self, meter: Meter, inner: Any) -> None:  # noqa: ANN401 - socket, Channel or ProxyCommand
        """Stand before a connected socket; `meter` counts what it takes."""
        self._inner = inner
        self._meter = meter
        self._lock = threading.Lock()
        self._waiting = bytearray()
        self._gatherer: int | None = None
        self._closed = False
        meter.wire = self

    def send(self, data: bytes) -> int:
        """Send, or gather; as a socket's own it may take less than all, or raise what that raises."""
        with self._lock:
            if self._gatherer == threading.get_ident():
                self._waiting += data
                if len(self._waiting) >= GATHERED_BYTES:
                    self._send_waiting()
                return len(data)
            self._send_waiting()
            return self._send(data)

    def flush(self) -> None:
        """Send what was gathered."""
        with self._lock:
            self._send_waiting()

    @contextlib.contextmanager
    def gathering(self) -> Iterator[None]:
        """Gather what this thread sends, and send it at the end."""
        self._gatherer = threading.get_ident()
        try:
            yield
        finally:
            self._gatherer = None
            self.flush()

    def close(self) -> None:
        """Close the socket; what waits is lost."""
        self._closed = True
        self._inner.close()

    def _send_waiting(self) -> None:
        while self._waiting:
            try:
                sent = self._send(self._waiting)
            except TimeoutError:
                # paramiko's sockets wait for tenths of seconds, to see whether they were closed meanwhile.
                if self._closed:
                    raise
                continue
            if sent == 0:
                message = "the line takes no more bytes"
                raise ConnectionError(message)
            del self._waiting[:sent]

    def _send(self, data: bytes | bytearray) -> int:
        sent: int = self._inner.send(data)
        self._meter.sent_bytes += sent
        return sent

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever the inner one has
        """Be the socket in everything else."""
        return getattr(self._inner, name)


class Meter:
    """Counts what one connection sends, and knows its wire once there is one."""

    def __init__(self) -> None:
        """Begin at nothing."""
        self.sent_bytes = 0
        self.wire: Wire | None = None
