"""An agent without a model, as a real process: `python -m tests.device.fake_agent --home HOME [run]`.

Real store, installer, benchmarks and control socket; the serving is fake, and so is what measures a cell. For tests of
whoever talks to an agent, and of the guard. Files in the home steer it: `fail` makes it die at once with that text as
its last words, `slow` holds every probe until the file is gone.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tests.device.benchmark_agents import FakeBoard, measure, secure
from tests.device.fake_serving import FakeServing
from tflotilla.device import __version__, config, facts
from tflotilla.device.benchmarking import Benchmarks, Hooks
from tflotilla.device.control_server import ControlServer
from tflotilla.device.home import Home
from tflotilla.device.installer import Installer
from tflotilla.device.pid_lock import PidLock
from tflotilla.device.session_server import SessionServer
from tflotilla.device.store import Store
from tflotilla.shared.contract.agent_config import InferenceConfig
from tflotilla.shared.contract.messages import DelegateReport, State
from tflotilla.shared.contract.session import Hello, Reply

if TYPE_CHECKING:
    from collections.abc import Callable

    from tflotilla.device.reports import ProbeReport
    from tflotilla.shared.contract.benchmark import BenchmarkReport, BenchmarkRequest
    from tflotilla.shared.contract.deployment import DeploymentStatus


class _SlowServing(FakeServing):
    """Holds every probe for as long as the file `slow` is there."""

    def __init__(self, home: Home) -> None:
        super().__init__()
        self._slow = home.path / "slow"

    async def probe(self, folder: Path, inference: InferenceConfig) -> tuple[ProbeReport, ...]:
        while self._slow.exists():  # noqa: ASYNC110 - another process removes it
            await asyncio.sleep(0.02)
        return await FakeServing.probe(self, folder, inference)


class _Agent:
    def __init__(self, home: Home) -> None:
        self._home = home
        self._store = Store(home)
        self.installer = Installer(self._store, _SlowServing(home), InferenceConfig(), on_status=lambda _status: None)
        hooks = Hooks(on_report=lambda _report: None, on_trouble=lambda _trouble: None, secure=secure)
        self.benchmarks = Benchmarks(self._store, FakeBoard(self._store), hooks, measure=measure)
        self.stopped = asyncio.Event()

    async def deploy(
        self,
        deployment: str,
        bundle: str,
        on_status: Callable[[DeploymentStatus], None],
        *,
        inference: InferenceConfig | None = None,
        shadow: int = 0,
    ) -> object:
        return await self.installer.deploy(deployment, bundle, on_status, inference=inference, shadow=shadow)

    async def rollback(
        self, deployment: str, on_status: Callable[[DeploymentStatus], None], *, bundle: str | None = None
    ) -> object:
        return await self.installer.rollback(deployment, on_status, bundle=bundle)

    async def benchmark(self, request: BenchmarkRequest, on_report: Callable[[BenchmarkReport], None]) -> None:
        await self.benchmarks.follow(request, on_report)

    async def state(self) -> State:
        current, previous = self._store.current(), self._store.previous()
        chosen = self._store.choice(current) if current else None
        return State(
            agent_version=__version__,
            facts=facts.read(self._home.path),
            serving=self._store.describe(current) if current else None,
            previous=self._store.describe(previous) if previous else None,
            worker="running" if current else "none",
            runtime=chosen.runtime if chosen else None,
            num_threads=chosen.inference.num_threads if chosen and chosen.inference else 1,
            inference=chosen.inference if chosen else None,
            delegate=DelegateReport(requested=None, active=None),
            source="synthetic",
            uptime_s=1.0,
            outbox_rows=0,
            outbox_dropped=0,
        )

    async def hello(self) -> Hello:
        settings = config.load(self._home.config)
        state = await self.state()
        return Hello(
            schema=1,
            agent_version=__version__,
            board=settings.board,
            fleet=settings.fleet,
            facts=state.facts,
            running=True,
            serving=state.serving,
            previous=state.previous,
        )

    async def offer(self, bundle: str) -> Reply:
        return self._store.offered(bundle)

    async def stop(self) -> None:
        self.stopped.set()


async def _run(home: Home) -> None:
    agent = _Agent(home)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, agent.stopped.set)
    sessions = SessionServer(home)
    sessions.start()
    async with ControlServer(home, agent):
        agent.benchmarks.recover()
        await agent.installer.start()
        agent.benchmarks.go_on()
        await agent.stopped.wait()
        await agent.benchmarks.stop()
        await agent.installer.stop()
    sessions.close()


def main() -> int:
    """Run until told to stop."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("verb", nargs="?")
    home = Home(parser.parse_args().home)
    order = home.path / "fail"
    if order.exists():
        sys.stderr.write(order.read_text() + "\n")
        return 3
    if not PidLock(home.pid).acquire():
        return 11
    asyncio.run(_run(home))
    return 0


if __name__ == "__main__":
    sys.exit(main())
