"""The supervisor takes over the transfers of sessions: it has everything loaded that they need.

A session is a process of its own, and importing what checks a signature and stores a blob costs it more than doing it.
So `session_start` hands its input and output over, as descriptors over a socket, with its first request that isn't
about what is here already; it gets the first request back that isn't a transfer's, and goes on with that by itself.

Rules it keeps: whoever can connect is the user that the agent runs as, as with the control socket; a session whose
process ends is over; a session that fails takes nothing with it. What it does NOT do: deploy, roll back or measure:
those take long, and the process that waits for them can be told from the agent.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import select
import socket
import threading
from typing import TYPE_CHECKING

from tflotilla.device import session
from tflotilla.device.session_start import SESSIONS, Joined, packed, unpacked
from tflotilla.shared.contract import layout

if TYPE_CHECKING:
    from tflotilla.device.home import Home

_LOG = logging.getLogger(__name__)
_BACKLOG = 32
_PATIENCE_S = 5.0
_DESCRIPTORS = 2
_BUFFER_BYTES = 1 << 18


class SessionServer:
    """Listens in a home from `start` to `close`, in threads of its own."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._path = str(home.path / SESSIONS)
        self._listener: socket.socket | None = None

    def start(self) -> None:
        """Begin to listen; where that can't be, sessions do without."""
        if len(os.fsencode(self._path)) > layout.SOCKET_PATH_LIMIT:
            return
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._path)  # noqa: PTH108 - of a supervisor that was killed
            listener.bind(self._path)
            os.chmod(self._path, 0o600)  # noqa: PTH101
            listener.listen(_BACKLOG)
        except OSError as error:
            listener.close()
            _LOG.warning("sessions will load what they need by themselves: %s: %s", self._path, error.strerror)
            return
        self._listener = listener
        threading.Thread(target=self._accept, args=(listener,), name="sessions", daemon=True).start()

    def close(self) -> None:
        """Take over no more; sessions that are being carried on end with this process."""
        if self._listener is not None:
            with contextlib.suppress(OSError):
                # A thread that waits in accept() is woken by this, not by closing.
                self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            self._listener = None
            with contextlib.suppress(OSError):
                os.unlink(self._path)  # noqa: PTH108

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _address = listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), name="session", daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            try:
                connection.sendall(packed(*self._carry_on(connection)))
            except OSError as error:
                # The host or the session's process went away: what has arrived is kept, as after any cut.
                _LOG.info("a session ended early: %s", error)
            except Exception:  # noqa: BLE001 - a bug in one session must not end the agent
                # Its process sees the end of the connection, and the host a line that broke.
                _LOG.exception("carrying on a session")

    def _carry_on(self, connection: socket.socket) -> tuple[bytes, bytes]:
        """Serve a session's transfers; return the request it is to go on with, and what was read behind that."""
        connection.settimeout(_PATIENCE_S)
        begun, descriptors, _flags, _address = socket.recv_fds(connection, 1, _DESCRIPTORS)
        with contextlib.ExitStack() as stack:
            for descriptor in descriptors:
                stack.callback(os.close, descriptor)
            if len(descriptors) != _DESCRIPTORS:
                return b"", b""
            line, ahead = unpacked(connection, begun)
            source = Joined(ahead, _Watched(descriptors[0], connection))
            requests = io.BufferedReader(source, _BUFFER_BYTES)
            with open(descriptors[1], "wb", closefd=False) as replies:
                left = session.carry_on(self._home, requests, replies, first=line)
            source.paused = True
            return (b"", b"") if left is None else (left, requests.read1(_BUFFER_BYTES) or b"")


class _Watched(io.RawIOBase):
    """A descriptor that ends when a connection does: nobody would notice otherwise that the session was killed."""

    def __init__(self, descriptor: int, connection: socket.socket) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._connection = connection

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        ready, _writable, _failed = select.select([self._descriptor, self._connection], [], [])
        return 0 if self._connection in ready else os.readv(self._descriptor, [buffer])
