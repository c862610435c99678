"""A site behind a real socket, for tests that stream, hang or come in crowds."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import TYPE_CHECKING

import uvicorn

from tests.host.dashboards.web import feed
from tflotilla.host.dashboards.web import access, app, server

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator
    from pathlib import Path

    from tests.host.dashboards.web.feed import Made


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, up: threading.Event) -> None:
        super().__init__(config)
        self._up = up

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._up.set()


@contextlib.contextmanager
def page(
    folder: Path,
    *,
    boards: int = 6,
    token: str | None = feed.TOKEN,
    connection: type[server.Connection] = server.Connection,
) -> Iterator[tuple[Made, int]]:
    """Serve a simulated fleet in a thread; yield it and its port. Its boards have come, and say nothing more."""
    with feed.made(boards, folder=folder, token=token, token_delay_s=0.01) as made:
        made.now.connection(connected=True)
        for board in made.boards:
            made.now.hear(board.births(made.now.time()))
            made.now.hear(board.window(made.now.time()))
        opened = server.listen("127.0.0.1", 0)
        application = app.build(made.site, names=access.own_names("127.0.0.1"))
        up = threading.Event()
        config = uvicorn.Config(
            application, log_config=None, access_log=False, lifespan="on", ws="none", http=connection
        )
        serving = _Server(config, up)
        thread = threading.Thread(target=lambda: asyncio.run(serving.serve(sockets=[opened])))
        thread.start()
        assert up.wait(30), "the page is not served"
        try:
            yield made, opened.getsockname()[1]
        finally:
            made.site.hub.close()
            serving.should_exit = True
            thread.join(30)
