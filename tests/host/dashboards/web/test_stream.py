"""Server-sent events: encoded once, and nobody waits for a slow browser."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from tflotilla.host.dashboards.web import stream
from tflotilla.host.dashboards.web.stream import EventStream, Hub

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine


class Browser:
    """The other end of a stream: takes what it is sent only while it is `free`."""

    def __init__(self) -> None:
        self.taken = bytearray()
        self.free = asyncio.Event()
        self.free.set()
        self.gone = asyncio.Event()
        self.largest = 0

    async def receive(self) -> Any:  # noqa: ANN401 - ASGI's
        """Say nothing until it goes."""
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:  # noqa: ANN401 - ASGI's
        """Take a piece, once it can."""
        await self.free.wait()
        self.taken += message.get("body", b"")
        self.largest = max(self.largest, len(message.get("body", b"")))

    def events(self) -> list[str]:
        """Return the names of what it was sent."""
        return [line[7:] for line in bytes(self.taken).decode().splitlines() if line.startswith("event: ")]


def run(story: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a story to its end."""
    asyncio.run(asyncio.wait_for(story(), timeout=20))


async def settled() -> None:
    """Let everybody who can go on do so."""
    for _ in range(30):
        await asyncio.sleep(0)


def joined(hub: Hub, browser: Browser, board: str | None = None) -> asyncio.Task[None]:
    """Open a stream."""
    return asyncio.create_task(EventStream(hub, board=board)({}, browser.receive, browser.send))


def test_a_browser_is_told_everything_first_and_then_what_changes() -> None:
    async def story() -> None:
        hub, browser = Hub(lambda: b"{}"), Browser()
        task = joined(hub, browser)
        await settled()
        hub.fleet.publish("tiles", b"1")
        await settled()
        hub.fleet.publish("source", b"2")
        await settled()

        assert ["fleet", "tiles", "source"] == browser.events()
        assert bytes(browser.taken).endswith(b"event: source\ndata: 2\n\n")
        browser.gone.set()
        await task
        assert 0 == hub.streams

    run(story)


def test_a_snapshot_is_encoded_once_for_all_who_come() -> None:
    made = []

    async def story() -> None:
        hub = Hub(lambda: made.append(1) or b"{}")  # type: ignore[func-returns-value]
        tasks = [joined(hub, Browser()) for _ in range(50)]
        await settled()
        assert 50 == hub.streams
        hub.close()
        await asyncio.gather(*tasks)

    run(story)

    assert [1] == made


def test_a_slow_browser_gets_the_newest_state_and_no_backlog() -> None:
    async def story() -> None:
        state = {"now": 0}
        hub, slow, fast = Hub(lambda: str(state["now"]).encode()), Browser(), Browser()
        tasks = [joined(hub, slow), joined(hub, fast)]
        await settled()
        slow.free.clear()
        for number in range(1, 101):
            state["now"] = number
            hub.fleet.publish("tiles", str(number).encode())
            await settled()

        assert 101 == len(fast.events())
        slow.free.set()
        await settled()
        assert ["fleet", "tiles", "fleet"] == slow.events()
        assert bytes(slow.taken).endswith(b"data: 100\n\n")
        hub.close()
        await asyncio.gather(*tasks)

    run(story)


def test_who_looks_at_a_board_hears_of_it_and_others_do_not() -> None:
    async def story() -> None:
        watched: list[str] = []
        hub = Hub(lambda: b"{}", on_watch=watched.append, on_unwatch=watched.remove)
        one, two, other = Browser(), Browser(), Browser()
        tasks = [joined(hub, one, "pi-1"), joined(hub, two, "pi-1"), joined(hub, other)]
        await settled()
        assert ["pi-1"] == watched
        hub.boards["pi-1"].publish("board", b"{}")
        await settled()

        assert (["fleet", "board"], ["fleet"]) == (one.events(), other.events())
        one.gone.set()
        await settled()
        assert ["pi-1"] == watched
        two.gone.set()
        await settled()
        assert ([], {}) == (watched, hub.boards)
        hub.close()
        await asyncio.gather(*tasks)

    run(story)


def test_who_missed_what_a_board_said_is_told_everything_again() -> None:
    async def story() -> None:
        hub, browser = Hub(lambda: b"{}"), Browser()
        task = joined(hub, browser, "pi-1")
        await settled()
        browser.free.clear()
        for number in range(20):
            hub.boards["pi-1"].publish("board", str(number).encode())
            await settled()
        browser.free.set()
        await settled()

        assert ["fleet", "board", "fleet"] == browser.events()
        hub.close()
        await task

    run(story)


def test_a_large_event_is_sent_in_pieces_so_that_little_waits_for_a_browser() -> None:
    async def story() -> None:
        hub, browser = Hub(lambda: b"x" * 1_000_000), Browser()
        task = joined(hub, browser)
        await settled()
        hub.close()
        await task

        assert browser.largest <= 32 * 1024
        assert bytes(browser.taken) == stream.event("fleet", b"x" * 1_000_000)

    run(story)


def test_a_browser_that_takes_nothing_is_let_go() -> None:
    async def story() -> None:
        hub, browser = Hub(lambda: b"{}"), Browser()
        task = asyncio.create_task(EventStream(hub, patience_s=0.01)({}, browser.receive, browser.send))
        await settled()
        browser.free.clear()
        hub.fleet.publish("tiles", b"1")
        await task

        assert 0 == hub.streams

    run(story)
