"""The supervisor: one asyncio process that keeps a worker serving, deploys, reports and obeys. It never loads a model.

    worker ──lines──▶ keeper ──▶ courier ──▶ outbox ──▶ MQTT
    control socket ──▶ installer ──▶ keeper
    MQTT command/… ──▶ benchmark children, state

Rules it keeps: numpy, Pillow and the runtimes are never imported here (a test looks); a broker, a disk or a worker that
fails is reported and outlived; SIGTERM ends it cleanly with code 0, SIGHUP reads agent.toml again.
What it does NOT do: decide about deployments (`install`), watch itself (systemd or `guard` do).
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import time
from typing import TYPE_CHECKING, Literal

from tflotilla.device import __version__, benchmarking, campaign, config, facts, present
from tflotilla.device.benchmark_board import BenchmarkBoard
from tflotilla.device.benchmarking import Benchmarks
from tflotilla.device.control_server import ControlServer
from tflotilla.device.courier import Courier
from tflotilla.device.events import EventGate
from tflotilla.device.installer import Installer
from tflotilla.device.outbox import Outbox
from tflotilla.device.pid_lock import PidLock
from tflotilla.device.reporting import UNNUMBERED, Envelopes, new_boot
from tflotilla.device.serving import Hooks, Keeper
from tflotilla.device.session_server import SessionServer
from tflotilla.device.store import Store
from tflotilla.device.waiting import happens
from tflotilla.shared.contract import codec, session, topics
from tflotilla.shared.contract.benchmark import MAX_ID, BenchmarkReport, BenchmarkRequest
from tflotilla.shared.contract.errors import BoardError, ConfigError, ConflictError, ContractError, TflotillaError
from tflotilla.shared.contract.messages import (
    Availability,
    DelegateReport,
    Event,
    ServedBundle,
    State,
    StateRequest,
)
from tflotilla.shared.contract.session import Hello, Reply

if TYPE_CHECKING:
    from collections.abc import Callable

    from tflotilla.device.home import Home
    from tflotilla.device.transports import Transport
    from tflotilla.shared.contract.agent_config import AgentConfig, InferenceConfig
    from tflotilla.shared.contract.board import BoardFacts
    from tflotilla.shared.contract.deployment import DeploymentStatus
    from tflotilla.shared.contract.topics import Channel

    OnStatus = Callable[[DeploymentStatus], None]

_LOG = logging.getLogger("tflotilla.agent")
_MIB = 1 << 20
#: Changes within this time are told together.
_SETTLE_S = 0.1
#: The state is told again so often without a change: uptime, free disk and queue move on.
_STATE_EVERY_S = 30.0
_AGAIN_S = 0.5
_FACTS_FOR_S = 20.0
_LAST_DELIVERY_S = 1.0
#: A disk that takes longer for a report has other troubles.
_SECURED_S = 5.0


def run(home: Home) -> int:
    """Be the agent of a home until SIGTERM; return the exit code.

    Raises:
        ConfigError: agent.toml can't be used.
        ConflictError: an agent runs in this home already.
        BoardError: the home can't be used.

    """
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s")
    home.make()
    settings = config.load(home.config)
    lock = PidLock(home.pid)
    try:
        alone = lock.acquire()
    except OSError as error:
        # A full disk is no reason not to serve; the control socket keeps a second agent out as well.
        _LOG.warning("%s can't be written: %s", home.pid, error.strerror or error)
        alone = True
    if not alone:
        message = f"an agent runs in {home.path} already; stop it with `tflotilla-agent stop`"
        raise ConflictError(message)
    try:
        asyncio.run(_live(home, settings))
    finally:
        lock.release()
    return 0


async def _live(home: Home, settings: AgentConfig) -> None:
    """Run agents, one per configuration, until told to stop."""
    wishes: asyncio.Queue[Literal["stop", "reload"]] = asyncio.Queue()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, wishes.put_nowait, "stop")
    loop.add_signal_handler(signal.SIGHUP, wishes.put_nowait, "reload")
    again = True
    while again:
        agent = Agent(home, settings, stop=lambda: wishes.put_nowait("stop"))
        await agent.start()
        try:
            changed = await _next_configuration(home, settings, wishes, agent)
        finally:
            await agent.close()
        again = changed is not None
        settings = changed or settings


async def _next_configuration(
    home: Home, settings: AgentConfig, wishes: asyncio.Queue[Literal["stop", "reload"]], agent: Agent
) -> AgentConfig | None:
    """Wait for a reload that changes something; None is the end."""
    while await wishes.get() == "reload":
        try:
            changed = config.load(home.config)
        except ConfigError as error:
            agent.refuse_configuration(str(error))
            continue
        agent.refuse_configuration(None)
        if changed == settings:
            _LOG.info("agent.toml is what it was")
            continue
        _LOG.info("agent.toml has changed; starting anew")
        await agent.settle()
        return changed
    return None


def mqtt_transport(settings: AgentConfig, courier: Courier, will: bytes) -> Transport:
    """Return the transport of a configuration. paho is imported here, once there is something to report."""
    from tflotilla.device.transports.mqtt import MqttTransport

    commands = tuple(topics.command(settings.fleet, settings.board, name) for name in topics.COMMANDS)
    return MqttTransport(
        settings.mqtt,
        client_id=f"tflotilla-{settings.fleet}-{settings.board}",
        will=courier.publication("availability", will),
        subscriptions=(*commands, topics.topic(settings.fleet, settings.board, "ack")),
    )


class Agent:
    """One run of the agent with one configuration: one boot, in the words of the contract."""

    def __init__(
        self,
        home: Home,
        settings: AgentConfig,
        *,
        stop: Callable[[], None],
        connect: Callable[[AgentConfig, Courier, bytes], Transport] = mqtt_transport,
    ) -> None:
        self._home = home
        # Every child gets the fitted one: worker, probe and benchmark.
        self._settings, self._clipped = config.fitted(settings, cores=facts.cores(), processors=facts.processors())
        self._request_stop = stop
        self._connect = connect
        self._began = time.monotonic()
        self._store = Store(home)
        self._envelopes = Envelopes(board=settings.board, boot=new_boot())
        self._outbox = Outbox(home.outbox, max_bytes=int(settings.reporting.outbox_max_mib * _MIB))
        self._courier = Courier(
            outbox=self._outbox,
            envelopes=self._envelopes,
            fleet=settings.fleet,
            confirm=settings.reporting.confirm,
            on_connected=self._on_connected,
            on_request=self._on_request,
            on_trouble=self._on_trouble,
        )
        hooks = Hooks(
            on_report=self._on_report,
            on_complaint=self._on_complaint,
            on_end=lambda reason: self.event("error", "worker", reason),
            on_change=self._touch,
            on_untuned=lambda reason: self.event("warning", "tuning", reason),
        )
        self._keeper = Keeper(self._store, settings, hooks)
        self._installer = Installer(self._store, self._keeper, settings.inference, on_status=self._on_status)
        board = BenchmarkBoard(home, self._settings, self._store, self._keeper, self._installer)
        self._benchmarks = Benchmarks(
            self._store,
            board,
            benchmarking.Hooks(
                on_report=self._report_benchmark,
                on_trouble=lambda reason: self.event("warning", "benchmark", reason),
                secure=self._secure_benchmark,
            ),
        )
        self._benchmark_row = 0
        self._control = ControlServer(home, self)
        self._sessions = SessionServer(home)
        self._transport: Transport | None = None
        self._gate = EventGate()
        self._tasks: list[asyncio.Task[None]] = []
        self._changed = asyncio.Event()
        self._facts: tuple[float, BoardFacts] | None = None
        #: What is wrong with the agent.toml that it was told to read, while it goes on with the one before.
        self._mistake: str | None = None
        #: What serves, as the broker was told by its card, and whether it was.
        self._card_of: str | None = None
        self._card_told = False

    async def start(self) -> None:
        """Begin to listen, report and serve; returns before the first inference.

        Raises:
            ConflictError, BoardError: the control socket can't be had.

        """
        await self._control.start()
        self._sessions.start()
        # Before anybody can ask, and before anything is collected: what an interrupted benchmark measures is named by
        # nothing else.
        self._benchmarks.recover()
        self._transport = self._connect(self._settings, self._courier, self._availability("offline"))
        self._courier.attach(self._transport)
        self._tasks = [
            asyncio.create_task(self._courier.run()),
            asyncio.create_task(self._tell_state()),
            asyncio.create_task(self._serve()),
        ]
        for task in self._tasks:
            task.add_done_callback(self._on_task_end)
        settings = self._settings
        self.event("info", "start", f"agent {__version__} of {settings.board} starts", detail={"pid": os.getpid()})
        for warning in config.warnings(settings, self._home.config):
            self.event("warning", "config", warning)
        if self._clipped is not None:
            self.event("warning", "config", f"{self._home.config}: {self._clipped}")
        if self._outbox.lost_queue is not None:
            self.event("error", "outbox", self._outbox.lost_queue)

    async def close(self) -> None:
        """End everything in order: the worker hands its last window over, the rest is kept on disk."""
        self._sessions.close()
        await self._control.close()
        await self._benchmarks.stop()
        await self._installer.stop()
        await self._keeper.stop()
        if self._courier.connected:
            await self._courier.drain(_LAST_DELIVERY_S)
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        if self._transport is not None:
            await self._transport.stop(self._courier.publication("availability", self._availability("offline")))
        self._outbox.close()

    async def settle(self) -> None:
        """Wait until no deployment is going on."""
        await self._installer.settle()

    def refuse_configuration(self, mistake: str | None) -> None:
        """Say that agent.toml has a mistake, here and in the state for as long as it does; None when it has none."""
        if mistake is not None:
            mistake = f"the old configuration stays: {mistake}"
            self.event("error", "config", mistake)
        self._mistake = mistake
        self._touch()

    # What control clients ask (`control_server.Handler`)

    async def deploy(
        self,
        deployment: str,
        bundle: str,
        on_status: OnStatus,
        *,
        inference: InferenceConfig | None = None,
        shadow: int = 0,
    ) -> object:
        """Bring a bundle into service, as tuning found out where that is known."""
        return await self._installer.deploy(deployment, bundle, on_status, inference=inference, shadow=shadow)

    async def rollback(self, deployment: str, on_status: OnStatus, *, bundle: str | None = None) -> object:
        """Bring the previous bundle back, where `bundle` serves."""
        return await self._installer.rollback(deployment, on_status, bundle=bundle)

    async def benchmark(self, request: BenchmarkRequest, on_report: Callable[[BenchmarkReport], None]) -> None:
        """Measure, or follow what is measured already."""
        await self._benchmarks.follow(request, on_report)

    async def state(self) -> State:
        """Describe the board now."""
        return self._state()

    async def hello(self) -> Hello:
        """Say what a session says first, facts of this moment included. Raises ConfigError for a broken agent.toml."""
        settings = await asyncio.to_thread(config.load, self._home.config)
        return Hello(
            schema=session.SCHEMA,
            agent_version=__version__,
            board=settings.board,
            fleet=settings.fleet,
            facts=facts.read(self._home.path),
            running=True,
            serving=self._described(self._store.current()),
            previous=self._described(self._store.previous()),
        )

    async def offer(self, bundle: str) -> Reply:
        """Say whether a bundle is here, and whether it serves."""
        return self._store.offered(bundle)

    async def stop(self) -> None:
        """End the agent."""
        self._request_stop()

    # What is reported

    def event(
        self,
        level: Literal["info", "warning", "error"],
        kind: str,
        message: str,
        detail: dict[str, object] | None = None,
    ) -> None:
        """Report something a person may want to know, and log it."""
        _LOG.log(getattr(logging, level.upper()), "%s: %s", kind, message)
        body = codec.canonical_json(Event(level=level, kind=kind, message=message, detail=detail or {}))
        self._courier.report("event", body, bundle=self._keeper.bundle)

    def _on_report(self, channel: Channel, body: bytes, bundle: str) -> None:
        if channel in topics.MOMENTARY:
            self._tell(channel, body, bundle)
            return
        self._courier.report(channel, body, bundle=bundle)
        if channel == "metrics" and self._settings.reporting.flat and self._courier.connected:
            self._tell("flat", present.flat_body(body), bundle)

    def _tell(self, channel: Channel, body: bytes, bundle: str) -> None:
        """Say something of the present; where there is no connection it is nobody's loss."""
        self._courier.tell(channel, self._envelopes.around(body, seq=UNNUMBERED, bundle=bundle))

    def _on_complaint(self, text: str) -> None:
        for message in self._gate.admit(text, now=time.monotonic()):
            self.event("warning", "input", message)

    def _on_status(self, status: DeploymentStatus) -> None:
        _LOG.info("deployment of %s: %s %s", status.title, status.state.value, status.detail)
        self._courier.report("deployment", codec.canonical_json(status), bundle=self._keeper.bundle)
        self._touch()

    def _on_connected(self) -> None:
        self._courier.tell("availability", self._availability("online"))
        # Whoever keeps retained messages may have forgotten it, or have another one's.
        self._card_told = False
        self._publish_state()

    def _on_trouble(self, message: str) -> None:
        # It reaches the broker when the trouble is over; until then the log and the control socket's state tell it.
        self.event("error" if self._courier.refused else "warning", "reporting", message)
        self._touch()

    def _availability(self, status: Literal["online", "offline"]) -> bytes:
        bundle = self._keeper.bundle if status == "online" else None
        return self._envelopes.unnumbered(Availability(status=status), bundle=bundle)

    def _publish_state(self) -> bool:
        """Publish the state, and the card of what serves when that is news; return whether both went out."""
        bundle = self._keeper.bundle
        told = self._courier.tell("state", self._envelopes.unnumbered(self._state(), bundle=bundle))
        if not self._card_told or self._card_of != bundle:
            self._card_told = self._courier.tell("model", self._card(bundle))
            self._card_of = bundle
        return told and self._card_told

    def _card(self, bundle: str | None) -> bytes:
        """Return the message that describes what serves: an empty one, which a broker forgets, for nothing."""
        try:
            card = None if bundle is None else present.card(bundle, self._store.manifest(bundle))
        except (BoardError, ContractError):
            card = None
        return b"" if card is None else self._envelopes.unnumbered(card, bundle=bundle)

    def _touch(self) -> None:
        self._changed.set()

    async def _tell_state(self) -> None:
        while True:
            if await happens(self._changed, _STATE_EVERY_S):
                await asyncio.sleep(_SETTLE_S)
            self._changed.clear()
            if not self._publish_state() and self._courier.connected:
                # The window is full of reports that wait for their answer.
                await asyncio.sleep(_AGAIN_S)
                self._touch()

    def _state(self) -> State:
        keeper = self._keeper
        inference = keeper.inference or self._settings.inference
        requested = inference.delegate.library if inference.delegate else None
        ready = keeper.ready
        problems = (self._mistake, keeper.problem, self._courier.problem, self._outbox.problem, self._courier.losing)
        return State(
            agent_version=__version__,
            facts=self._current_facts(),
            serving=self._described(keeper.bundle),
            previous=self._described(self._store.previous()),
            worker=keeper.worker,
            runtime=ready.runtime if ready else None,
            num_threads=inference.num_threads,
            inference=keeper.inference,
            delegate=ready.delegate if ready else DelegateReport(requested=requested, active=None),
            source=self._settings.source.kind,
            uptime_s=round(time.monotonic() - self._began, 3),
            outbox_rows=self._outbox.rows,
            outbox_dropped=self._outbox.dropped,
            problem="; ".join(problem for problem in problems if problem) or None,
            reporting=self._courier.delivered,
        )

    def _described(self, bundle: str | None) -> ServedBundle | None:
        return None if bundle is None else self._store.describe(bundle)

    def _current_facts(self) -> BoardFacts:
        now = time.monotonic()
        if self._facts is None or now - self._facts[0] > _FACTS_FOR_S:
            self._facts = (now, facts.read(self._home.path))
        return self._facts[1]

    # What is obeyed

    async def _serve(self) -> None:
        try:
            await self._installer.start()
        except TflotillaError as error:
            # Nothing that serves is no reason to be unreachable: the next deployment mends it.
            self.event("error", "serving", str(error))
        self._benchmarks.go_on()

    def _on_task_end(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception() is not None:
            # Whoever starts agents starts a new one; half an agent would look alive.
            _LOG.critical("a bug of the agent", exc_info=task.exception())
            self._request_stop()

    def _on_request(self, channel: str, payload: bytes) -> None:
        try:
            if channel == "command/state":
                codec.decode(StateRequest, codec.parse_json(payload or b"{}", channel), channel)
                self._facts = None
                self._publish_state()
            else:
                self._ask_for_benchmark(payload, channel)
        except ContractError as error:
            self.event("warning", "command", str(error))

    def _ask_for_benchmark(self, payload: bytes, channel: str) -> None:
        """Begin or go on with a benchmark. Raises ContractError for what nobody waits for an answer to."""
        document = codec.parse_json(payload, channel)
        try:
            request = codec.decode(BenchmarkRequest, document, channel)
        except ContractError as error:
            name = document.get("request") if isinstance(document, dict) else None
            if not isinstance(name, str) or not name:
                raise
            self._report_benchmark(campaign.refuse_nonsense(name[:MAX_ID], str(error)))
        else:
            self._benchmarks.ask(request)

    def _report_benchmark(self, report: BenchmarkReport) -> None:
        body = codec.canonical_json(report)
        self._benchmark_row = self._courier.report("benchmark", body, bundle=self._keeper.bundle)

    async def _secure_benchmark(self) -> None:
        await self._courier.secure(self._benchmark_row, _SECURED_S)
