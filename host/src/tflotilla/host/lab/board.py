"""One virtual board: a real SSH server on loopback, with a host key, a home and a process space of its own.

Runs as a process (`launch.py` starts it); SIGHUP makes it read its faults again, SIGTERM switches it off, and then
nothing that was started on it lives. It believes the keys in `home/.ssh/authorized_keys`, as sshd does.

It does NOT isolate: its programs run as the user who started the lab and see that user's machine. It is for trying
and testing, on loopback, with a key that only the lab has.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import asyncssh

from tflotilla.host.lab import outfit
from tflotilla.host.lab.faults import Faults
from tflotilla.host.lab.reaper import Children, end_of
from tflotilla.host.lab.session import Session
from tflotilla.shared.contract import codec

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_LOOPBACK = "127.0.0.1"
_BACKLOG = 128
_GRACE_S = 1.0
_CHUNK_BYTES = 16 << 10
_LOGIN_TIMEOUT_S = 60
FAULTS = "faults.json"
#: Holds the bytes of the faults that are obeyed now.
FAULTS_OBEYED = "faults.obeyed"


@dataclass(frozen=True, slots=True, kw_only=True)
class BoardSpec:
    """What a board process is told when it starts. Port 0 is any free one."""

    name: str
    lab_id: str
    folder: str
    port: int = 0


class Board:
    """The server; `serve` runs until `stop` is set."""

    def __init__(self, spec: BoardSpec) -> None:
        self.outfit = outfit.Outfit(folder=Path(spec.folder), lab_id=spec.lab_id, name=spec.name)
        self.faults = Faults()
        self._spec = spec
        self._port = spec.port
        self._cuts_left = 0
        self._children = Children()
        self._listener: socket.socket | None = None
        self._accepting: asyncio.Task[None] | None = None
        self._connections: set[asyncio.Task[None]] = set()

    async def serve(self, ready: Callable[[int], None], stop: asyncio.Event) -> None:
        """Listen, say on which port, and end everything when told to stop."""
        self.obey_faults()
        ready(self._port)
        await stop.wait()
        self._close_listener()
        for connection in self._connections:
            connection.cancel()
        await self._children.end(grace_s=_GRACE_S)

    def obey_faults(self) -> None:
        """Read the faults again and say that they are obeyed."""
        file = self.outfit.folder / FAULTS
        data = file.read_bytes() if file.exists() else codec.canonical_json(Faults())
        self.faults = codec.decode(Faults, codec.parse_json(data, FAULTS), FAULTS, strict=True)
        self._cuts_left = self.faults.cuts
        self.outfit.path(self.faults)
        if self.faults.refuse_connections:
            self._close_listener()
        elif self._listener is None:
            self._open_listener()
        (self.outfit.folder / FAULTS_OBEYED).write_bytes(data)

    def _open_listener(self) -> None:
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.settimeout(0)
        listener.bind((_LOOPBACK, self._port))
        listener.listen(_BACKLOG)
        self._port = listener.getsockname()[1]
        self._listener = listener
        self._accepting = asyncio.get_running_loop().create_task(self._accept(listener))

    def _close_listener(self) -> None:
        if self._accepting is not None:
            self._accepting.cancel()
            self._accepting = None
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            connection, peer = await loop.sock_accept(listener)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            task = loop.create_task(self._connected(connection, peer[1]))
            self._connections.add(task)
            task.add_done_callback(self._connections.discard)

    async def _connected(self, connection: socket.socket, peer: int) -> None:
        faults = self.faults
        cut_after = None
        if faults.cut_after_bytes is not None and self._cuts_left > 0:
            self._cuts_left -= 1
            cut_after = faults.cut_after_bytes
        try:
            if cut_after is None and faults.bytes_per_second is None:
                await self._speak_ssh(connection)
                return
            inner, outer = socket.socketpair()
            inner.settimeout(0)
            outer.settimeout(0)
            relay = _Relay(connection, outer, cut_after=cut_after, bytes_per_second=faults.bytes_per_second)
            await asyncio.gather(self._speak_ssh(inner), relay.run())
        except (OSError, asyncssh.Error) as error:
            self.log(f"connection from port {peer} ended: {error}")

    async def _speak_ssh(self, connection: socket.socket) -> None:
        # Read anew each time: the key may have been changed on purpose.
        options = await asyncssh.SSHServerConnectionOptions.construct(
            server_factory=lambda: _Login(self),
            server_host_keys=[str(self.outfit.host_key)],
            line_editor=False,
            gss_host=None,
            x11_forwarding=False,
            agent_forwarding=False,
            login_timeout=_LOGIN_TIMEOUT_S,
            server_version="tflotilla_lab",
        )
        server = await asyncssh.run_server(connection, options=options)
        await server.wait_closed()

    def session(self) -> _Session:
        """Return the handler of one new channel."""
        faults = self.faults

        def environment(extra: Mapping[str, str]) -> dict[str, str]:
            return self.outfit.environment(faults, extra)

        return _Session(self._children, home=self.outfit.home, environment=environment, log=self.log)

    def lets_in(self, username: str, key: asyncssh.SSHKey) -> bool:
        """Whether the user may log in with that key."""
        if self.faults.refuse_login or username != outfit.user():
            self.log(f"refuses {username!r}")
            return False
        offered = key.export_public_key().split()[:2]
        with suppress(OSError):
            lines = self.outfit.authorized_keys.read_bytes().splitlines()
            return any(line.split()[:2] == offered for line in lines)
        return False

    def log(self, line: str) -> None:
        """Write one line to board.log, which is this process's stderr."""
        sys.stderr.write(f"{time.strftime('%H:%M:%S')} {self._spec.name} {line}\n")
        sys.stderr.flush()


class _Login(asyncssh.SSHServer):
    def __init__(self, board: Board) -> None:
        self._board = board
        self._connection: asyncssh.SSHServerConnection

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        self._connection = conn

    def begin_auth(self, username: str) -> bool:
        del username
        return True

    def public_key_auth_supported(self) -> bool:
        return True

    def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
        return self._board.lets_in(username, key)

    def session_requested(self) -> tuple[asyncssh.SSHServerChannel[bytes], _Session]:
        return self._connection.create_server_channel(encoding=None), self._board.session()


class _Session(Session, asyncssh.SSHServerSession[bytes]):
    """A session as asyncssh knows them."""


class _Relay:
    """The faulty line between the network and the SSH server."""

    def __init__(
        self, outside: socket.socket, inside: socket.socket, *, cut_after: int | None, bytes_per_second: int | None
    ) -> None:
        self._outside = outside
        self._inside = inside
        self._cut_after = cut_after
        self._bytes_per_second = bytes_per_second

    async def run(self) -> None:
        """Carry bytes until either end closes or the line is cut."""
        towards_board = asyncio.create_task(self._carry(self._outside, self._inside, limit=self._cut_after))
        from_board = asyncio.create_task(self._carry(self._inside, self._outside, limit=None))
        try:
            await asyncio.wait({towards_board, from_board}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (towards_board, from_board):
                task.cancel()
            await asyncio.gather(towards_board, from_board, return_exceptions=True)
            self._outside.close()
            self._inside.close()

    async def _carry(self, source: socket.socket, target: socket.socket, *, limit: int | None) -> None:
        loop = asyncio.get_running_loop()
        carried = 0
        with suppress(OSError):
            while limit is None or carried < limit:
                size = _CHUNK_BYTES if limit is None else min(_CHUNK_BYTES, limit - carried)
                if self._bytes_per_second is not None:
                    # A tenth of a second at a time, so that slow lines are slow evenly.
                    size = max(1, min(size, self._bytes_per_second // 10))
                data = await loop.sock_recv(source, size)
                if not data:
                    return
                await loop.sock_sendall(target, data)
                carried += len(data)
                if self._bytes_per_second is not None:
                    await asyncio.sleep(len(data) / self._bytes_per_second)


def run(spec: BoardSpec, ready: Callable[[int], None], lifeline: int | None) -> None:
    """Be that board until SIGTERM, or until whoever holds the other end of the `lifeline` descriptor is gone."""
    logging.getLogger("asyncssh").setLevel(logging.WARNING)
    asyncio.run(_run(spec, ready, lifeline))


async def _run(spec: BoardSpec, ready: Callable[[int], None], lifeline: int | None) -> None:
    stop = end_of(lifeline)
    board = Board(spec)
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, board.obey_faults)
    await board.serve(ready, stop)
