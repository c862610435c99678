"""How a session begins: with as little as possible, because a host that asks a thousand boards waits for each hello.

A supervisor that runs knows everything a hello says and has everything loaded that says it, so it is asked, over its
control socket; so it is for an offer, which is all that is left of a push of what is there already. For the rest, and
wherever no supervisor of this very version answers at once, there is `session`, and its imports: 30 ms on a desktop,
half a second on a small board. Transfers are the supervisor's too, by `session_server`: it gets this process's input
and output, and gives back the first request that is something else.

Rules it keeps: who speaks with the host can't tell the two ways apart; the supervisor is believed only in whole lines
of the expected kind. What it does NOT do: parse, or decide anything.
"""

from __future__ import annotations

import io
import os
import signal
import socket
import sys
from typing import TYPE_CHECKING

from tflotilla.device import __version__
from tflotilla.shared.contract import layout

if TYPE_CHECKING:
    from typing import BinaryIO

_EXIT_BUG = 70
#: A supervisor that takes longer is busy or hangs: then this process does it by itself.
_PATIENCE_S = 3.0
_LINE_LIMIT_BYTES = 1 << 20
#: What frames begin and end with; canonical JSON has its keys in order.
_HELLO = b'{"agent_version":"%s",' % __version__.encode()
_OFFER = b'{"bundle":"', b'","verb":"offer"}\n'
_BYE = b'{"verb":"bye"}\n'
_MANIFEST = b'{"manifest":"'
#: In the home: where the supervisor takes sessions over.
SESSIONS = "sessions.sock"
_LIMIT_BYTES = 8 << 20
_LENGTH_BYTES = 4


def main() -> int:
    """Serve a session in the home that the launcher names; return the exit code."""
    try:
        return serve(os.environ["TFLOTILLA_HOME"], sys.stdin.buffer, sys.stdout.buffer)
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        if os.environ.get("TFLOTILLA_DEBUG"):
            raise
        sys.stderr.write(f"tflotilla-agent: a bug of tflotilla: {error!r} (TFLOTILLA_DEBUG=1 says where)\n")
        return _EXIT_BUG


def serve(home: str, requests: BinaryIO, replies: BinaryIO) -> int:
    """Serve one session to its end; return the exit code."""
    said = _ask(home, b'{"verb":"hello"}\n')
    request = None
    if said is not None and said.startswith(_HELLO):
        try:
            request = _converse(home, said, requests, replies)
        except BrokenPipeError:
            # The host went away. Descriptor 1 must not be flushed into the broken pipe at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), replies.fileno())
            return 0
        if request.startswith(_MANIFEST) and request.endswith(b"\n"):
            request, requests = _handed_over(home, request, requests, replies)
        if not request:
            return 0
    from pathlib import Path

    from tflotilla.device import session
    from tflotilla.device.home import Home

    return session.run(Home(Path(home).absolute()), requests, replies, first=request)


def _converse(home: str, hello: bytes, requests: BinaryIO, replies: BinaryIO) -> bytes:
    """Say hello and answer offers; return the first request that takes more, nothing at the end."""
    answer: bytes | None = hello
    while answer is not None:
        replies.write(answer)
        replies.flush()
        request = requests.readline(_LINE_LIMIT_BYTES)
        answer = None
        if request == _BYE:
            replies.write(b'{"done":true}\n')
            replies.flush()
            return b""
        if request.startswith(_OFFER[0]) and request.endswith(_OFFER[1]):
            answer = _ask(home, request)
            if answer is not None and not answer.startswith(b'{"current":'):
                answer = None
    return request


def _ask(home: str, request: bytes) -> bytes | None:
    """Return the supervisor's answer, None when there is none at once."""
    path = os.path.join(home, layout.SOCKET)  # noqa: PTH118 - pathlib alone would double the time this takes
    if len(os.fsencode(path)) > layout.SOCKET_PATH_LIMIT:
        return None
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(_PATIENCE_S)
            connection.connect(path)
            connection.sendall(request)
            answer = b""
            while not answer.endswith(b"\n") and len(answer) < _LINE_LIMIT_BYTES:
                piece = connection.recv(1 << 16)
                if not piece:
                    return None
                answer += piece
    except OSError:
        return None
    return answer if answer.endswith(b"\n") else None


class Joined(io.RawIOBase):
    """What was read already, and then the rest; while it is `paused`, nothing."""

    def __init__(self, ahead: bytes, rest: io.RawIOBase) -> None:
        """Begin with `ahead`."""
        super().__init__()
        self._ahead = ahead
        self._rest = rest
        self.paused = False

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int | None:  # type: ignore[override]
        """Fill a part of the buffer; 0 at the end, None while it is paused."""
        if self._ahead:
            size = min(len(buffer), len(self._ahead))
            buffer[:size], self._ahead = self._ahead[:size], self._ahead[size:]
            return size
        return None if self.paused else self._rest.readinto(buffer)


def packed(line: bytes, ahead: bytes) -> bytes:
    """Return a request, and what was read behind it, as they go from process to process."""
    return b"".join(len(part).to_bytes(_LENGTH_BYTES, "big") + part for part in (line, ahead))


def unpacked(connection: socket.socket, begun: bytes) -> tuple[bytes, bytes]:
    """Receive what `packed` made, of which `begun` is here. Raises OSError when the other one went away."""

    def take(size: int) -> bytes:
        nonlocal begun
        if size > _LIMIT_BYTES:
            message = f"{size} bytes are too many"
            raise OSError(message)
        while len(begun) < size:
            piece = connection.recv(min(size - len(begun), 1 << 16))
            if not piece:
                message = "the other process went away"
                raise ConnectionResetError(message)
            begun += piece
        taken, begun = begun[:size], begun[size:]
        return taken

    line = take(int.from_bytes(take(_LENGTH_BYTES), "big"))
    return line, take(int.from_bytes(take(_LENGTH_BYTES), "big"))


def _handed_over(home: str, request: bytes, requests: BinaryIO, replies: BinaryIO) -> tuple[bytes, BinaryIO]:
    """Let the supervisor go on; return the first request that is nothing for it (none at the end) and where to read on.

    Where it can't be asked, that is the very request.
    """
    if not isinstance(requests, io.BufferedReader):
        return request, requests
    ahead = b""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        try:
            connection.settimeout(_PATIENCE_S)
            connection.connect(os.path.join(home, SESSIONS))  # noqa: PTH118 - pathlib is not loaded
            descriptors = [requests.fileno(), replies.fileno()]
            ahead = _read_ahead(requests)
            data = packed(request, ahead)
            socket.send_fds(connection, [data[:1]], descriptors)
            connection.sendall(data[1:])
        except OSError:
            # It reads nothing of ours before it has all of this.
            return request, _behind(ahead, requests)
        # A transfer takes as long as its line lets it.
        connection.settimeout(None)
        try:
            request, ahead = unpacked(connection, b"")
        except OSError:
            # It died with our input in its hands. To the host this must look like what it is: a line that broke.
            os.kill(os.getpid(), signal.SIGKILL)
    return request, _behind(ahead, requests)


def _read_ahead(requests: io.BufferedReader) -> bytes:
    """Return what was read of the input and not used yet."""
    os.set_blocking(requests.fileno(), False)
    try:
        return requests.read1(_LINE_LIMIT_BYTES) or b""
    finally:
        os.set_blocking(requests.fileno(), True)


def _behind(ahead: bytes, requests: BinaryIO) -> BinaryIO:
    return io.BufferedReader(Joined(ahead, io.FileIO(requests.fileno(), closefd=False))) if ahead else requests


if __name__ == "__main__":
    sys.exit(main())
