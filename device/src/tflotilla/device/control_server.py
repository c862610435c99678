"""The supervisor's end of the control socket.

Rules it keeps: a socket that answers is never taken over; a client that hangs up, sends garbage or never reads harms
nobody, and what it asked for goes on. What it does NOT do: decide anything, or lock the home (the supervisor does).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from typing import TYPE_CHECKING, Protocol

from tflotilla.device import control, waiting
from tflotilla.shared.contract import errors, session
from tflotilla.shared.contract.errors import BoardError, ConflictError, ContractError, TflotillaError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from tflotilla.device.home import Home
    from tflotilla.shared.contract.agent_config import InferenceConfig
    from tflotilla.shared.contract.benchmark import BenchmarkReport, BenchmarkRequest
    from tflotilla.shared.contract.deployment import DeploymentStatus
    from tflotilla.shared.contract.messages import State

_LOG = logging.getLogger(__name__)
_REQUEST_LIMIT_BYTES = 1 << 20
_REQUEST_TIMEOUT_S = 10.0
_SIGN_OF_LIFE_S = 15.0
#: Beyond it connecting fails at once, and the agent would look dead.
_BACKLOG = 128


class Handler(Protocol):
    """What the supervisor does when asked. All of it may raise TflotillaError, which the client gets."""

    async def deploy(
        self,
        deployment: str,
        bundle: str,
        on_status: Callable[[DeploymentStatus], None],
        *,
        inference: InferenceConfig | None = None,
        shadow: int = 0,
    ) -> object:
        """Bring a bundle into service; returns when it is decided (`Installer.deploy` fits)."""

    async def rollback(
        self, deployment: str, on_status: Callable[[DeploymentStatus], None], *, bundle: str | None = None
    ) -> object:
        """Bring the previous bundle back where `bundle` serves, None is any (`Installer.rollback` fits)."""

    async def benchmark(self, request: BenchmarkRequest, on_report: Callable[[BenchmarkReport], None]) -> None:
        """Measure, or follow what is measured already; returns when it is over (`Benchmarks.follow` fits)."""

    async def state(self) -> State:
        """Describe the board now."""

    async def hello(self) -> session.Hello:
        """Say what a session says first."""

    async def offer(self, bundle: str) -> session.Reply:
        """Say whether a bundle is here, and whether it serves."""

    async def stop(self) -> None:
        """Ask the supervisor to end; returns at once."""


class ControlServer:
    """Listens in a home from `start` (or `async with`) to `close`."""

    def __init__(self, home: Home, handler: Handler) -> None:
        self._home = home
        self._handler = handler
        self._server: asyncio.Server | None = None
        self._clients: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Begin to listen.

        Raises:
            ConflictError: a supervisor listens in this home already.
            BoardError: the socket can't be made.

        """
        if control.is_running(self._home):
            message = f"an agent runs in {self._home.path} already; stop it with `tflotilla-agent stop`"
            raise ConflictError(message)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._home.socket.unlink(missing_ok=True)
            with control.address(self._home) as path:
                listener.bind(path)
            self._home.socket.chmod(0o600)
            listener.listen(_BACKLOG)
        except OSError as error:
            listener.close()
            message = f"the control socket {self._home.socket} can't be made: {error.strerror or error}"
            raise BoardError(message) from error
        self._server = await asyncio.start_unix_server(self._accept, sock=listener, limit=_REQUEST_LIMIT_BYTES)

    async def close(self) -> None:
        """Stop listening and hang up on everybody."""
        if self._server is None:
            return
        self._server.close()
        for client in tuple(self._clients):
            client.cancel()
        if self._clients:
            await asyncio.wait(tuple(self._clients))
        self._home.socket.unlink(missing_ok=True)
        self._server = None

    async def __aenter__(self) -> ControlServer:  # noqa: PYI034 - typing.Self is newer than the oldest Python here
        """Start."""
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        await self.close()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._clients.add(task)
            task.add_done_callback(self._clients.discard)

        def send(reply: session.Reply | session.Hello) -> None:
            # A client that went away is not told; one that never reads costs a few hundred bytes per status.
            if not writer.is_closing():
                writer.write(session.to_line(reply))

        try:
            send(await self._answer(reader, send))
            await writer.drain()
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()
            with contextlib.suppress(OSError, asyncio.CancelledError):
                await writer.wait_closed()

    async def _answer(
        self, reader: asyncio.StreamReader, send: Callable[[session.Reply], None]
    ) -> session.Reply | session.Hello:
        try:
            line = await waiting.within(_REQUEST_TIMEOUT_S, reader.readline())
            return await self._obey(control.from_line(line), send)
        except TflotillaError as error:
            return _refusal(error)
        except (ValueError, asyncio.TimeoutError):
            return _refusal(ContractError("control request: no line of at most 1 MiB came"))
        except OSError:
            return _refusal(ContractError("control request: the connection broke"))
        except Exception as error:  # noqa: BLE001 - a bug reaches the client as an error, and the log whole
            _LOG.exception("answering a control request")
            return _refusal(TflotillaError(f"a bug of the agent: {error!r}; its log says where"))

    async def _obey(
        self, request: control.ControlRequest, send: Callable[[session.Reply], None]
    ) -> session.Reply | session.Hello:
        if request.verb == "state":
            return session.Reply(state=await self._handler.state())
        if request.verb == "hello":
            return await self._handler.hello()
        if request.verb == "offer" and request.bundle is not None:
            return await self._handler.offer(request.bundle)
        if request.verb == "stop":
            await self._handler.stop()
            return session.Reply()
        if request.verb == "benchmark":
            return await self._benchmark(request.benchmark, send)
        if not request.deployment:
            raise UsageError(f"control request: {request.verb} needs a deployment id")
        last: list[DeploymentStatus] = []

        def on_status(status: DeploymentStatus) -> None:
            # The last one goes out as the frame that is done, so each is held back until the next is known.
            if last:
                send(session.Reply(done=False, status=last.pop()))
            if status.state.final:
                last.append(status)
            else:
                send(session.Reply(done=False, status=status))

        if request.verb == "rollback":
            await self._handler.rollback(request.deployment, on_status, bundle=request.bundle)
        elif request.bundle is None:
            raise UsageError("control request: deploy needs a bundle")
        else:
            await self._handler.deploy(
                request.deployment,
                request.bundle,
                on_status,
                inference=request.inference,
                shadow=request.shadow or 0,
            )
        return session.Reply(status=last[-1] if last else None)

    async def _benchmark(
        self, request: BenchmarkRequest | None, send: Callable[[session.Reply], None]
    ) -> session.Reply:
        if request is None:
            raise UsageError("control request: benchmark needs a request")
        following = asyncio.ensure_future(
            self._handler.benchmark(request, lambda report: send(session.Reply(done=False, benchmark=report)))
        )
        try:
            # A cell may take an hour: whoever listens must be able to tell that from an agent that hangs.
            while not (await asyncio.wait([following], timeout=_SIGN_OF_LIFE_S))[0]:
                send(session.Reply(done=False))
        finally:
            following.cancel()
        following.result()
        return session.Reply()


def _refusal(error: TflotillaError) -> session.Reply:
    wire = errors.to_wire(error)
    return session.Reply(error=wire["error"], message=wire["message"])
