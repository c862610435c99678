"""The control socket: a real one, with a handler that does as told."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from typing import TYPE_CHECKING

import pytest

from tflotilla.device import control
from tflotilla.device.control import ControlRequest
from tflotilla.device.control_server import ControlServer
from tflotilla.device.home import Home
from tflotilla.shared.contract import session
from tflotilla.shared.contract.benchmark import BenchmarkReport, BenchmarkRequest
from tflotilla.shared.contract.deployment import DeploymentState, DeploymentStatus
from tflotilla.shared.contract.errors import BoardError, ConflictError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tflotilla.shared.contract.agent_config import InferenceConfig
    from tflotilla.shared.contract.messages import State


class _Handler:
    """Tells three statuses of each deployment; fails as its digest says."""

    def __init__(self) -> None:
        self.stopped = asyncio.Event()
        self.finished: list[str] = []
        self.inference: InferenceConfig | None = None
        self.shadow = 0
        self.left: str | None = None

    async def deploy(
        self,
        deployment: str,
        bundle: str,
        on_status: Callable[[DeploymentStatus], None],
        *,
        inference: InferenceConfig | None = None,
        shadow: int = 0,
    ) -> None:
        self.inference = inference
        self.shadow = shadow
        if bundle == "busy":
            raise ConflictError("digits-1 is being deployed")
        if bundle == "bug":
            raise ZeroDivisionError
        for state in (DeploymentState.VERIFYING, DeploymentState.PROBING, DeploymentState.REJECTED):
            on_status(DeploymentStatus(deployment=deployment, candidate=bundle, title="digits-1", state=state))
            await asyncio.sleep(0)
        self.finished.append(deployment)

    async def rollback(
        self, deployment: str, on_status: Callable[[DeploymentStatus], None], *, bundle: str | None = None
    ) -> None:
        self.left = bundle
        await self.deploy(deployment, "previous", on_status)

    async def benchmark(self, request: BenchmarkRequest, on_report: Callable[[BenchmarkReport], None]) -> None:
        on_report(BenchmarkReport(request=request.request, method=request.method, total=1, error="nothing here"))
        raise ConflictError("another one is running")

    async def state(self) -> State:
        raise BoardError("no state")

    async def hello(self) -> session.Hello:
        raise BoardError("no hello")

    async def offer(self, bundle: str) -> session.Reply:
        return session.Reply(present=bundle == "here", current=False)

    async def stop(self) -> None:
        self.stopped.set()


@contextlib.contextmanager
def _listening(home: Home) -> Iterator[_Handler]:
    """Run a server in a thread, as another process would."""
    home.make()
    ready = threading.Event()
    handlers: list[_Handler] = []

    async def live() -> None:
        handlers.append(_Handler())
        async with ControlServer(home, handlers[0]):
            ready.set()
            await handlers[0].stopped.wait()

    thread = threading.Thread(target=asyncio.run, args=(live(),))
    thread.start()
    assert ready.wait(30)
    try:
        yield handlers[0]
    finally:
        if control.is_running(home):
            list(control.ask(home, ControlRequest(verb="stop")))
        thread.join(30)


@pytest.fixture(params=["short", "long"])
def home(request: pytest.FixtureRequest, tmp_path: Path) -> Home:
    """Two homes: one whose socket fits into an address, one far beyond."""
    return Home(tmp_path / "h" if request.param == "short" else tmp_path / ("long" * 30) / "home")


def test_statuses_come_one_by_one_and_the_last_is_done(home: Home) -> None:
    with _listening(home):
        replies = list(control.ask(home, ControlRequest(verb="deploy", bundle="good", deployment="d1")))

    assert [(reply.done, reply.status.state.value) for reply in replies if reply.status] == [
        (False, "verifying"),
        (False, "probing"),
        (True, "rejected"),
    ]


def test_reports_of_a_benchmark_come_one_by_one_and_an_error_is_the_last(home: Home) -> None:
    asked = BenchmarkRequest(request="r")
    with _listening(home):
        told, last = control.ask(home, ControlRequest(verb="benchmark", benchmark=asked))

    assert not told.done
    assert told.benchmark is not None
    assert told.benchmark.request == "r"
    assert (last.done, last.error, last.message) == (True, "ConflictError", "another one is running")


def test_the_socket_is_the_owner_s_alone(home: Home) -> None:
    with _listening(home):
        assert home.socket.stat().st_mode & 0o777 == 0o600
        assert home.path.stat().st_mode & 0o777 == 0o700
    assert not home.socket.exists()


@pytest.mark.parametrize(
    ("request_", "error", "message"),
    [
        (ControlRequest(verb="deploy", bundle="busy", deployment="d"), "ConflictError", "digits-1 is being deployed"),
        (ControlRequest(verb="deploy", bundle="bug", deployment="d"), "TflotillaError", "a bug of the agent"),
        (ControlRequest(verb="deploy", deployment="d"), "UsageError", "deploy needs a bundle"),
        (ControlRequest(verb="rollback"), "UsageError", "needs a deployment id"),
        (ControlRequest(verb="state"), "BoardError", "no state"),
    ],
)
def test_an_error_travels(tmp_path: Path, request_: ControlRequest, error: str, message: str) -> None:
    home = Home(tmp_path)
    with _listening(home):
        (reply,) = control.ask(home, request_)

    assert reply.error == error
    assert message in (reply.message or "")


@pytest.mark.parametrize("garbage", [b"\xff\n", b"{}\n", b"[" * 1000 + b"\n", b'{"verb":"reboot"}\n', b"x" * 100_000])
def test_garbage_gets_one_line_and_harms_nobody(tmp_path: Path, garbage: bytes) -> None:
    home = Home(tmp_path)
    with _listening(home), socket.socket(socket.AF_UNIX) as client:
        client.connect(str(home.socket))
        client.sendall(garbage)
        reply = session.reply_from_line(client.makefile("rb").readline())
        (after,) = control.ask(home, ControlRequest(verb="state"))

    assert reply.error == "ContractError"
    assert after.error == "BoardError"


def test_a_client_that_hangs_up_does_not_end_what_it_asked_for(tmp_path: Path) -> None:
    home = Home(tmp_path)
    with _listening(home) as handler:
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(home.socket))
            client.sendall(control.to_line(ControlRequest(verb="deploy", bundle="good", deployment="d7")))
        list(control.ask(home, ControlRequest(verb="deploy", bundle="good", deployment="d8")))

    assert sorted(handler.finished) == ["d7", "d8"]


def test_a_second_server_in_one_home_is_refused_and_the_first_goes_on(home: Home) -> None:
    async def second() -> None:
        async with ControlServer(home, _Handler()):
            pass

    with _listening(home):
        with pytest.raises(ConflictError, match=r"runs in .* already"):
            asyncio.run(second())
        assert control.is_running(home)


def test_a_socket_left_by_a_killed_agent_is_taken_over(home: Home) -> None:
    home.make()
    with socket.socket(socket.AF_UNIX) as dead, control.address(home) as path:
        dead.bind(path)
    assert home.socket.exists()
    assert not control.is_running(home)

    with _listening(home):
        assert control.is_running(home)


def test_without_an_agent_the_error_says_how_to_start_one(home: Home) -> None:
    with pytest.raises(BoardError, match=r"no agent runs in .*: start it with `tflotilla-agent start`"):
        list(control.ask(home, ControlRequest(verb="state")))
