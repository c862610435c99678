"""The page as tests look at it: really served, in a real Chromium, with boards that speak when a test says so.

What it does NOT do: let time pass. A board's next window comes by `Served.speak`, and whoever waits asks the page.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import shutil
import subprocess
import tarfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pytest
import uvicorn

from tests.end_to_end import browser
from tests.host.dashboards.web import feed, stories
from tflotilla.host.dashboards.web import access, app, server

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.host.dashboards.web import simulated

_PATIENCE_S = 60.0
_PAST_WINDOWS = 20
_AXE_VERSION = "4.14.1"
#: What browsers complain of when a page is left while something loads is not the page's doing.
_SAID = ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded")


@dataclass(slots=True)
class Served:
    """A page that is being served."""

    address: str
    made: feed.Made
    folder: Path
    conductor: stories.Conductor

    def board(self, name: str) -> simulated.Board:
        """Return one of the boards that speak."""
        return next(board for board in self.made.boards if board.name == name)

    def speak(self, *names: str) -> None:
        """Let boards, all if none are named, report a window."""
        for board in self.made.boards:
            if not names or board.name in names:
                self.made.now.hear(board.window(time.time()))


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class Serving:
    """A server in a thread; it can be ended, and begun again on the same port."""

    def __init__(self, site: feed.Made) -> None:
        self._site = site.site
        self._port = 0
        self._begin()

    @property
    def address(self) -> str:
        """Where the page is."""
        return f"http://127.0.0.1:{self._port}/"

    def again(self) -> None:
        """Serve anew, after `end`."""
        # A hub that was closed stays so.
        self._site.hub._closed = False
        self._begin()

    def end(self) -> None:
        """Stop, and close all connections."""
        self._loop.call_soon_threadsafe(self._site.hub.close)
        self._server.should_exit = True
        self._thread.join(_PATIENCE_S)

    def _begin(self) -> None:
        opened = server.listen("127.0.0.1", self._port)
        self._port = opened.getsockname()[1]
        application = app.build(self._site, names=access.own_names("127.0.0.1"))
        given = uvicorn.Config(application, log_config=None, access_log=False, timeout_graceful_shutdown=1)
        self._server = _Server(given)
        begun = threading.Event()

        async def serve() -> None:
            self._loop = asyncio.get_running_loop()
            begun.set()
            await self._server.serve(sockets=[opened])

        self._thread = threading.Thread(target=lambda: asyncio.run(serve()), daemon=True)
        self._thread.start()
        assert begun.wait(_PATIENCE_S)


@contextlib.contextmanager
def served(
    folder: Path, *, boards: int = 24, token: str | None = feed.TOKEN, past: int = _PAST_WINDOWS
) -> Iterator[tuple[Served, Serving]]:
    """Serve the page of a simulated fleet; its boards have reported `past` windows already."""
    with feed.made(boards, folder=folder, token=token, token_delay_s=0.0) as made:
        now = time.time()
        made.now.connection(connected=True)
        for board in made.boards:
            made.now.hear(board.births(now))
            for back in range(past, 0, -1):
                made.now.hear(itertools.islice(board.window(now - back), 2))
        serving = Serving(made)
        conductor = stories.Conductor(folder)
        try:
            yield Served(address=serving.address, made=made, folder=folder, conductor=conductor), serving
        finally:
            serving.end()
            conductor.close()


class Eyes:
    """A browser that looks at a page that is served."""

    def __init__(self, tab: browser.Browser, address: str) -> None:
        """`address` is the page's."""
        self.tab = tab
        self._address = address

    def open(
        self, route: str = "#/", *, width: int = 1280, height: int = 844, scheme: Literal["light", "dark"] = "light"
    ) -> None:
        """Load the page at a route, into a desktop's window or a phone, and wait until the fleet is there."""
        mobile = width < browser.DESKTOP
        self.tab.show(f"{self._address}{route}", width=width, height=height, scheme=scheme, mobile=mobile)
        self.tab.until("document.getElementById('link').dataset.state !== 'waiting'")
        self.tab.until("document.querySelector('main > .page')")

    def until(self, expression: str) -> Any:  # noqa: ANN401 - whatever the expression gives
        """Wait for the page."""
        return self.tab.until(expression)

    def ask(self, expression: str) -> Any:  # noqa: ANN401 - whatever the expression gives
        """Ask the page."""
        return self.tab.ask(expression)

    def text(self, selector: str) -> str:
        """Return what stands in the first element that the selector picks, once it is there."""
        found: str = self.until(f"document.querySelector({json.dumps(selector)})?.innerText")
        return found

    def texts(self, selector: str) -> list[str]:
        """Return what stands in every element that the selector picks."""
        found: list[str] = self.ask(
            f"[...document.querySelectorAll({json.dumps(selector)})].map(each => each.innerText)"
        )
        return found

    def fill(self, selector: str, text: str) -> None:
        """Put text into a box, as if typed."""
        self.ask(
            f"(() => {{ const box = document.querySelector({json.dumps(selector)}); box.focus(); box.select(); }})()"
        )
        self.tab.write(text)

    def choose(self, selector: str, value: str) -> None:
        """Choose in a list."""
        self.ask(
            f"(() => {{ const list = document.querySelector({json.dumps(selector)}); list.value = {json.dumps(value)}; "
            "list.dispatchEvent(new Event('change')); })()"
        )

    def complaints(self) -> list[str]:
        """Return what the page said to the console or threw."""
        return [said for said in self.tab.complaints() if json.loads(said)["method"] in _SAID]

    def violations(self, axe: str) -> list[Any]:
        """Return what axe finds wrong with the page as it is, in short."""
        self.tab.run(axe)
        found: list[Any] = self.until(
            "(window.axeFound ??= axe.run(document, {resultTypes: ['violations']}).then(found => window.axeFound = "
            "found.violations.map(one => [one.id, ...one.nodes.slice(0, 3).map(node => node.html.slice(0, 120))])))"
            " instanceof Promise ? null : [window.axeFound]"
        )[0]
        self.ask("void (window.axeFound = null)")
        return found


def axe_script() -> str:
    """Return axe-core's source, fetched by npm into a cache; skips the test where it can't be had."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tflotilla" / "npm"
    archive = cache / f"axe-core-{_AXE_VERSION}.tgz"
    if not archive.is_file():
        npm = shutil.which("npm")
        if npm is None:
            pytest.skip("no npm is installed: pages are not held against axe")
        cache.mkdir(parents=True, exist_ok=True)
        command = [npm, "pack", f"axe-core@{_AXE_VERSION}", "--silent"]
        done = subprocess.run(command, cwd=cache, capture_output=True, text=True, timeout=180, check=False)
        if not archive.is_file():
            pytest.skip(f"npm can't fetch axe-core: {done.stderr.strip()[-200:]}")
    with tarfile.open(archive) as opened:
        member = opened.extractfile("package/axe.min.js")
        assert member is not None
        return member.read().decode()
