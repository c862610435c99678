"""How other processes of the same user talk to the supervisor: its unix socket, and the client's end of it.

One connection is one request: a line with a `ControlRequest`, then `session.Reply` lines up to the one that is done.
The server's end is `control_server`; this module imports no asyncio, because a session has to start fast.
"""

from __future__ import annotations

import contextlib
import os
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from tflotilla.shared.contract import codec, layout, session
from tflotilla.shared.contract.agent_config import InferenceConfig
from tflotilla.shared.contract.errors import BoardError, ContractError, UnreachableError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tflotilla.device.home import Home
    from tflotilla.shared.contract.benchmark import BenchmarkRequest  # noqa: TC004 - see below
else:

    def __getattr__(name: str) -> object:
        """Import what few requests hold when one does (see `codec.hints`)."""
        if name != "BenchmarkRequest":
            message = f"module {__name__!r} has no attribute {name!r}"
            raise AttributeError(message)
        from tflotilla.shared.contract.benchmark import BenchmarkRequest

        return BenchmarkRequest


_PLACE = "control request"
_CONNECT_TIMEOUT_S = 5.0
#: Longer than any probe and confirm window together: a supervisor that is silent for so long hangs.
_ANSWER_TIMEOUT_S = 1800.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlRequest:
    """What is asked of the supervisor; `hello` is answered by a `session.Hello`."""

    verb: Literal["hello", "offer", "deploy", "rollback", "benchmark", "state", "stop"]
    #: deploy: the one meant. rollback: the one to be left; None is whichever serves.
    bundle: str | None = None
    deployment: str | None = None
    #: deploy: how the bundle is to run; None is what agent.toml says.
    inference: InferenceConfig | None = None
    #: deploy: on how many inputs it is tried beside the one that serves; None is none.
    shadow: int | None = None
    benchmark: BenchmarkRequest | None = None


def to_line(request: ControlRequest) -> bytes:
    """Serialize a request."""
    return codec.canonical_json(request) + b"\n"


def from_line(line: bytes) -> ControlRequest:
    """Parse a request. Raises ContractError."""
    return codec.decode(ControlRequest, codec.parse_json(line, _PLACE), _PLACE)


@contextlib.contextmanager
def address(home: Home) -> Iterator[str]:
    """Yield the path by which the socket can be bound or connected to.

    The socket always lies in the home, where only its owner can reach it. A path too long for AF_UNIX is taken through
    a descriptor of the home's folder: same file, short name.
    """
    path = str(home.socket)
    if len(os.fsencode(path)) <= layout.SOCKET_PATH_LIMIT:
        yield path
        return
    folder = os.open(home.path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{home.socket.name}"
    finally:
        os.close(folder)


def is_running(home: Home) -> bool:
    """Whether a supervisor listens. One that is too busy to accept counts."""
    try:
        _connect(home).close()
    except BoardError:
        return False
    return True


def ask(home: Home, request: ControlRequest) -> Iterator[session.Reply]:
    """Send a request and yield the replies, the last with `done`.

    Raises:
        BoardError: no supervisor listens.
        UnreachableError: it went away before it was done; whoever asks again later hears the rest.

    """
    with _connect(home) as connection, connection.makefile("rb") as stream:
        try:
            connection.sendall(to_line(request))
            while line := stream.readline(session.MAX_FRAME_BYTES):
                reply = session.reply_from_line(line)
                yield reply
                if reply.done:
                    return
        except (OSError, ContractError) as error:
            message = f"the agent stopped answering ({error}); see {home.log} or `journalctl -u tflotilla-agent`"
            raise UnreachableError(message) from error
    message = f"the agent went away before it was done; it goes on when it is started again (see {home.log})"
    raise UnreachableError(message)


def _connect(home: Home) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(_CONNECT_TIMEOUT_S)
        with address(home) as path:
            connection.connect(path)
    except OSError as error:
        connection.close()
        message = (
            f"no agent runs in {home.path}: start it with `tflotilla-agent start` or `systemctl start tflotilla-agent`"
            " (on the board), or bootstrap the board again"
        )
        raise BoardError(message) from error
    connection.settimeout(_ANSWER_TIMEOUT_S)
    return connection
