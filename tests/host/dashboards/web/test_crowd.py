"""Many browsers, slow ones and ones that hang, on a real socket."""

from __future__ import annotations

import contextlib
import json
import socket
from typing import TYPE_CHECKING, Any

import httpx

from tests.brokers import until
from tests.host.dashboards.web import served
from tflotilla.host.dashboards.web import server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_ASK = b"GET /api/stream HTTP/1.1\r\nHost: localhost\r\n\r\n"


def streamed(lines: Iterator[str]) -> Iterator[tuple[str, Any]]:
    """Yield events: name and data."""
    name = ""
    for line in lines:
        if line.startswith("event: "):
            name = line[7:]
        elif line.startswith("data: "):
            yield name, json.loads(line[6:])


def test_a_stream_begins_with_all_and_goes_on_with_what_changes(tmp_path: Path) -> None:
    with (
        served.page(tmp_path) as (made, port),
        httpx.stream("GET", f"http://127.0.0.1:{port}/api/stream?board=pi-001", timeout=30) as answer,
    ):
        events = streamed(answer.iter_lines())
        first = next(events)
        made.now.hear(made.boards[0].window(made.now.time()))
        later = {}
        for name, data in events:
            later[name] = data
            if {"tiles", "board"} <= later.keys() and later["tiles"]["tiles"]:
                break

    assert "text/event-stream; charset=utf-8" == answer.headers["content-type"]
    assert ("fleet", 8) == (first[0], len(first[1]["tiles"]))
    assert ["pi-001"] == [tile["board"] for tile in later["tiles"]["tiles"]]
    assert 20 == len(later["board"]["predictions"])


def test_something_is_said_even_if_nothing_happens(tmp_path: Path) -> None:
    with (
        served.page(tmp_path) as (_made, port),
        httpx.stream("GET", f"http://127.0.0.1:{port}/api/stream", timeout=30) as answer,
    ):
        quiet = (data for name, data in streamed(answer.iter_lines()) if name == "tiles" and not data["tiles"])

        assert [] == next(quiet)["gone"]


def test_whether_we_listen_is_told(tmp_path: Path) -> None:
    with (
        served.page(tmp_path) as (made, port),
        httpx.stream("GET", f"http://127.0.0.1:{port}/api/stream", timeout=30) as answer,
    ):
        events = streamed(answer.iter_lines())
        next(events)
        made.now.connection(connected=False, reason="the broker is gone")
        away = next(data for name, data in events if name == "source")

    assert {"connected": False, "reason": "the broker is gone"} == away


def test_two_hundred_browsers_are_served_and_one_that_hangs_keeps_nobody_waiting(tmp_path: Path) -> None:
    with served.page(tmp_path, boards=40) as (made, port), contextlib.ExitStack() as open_ones:
        browsers = [open_ones.enter_context(socket.create_connection(("127.0.0.1", port))) for _ in range(200)]
        hanging = browsers[:20]
        for each in browsers:
            each.sendall(_ASK)
        for each in browsers[20:]:
            each.settimeout(30)
        heard = {each: bytearray() for each in browsers[20:]}
        _read_until(heard, b"event: fleet")
        for _ in range(3):
            for board in made.boards:
                made.now.hear(board.window(made.now.time()))
            for taken in heard.values():
                taken.clear()
            _read_until(heard, b"event: tiles")

        assert 200 == made.site.hub.streams
        assert 200 == httpx.get(f"http://127.0.0.1:{port}/api/fleet", timeout=30).status_code
        for each in hanging:
            each.close()
        until(lambda: made.site.hub.streams == 180, "those that went are still counted")


def _read_until(heard: dict[socket.socket, bytearray], wanted: bytes) -> None:
    for each, taken in heard.items():
        while wanted not in taken:
            piece = each.recv(1 << 16)
            assert piece, "a stream ended"
            taken.extend(piece)


def test_one_browser_too_many_is_refused_and_the_others_go_on(tmp_path: Path) -> None:
    with served.page(tmp_path) as (made, port):
        made.site.hub.streams += 400
        refused = httpx.get(f"http://127.0.0.1:{port}/api/stream", timeout=30)
        made.site.hub.streams -= 400

    assert (503, {"error": "400 browsers look already"}) == (refused.status_code, refused.json())


def test_streams_end_when_the_server_does(tmp_path: Path) -> None:
    with contextlib.ExitStack() as page:
        _made, port = page.enter_context(served.page(tmp_path))
        with httpx.stream("GET", f"http://127.0.0.1:{port}/api/stream", timeout=60) as answer:
            events = streamed(answer.iter_lines())
            next(events)
            page.close()

            assert all(name in ("tiles", "source", "rollouts") for name, _data in events)


class _Hasty(server.Connection):
    patience_s = 0.2


class _Few(server.Connection):
    most = 3


def test_who_connects_and_asks_nothing_is_hung_up_on_and_a_stream_is_not(tmp_path: Path) -> None:
    with served.page(tmp_path, connection=_Hasty) as (made, port), contextlib.ExitStack() as open_ones:
        silent, half, browser = (
            open_ones.enter_context(socket.create_connection(("127.0.0.1", port), timeout=30)) for _ in range(3)
        )
        browser.sendall(_ASK)
        half.sendall(_ASK[:20])
        taken = {browser: bytearray()}
        _read_until(taken, b"event: fleet")

        assert (True, True) == (_ended(silent), _ended(half))
        taken[browser].clear()
        made.now.hear(made.boards[0].window(made.now.time()))
        _read_until(taken, b"pi-001")


def test_there_are_never_more_connections_than_files_may_be_open(tmp_path: Path) -> None:
    with served.page(tmp_path, connection=_Few) as (_made, port), contextlib.ExitStack() as open_ones:
        held = [
            open_ones.enter_context(socket.create_connection(("127.0.0.1", port), timeout=30)) for _ in range(_Few.most)
        ]
        with socket.create_connection(("127.0.0.1", port), timeout=30) as late:
            assert _ended(late)
        held[0].sendall(_ASK)
        _read_until({held[0]: bytearray()}, b"event: fleet")


def _ended(connection: socket.socket) -> bool:
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True
