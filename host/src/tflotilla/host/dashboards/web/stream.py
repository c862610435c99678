"""Server-sent events for many browsers: encoded once, sent to all, and a slow browser gets the newest state.

    hub = Hub(snapshot)                      # `snapshot` encodes all that a browser must know when it comes
    hub.fleet.publish("tiles", b'{"now": …}')
    return EventStream(hub, board="pi-7")    # an ASGI application, one for each browser

Rules it keeps: what waits for a browser is the last few events, which all browsers share; one that missed more gets a
snapshot. What is in the kernel's and the server's buffers for one browser is bounded by `_PIECE`. One that takes
nothing for 15 seconds is let go; there are at most 400.
What it does NOT do: know what events mean.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.types import Receive, Scope, Send

#: More browsers than that are refused.
MOST_STREAMS = 400
_KEPT = 6
#: Handed to the server at once: it says when a browser doesn't take more, but holds what it was handed.
_PIECE = 32 * 1024
_PATIENCE_S = 15.0
_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
]


def event(name: str, data: bytes) -> bytes:
    """Write one event; `data` is JSON in one line."""
    return b"event: %s\ndata: %s\n\n" % (name.encode(), data)


class Channel:
    """The last events of one matter."""

    def __init__(self) -> None:
        self._events: deque[bytes] = deque(maxlen=_KEPT)
        #: How many there were.
        self.count = 0
        self.listeners: set[asyncio.Event] = set()

    def publish(self, name: str, data: bytes) -> None:
        """Send an event to whoever listens."""
        self._events.append(event(name, data))
        self.count += 1
        for listener in self.listeners:
            listener.set()

    def since(self, count: int) -> list[bytes] | None:
        """Return the events after the first `count`; None when some of them are not kept any more."""
        missed = self.count - count
        if missed > len(self._events):
            return None
        return list(self._events)[len(self._events) - missed :] if missed else []


class Hub:
    """All channels: the fleet's, and one for each board that somebody looks at."""

    def __init__(
        self,
        snapshot: Callable[[], bytes],
        *,
        on_watch: Callable[[str], None] = lambda _board: None,
        on_unwatch: Callable[[str], None] = lambda _board: None,
    ) -> None:
        """`snapshot` returns the data of the event `fleet`; the others hear when a board is looked at and no more."""
        self.fleet = Channel()
        self.boards: dict[str, Channel] = {}
        self.streams = 0
        self._closed = False
        self._snapshot = snapshot
        self._on_watch = on_watch
        self._on_unwatch = on_unwatch
        self._encoded: tuple[int, bytes] | None = None

    @property
    def closed(self) -> bool:
        """Whether streams have to end."""
        return self._closed

    def snapshot(self) -> bytes:
        """Return the event `fleet` as it is after the last one published: encoded once for all who come by then."""
        if self._encoded is None or self._encoded[0] != self.fleet.count:
            self._encoded = (self.fleet.count, event("fleet", self._snapshot()))
        return self._encoded[1]

    def join(self, board: str | None, wake: asyncio.Event) -> Channel | None:
        """Begin to listen; return the board's channel."""
        self.streams += 1
        self.fleet.listeners.add(wake)
        if board is None:
            return None
        channel = self.boards.get(board)
        if channel is None:
            channel = self.boards[board] = Channel()
            self._on_watch(board)
        channel.listeners.add(wake)
        return channel

    def leave(self, board: str | None, wake: asyncio.Event) -> None:
        """Undo `join`."""
        self.streams -= 1
        self.fleet.listeners.discard(wake)
        if board is not None:
            self.boards[board].listeners.discard(wake)
            if not self.boards[board].listeners:
                del self.boards[board]
                self._on_unwatch(board)

    def close(self) -> None:
        """End all streams."""
        self._closed = True
        for listener in self.fleet.listeners:
            listener.set()


class EventStream:
    """One browser's stream."""

    def __init__(self, hub: Hub, *, board: str | None = None, patience_s: float = _PATIENCE_S) -> None:
        self._hub = hub
        self._board = board
        self._patience_s = patience_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send until the browser goes, takes nothing any more, or the hub closes."""
        del scope
        wake = asyncio.Event()
        left = asyncio.create_task(_gone(receive, wake))
        channel = self._hub.join(self._board, wake)
        try:
            await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
            await self._follow(send, wake, left, channel)
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        except (TimeoutError, OSError):
            # It takes nothing any more; the server hangs up on who is sent nothing to the end.
            return
        finally:
            self._hub.leave(self._board, wake)
            left.cancel()

    async def _follow(self, send: Send, wake: asyncio.Event, left: asyncio.Task[None], board: Channel | None) -> None:
        fleet = self._hub.fleet
        # Nothing was sent yet, so a snapshot is missing.
        heard, heard_of_board = -1, 0 if board is None else board.count
        while not (left.done() or self._hub.closed):
            wake.clear()
            news = None if heard < 0 else fleet.since(heard)
            of_board = [] if board is None else board.since(heard_of_board)
            heard, heard_of_board = fleet.count, 0 if board is None else board.count
            if news is None or of_board is None:
                await self._send(send, self._hub.snapshot(), left)
            else:
                for each in (*news, *of_board):
                    await self._send(send, each, left)
            if not wake.is_set():
                await wake.wait()

    async def _send(self, send: Send, data: bytes, left: asyncio.Task[None]) -> None:
        """Send in pieces, and wait for each to be taken. Raises TimeoutError."""
        whole = memoryview(data)
        for start in range(0, len(data), _PIECE):
            if left.done():
                return
            piece = bytes(whole[start : start + _PIECE])
            await asyncio.wait_for(
                send({"type": "http.response.body", "body": piece, "more_body": True}), timeout=self._patience_s
            )


async def _gone(receive: Receive, wake: asyncio.Event) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    wake.set()
