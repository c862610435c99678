"""Carries out what `campaign` decides: one benchmark at a time, its bundle and samples kept as long as they are needed.

Rules it keeps: a benchmark belongs to the board, so it goes on when whoever asked for it hangs up, and after a restart;
asked again with the same id it tells its story from the beginning; what the disk can't take is reported, and measured
all the same; the worker is never touched, only listened to.
What it does NOT do: measure (`cells` starts a child for each), send, or decide.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from tflotilla.device import admission, bystander, campaign, cells
from tflotilla.device.benchmark_journal import BenchmarkJournal
from tflotilla.device.campaign import Campaign, Cancelled, Ended, Entry, Measure, Note, Plan, Planned, Restarted
from tflotilla.device.reports import CellSpec
from tflotilla.device.samples import Samples
from tflotilla.shared.contract import digest
from tflotilla.shared.contract.benchmark import BenchmarkCell, BenchmarkReport, BenchmarkRequest, CellError, Identity
from tflotilla.shared.contract.errors import BoardError, ConflictError, ContractError, TflotillaError

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from tflotilla.device.bystander import Overheard
    from tflotilla.device.campaign import Action, Event
    from tflotilla.device.disk import Disk
    from tflotilla.device.store import Store
    from tflotilla.shared.contract.agent_config import InferenceConfig
    from tflotilla.shared.contract.board import RuntimeOffer
    from tflotilla.shared.contract.manifest import Manifest

    OnReport = Callable[[BenchmarkReport], None]

_LOG = logging.getLogger("tflotilla.benchmark")
#: What came to be measured stays for the next request of the same series, and is removed then.
LINGER_S = 60.0
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class Board(Protocol):
    """What a benchmark asks of the supervisor."""

    @property
    def bundle(self) -> str | None:
        """The bundle that serves."""

    @property
    def offers(self) -> tuple[RuntimeOffer, ...]:
        """The runtimes that are installed."""

    @property
    def processors(self) -> frozenset[int]:
        """The processors that may be used."""

    def inference(self, bundle: str) -> InferenceConfig:
        """Return how a bundle runs, or would run, here: with a concrete runtime unless there is none."""

    def identity(self, bundle: str, manifest: Manifest) -> Identity:
        """Describe board and bundle."""

    def overhear(self) -> AbstractContextManager[Overheard]:
        """Listen to the worker."""

    def windows(self) -> tuple[bytes, ...]:
        """Return the worker's last windows."""

    def candidate(self) -> str | None:
        """Return the bundle that is being deployed."""

    async def settle(self) -> None:
        """Wait until no deployment is going on: its probe must not be judged by what a benchmark leaves it."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Hooks:
    """Whom to tell: all on the event loop, none may raise."""

    #: Every report of every benchmark, once.
    on_report: OnReport
    #: What a person may want to know: the journal can't be written.
    on_trouble: Callable[[str], None]
    #: Returns when a kill can't lose what was reported.
    secure: Callable[[], Awaitable[None]]


class Benchmarks:
    """The benchmarks of one home. `recover` before the store collects anything, `go_on` once the board serves."""

    def __init__(
        self,
        store: Store,
        board: Board,
        hooks: Hooks,
        *,
        measure: Callable[[CellSpec, RuntimeOffer | None], Coroutine[Any, Any, BenchmarkCell]] = cells.measure,
        disk: Disk | None = None,
        linger_s: float = LINGER_S,
    ) -> None:
        self._store = store
        self._board = board
        self._hooks = hooks
        self._measure_cell = measure
        self._linger_s = linger_s
        self._journal = BenchmarkJournal(store.home.benchmark, disk)
        self._samples = Samples(store, disk)
        self._request: BenchmarkRequest | None = None
        self._campaign: Campaign | None = None
        self._told: list[BenchmarkReport] = []
        self._listeners: list[OnReport] = []
        self._running: asyncio.Task[None] | None = None
        self._cell: asyncio.Task[BenchmarkCell] | None = None
        #: Why the one that runs is to end.
        self._reason: str | None = None
        #: Whether the last report was told of the request that runs.
        self._finished = False
        self._may_go_on = asyncio.Event()
        #: Whether the last report before this agent began has to be told again.
        self._owes = False
        self._before: tuple[bytes, ...] = ()
        self._guests: frozenset[str] = frozenset()
        self._tidying: asyncio.Task[None] | None = None
        self._troubled = False
        #: The last request that could not be begun, and why.
        self._failure: tuple[str, TflotillaError] | None = None

    @property
    def running(self) -> str | None:
        """The id of the request that is carried out."""
        return self._request.request if self._request is not None and self._busy else None

    @property
    def _busy(self) -> bool:
        # Whoever has heard the last report may ask for more at once, whatever is still to be tidied.
        return self._running is not None and not self._running.done() and not self._finished

    # Before and after

    def recover(self) -> None:
        """Take up what an agent before this one left, and remove what nobody needs any more.

        From now on an interrupted benchmark runs, for whoever asks; its next cell waits for `go_on`.
        """
        read = self._journal.read()
        found = None if read is None else read[0]
        if read is not None and found is not None:
            self._owes = read[1]
            self._campaign, self._request = found, found.plan.request
            self._told, self._finished = list(campaign.story(found)), found.over
            self._guard(found.plan.identity.bundle)
        keep = {found.plan.request.method.samples} if found is not None and not found.over else set[str | None]()
        with contextlib.suppress(BoardError):
            self._samples.tidy({each for each in keep if each is not None})
        if found is not None:
            self._running = asyncio.create_task(self._resume(found))

    def go_on(self) -> None:
        """Let an interrupted benchmark go on, if there is one: the board serves, or can't."""
        self._may_go_on.set()

    async def stop(self) -> None:
        """Drop what is going on, as a kill would: the next start goes on with it."""
        for task in (self._running, self._tidying):
            if task is not None:
                task.cancel()
                await asyncio.wait([task])

    # What is asked

    def ask(self, request: BenchmarkRequest) -> None:
        """Take a request; every answer goes to `on_report`, those of the past of a known request once more."""
        try:
            for report in self._take(request):
                self._hooks.on_report(report)
        except ConflictError as error:
            self._hooks.on_report(campaign.refuse(request, str(error)))

    async def follow(self, request: BenchmarkRequest, on_report: OnReport) -> None:
        """Take a request and tell its whole story; returns when it is over.

        Raises:
            ConflictError: another one is running, or there is nothing to cancel.
            BoardError, ContractError, VerificationError: the bundle or the samples can't be measured.

        """
        for report in self._take(request):
            on_report(report)
        self._listeners.append(on_report)
        try:
            if self._running is not None:
                # Whoever asked may go away, the benchmark does not.
                await asyncio.wait([self._running])
        finally:
            self._listeners.remove(on_report)
        if self._failure is not None and self._failure[0] == request.request:
            raise self._failure[1]

    def _take(self, request: BenchmarkRequest) -> tuple[BenchmarkReport, ...]:
        """Begin or go on; return what is to be told at once. Raises ConflictError."""
        known = self._request is not None and self._request.request == request.request
        if request.cancel:
            self._cancel(request)
            return tuple(self._told)
        if known:
            if request != self._request:
                raise ConflictError(f"benchmark {request.request!r} asked for something else before; use another id")
            return tuple(self._told)
        if self._busy and self._request is not None:
            message = f"benchmark {self._request.request!r} is running on this board; try again when it is done"
            raise ConflictError(message)
        self._request, self._campaign, self._told, self._reason, self._failure = request, None, [], None, None
        self._finished = False
        self._running = asyncio.create_task(self._run(request, self._running))
        return ()

    def _cancel(self, request: BenchmarkRequest) -> None:
        if self._request is None or self._request.request != request.request or not self._busy:
            raise ConflictError(f"no benchmark {request.request!r} is running on this board")
        self._reason = "the benchmark was cancelled"
        if self._cell is not None:
            self._cell.cancel()

    # What is done

    async def _run(self, request: BenchmarkRequest, before: asyncio.Task[None] | None) -> None:
        if before is not None:
            try:
                await asyncio.wait([before])
            except asyncio.CancelledError:
                before.cancel()
                await asyncio.wait([before])
                raise
        if self._tidying is not None:
            self._tidying.cancel()
        try:
            plan = await self._prepare(request)
        except TflotillaError as error:
            self._refuse(request, error)
        except Exception as error:  # noqa: BLE001 - whoever asked hears of a bug, and the log whole
            _LOG.exception("preparing a benchmark")
            self._refuse(request, TflotillaError(f"a bug of the agent: {error!r}; its log says where"))
        else:
            await self._try(lambda: self._journal.begin(plan))
            self._before = self._board.windows()
            await self._drive(*campaign.begin(plan, _boot()))
        self._tidy_later()

    async def _resume(self, found: Campaign) -> None:
        if self._owes:
            self._hooks.on_report(self._told[-1])
            await self._hooks.secure()
        if not found.over:
            await self._may_go_on.wait()
            _LOG.info("benchmark %s goes on after %d cells", found.plan.request.request, len(found.done))
            self._before = self._board.windows()
        if self._owes or not found.over:
            self._owes = False
            await self._drive(*campaign.step(found, Restarted(boot=_boot())))
        self._tidy_later()

    def _refuse(self, request: BenchmarkRequest, error: TflotillaError) -> None:
        # Not remembered: what was missing may be there when it is asked again.
        self._request, self._failure = None, (request.request, error)
        self._hooks.on_report(campaign.refuse(request, str(error)))

    async def _prepare(self, request: BenchmarkRequest) -> Plan:
        bundle = request.bundle or self._board.bundle
        if bundle is None:
            raise BoardError("no bundle serves on this board; deploy one first, or name one to measure")
        with contextlib.suppress(ValueError):
            # Before anything is looked at: from now on it must not be collected.
            self._guard(digest.check(bundle))
        manifest = await asyncio.to_thread(self._admit, bundle)
        if request.method.samples is not None and request.method.inputs == "samples":
            self._samples.path(request.method.samples)
        serving = await asyncio.to_thread(self._board.inference, bundle)
        return Plan(
            request=request,
            identity=await asyncio.to_thread(self._board.identity, bundle, manifest),
            cells=campaign.plan_cells(
                request, serving=serving, offers=self._board.offers, processors=self._board.processors
            ),
        )

    def _admit(self, bundle: str) -> Manifest:
        """Bring a bundle into `bundles/` that was sent to be measured. Raises TflotillaError."""
        try:
            here = self._store.has_bundle(bundle)
        except ValueError as error:
            raise ContractError(f"bundle: {error}") from error
        if not here:
            data, signature = self._store.signed_manifest(bundle)
            admission.check_signature(data, signature, self._store.home.allowed_signers)
            self._store.admit(bundle)
        return self._store.manifest(bundle)

    async def _drive(self, state: Campaign, actions: tuple[Action, ...]) -> None:
        self._campaign = state
        while actions:
            event: Event | None = None
            for action in actions:
                if isinstance(action, Measure):
                    event = await self._measure(state, action.planned)
                elif isinstance(action, Note):
                    entry = action.entry
                    await self._try(lambda entry=entry: self._journal.add(entry))  # type: ignore[misc]
                else:
                    self._tell(action.report)
                    await self._hooks.secure()
            if event is None:
                break
            state, actions = campaign.step(state, event)
            self._campaign = state
        await self._try(lambda: self._journal.add(Entry(told=True)))

    async def _measure(self, state: Campaign, planned: Planned) -> Event:
        await self._board.settle()
        spec = CellSpec(
            bundle=str(self._store.home.bundle(state.plan.identity.bundle)),
            configuration=planned.configuration,
            method=state.plan.request.method,
            samples=self._sample_path(state.plan.request),
        )
        if self._reason is not None:
            return Cancelled(reason=self._reason)
        with self._board.overhear() as heard:
            self._cell = asyncio.create_task(self._measure_cell(spec, planned.runtime))
            try:
                await asyncio.wait([self._cell])
            except asyncio.CancelledError:
                self._cell.cancel()
                await asyncio.wait([self._cell])
                raise
        if self._cell.cancelled():
            return Cancelled(reason=self._reason or "the benchmark was cancelled")
        error = self._cell.exception()
        if error is not None:
            _LOG.error("measuring a cell", exc_info=error)
            blamed = CellError(kind="crashed", message=f"a bug of the agent: {error!r}; its log says where")
            return Ended(cell=campaign.failed(planned, blamed))
        cell = self._cell.result()
        if self._board.bundle is not None:
            cell = dataclasses.replace(cell, serving=bystander.fared(self._before, heard))
        return Ended(cell=cell)

    def _sample_path(self, request: BenchmarkRequest) -> str | None:
        if request.method.samples is None:
            return None
        try:
            return str(self._samples.path(request.method.samples))
        except TflotillaError:
            # Gone since: the child says so in its cell.
            return str(self._store.home.samples / request.method.samples)

    def _tell(self, report: BenchmarkReport) -> None:
        self._told.append(report)
        self._finished = report.last
        for listener in (self._hooks.on_report, *self._listeners):
            # A listener that can't listen any more must not end a benchmark.
            with contextlib.suppress(OSError, TflotillaError):
                listener(report)

    async def _try(self, write: Callable[[], None]) -> None:
        """Write what is only for a restart: without it this run measures all the same."""
        try:
            await asyncio.to_thread(write)
        except OSError as error:
            if not self._troubled:
                reason = error.strerror or error
                self._hooks.on_trouble(
                    f"{self._store.home.benchmark} can't be written ({reason}): a restart would lose this benchmark"
                )
            self._troubled = True
        else:
            self._troubled = False

    # What is left behind

    def _guard(self, bundle: str) -> None:
        self._guests |= {bundle}
        self._store.protect(self._guests)

    def _tidy_later(self) -> None:
        if self._tidying is not None:
            self._tidying.cancel()
        self._tidying = asyncio.create_task(self._tidy())

    async def _tidy(self) -> None:
        await asyncio.sleep(self._linger_s)
        # What a deployment may go back to is named by nothing while it switches.
        await self._board.settle()
        try:
            await asyncio.to_thread(self._samples.tidy, (), older_than_s=self._linger_s)
            for bundle in sorted(self._guests):
                if bundle != self._board.candidate():
                    await asyncio.to_thread(self._store.discard, bundle)
        except TflotillaError as error:
            _LOG.warning("%s", error)
        self._guests = frozenset()
        self._store.protect(())


def _boot() -> str:
    """Return the name of this boot of the kernel; empty where it has none."""
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return ""
