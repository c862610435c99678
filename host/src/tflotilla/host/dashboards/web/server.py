"""Serves the page: a socket, uvicorn, and an end in good order. The only door to uvicorn.

What it does NOT do: TLS. Whoever shows the page to others puts a proxy in front, or goes through ssh.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
from typing import TYPE_CHECKING

import uvicorn

from tflotilla.shared.contract.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from starlette.types import ASGIApp

_BACKLOG = 512
#: What was sent and not taken for so long ends a connection, so that browsers that hang don't pile up.
_UNTAKEN_MS = 60_000
_GRACE_S = 2


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
    config = uvicorn.Config(
        app,
        access_log=False,
        log_config=None,
        server_header=False,
        date_header=True,
        lifespan="on",
        ws="none",
        loop="asyncio",
        http="h11",
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
