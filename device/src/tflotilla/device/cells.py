"""Runs one cell of a benchmark in a child, and says what became of it: figures, or why there are none.

Rules it keeps: whatever the child does, there is exactly one cell; a child that is silent for longer than it announced
is ended; a death is blamed on memory only when the kernel, the child or the limit says so.
What it does NOT do: measure, or decide which cell comes next.
"""

from __future__ import annotations

import asyncio
import errno
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tflotilla.device import reports
from tflotilla.device.children import Child
from tflotilla.device.conditions import memory
from tflotilla.device.reports import Phase
from tflotilla.device.waiting import within
from tflotilla.shared.contract import codec
from tflotilla.shared.contract.benchmark import BenchmarkCell, CellError
from tflotilla.shared.contract.errors import ContractError, ProbeError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from tflotilla.device.reports import CellSpec
    from tflotilla.shared.contract.benchmark import Failure
    from tflotilla.shared.contract.board import RuntimeOffer

ROOT = Path("/")
#: Starting Python from a slow card, before the child can announce anything.
STARTING = Phase(doing="starting", at_most_s=120.0)
#: A runtime may take its time to fold up; the figures are here already.
_GRACE_S = 5.0
_LOOK_EVERY_S = 0.25
_MIB = 1 << 20
_SIGKILL, _SIGABRT = 9, 6
#: What C++, Python and the system call running out of memory.
_OUT_OF_MEMORY = ("bad_alloc", "MemoryError", "Cannot allocate memory", "out of memory", "Out of memory")
_NO_SPACE = os.strerror(errno.ENOSPC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Death:
    """How a child ended that gave no figures."""

    #: What it was doing, by its own words.
    doing: str
    #: Its exit code, negative for a signal; None when it could not be started.
    code: int | None
    #: One sentence that says so, with its last words.
    account: str
    #: How many processes the kernel ended meanwhile for want of memory.
    oom_kills: int = 0
    #: The silence after which it was ended.
    silent_s: float | None = None
    #: How much memory it had when it was ended for that, and how much it was allowed.
    rss_mib: float | None = None
    max_rss_mib: float | None = None
    delegate: bool = False


def blame(death: Death) -> CellError:
    """Say in one sentence, and one word, why there are no figures. Pure."""
    at = f"while {death.doing}"
    if death.rss_mib is not None:
        had = f"the process had {death.rss_mib:.0f} MiB {at}, and {death.max_rss_mib or 0:.0f} MiB were allowed"
        return CellError(kind="out_of_memory", message=had)
    # The runtime's own process is all there is of a delegate: what dies on its way in dies of it.
    on_delegate: Failure | None = "delegate" if death.delegate and "delegate" in death.doing else None
    if death.silent_s is not None:
        hung = f"no answer for {death.silent_s:g} s {at}; it was ended"
        return CellError(kind=on_delegate or "hung", message=hung)
    message = f"{death.account} ({at})"
    if any(word in death.account for word in _OUT_OF_MEMORY):
        return CellError(kind="out_of_memory", message=message)
    if death.code == -_SIGKILL and death.oom_kills > 0:
        return CellError(
            kind="out_of_memory", message=f"the board ran out of memory {at}; the kernel ended the process"
        )
    if _NO_SPACE in death.account:
        return CellError(kind="disk", message=message)
    return CellError(kind=on_delegate or "crashed", message=message)


async def start(spec: CellSpec) -> Child:
    """Start the process that measures. Raises ProbeError."""
    return await Child.start("benchmark", spec)


async def measure(
    spec: CellSpec,
    runtime: RuntimeOffer | None,
    *,
    start: Callable[[CellSpec], Awaitable[Child]] = start,
    root: Path = ROOT,
) -> BenchmarkCell:
    """Measure one cell in a fresh process; cancelling ends the process."""
    before = _oom_kills(root)
    try:
        child = await start(spec)
    except ProbeError as error:
        return _without_figures(spec, runtime, Death(doing=STARTING.doing, code=None, account=str(error)))
    hearing = _Hearing()
    limit = spec.method.max_rss_mib
    watching = asyncio.create_task(_outgrows(child.pid, limit)) if limit is not None else None
    reading = asyncio.create_task(hearing.read(child))
    try:
        await asyncio.wait([task for task in (reading, watching) if task], return_when=asyncio.FIRST_COMPLETED)
        rss_mib = watching.result() if watching is not None and watching.done() else None
        if reading.done() and reading.exception() is None and hearing.cell is not None:
            await child.ended(_GRACE_S)
            return hearing.cell
        ended = reading.done() and reading.exception() is None
        code = await (child.ended() if ended else child.kill())
        return _without_figures(
            spec,
            runtime,
            Death(
                doing=hearing.phase.doing,
                code=code if ended else None,
                account=hearing.nonsense or child.account(code),
                oom_kills=_oom_kills(root) - before,
                silent_s=hearing.silent_s,
                rss_mib=rss_mib,
                max_rss_mib=limit,
                delegate=spec.configuration.inference.delegate is not None,
            ),
        )
    finally:
        for task in (reading, watching):
            if task is not None:
                task.cancel()
        await asyncio.shield(child.kill())


class _Hearing:
    """What a child has said so far."""

    def __init__(self) -> None:
        self.phase = STARTING
        self.cell: BenchmarkCell | None = None
        self.silent_s: float | None = None
        self.nonsense: str | None = None

    async def read(self, child: Child) -> None:
        """Read until the cell, the end, nonsense, or a silence that is too long."""
        lines = child.lines()
        try:
            while self.cell is None:
                line = await within(self.phase.at_most_s, _next(lines))
                if line is None:
                    return
                self._take(line)
        except asyncio.TimeoutError:
            self.silent_s = self.phase.at_most_s
            raise
        except ContractError as error:
            self.nonsense = f"the benchmark process wrote what can't be understood: {error}"
            raise

    def _take(self, line: bytes) -> None:
        kind, body = line[:1], codec.parse_json(line[1:], "benchmark")
        if kind == reports.PHASE:
            self.phase = codec.decode(Phase, body, "benchmark")
        elif kind == reports.CELL:
            self.cell = codec.decode(BenchmarkCell, body, "benchmark")
        else:
            raise ContractError(f"a line of unknown kind {kind!r}")


async def _next(lines: AsyncIterator[bytes]) -> bytes | None:
    async for line in lines:
        return line
    return None


async def _outgrows(pid: int, limit_mib: float) -> float | None:
    """Return how many MiB a process has once that is more than allowed; None when it is gone."""
    while True:
        rss = rss_bytes(pid)
        if rss is None:
            # Its end is told by its pipe.
            await asyncio.Event().wait()
        elif rss > limit_mib * _MIB:
            return rss / _MIB
        await asyncio.sleep(_LOOK_EVERY_S)


def rss_bytes(pid: int, root: Path = ROOT) -> int | None:
    """Return the resident memory of a process, None when it is gone."""
    try:
        return int((root / f"proc/{pid}/statm").read_bytes().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError, ValueError):
        return None


def _oom_kills(root: Path) -> int:
    """Return how many processes this kernel has ended for want of memory; 0 where it does not say."""
    return memory.oom_kills(root) or 0


def _without_figures(spec: CellSpec, runtime: RuntimeOffer | None, death: Death) -> BenchmarkCell:
    return BenchmarkCell(configuration=spec.configuration, runtime=runtime, error=blame(death))
