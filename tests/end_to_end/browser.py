"""A real headless Chromium that tests look at pages with, spoken to over a pipe: no driver, no port, no network.

Rules: the window is what a test says it is, down to a phone's 390 CSS pixels (a headless window is never that narrow;
an emulated device is), in light or in dark. What a page says to the console, throws or fails to load is kept.
What it does NOT do: know anything of the pages it shows.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import select
import shutil
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any, Literal

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

#: Generous: a start takes a second, and ten on a machine that is busy.
_PATIENCE_S = 90.0
_OPTIONS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-dev-shm-usage",
    "--disable-sync",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
)

#: A window that is narrower is a phone's.
DESKTOP = 700
#: Asked again and again by the page itself: what isn't there yet is no error.
_UNTIL = """
new Promise((found, late) => {
  const end = performance.now() + PATIENCE_MS;
  const look = () => {
    let value = null;
    try { value = (EXPRESSION); } catch (notYet) { value = null; }
    if (value) found(value);
    else if (performance.now() > end) late(new Error("in vain"));
    else setTimeout(look, 30);
  };
  look();
})
"""
_CODES = {"Enter": 13, "Escape": 27, "Tab": 9}

_EXEC = """
import fcntl, os, sys
reading, writing = (fcntl.fcntl(int(number), fcntl.F_DUPFD, 64) for number in sys.argv[1:3])
os.dup2(reading, 3)
os.dup2(writing, 4)
os.execv(sys.argv[3], sys.argv[3:])
"""


class Browser:
    """One tab."""

    def __init__(self, reading: int, writing: int) -> None:
        """Speak the DevTools protocol (JSON, each message ended by a NUL) over two open files."""
        self._reading, self._writing = reading, writing
        self._buffer = b""
        self._number = 0
        self._events: list[dict[str, Any]] = []
        target = self._call("Target.createTarget", {"url": "about:blank"}, session=None)["targetId"]
        attached = self._call("Target.attachToTarget", {"targetId": target, "flatten": True}, session=None)
        self._session: str = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self._call(f"{domain}.enable")
        self._call("Page.setLifecycleEventsEnabled", {"enabled": True})

    def show(
        self, page: Path | str, *, width: int, scheme: Literal["light", "dark"], height: int = 844, mobile: bool = True
    ) -> None:
        """Load a file, or an address, into a phone of that width, in CSS pixels; or into a desktop's window."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": mobile}
        self._call("Emulation.setDeviceMetricsOverride", metrics)
        feature = {"name": "prefers-color-scheme", "value": scheme}
        self._call("Emulation.setEmulatedMedia", {"features": [feature]})
        # Another hash alone would not load anything.
        self._load("about:blank")
        self._events.clear()
        self._load(page if isinstance(page, str) else page.resolve().as_uri())

    def ask(self, expression: str) -> Any:  # noqa: ANN401 - whatever the expression gives
        """Return the value of a JavaScript expression."""
        answer = self._call("Runtime.evaluate", {"expression": expression, "returnByValue": True})
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def run(self, script: str) -> None:
        """Run a script that gives nothing."""
        answer = self._call("Runtime.evaluate", {"expression": script, "returnByValue": False})
        assert "exceptionDetails" not in answer, answer

    def until(self, expression: str, *, patience_s: float = 30.0) -> Any:  # noqa: ANN401 - whatever it gives
        """Return the value of a JavaScript expression once it is true; fails after `patience_s`."""
        waiting = _UNTIL.replace("PATIENCE_MS", str(patience_s * 1000)).replace("EXPRESSION", expression)
        given = {"expression": waiting, "returnByValue": True, "awaitPromise": True}
        answer = self._call("Runtime.evaluate", given)
        assert "exceptionDetails" not in answer, f"waited in vain for {expression}"
        return answer["result"].get("value")

    def press(self, key: str) -> None:
        """Press and release a key: a character, or a name like `Escape`."""
        code = _CODES.get(key, 0)
        event: dict[str, Any] = {"key": key, "windowsVirtualKeyCode": code}
        text = "\r" if key == "Enter" else key if len(key) == 1 else ""
        self._call("Input.dispatchKeyEvent", {**event, "type": "keyDown", "text": text})
        self._call("Input.dispatchKeyEvent", {**event, "type": "keyUp"})

    def write(self, text: str) -> None:
        """Type into what has the focus."""
        self._call("Input.insertText", {"text": text})

    def click(self, selector: str) -> None:
        """Scroll to the first element that a CSS selector picks, and click into its middle as a mouse does."""
        place = self.ask(
            f"(() => {{ const one = document.querySelector({json.dumps(selector)}); "
            "one.scrollIntoView({block: 'center'}); const box = one.getBoundingClientRect(); "
            "return [box.x + box.width / 2, box.y + box.height / 2]; })()"
        )
        given = {"x": place[0], "y": place[1], "button": "left", "clickCount": 1}
        self._call("Input.dispatchMouseEvent", {**given, "type": "mousePressed"})
        self._call("Input.dispatchMouseEvent", {**given, "type": "mouseReleased"})

    def performance(self) -> dict[str, float]:
        """Return what the browser counted of itself: `TaskDuration` and `Timestamp` are seconds."""
        self._call("Performance.enable")
        metrics = self._call("Performance.getMetrics")["metrics"]
        return {each["name"]: each["value"] for each in metrics}

    def screenshot(self, *, whole: bool = True) -> bytes:
        """Return the page as a PNG: all of it, or what is in the window."""
        answer = self._call("Page.captureScreenshot", {"format": "png", "captureBeyondViewport": whole})
        return base64.b64decode(answer["data"])

    def complaints(self) -> list[str]:
        """Return what the page said, threw or couldn't load since it was shown."""
        wrong = ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded", "Network.loadingFailed")
        return [json.dumps(event) for event in self._events if event["method"] in wrong]

    def requests(self) -> list[str]:
        """Return the addresses that were asked for since the page was shown, its own data left out."""
        asked = (e["params"]["request"]["url"] for e in self._events if e["method"] == "Network.requestWillBeSent")
        return [address for address in asked if not address.startswith("data:")]

    def _call(self, method: str, params: dict[str, Any] | None = None, *, session: str | None = "") -> dict[str, Any]:
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": params or {}}
        if session is not None:
            message["sessionId"] = self._session
        os.write(self._writing, json.dumps(message).encode() + b"\0")
        while (answer := self._next()).get("id") != self._number:
            self._events.append(answer)
        assert "error" not in answer, f"{method}: {answer}"
        result: dict[str, Any] = answer["result"]
        return result

    def _load(self, url: str) -> None:
        """Go there, and wait for that very document: the one before may say late that it is there, too."""
        wanted = {"name": "load", "loaderId": self._call("Page.navigate", {"url": url})["loaderId"]}
        while not any(
            event.get("method") == "Page.lifecycleEvent" and wanted.items() <= event["params"].items()
            for event in self._events
        ):
            self._events.append(self._next())

    def _next(self) -> dict[str, Any]:
        deadline = time.monotonic() + _PATIENCE_S
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._reading], [], [], max(deadline - time.monotonic(), 0))
            data = os.read(self._reading, 1 << 20) if ready else b""
            assert data, "Chromium is silent"
            self._buffer += data
        message, _, self._buffer = self._buffer.partition(b"\0")
        decoded: dict[str, Any] = json.loads(message)
        return decoded


@contextlib.contextmanager
def opened(folder: Path) -> Iterator[Browser]:
    """Start a Chromium that keeps its things in `folder`, and end it. Skips the test where none is installed."""
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("no chromium is installed: pages are not looked at")
    to_read, to_write = os.pipe()
    from_read, from_write = os.pipe()
    # The protocol's files are 3 and 4, whatever ours are numbered; out of their way first.
    command = [sys.executable, "-c", _EXEC, str(to_read), str(from_write), program, *_OPTIONS]
    process = subprocess.Popen(
        [*command, f"--user-data-dir={folder}"],
        pass_fds=(to_read, from_write),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(to_read)
    os.close(from_write)
    try:
        yield Browser(from_read, to_write)
    finally:
        process.terminate()
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        os.close(from_read)
        os.close(to_write)
