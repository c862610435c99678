"""Does what `install` decides: one deployment at a time, journaled, over the store and whoever serves.

Rules it keeps: an action that fails becomes an event, never an exception that leaves a deployment hanging; a
deployment belongs to the installer, so it goes on when whoever asked for it hangs up; statuses come in order.
What it does NOT do: start processes or know MQTT (the supervisor does, behind `Serving`); receive bytes (`session`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from tflotilla.device import admission, choice, facts, install
from tflotilla.device.choice import Choice
from tflotilla.device.install import Observation
from tflotilla.shared.contract import codec, digest
from tflotilla.shared.contract.deployment import DeploymentState, DeploymentStatus, ShadowReport
from tflotilla.shared.contract.errors import BoardError, BusyError, ConflictError, ContractError, TflotillaError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tflotilla.device.reports import ProbeReport
    from tflotilla.device.store import Store
    from tflotilla.shared.contract.agent_config import InferenceConfig
    from tflotilla.shared.contract.messages import ServedBundle

    OnStatus = Callable[[DeploymentStatus], None]

__all__ = ["Installer", "Observation", "Serving", "served_bundle"]
#: More inputs would take a small board longer than any probe may.
MAX_SHADOW = 10_000


class Serving(Protocol):
    """What the installer asks of the supervisor. All of it may raise TflotillaError."""

    async def probe(self, folder: Path, inference: InferenceConfig) -> tuple[ProbeReport, ...]:
        """Try a bundle in child processes while the old one serves: one report per runtime that `inference` allows.

        A child that crashed or took too long is a report that isn't ok.
        """

    async def shadow(self, champion: Path, candidate: Path, chosen: Choice, inputs: int) -> ShadowReport:
        """Let what serves and the candidate, as it was chosen, answer so many inputs in a child of their own.

        A child that crashed or took too long raises ProbeError.
        """

    async def serve(self, bundle: str | None, chosen: Choice | None) -> None:
        """(Re)start the worker on this bundle, and return when its first inference is done; None stops serving.

        Raises TflotillaError when the worker can't be brought up; the supervisor may go on trying.
        """

    async def observe(self, window_s: float) -> Observation:
        """Watch what serves for so long."""


class Installer:
    """Brings bundles of one home into service. Construct one per home, and `start` it before anything else."""

    def __init__(
        self,
        store: Store,
        serving: Serving,
        inference: InferenceConfig,
        *,
        on_status: OnStatus,
        check: Callable[[str, Store], object] = admission.check,
    ) -> None:
        """`on_status` hears of every status of every deployment, on the event loop; `check` says who may come in."""
        self._store = store
        self._serving = serving
        self._inference = inference
        self._on_status = on_status
        self._check = check
        # Nothing begins before `start` has put the board where it was: it may have a deployment to go on with.
        self._starting = asyncio.Lock()
        self._running: asyncio.Task[DeploymentStatus] | None = None
        self._journal: install.Journal | None = None
        self._told: list[DeploymentStatus] = []
        self._listeners: list[OnStatus] = []

    @property
    def busy(self) -> bool:
        """Whether a deployment is going on."""
        return self._running is not None and not self._running.done()

    @property
    def candidate(self) -> str | None:
        """The bundle that is being brought into service."""
        return self._journal.candidate if self.busy and self._journal is not None else None

    async def start(self) -> None:
        """Serve what is to be served, and go on with a deployment that a kill or power cut interrupted.

        Returns when the bundle serves, or can't; an interrupted deployment goes on in the background, and serves the
        candidate by itself where it was switched already.
        """
        async with self._starting:
            journal, actions = install.recover(await asyncio.to_thread(self._read_journal), self._store.current())
            if journal is None:
                await self._act_all(actions)
                return
            leading, rest = (actions[:1], actions[1:]) if isinstance(actions[0], install.Serve) else ((), actions)
            await self._act_all(leading)
            self._begin(journal, rest)

    async def settle(self) -> None:
        """Wait until no deployment is going on."""
        if self._running is not None:
            await asyncio.wait([self._running])

    async def stop(self) -> None:
        """Drop a deployment that is going on, as a kill would: the next `start` goes on with it."""
        if self._running is not None:
            self._running.cancel()
            await asyncio.wait([self._running])

    async def deploy(
        self,
        deployment: str,
        candidate: str,
        on_status: OnStatus,
        *,
        inference: InferenceConfig | None = None,
        shadow: int = 0,
    ) -> DeploymentStatus:
        """Bring a bundle into service that lies in `bundles/` or, complete, in `incoming/`.

        `inference` is how it is to run, as tuning found out; None is what agent.toml says. It is probed as any other,
        and where it fails agent.toml's is probed and served: a note in the statuses says so. One that serves already,
        but otherwise, is probed and started again. With `shadow` it answers so many inputs beside what serves first.

        Asked again with the id of the last one, whether it goes on or is over, it tells that one's story from the
        beginning: a host that lost the line may not know how far things are.

        Returns:
            The last status: succeeded, rolled_back, rejected or failed.

        Raises:
            BusyError: another deployment is going on.
            BoardError: the bundle is not on this board.
            ContractError: the digest isn't one, or nobody could want so large a shadow.

        """
        async with self._starting:
            pass
        if self._is_known("deploy", deployment, candidate):
            return await self._follow(on_status)
        self._refuse_when_busy()
        try:
            manifest = self._store.manifest(digest.check(candidate))
        except ValueError as error:
            message = f"bundle: {error}"
            raise ContractError(message) from error
        if not 0 <= shadow <= MAX_SHADOW:
            message = f"shadow: {shadow} is not allowed here; expected 0..{MAX_SHADOW} inputs"
            raise ContractError(message)
        journal = install.Journal(
            kind="deploy",
            deployment=deployment,
            candidate=candidate,
            title=manifest.title,
            champion=self._store.current(),
            previous=self._store.previous(),
            asked=inference,
            shadow=shadow,
        )
        if candidate == journal.champion:
            before = self._store.choice(candidate)
            if self._is_as_asked(before, inference):
                return self._already_served(journal, on_status)
            journal = replace(journal, before=before)
        return await self._run(journal, on_status)

    async def rollback(self, deployment: str, on_status: OnStatus, *, bundle: str | None = None) -> DeploymentStatus:
        """Bring the previous bundle back; the one it replaces becomes `previous`, so this can be undone.

        Asked again with the id of the last one, it tells that one's story: a repeated request doesn't undo itself.
        With `bundle`, the one that is to be left, nothing is done where another one serves: that holds whoever asks,
        and after a restart too.

        Raises:
            BusyError: another deployment is going on.
            ConflictError: there is nothing to go back to.
            BoardError: the previous bundle is not on this board any more.

        """
        async with self._starting:
            pass
        if self._is_known("rollback", deployment, None):
            return await self._follow(on_status)
        self._refuse_when_busy()
        previous, current = self._store.previous(), self._store.current()
        if bundle is not None and bundle != current:
            return self._left_already(deployment, bundle, current, on_status)
        if previous is None or previous == current:
            message = "nothing to roll back to: this board has served one bundle only"
            raise ConflictError(message)
        journal = install.Journal(
            kind="rollback",
            deployment=deployment,
            candidate=previous,
            title=self._store.manifest(previous).title,
            champion=current,
            previous=previous,
        )
        return await self._run(journal, on_status)

    def _left_already(self, deployment: str, bundle: str, current: str | None, on_status: OnStatus) -> DeploymentStatus:
        described = None if current is None else self._store.describe(current)
        title = "nothing" if described is None else f"{described.name}-{described.version}"
        status = DeploymentStatus(
            deployment=deployment,
            candidate=current or bundle,
            title=title,
            state=DeploymentState.SUCCEEDED,
            detail=f"{title} serves, not {digest.short(bundle)}: there is nothing to undo",
        )
        on_status(status)
        return status

    def _is_as_asked(self, before: Choice | None, asked: InferenceConfig | None) -> bool:
        if asked is None:
            return before is None or before.inference is None
        return before is not None and before.inference == asked and self._stale(before) is None

    def _stale(self, chosen: Choice) -> str | None:
        return choice.stale(chosen, offers=facts.runtimes(), kernel=facts.kernel(), processors=facts.processors())

    def _is_known(self, kind: str, deployment: str, candidate: str | None) -> bool:
        last = self._journal
        if self._running is None or last is None or (last.kind, last.deployment) != (kind, deployment):
            return False
        return candidate is None or last.candidate == candidate

    def _refuse_when_busy(self) -> None:
        if self.busy and self._journal is not None:
            message = (
                f"{self._journal.title} is being deployed ({self._journal.state.value}); try again when it is done"
            )
            raise BusyError(message)

    def _already_served(self, journal: install.Journal, on_status: OnStatus) -> DeploymentStatus:
        """Answer without touching the disk."""
        if journal.shadow:
            journal = replace(journal, shadowed=nothing_compared("it serves already"))
        status = _status(journal, install.Report(state=DeploymentState.SUCCEEDED, detail="serves already"))
        on_status(status)
        self._on_status(status)
        return status

    async def _run(self, journal: install.Journal, on_status: OnStatus) -> DeploymentStatus:
        self._begin(*install.begin(journal))
        return await self._follow(on_status)

    def _begin(self, journal: install.Journal, actions: tuple[install.Action, ...]) -> None:
        self._journal = journal
        self._told = []
        self._running = asyncio.create_task(self._drive(journal, actions))

    async def _follow(self, on_status: OnStatus) -> DeploymentStatus:
        if self._running is None:
            message = "no deployment is going on"
            raise ConflictError(message)
        for status in self._told:
            on_status(status)
        self._listeners.append(on_status)
        try:
            # Shielded: whoever asked may go away, the deployment does not.
            return await asyncio.shield(self._running)
        finally:
            self._listeners.remove(on_status)

    async def _drive(self, journal: install.Journal, actions: tuple[install.Action, ...]) -> DeploymentStatus:
        while True:
            event = await self._act_all(actions)
            if event is None:
                break
            if journal.state.final and isinstance(event, install.Broke):
                # Undoing failed, which is nothing that another step could mend: the journal stays, and the next
                # start of the agent tries again.
                self._tell(install.Report(state=DeploymentState.FAILED, error=event.error, detail=event.detail))
                break
            journal, actions = install.step(journal, event)
            self._journal = journal
        return self._told[-1]

    async def _act_all(self, actions: tuple[install.Action, ...]) -> install.Event | None:
        """Do actions in order; return the event that the last one brought, or the first that failed."""
        event: install.Event | None = None
        for action in actions:
            try:
                event = await self._act(action)
            except TflotillaError as error:
                if self._is_harmless(action):
                    continue
                return _blamed(action, error)
            except Exception as error:
                # A bug of ours must not leave a deployment hanging between two bundles: undo it, say it, go on.
                logging.getLogger(__name__).exception("doing %s", type(action).__name__)
                return install.Broke(
                    error="TflotillaError", detail=f"a bug of the agent: {error!r}; its log says where"
                )
        return event

    def _is_harmless(self, action: install.Action) -> bool:
        if isinstance(action, install.Save):
            # Undoing goes on without its note: on a full disk the links can still be switched.
            return action.journal.state.final
        return isinstance(action, install.Collect) or (isinstance(action, install.Serve) and not action.report)

    async def _act(self, action: install.Action) -> install.Event | None:
        store = self._store
        if isinstance(action, install.Report):
            self._tell(action)
        elif isinstance(action, install.Save):
            await asyncio.to_thread(store.write_document, store.home.journal, codec.canonical_json(action.journal))
        elif isinstance(action, install.Clear):
            await asyncio.to_thread(store.remove_document, store.home.journal)
        elif isinstance(action, install.Choose):
            await asyncio.to_thread(store.choose, action.candidate, action.choice)
        elif isinstance(action, install.Point):
            await asyncio.to_thread(store.point, action.current, action.previous)
        elif isinstance(action, install.Collect):
            await asyncio.to_thread(store.collect, action.keep)
        elif isinstance(action, install.Verify):
            await asyncio.to_thread(self._verify, action)
            return install.Verified()
        elif isinstance(action, install.Probe):
            return await self._probe(action.candidate, action.asked)
        elif isinstance(action, install.Shadow):
            return install.Shadowed(report=await self._shadow(action))
        elif isinstance(action, install.Serve):
            await self._serving.serve(action.bundle, store.choice(action.bundle) if action.bundle else None)
            return install.Serves() if action.report else None
        else:
            return await self._observe(action.candidate)
        return None

    async def _observe(self, candidate: str) -> install.Event:
        promised = self._store.manifest(candidate)
        seen = await self._serving.observe(promised.health.confirm_window_s)
        journal = self._journal
        before = None if journal is None else journal.champion
        untuned = journal is not None and before == candidate and journal.asked is None
        if before is None or untuned or self._store.manifest(before).name != promised.name:
            # Another model has a pace of its own: a detector is no slow classifier. And whoever goes back to agent.toml
            # wants it so, however much faster the same bundle was as tuned.
            seen = replace(seen, champion=None)
        return install.judge(seen, promised.health)

    def _verify(self, action: install.Verify) -> None:
        if action.kind == "deploy":
            self._check(action.candidate, self._store)
        self._store.admit(action.candidate)

    async def _probe(self, candidate: str, asked: InferenceConfig | None) -> install.Event:
        note = ""
        if asked is not None:
            chosen_so, objection = await self._probe_as_asked(candidate, asked)
            if chosen_so is not None:
                return install.Probed(choice=chosen_so)
            note = f"not as tuned ({choice.described(asked)}): {objection}"
        reports = await self._serving.probe(self._store.home.bundle(candidate), self._inference)
        chosen = choice.pick(reports)
        if chosen is not None:
            return install.Probed(choice=Choice(runtime=chosen.runtime), note=note)
        if not reports:
            return install.Broke(error="BoardError", detail="no runtime is installed on this board; bootstrap it again")
        return install.Refused(error="ProbeError", detail="; ".join(_reason(report) for report in reports))

    async def _shadow(self, action: install.Shadow) -> ShadowReport:
        """Compare; whatever hinders it is the report's reason, and never the deployment's end."""
        home = self._store.home
        if action.champion is None:
            return nothing_compared("nothing served before")
        if action.champion == action.candidate:
            return nothing_compared("it serves already, and only its configuration changes")
        try:
            now, then = self._store.manifest(action.candidate).name, self._store.manifest(action.champion).name
            if now != then:
                return nothing_compared(f"what serves is another model, {then}")
            folders = home.bundle(action.champion), home.bundle(action.candidate)
            return await self._serving.shadow(*folders, action.choice, action.inputs)
        except TflotillaError as error:
            return nothing_compared(str(error))
        except Exception as error:
            logging.getLogger(__name__).exception("comparing %s with what serves", action.candidate)
            return nothing_compared(f"a bug of the agent: {error!r}; its log says where")

    async def _probe_as_asked(self, candidate: str, asked: InferenceConfig) -> tuple[Choice | None, str]:
        """Return the choice when a tuned configuration holds here, or what stands against it."""
        if asked.runtime == "auto":
            return None, "it names no runtime"
        if self._inference.runtime not in ("auto", asked.runtime):
            return None, f"agent.toml wants {self._inference.runtime}"
        if (misfit := choice.misfit(asked, facts.processors())) is not None:
            return None, misfit
        try:
            (report,) = await self._serving.probe(self._store.home.bundle(candidate), asked)
        except TflotillaError as error:
            return None, str(error)
        objection = choice.objection(report)
        if objection is not None:
            return None, objection
        return Choice(runtime=report.runtime, inference=asked, kernel=facts.kernel()), ""

    def _tell(self, report: install.Report) -> None:
        if self._journal is None:
            return
        status = _status(self._journal, report)
        self._told.append(status)
        for listener in (self._on_status, *self._listeners):
            # A listener that can't listen any more must not undo a deployment.
            with contextlib.suppress(OSError, TflotillaError):
                listener(status)

    def _read_journal(self) -> install.Journal | None:
        path = self._store.home.journal
        try:
            return codec.decode(install.Journal, codec.parse_json(path.read_bytes(), str(path)), str(path))
        except (OSError, ContractError):
            # It is replaced atomically, so this is no journal or one of a newer agent. `current` is right at every
            # moment, so nothing is lost but the report.
            return None


def served_bundle(store: Store, bundle: str | None) -> ServedBundle | None:
    """Describe a bundle as messages do; None when there is none or its manifest can't be read."""
    return None if bundle is None else store.describe(bundle)


def nothing_compared(reason: str) -> ShadowReport:
    """Say why a candidate was not compared with what serves."""
    return ShadowReport(inputs=0, agreed=0, reason=reason)


def _reason(report: ProbeReport) -> str:
    runtime, reason = str(report.runtime), report.reason or "refused without a reason"
    return reason if runtime in reason else f"{runtime}: {reason}"


def _status(journal: install.Journal, report: install.Report) -> DeploymentStatus:
    return DeploymentStatus(
        deployment=journal.deployment,
        candidate=journal.candidate,
        title=journal.title,
        state=report.state,
        detail=report.detail,
        error=report.error,
        shadow=journal.shadowed,
    )


def _blamed(action: install.Action, error: TflotillaError) -> install.Refused | install.Broke:
    kind = type(error).__name__
    if isinstance(error, BoardError) or not isinstance(action, (install.Verify, install.Probe, install.Serve)):
        return install.Broke(error=kind, detail=str(error))
    return install.Refused(error=kind, detail=str(error))
