"""Sessions whose transfers the supervisor takes over: the host can't tell, and whoever dies, nothing hangs."""

from __future__ import annotations

import os
import signal
import socket
import time
import zlib
from typing import TYPE_CHECKING

from tests.device.agents import DEADLINE_S, Session, running_agent, serve_as_launched
from tflotilla.device.session_start import SESSIONS
from tflotilla.device.store import Store
from tflotilla.shared.contract.manifest import MODEL
from tflotilla.shared.contract.session import Request, to_line

if TYPE_CHECKING:
    from tests.device.bundles_made import MadeBundle
    from tflotilla.device.home import Home


def _manifest(made: MadeBundle) -> Request:
    import base64

    return Request(
        verb="manifest",
        manifest=base64.b64encode(made.manifest_bytes).decode(),
        signature=base64.b64encode(made.signature).decode(),
    )


def _blob(data: bytes, sha256: str) -> bytes:
    packed = zlib.compress(data)
    return to_line(Request(verb="blob", sha256=sha256, size=len(data), offset=0)) + b"%d\n%b0\n" % (len(packed), packed)


def _script(made: MadeBundle) -> bytes:
    """A whole transfer, as a host would send it that waits for no answer."""
    files = b"".join(_blob(data, made.blob(name)) for name, data in made.files.items())
    return to_line(_manifest(made)) + files


def test_a_transfer_is_the_same_with_a_supervisor_and_without(home: Home, made: MadeBundle) -> None:
    requests = _script(made) + to_line(Request(verb="bye"))

    with running_agent(home):
        taken_over, modules = serve_as_launched(home, requests)
        store = Store(home)
        there = all(store.has_blob(made.blob(name), len(data)) for name, data in made.files.items())
    store.collect(())
    for name in made.files:
        store.blob(made.blob(name)).unlink(missing_ok=True)
    alone, _modules = serve_as_launched(home, requests)

    assert there
    assert taken_over[1:] == alone[1:]
    assert modules.isdisjoint({"json", "dataclasses", "subprocess", "tflotilla.device.session"})


def test_what_is_no_transfer_comes_back_with_all_that_was_read_behind_it(home: Home, made: MadeBundle) -> None:
    deploy = to_line(Request(verb="deploy", bundle=made.digest, deployment="d1"))

    with running_agent(home):
        replies, _modules = serve_as_launched(home, _script(made) + deploy + to_line(Request(verb="bye")))

    assert replies[-1] == b'{"done":true}\n'
    assert b'"state":"succeeded"' in replies[-2]


def test_a_session_that_is_killed_in_a_transfer_leaves_what_arrived_and_no_thread(home: Home, made: MadeBundle) -> None:
    data, sha256 = made.files[MODEL], made.blob(MODEL)
    half = zlib.compressobj(0)
    first = half.compress(data[: len(data) // 2]) + half.flush(zlib.Z_SYNC_FLUSH)
    store = Store(home)

    with running_agent(home):
        with Session(home) as board:
            board.hello()
            board.ask(_manifest(made))
            request = to_line(Request(verb="blob", sha256=sha256, size=len(data), offset=0))
            board.send(request + b"%d\n" % len(first) + first)
            _until(lambda: store.partial_bytes(sha256, len(data)) == len(data) // 2)
            board.process.kill()
            # The host's end is still open: only the process is gone.
            board.process.wait(DEADLINE_S)
            assert board.replies.read() == b""
        with Session(home) as board:
            board.hello()
            missing = {blob.sha256: blob.offset for blob in board.ask(_manifest(made)).missing or ()}

    assert missing[sha256] == len(data) // 2


def test_a_supervisor_that_is_killed_in_a_transfer_is_a_session_that_was_killed(home: Home, made: MadeBundle) -> None:
    with running_agent(home) as agent, Session(home) as board:
        board.hello()
        board.ask(_manifest(made))
        os.kill(int(home.pid.read_text()), signal.SIGKILL)
        code = board.process.wait(DEADLINE_S)
        del agent

    assert code == -signal.SIGKILL


def test_whoever_sends_nonsense_to_the_socket_is_hung_up_on_and_the_next_isserve_as_launched(
    home: Home, made: MadeBundle
) -> None:
    with running_agent(home):
        for nonsense in (b"", b"x", b"\xff" * 8):
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stranger:
                stranger.settimeout(DEADLINE_S)
                stranger.connect(str(home.path / SESSIONS))
                stranger.sendall(nonsense)
                stranger.shutdown(socket.SHUT_WR)
                stranger.recv(100)
        replies, _modules = serve_as_launched(home, _script(made) + to_line(Request(verb="bye")))

    assert replies[-1] == b'{"done":true}\n'
    assert len(replies) == 3 + len(made.files)


def test_the_socket_is_the_owners_and_goes_with_the_agent(home: Home) -> None:
    path = home.path / SESSIONS
    with running_agent(home):
        mode = path.stat().st_mode & 0o777

    assert mode == 0o600
    assert not path.exists()


def _until(holds: object) -> None:
    assert callable(holds)
    deadline = time.monotonic() + DEADLINE_S
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.005)
