"""Real processes for tests of the device: an agent (with fake serving), and sessions with it."""

from __future__ import annotations

import base64
import contextlib
import os
import subprocess
import sys
import time
import zlib
from pathlib import Path
from typing import IO, TYPE_CHECKING

from tflotilla.device import control
from tflotilla.shared.contract import session

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.device.bundles_made import MadeBundle
    from tflotilla.device.home import Home

ROOT = Path(__file__).resolve().parents[2]
DEADLINE_S = 60.0
CONFIG = 'board = "pi-1"\nfleet = "tests"\n'


def wait_until(holds: Callable[[], bool], what: str) -> None:
    """Poll until something holds; fail with its name after a generous deadline."""
    deadline = time.monotonic() + DEADLINE_S
    while not holds():
        if time.monotonic() > deadline:
            raise AssertionError(what)
        time.sleep(0.01)


def command(home: Home) -> list[str]:
    """Return what starts a fake agent."""
    return [sys.executable, "-m", "tests.device.fake_agent", "--home", str(home.path), "run"]


def environment() -> dict[str, str]:
    """Return an environment in which children find `tests`."""
    return {**os.environ, "PYTHONPATH": str(ROOT)}


@contextlib.contextmanager
def running_agent(home: Home) -> Iterator[subprocess.Popen[bytes]]:
    """Run a fake agent until the end of the block."""
    agent = subprocess.Popen(command(home), env=environment(), cwd=ROOT)
    try:
        wait_until(lambda: control.is_running(home), "the agent answers")
        yield agent
    finally:
        agent.terminate()
        agent.wait(DEADLINE_S)


class Session:
    """The host's end of a session with a real `tflotilla-agent session` process."""

    def __init__(self, home: Home) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tflotilla.device", "--home", str(home.path), "session"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self.sent_bytes = 0

    def __enter__(self) -> Session:  # noqa: PYI034 - typing.Self is newer than the oldest Python here
        return self

    def __exit__(self, *_error: object) -> None:
        for stream in (self.requests, self.replies, self.process.stderr):
            with contextlib.suppress(OSError):
                if stream is not None:
                    stream.close()
        self.process.wait(DEADLINE_S)

    @property
    def requests(self) -> IO[bytes]:
        """The board's stdin."""
        assert self.process.stdin is not None
        return self.process.stdin

    @property
    def replies(self) -> IO[bytes]:
        """The board's stdout."""
        assert self.process.stdout is not None
        return self.process.stdout

    def hello(self) -> session.Hello:
        """Read the first frame."""
        return session.hello_from_line(self.replies.readline())

    def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        self.requests.write(data)
        self.requests.flush()
        self.sent_bytes += len(data)

    def reply(self) -> session.Reply:
        """Read one reply."""
        return session.reply_from_line(self.replies.readline())

    def ask(self, request: session.Request) -> session.Reply:
        """Send a request and read its first reply."""
        self.send(session.to_line(request))
        return self.reply()

    def ask_all(self, request: session.Request) -> list[session.Reply]:
        """Send a request and read its replies to the last."""
        found = [self.ask(request)]
        while not found[-1].done:
            found.append(self.reply())
        return found

    def offer_manifest(self, made: MadeBundle) -> session.Reply:
        """Send manifest and signature."""
        return self.ask(
            session.Request(
                verb="manifest",
                manifest=base64.b64encode(made.manifest_bytes).decode(),
                signature=base64.b64encode(made.signature).decode(),
            )
        )

    def send_blob(self, sha256: str, data: bytes, *, offset: int = 0) -> session.Reply:
        """Send a blob from `offset` on and read the reply."""
        self.send(session.to_line(session.Request(verb="blob", sha256=sha256, size=len(data), offset=offset)))
        for chunk in chunks(zlib.compress(data[offset:])):
            self.send(chunk)
        return self.reply()

    def send_bundle(self, made: MadeBundle) -> None:
        """Send whatever the board lacks of a bundle."""
        missing = self.offer_manifest(made).missing
        assert missing is not None
        contents = {made.blob(name): data for name, data in made.files.items()}
        for blob in missing:
            assert self.send_blob(blob.sha256, contents[blob.sha256], offset=blob.offset).stored == blob.sha256


def chunks(compressed: bytes, size: int = 1000) -> Iterator[bytes]:
    """Frame a stream in chunks, the empty last one included."""
    for start in range(0, len(compressed), size):
        piece = compressed[start : start + size]
        yield b"%d\n" % len(piece) + piece
    yield b"0\n"


def serve_as_launched(home: Home, requests: bytes) -> tuple[list[bytes], set[str]]:
    """Serve a session as the launcher does; return the replies and what was imported for them."""
    script = "import sys; from tflotilla.device.session_start import main; main(); print(*sys.modules, file=sys.stderr)"
    done = subprocess.run(
        [sys.executable, "-c", script],
        input=requests,
        capture_output=True,
        check=True,
        timeout=DEADLINE_S,
        env={**os.environ, "TFLOTILLA_HOME": str(home.path)},
    )
    return done.stdout.splitlines(keepends=True), set(done.stderr.decode().split())
