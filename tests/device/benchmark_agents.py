"""The benchmarks of an agent without the agent: real journal, store and children, a fake board."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from tests import facts_made
from tests.device import cells_made, fake_cell
from tflotilla.device import benchmarking, cells
from tflotilla.device.benchmarking import Benchmarks
from tflotilla.device.bystander import Overheard
from tflotilla.device.store import Store
from tflotilla.shared.contract import codec
from tflotilla.shared.contract.agent_config import InferenceConfig
from tflotilla.shared.contract.benchmark import BenchmarkCell, BenchmarkReport, BenchmarkRequest, Identity
from tflotilla.shared.contract.board import RuntimeOffer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Iterator

    from tflotilla.device.disk import RealDisk
    from tflotilla.device.home import Home
    from tflotilla.device.reports import CellSpec
    from tflotilla.shared.contract.manifest import Manifest

WINDOW = codec.canonical_json(
    {"count": 10, "errors": 1, "stages": {"total": {"count": 10, "p50_ns": 1000, "p90_ns": 2000, "p99_ns": 3000}}}
)


@dataclass
class FakeBoard:
    """A board with LiteRT and a worker that reports one window per cell."""

    store: Store
    being_deployed: str | None = None
    offers: tuple[RuntimeOffer, ...] = (facts_made.LITERT,)
    processors: frozenset[int] = frozenset({0, 1, 2, 3})
    settled: int = 0

    @property
    def bundle(self) -> str | None:
        return self.store.current()

    def inference(self, _bundle: str) -> InferenceConfig:
        return InferenceConfig(runtime="ai-edge-litert")

    def identity(self, bundle: str, manifest: Manifest) -> Identity:
        return replace(cells_made.identity(bundle), title=manifest.title)

    @contextlib.contextmanager
    def overhear(self) -> Iterator[Overheard]:
        heard = Overheard()
        yield heard
        heard.windows.append(WINDOW)
        heard.crashes = 1

    def windows(self) -> tuple[bytes, ...]:
        return (WINDOW.replace(b"1000", b"500"),)

    def candidate(self) -> str | None:
        return self.being_deployed

    async def settle(self) -> None:
        self.settled += 1


async def until(holds: Callable[[], bool]) -> None:
    """Wait until something holds that has no event."""
    for _ in range(6000):
        if holds():
            return
        await asyncio.sleep(0.01)
    raise AssertionError(holds)


async def secure() -> None:
    """Be sure at once."""


async def measure(spec: CellSpec, runtime: RuntimeOffer | None) -> BenchmarkCell:
    """Measure with the child that behaves as told."""
    return await cells.measure(spec, runtime, start=fake_cell.start)


async def measure_at_once(spec: CellSpec, _runtime: RuntimeOffer | None) -> BenchmarkCell:
    """Measure without a child."""
    return cells_made.measured(spec.configuration)


@dataclass(kw_only=True)
class Running:
    """The benchmarks of one run of an agent, and what they said."""

    benchmarks: Benchmarks
    board: FakeBoard
    reports: list[BenchmarkReport] = field(default_factory=list)
    troubles: list[str] = field(default_factory=list)

    async def told(self, count: int) -> list[BenchmarkReport]:
        """Wait for so many reports."""
        await until(lambda: len(self.reports) >= count)
        return self.reports

    async def follow(self, request: BenchmarkRequest) -> list[BenchmarkReport]:
        """Ask and listen to the end."""
        heard: list[BenchmarkReport] = []
        await self.benchmarks.follow(request, heard.append)
        return heard


@contextlib.asynccontextmanager
async def agent(
    home: Home,
    *,
    measure: Callable[[CellSpec, RuntimeOffer | None], Coroutine[Any, Any, BenchmarkCell]] = measure_at_once,
    disk: RealDisk | None = None,
    linger_s: float = 60.0,
    serves: bool = True,
) -> AsyncIterator[Running]:
    """Run the benchmarks of a home for the length of a block; its end is a kill."""
    store = Store(home)
    reports: list[BenchmarkReport] = []
    troubles: list[str] = []
    board = FakeBoard(store)
    benchmarks = Benchmarks(
        store,
        board,
        benchmarking.Hooks(on_report=reports.append, on_trouble=troubles.append, secure=secure),
        measure=measure,
        disk=disk,
        linger_s=linger_s,
    )
    benchmarks.recover()
    if serves:
        benchmarks.go_on()
    try:
        yield Running(benchmarks=benchmarks, board=board, reports=reports, troubles=troubles)
    finally:
        await benchmarks.stop()


def request(*behaviours: str, name: str = "r", **changes: Any) -> BenchmarkRequest:  # noqa: ANN401 - any field
    wanted = behaviours or ("measures",)
    return BenchmarkRequest(
        request=name, configurations=tuple(fake_cell.configuration(each) for each in wanted), **changes
    )


def kinds(reports: list[BenchmarkReport]) -> list[str]:
    """Say of each report what became of its cell, or why there is none."""
    said = []
    for report in reports:
        cell = report.cell
        said.append(report.error or "" if cell is None else "figures" if cell.error is None else cell.error.kind)
    return said
