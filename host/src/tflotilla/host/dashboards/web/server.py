"""Serves the page: a socket, uvicorn, and an end in good order. The only door to uvicorn.

Rules it keeps: who connects and asks nothing is hung up on after some seconds, and there are never more connections
than this process may have files open.
What it does NOT do: TLS. Whoever shows the page to others puts a proxy in front, or goes through ssh.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import resource
import signal
import socket
from typing import TYPE_CHECKING

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from tflotilla.shared.contract.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from starlette.types import ASGIApp

_BACKLOG = 512
#: What was sent and not taken for so long ends a connection, so that browsers that hang don't pile up.
_UNTAKEN_MS = 60_000
_GRACE_S = 2
#: Who connects asks within that, or is hung up on; a browser that looks asks at once, and then keeps its stream.
_ASKS_WITHIN_S = 15.0
_MOST_CONNECTIONS = 2000
#: What else this process opens: the broker, journals, standard streams.
_OTHER_FILES = 100


def listen(host: str, port: int) -> socket.socket:
    """Open the socket that the page is served on; port 0 is any that is free.

    Raises:
        InputError: the port is taken, or the address isn't this machine's.

    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _name, address = found[0]
        opened = socket.socket(family, kind, protocol)
        try:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _UNTAKEN_MS)
            opened.bind(address)
            opened.listen(_BACKLOG)
        except OSError:
            opened.close()
            raise
    except (OSError, OverflowError, UnicodeError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise InputError(
            f"the page can't be served on {host} port {port}: {reason}; choose another with --listen"
        ) from error
    return opened


def allow_connections(wanted: int = _MOST_CONNECTIONS) -> int:
    """Let this process open as many files as so many connections need; return how many connections it can have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = wanted + _OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < needed:
        soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        return max(1, soft - _OTHER_FILES)
    return wanted


class Connection(H11Protocol):
    """One connection; those that don't ask, and those that are too many, end."""

    most = _MOST_CONNECTIONS
    patience_s = _ASKS_WITHIN_S

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Hang up at once where there are too many."""
        super().connection_made(transport)
        self._asked = self.cycle
        self._watch: asyncio.TimerHandle | None = None
        if len(self.connections) > self.most:
            transport.abort()
            return
        self._look_later()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        if self._watch is not None:
            self._watch.cancel()
        super().connection_lost(exc)

    def _look_later(self) -> None:
        self._watch = self.loop.call_later(self.patience_s, self._look)

    def _look(self) -> None:
        answered = self.cycle is None or self.cycle.response_complete
        if answered and self.cycle is self._asked:
            self.transport.abort()
            return
        self._asked = self.cycle
        self._look_later()


class _Server(uvicorn.Server):
    """Leaves signals to us: it would end as if it had been killed by them; and says when it answers."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self.ready = ready

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self.ready()


async def serve(app: ASGIApp, opened: socket.socket, *, ready: Callable[[], None], ending: Callable[[], None]) -> None:
    """Serve until SIGINT or SIGTERM; `ready` is called when requests are answered, `ending` before they aren't."""
    # What uvicorn has to say of browsers that hang up is nobody's business.
    logging.getLogger("uvicorn").setLevel(logging.CRITICAL + 1)
    Connection.most = allow_connections()
    config = uvicorn.Config(
        app,
        access_log=False,
        log_config=None,
        server_header=False,
        date_header=True,
        lifespan="on",
        ws="none",
        loop="asyncio",
        http=Connection,
        proxy_headers=False,
        timeout_graceful_shutdown=_GRACE_S,
    )
    server = _Server(config, ready)
    loop = asyncio.get_running_loop()

    def end() -> None:
        ending()
        server.should_exit = True

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, end)
    await server.serve(sockets=[opened])
