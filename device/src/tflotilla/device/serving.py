"""Keeps a worker running on the bundle that is to serve, and answers what the installer asks about bundles.

Rules it keeps:
- one worker at a time; it is ended before the next one begins, so that two models never share a small board's memory;
- a worker that ends is started again with a growing wait; one that keeps ending is `failing`, with the reason;
- a worker that is silent for long hangs, and is ended.

What it does NOT do: load a model, decide what serves (the installer does), or send (it hands lines over).
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import logging
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from tflotilla.device import choice, facts, reports
from tflotilla.device.backoff import Backoff
from tflotilla.device.bystander import Overheard
from tflotilla.device.children import Child, ask
from tflotilla.device.choice import Choice
from tflotilla.device.install import Observation
from tflotilla.device.reports import ProbeReport, ProbeSpec, Ready, ShadowSpec, WorkerSpec
from tflotilla.device.waiting import happens
from tflotilla.shared import pace
from tflotilla.shared.contract import codec
from tflotilla.shared.contract.board import RuntimeOffer
from tflotilla.shared.contract.deployment import ShadowReport
from tflotilla.shared.contract.errors import BoardError, ContractError, ProbeError, TflotillaError
from tflotilla.shared.contract.manifest import MANIFEST, HealthPolicy, Manifest
from tflotilla.shared.contract.messages import DelegateReport
from tflotilla.shared.contract.topics import Channel

if TYPE_CHECKING:
    from pathlib import Path

    from tflotilla.device.store import Store
    from tflotilla.shared.contract.agent_config import AgentConfig, InferenceConfig
    from tflotilla.shared.pace import Pace

_LOG = logging.getLogger(__name__)
#: From start to first inference. A slow card and a large model take tens of seconds, a hanging delegate for ever.
_READY_TIMEOUT_S = 180.0
#: A worker reports each window, whether anything happened or not; so much beyond that is a hang.
_SILENCE_S = 120.0
#: A worker that lived so long was a good one.
_GOOD_LIFE_S = 10.0
_FAILING_AFTER = 2
_LAST_WINDOWS = 10
_MAX_PATIENCE_S = 60.0
#: What a busy board may add to a window before its worker is said to hang.
_HANG_SLACK_S = 5.0
#: What one inference may take beyond the time of a shadow.
_SHADOW_SLACK_S = 20.0
_EXIT_BOARD = BoardError.exit_code


@dataclass(frozen=True, slots=True, kw_only=True)
class Hooks:
    """Whom the keeper tells: all on the event loop, none may raise."""

    #: A finished body of `metrics`, `predictions` or `thumbnail`, and the bundle that made it.
    on_report: Callable[[Channel, bytes, str], None]
    #: A worker's complaint about its inputs.
    on_complaint: Callable[[str], None]
    #: A worker ended that should not have; the reason.
    on_end: Callable[[str], None]
    #: Something that the state tells has changed.
    on_change: Callable[[], None]
    #: A bundle is not served as it was tuned any more; why.
    on_untuned: Callable[[str], None] = lambda _reason: None


class Keeper:
    """The supervisor's side of serving; implements `installer.Serving`."""

    def __init__(
        self,
        store: Store,
        config: AgentConfig,
        hooks: Hooks,
        *,
        backoff: Backoff | None = None,
        slack_s: float = _HANG_SLACK_S,
    ) -> None:
        self._store = store
        self._config = config
        self._hooks = hooks
        self._slack_s = slack_s
        self._backoff = backoff or Backoff(first_s=0.5, limit_s=60.0)
        self.worker: Literal["none", "starting", "running", "failing"] = "none"
        self.bundle: str | None = None
        #: How the worker runs the model, once that is settled; None when nothing serves.
        self.inference: InferenceConfig | None = None
        self._chosen: Choice | None = None
        self.ready: Ready | None = None
        #: Why the worker fails; None when it does not.
        self.problem: str | None = None
        self.worker_pid: int | None = None
        self._task: asyncio.Task[None] | None = None
        self._crashes = 0
        self._windows: deque[bytes] = deque(maxlen=_LAST_WINDOWS)
        self._champion: Pace | None = None
        self._watches: list[_Watch] = []

    # What the installer asks

    async def probe(self, folder: Path, inference: InferenceConfig) -> tuple[ProbeReport, ...]:
        """Try a bundle with every runtime that `inference` allows, one after the other."""
        health = await asyncio.to_thread(_health, folder)
        auto = inference.runtime == "auto"
        names = [offer.name for offer in facts.runtimes()] if auto else [inference.runtime]
        return tuple([await self._probe_once(folder, inference, name, health.probe_timeout_s) for name in names])

    async def shadow(self, champion: Path, candidate: Path, chosen: Choice, inputs: int) -> ShadowReport:
        """Let what serves and the candidate answer the same inputs, in a child beside the worker.

        Raises:
            ProbeError: the child crashed or took too long, or it is not settled how the champion is served.
            BoardError: the candidate's folder can't be read.

        """
        if self.inference is None:
            raise ProbeError("what serves has not begun to")
        health = await asyncio.to_thread(_health, candidate)
        runtime = dataclasses.replace(self._config.inference, runtime=_literal(chosen.runtime.name))
        spec = ShadowSpec(
            champion=str(champion),
            champion_inference=self.inference,
            challenger=str(candidate),
            challenger_inference=chosen.inference or runtime,
            source=self._config.source,
            inputs=inputs,
            at_most_s=health.probe_timeout_s,
        )
        # It ends in time by itself; one that doesn't hangs.
        return await ask("shadow", spec, ShadowReport, timeout_s=health.probe_timeout_s + _SHADOW_SLACK_S)

    async def serve(self, bundle: str | None, chosen: Choice | None) -> None:
        """(Re)start the worker on this bundle, as it was chosen; return when its first inference is done.

        Raises:
            BoardError: no runtime can be used, or the board is to blame otherwise.
            ProbeError: its worker ended before its first inference; it is tried again until the next call.

        """
        await self.stop()
        if (bundle, chosen) != (self.bundle, self._chosen):
            self._champion = pace.of(self._windows)
            self._windows.clear()
        self.bundle, self._chosen, self.inference = bundle, chosen, None
        if bundle is None:
            self._change("none")
            return
        first: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._keep(bundle, self._holding(chosen), first))
        await asyncio.wait([first])
        first.result()

    async def observe(self, window_s: float) -> Observation:
        """Watch for so long, and until the worker reported at least once (within bounds)."""
        crashes = self._crashes
        watch = _Watch()
        self._watches.append(watch)
        try:
            await asyncio.sleep(window_s)
            more_s = min(_MAX_PATIENCE_S, self._hang_after_s()) - window_s
            if more_s > 0:
                await happens(watch.heard, more_s)
        finally:
            self._watches.remove(watch)
        silent_s = time.monotonic() - watch.heard_at
        counts = [_counts(body) for body in watch.windows]
        return Observation(
            results=sum(results for results, _ in counts),
            errors=sum(errors for _, errors in counts),
            crashes=self._crashes - crashes,
            pace=pace.of(watch.windows),
            champion=self._champion,
            silent_s=silent_s if silent_s >= self._hang_after_s() else None,
        )

    def _hang_after_s(self) -> float:
        """Return after how long without a window a worker hangs; it can't close one in the middle of an inference."""
        inference_s = self.ready.first_inference_ns / 1e9 if self.ready is not None else 0.0
        return 1.5 * self._config.reporting.window_s + 3 * inference_s + self._slack_s

    def windows(self) -> tuple[bytes, ...]:
        """Return the last windows of what serves, oldest first."""
        return tuple(self._windows)

    @contextlib.contextmanager
    def overhear(self) -> Iterator[Overheard]:
        """Listen to the worker for the length of a block."""
        watch, heard, crashes = _Watch(), Overheard(), self._crashes
        watch.windows = heard.windows
        self._watches.append(watch)
        try:
            yield heard
        finally:
            self._watches.remove(watch)
            heard.crashes = self._crashes - crashes

    async def stop(self) -> None:
        """End the worker, which hands its last window over first."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._task = None

    # The worker's life

    async def _keep(self, bundle: str, chosen: Choice | None, first: asyncio.Future[None]) -> None:
        self._backoff.reset()
        self._change("starting", ready=None, problem=None)
        try:
            while True:
                began = time.monotonic()
                try:
                    error = await self._live(bundle, chosen, first)
                except TflotillaError as caught:
                    error = caught
                if time.monotonic() - began > _GOOD_LIFE_S and first.done():
                    self._backoff.reset()
                self._crashes += 1
                for watch in self._watches:
                    watch.heard.set()
                wait_s = self._backoff.next_s()
                failing = self._backoff.failures >= _FAILING_AFTER or not first.done()
                _LOG.error("%s; started again in %.1f s", error, wait_s)
                self._hooks.on_end(str(error))
                self._change("failing" if failing else "starting", ready=None, problem=str(error))
                if not first.done():
                    first.set_exception(error)
                await asyncio.sleep(wait_s)
        except asyncio.CancelledError:
            if not first.done():
                first.set_exception(ProbeError("the worker was stopped before its first inference"))
                first.exception()  # Nobody may be waiting any more.
            raise

    async def _live(self, bundle: str, chosen: Choice | None, first: asyncio.Future[None]) -> TflotillaError:
        """Run one worker to its end; return why it ended."""
        folder = self._store.home.bundle(bundle)
        inference = self.inference = await self._settled(bundle, chosen)
        spec = WorkerSpec(
            bundle=str(folder), inference=inference, source=self._config.source, reporting=self._config.reporting
        )
        child = await Child.start("worker", spec)
        self.worker_pid = child.pid
        life = _Life(self, bundle, first)
        reading = asyncio.create_task(life.read(child))
        try:
            while not reading.done():
                done, _ = await asyncio.wait([reading], timeout=1.0)
                if not done and time.monotonic() - life.heard_at > life.patience_s:
                    return ProbeError(f"its worker was silent for {life.patience_s:.0f} s and was ended")
            error = reading.exception()
            if isinstance(error, TflotillaError):
                return error
            if error is not None:
                return ProbeError(f"its worker wrote what can't be understood: {error!r}")
            code = await child.ended()
        except asyncio.CancelledError:
            # Its last window is still to come.
            await asyncio.shield(self._see_off(child, reading))
            raise
        finally:
            self.worker_pid = None
            reading.cancel()
            await asyncio.shield(child.kill())
        # Its own last words say more than its exit code, unless it died by a signal.
        reason = life.complaint if life.complaint is not None and code > 0 else child.account(code)
        kind = BoardError if code == _EXIT_BOARD else ProbeError
        return kind(reason)

    async def _see_off(self, child: Child, reading: asyncio.Task[None]) -> None:
        await child.end()
        await asyncio.wait([reading], timeout=1.0)

    def _holding(self, chosen: Choice | None) -> Choice | None:
        """Return a choice without what tuning found where that does not hold any more, and say so."""
        if chosen is None:
            return None
        reason = choice.stale(chosen, offers=facts.runtimes(), kernel=facts.kernel(), processors=facts.processors())
        if reason is None:
            return chosen
        self._hooks.on_untuned(f"served as agent.toml says, not as tuned: {reason}; tune and deploy again")
        return dataclasses.replace(chosen, inference=None)

    async def _settled(self, bundle: str, chosen: Choice | None) -> InferenceConfig:
        """Return what to serve with, runtime and all. Raises BoardError, ProbeError."""
        if chosen is not None and chosen.inference is not None:
            return chosen.inference
        name = _literal(await self._runtime(bundle, None if chosen is None else chosen.runtime))
        return dataclasses.replace(self._config.inference, runtime=name)

    async def _runtime(self, bundle: str, chosen: RuntimeOffer | None) -> str:
        """Return the PyPI name of the runtime to serve with. Raises BoardError, ProbeError."""
        configured = self._config.inference.runtime
        if configured != "auto":
            return configured
        offers = facts.runtimes()
        if not offers:
            message = "no runtime is installed on this board; bootstrap it again"
            raise BoardError(message)
        if chosen in offers:
            return chosen.name if chosen is not None else offers[0].name
        if len(offers) == 1:
            return offers[0].name
        found = await self.probe(self._store.home.bundle(bundle), self._config.inference)
        best = choice.pick(found)
        if best is None:
            raise ProbeError("; ".join(f"{report.runtime}: {report.reason}" for report in found))
        # Only to save the probes next time: an agent that can't write still serves.
        with contextlib.suppress(TflotillaError):
            await asyncio.to_thread(self._store.choose, bundle, Choice(runtime=best.runtime))
        return best.runtime.name

    async def _probe_once(self, folder: Path, inference: InferenceConfig, name: str, timeout_s: float) -> ProbeReport:
        spec = ProbeSpec(bundle=str(folder), inference=dataclasses.replace(inference, runtime=_literal(name)))
        try:
            return await ask("probe", spec, ProbeReport, timeout_s=timeout_s)
        except ProbeError as error:
            requested = inference.delegate.library if inference.delegate else None
            return ProbeReport(
                ok=False,
                reason=str(error),
                runtime=facts.offer(name) or RuntimeOffer(name=name, version="not installed"),
                delegate=DelegateReport(requested=requested, active=None),
                worst_lsb=None,
                worst_absolute=None,
                load_ns=0,
                p50_ns=0,
                p99_ns=0,
                peak_rss_bytes=0,
            )

    def _change(
        self,
        worker: Literal["none", "starting", "running", "failing"],
        *,
        ready: Ready | None = None,
        problem: str | None = None,
    ) -> None:
        self.worker, self.ready, self.problem = worker, ready, problem
        self._hooks.on_change()

    # What a life tells

    def on_ready(self, ready: Ready) -> None:
        """The first inference is done."""
        # One that keeps crashing soon after its start stays `failing` until it has lived for a while.
        failing = self._backoff.failures >= _FAILING_AFTER
        self._change("failing" if failing else "running", ready=ready, problem=self.problem if failing else None)

    def on_good_life(self) -> None:
        """It has lived long enough to be trusted again."""
        if self.worker != "running" and self.ready is not None:
            self._backoff.reset()
            self._change("running", ready=self.ready)

    def on_metrics(self, body: bytes, bundle: str) -> None:
        """One window is over."""
        self._windows.append(body)
        for watch in self._watches:
            watch.windows.append(body)
            watch.heard_at = time.monotonic()
            watch.heard.set()
        self._hooks.on_report("metrics", body, bundle)

    def on_predictions(self, body: bytes, bundle: str) -> None:
        """Results of a window."""
        self._hooks.on_report("predictions", body, bundle)

    def on_thumbnail(self, body: bytes, bundle: str) -> None:
        """An input that was just answered."""
        self._hooks.on_report("thumbnail", body, bundle)

    def on_complaint(self, text: str) -> None:
        """Something is wrong with an input, or with everything."""
        self._hooks.on_complaint(text)

    @property
    def window_s(self) -> float:
        """How often a worker reports."""
        return self._config.reporting.window_s


class _Watch:
    """What happened since an observation began."""

    def __init__(self) -> None:
        self.windows: list[bytes] = []
        #: Set by the first window or crash.
        self.heard = asyncio.Event()
        #: When the last window came, or the observation began.
        self.heard_at = time.monotonic()


class _Life:
    """Reads one worker's lines."""

    def __init__(self, keeper: Keeper, bundle: str, first: asyncio.Future[None]) -> None:
        self._keeper = keeper
        self._bundle = bundle
        self._first = first
        self._ready_at: float | None = None
        self.heard_at = time.monotonic()
        self.complaint: str | None = None

    @property
    def patience_s(self) -> float:
        return _READY_TIMEOUT_S if self._ready_at is None else _SILENCE_S + 3 * self._keeper.window_s

    async def read(self, child: Child) -> None:
        keeper = self._keeper
        async for line in child.lines():
            self.heard_at = time.monotonic()
            kind, body = line[:1], line[1:]
            if kind == reports.PREDICTIONS:
                keeper.on_predictions(body, self._bundle)
            elif kind == reports.METRICS:
                keeper.on_metrics(body, self._bundle)
                if self._ready_at is not None and self.heard_at - self._ready_at > _GOOD_LIFE_S:
                    keeper.on_good_life()
            elif kind == reports.READY:
                self._ready_at = self.heard_at
                keeper.on_ready(codec.decode(Ready, codec.parse_json(body, "worker"), "worker"))
                if not self._first.done():
                    self._first.set_result(None)
            elif kind == reports.THUMBNAIL:
                keeper.on_thumbnail(body, self._bundle)
            elif kind == reports.PROBLEM:
                self.complaint = body.decode(errors="replace")
                keeper.on_complaint(self.complaint)
            else:
                message = f"the worker wrote a line of unknown kind {kind!r}"
                raise ContractError(message)


def _counts(body: bytes) -> tuple[int, int]:
    """Return (results, errors) of a metrics body."""
    document = json.loads(body)
    return document["count"], document["errors"]


def _health(folder: Path) -> HealthPolicy:
    try:
        return Manifest.from_bytes((folder / MANIFEST).read_bytes(), str(folder / MANIFEST)).health
    except OSError as error:
        message = f"{folder}: {MANIFEST} can't be read ({error.strerror})"
        raise BoardError(message) from error


def _literal(name: str) -> Literal["auto", "tflite-runtime", "ai-edge-litert"]:
    """Narrow a runtime's name to what the configuration allows. Raises BoardError."""
    if name == "tflite-runtime":
        return "tflite-runtime"
    if name == "ai-edge-litert":
        return "ai-edge-litert"
    message = f"unknown runtime {name!r}"
    raise BoardError(message)
