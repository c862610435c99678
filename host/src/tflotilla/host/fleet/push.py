"""Deploy a bundle to boards, bring the previous one back, ask what they do.

A deployment: verify the bundle here → hello → preflight with the board's fresh facts → offer → manifest and signature
→ what is missing → deploy, and follow it to its end.

Rules it keeps: nothing of a bundle is sent to a board that can't run it; nothing is sent twice, also after a cut; a
board that has the bundle in service gets not 4 KiB and changes nothing. A cut while the board works is no failure: the
same deployment is followed again.
What it does NOT do: waves, gates, schedules (rollouts), or decide on the board's behalf: the board verifies everything
again.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tflotilla.host.bundles import signing
from tflotilla.host.fleet import pool, sessions
from tflotilla.host.fleet.inventory import contacts
from tflotilla.host.fleet.lines import cuts, ssh
from tflotilla.host.fleet.transfer import files as transfer_files
from tflotilla.host.fleet.tuned import Advice
from tflotilla.host.models import compatibility
from tflotilla.shared.contract import errors
from tflotilla.shared.contract.deployment import DeploymentState, DeploymentStatus, ShadowReport
from tflotilla.shared.contract.errors import (
    BoardError,
    IncompatibleError,
    ProbeError,
    UnreachableError,
    VerificationError,
)
from tflotilla.shared.contract.messages import ServedBundle, State

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tflotilla.host.bundles.archive import Bundle
    from tflotilla.host.fleet.inventory.fleet import Fleet
    from tflotilla.host.fleet.lines.ssh import Link
    from tflotilla.host.fleet.lines.throttle import Throttle
    from tflotilla.host.fleet.pool import BoardResult
    from tflotilla.host.fleet.sessions import Session
    from tflotilla.shared.contract.board import BoardFacts
    from tflotilla.shared.contract.session import Hello, MissingBlob


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a deployment or rollback did to one board."""

    board: str
    deployment: str
    #: The bundle that serves now.
    bundle: str
    title: str
    #: False when it served already.
    changed: bool
    #: Everything sent over the socket, handshakes included.
    bytes_sent: int
    #: Bytes of the bundle's files that the board lacked.
    bytes_missing: int = 0
    #: How often the line broke meanwhile.
    cuts: int = 0
    duration_s: float = 0.0
    statuses: tuple[DeploymentStatus, ...] = ()
    #: How it runs by what tuning found, or why not so; empty where nobody tuned.
    tuning: str = ""
    #: Digest of what served before, None where nothing did: what an undo brings back.
    before: str | None = None
    #: What a trial beside the bundle that serves found, where it was asked for.
    shadow: ShadowReport | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BoardStatus:
    """What one board is doing; `state` is None when its agent doesn't run."""

    board: str
    agent_version: str
    running: bool
    serving: ServedBundle | None
    previous: ServedBundle | None
    state: State | None


#: Begins what a board says when its probe refused what tuning found.
_NOT_AS_TUNED = "not as tuned"


class _Run:
    """One deployment, over as many connections as it takes."""

    def __init__(
        self,
        name: str,
        fleet: Fleet,
        bundle: Bundle,
        on_status: Callable[[DeploymentStatus], None],
        on_bytes: Callable[[int, int], None],
        advise: Callable[[BoardFacts], Advice],
        *,
        deployment: str | None,
        shadow: int,
        limit: Throttle | None,
    ) -> None:
        self.name = name
        self.fleet = fleet
        self.bundle = bundle
        self.on_bytes = on_bytes
        self._named = deployment is not None
        self.deployment = deployment or os.urandom(8).hex()
        self.shadow = shadow
        self.limit = limit
        self.before: str | None = None
        self.statuses: list[DeploymentStatus] = []
        self.bytes_missing = 0
        self.changed = True
        self.handed_over = False
        self.advice = Advice(inference=None)
        self._advise = advise
        self._on_status = on_status

    def attempt(self, session: Session) -> None:
        hello = session.hello
        session.limit = self.limit
        if not hello.running and self.handed_over:
            # It was killed and is being started again: the deployment goes on with it.
            message = f"{self.name}: its agent went away in the middle of the deployment and is not back yet"
            raise UnreachableError(message)
        if not hello.running:
            message = f"{self.name}: its agent doesn't run; `tflotilla board bootstrap {self.name}` starts it"
            raise BoardError(message)
        if not self.handed_over:
            self.advice = self._advise(hello.facts)
            if self._serves(session):
                self.before = hello.previous.digest if hello.previous is not None else None
                # A deployment with a name may have been asked for before, and may not have come to its end yet.
                if not self.advice.insist and not self._named:
                    self.changed = False
                    return
            else:
                self.before = hello.serving.digest if hello.serving is not None else None
                self._tell(DeploymentState.TRANSFERRING)
                self._transfer(session, session.manifest(self.bundle.manifest_bytes, self.bundle.signature or b""))
            self.handed_over = True
        for status in session.deploy(self.bundle.digest, self.deployment, self.advice.inference, shadow=self.shadow):
            self.hear(status)
        # It serves, and in the very way that was asked for: no step was taken.
        self.changed = [status.state for status in self.statuses] != [DeploymentState.SUCCEEDED]

    def _serves(self, session: Session) -> bool:
        hello = session.hello
        # The hello says it: not even the offer is sent.
        if hello.serving is not None and hello.serving.digest == self.bundle.digest:
            return True
        preflight(self.name, self.fleet, self.bundle, hello)
        return session.offer(self.bundle.digest).current is True

    @property
    def tuning(self) -> str:
        """How it runs by what tuning found: what the board said goes before what it was told."""
        last = self.statuses[-1].detail if self.statuses else ""
        return last[last.index(_NOT_AS_TUNED) :] if _NOT_AS_TUNED in last else self.advice.said

    def hear(self, status: DeploymentStatus) -> None:
        # Followed again after a cut, a deployment's story begins anew.
        if status not in self.statuses:
            self.statuses.append(status)
            self._on_status(status)

    def _tell(self, state: DeploymentState) -> None:
        self.hear(
            DeploymentStatus(
                deployment=self.deployment,
                candidate=self.bundle.digest,
                title=self.bundle.manifest.title,
                state=state,
            )
        )

    def _transfer(self, session: Session, missing: Sequence[MissingBlob]) -> None:
        self.bytes_missing = max(self.bytes_missing, sum(blob.size - blob.offset for blob in missing))
        transfer_files.send(session, self.name, self.bundle, missing, on_bytes=self.on_bytes)


def verify(fleet: Fleet, bundle: Bundle) -> str:
    """Check a bundle before anything is sent: its signature by the fleet's signers, every file's digest.

    Returns:
        The signer.

    Raises:
        VerificationError: unsigned, by a stranger, or edited.
        ConfigError: the fleet names no signers.

    """
    if bundle.signature is None:
        message = f"{bundle.path} is not signed; `tflotilla bundle create --key` signs"
        raise VerificationError(message)
    try:
        signer = signing.verify(bundle.manifest_bytes, bundle.signature, allowed_signers=fleet.allowed_signers())
    except VerificationError as error:
        message = f"{bundle.path}: {error}"
        raise VerificationError(message) from error
    bundle.verify_files()
    return signer


def preflight(name: str, fleet: Fleet, bundle: Bundle, hello: Hello) -> None:
    """Judge by the board's fresh facts, before a byte of the bundle is sent. Raises IncompatibleError."""
    config = fleet.agent_config(name, home="/")
    verdict = compatibility.check_bundle(
        bundle.manifest,
        hello.facts,
        labels=fleet.board(name).labels,
        runtime=config.inference.runtime,
        delegate=config.inference.delegate is not None,
    )
    if not verdict.ok:
        message = f"{name} can't run {bundle.manifest.title}: {verdict}; nothing was sent"
        raise IncompatibleError(message)


def deploy(
    name: str,
    fleet: Fleet,
    bundle: Bundle,
    *,
    on_status: Callable[[DeploymentStatus], None] = lambda _status: None,
    on_bytes: Callable[[int, int], None] = lambda _sent, _total: None,
    pause: Callable[[float], None] = time.sleep,
    verify_locally: bool = True,
    advise: Callable[[BoardFacts], Advice] = lambda _facts: Advice(inference=None),
    deployment: str | None = None,
    shadow: int = 0,
    limit: Throttle | None = None,
) -> Outcome:
    """Deploy a bundle to one board and see it through.

    Args:
        name: the board.
        fleet: its fleet.
        bundle: an opened bundle.
        on_status: hears every status once, in order.
        on_bytes: hears how much of what the board lacked is there, and how much it lacked, in bytes.
        pause: waits between attempts, in seconds.
        advise: says by the board's fresh facts how the bundle is to run there.
        verify_locally: False lets a bad bundle get as far as the board, which refuses it: for tests and the demo.
        deployment: the deployment's id; with one that the board knows, that one is followed instead of a new one.
        shadow: on so many inputs of the board's source the bundle is tried beside the one that serves, before it does.
        limit: what all transfers that have it send together.

    Raises:
        VerificationError: the bundle is unsigned, edited, or signed by a stranger: here or by the board's own check.
        IncompatibleError: the board can't run it.
        ProbeError: it misbehaved on the board; the old one serves.
        BusyError: another deployment runs there.
        ConflictError: the release is not newer.
        UnreachableError, IdentityError, BoardError: as everywhere.

    """
    if verify_locally:
        verify(fleet, bundle)
    run = _Run(name, fleet, bundle, on_status, on_bytes, advise, deployment=deployment, shadow=shadow, limit=limit)
    started = time.monotonic()
    done = _over_cuts(name, fleet, run.attempt, pause)
    _judge(name, run.statuses, changed=run.changed)
    told = bundle.manifest
    served = ServedBundle(digest=bundle.digest, name=told.name, version=told.version, release=told.release)
    contacts.now_serves(fleet.state, name, bundle.digest, served)
    return Outcome(
        board=name,
        deployment=run.deployment,
        bundle=bundle.digest,
        title=bundle.manifest.title,
        changed=run.changed,
        bytes_sent=done.bytes_sent,
        bytes_missing=run.bytes_missing,
        cuts=done.cuts,
        duration_s=time.monotonic() - started,
        statuses=tuple(run.statuses),
        tuning=run.tuning,
        before=run.before,
        shadow=next((status.shadow for status in reversed(run.statuses) if status.shadow is not None), None),
    )


def deploy_many(
    names: Sequence[str],
    fleet: Fleet,
    bundle: Bundle,
    *,
    forks: int = pool.DEFAULT_FORKS,
    on_status: Callable[[str, DeploymentStatus], None] = lambda _name, _status: None,
    on_bytes: Callable[[str, int, int], None] = lambda _name, _sent, _total: None,
    on_result: Callable[[BoardResult[Outcome]], None] | None = None,
    advise: Callable[[str, BoardFacts], Advice] = lambda _name, _facts: Advice(inference=None),
    limit: Throttle | None = None,
) -> tuple[BoardResult[Outcome], ...]:
    """Verify a bundle once and deploy it to many boards; their errors are results, a bad bundle is raised."""
    verify(fleet, bundle)
    return pool.run(
        names,
        lambda name: deploy(
            name,
            fleet,
            bundle,
            on_status=lambda status: on_status(name, status),
            on_bytes=lambda sent, total: on_bytes(name, sent, total),
            verify_locally=False,
            advise=lambda facts: advise(name, facts),
            limit=limit,
        ),
        forks=forks,
        on_result=on_result,
    )


def rollback(
    name: str, fleet: Fleet, *, on_status: Callable[[DeploymentStatus], None] = lambda _status: None
) -> Outcome:
    """Bring a board's previous bundle back.

    A cut is not retried: going back twice is going forward again.

    Raises:
        ConflictError: there is nothing to go back to, or a deployment runs.
        UnreachableError, IdentityError, BoardError: as everywhere.

    """
    entry = fleet.board(name)
    deployment = os.urandom(8).hex()
    started = time.monotonic()
    statuses: list[DeploymentStatus] = []
    with ssh.connect(name, entry, fleet) as link:
        with sessions.open_session(link, entry.install) as session:
            for status in session.rollback(deployment):
                statuses.append(status)
                on_status(status)
            session.bye()
        sent = link.bytes_sent
    _judge(name, statuses, changed=True)
    contacts.now_serves(fleet.state, name, statuses[-1].candidate)
    return Outcome(
        board=name,
        deployment=deployment,
        bundle=statuses[-1].candidate,
        title=statuses[-1].title,
        changed=True,
        bytes_sent=sent,
        duration_s=time.monotonic() - started,
        statuses=tuple(statuses),
    )


def undo(
    name: str,
    fleet: Fleet,
    *,
    bundle: str,
    deployment: str,
    on_status: Callable[[DeploymentStatus], None] = lambda _status: None,
    pause: Callable[[float], None] = time.sleep,
) -> Outcome:
    """Have a board leave a bundle for what it served before; where another one serves, nothing is done.

    Asking again changes nothing, so a cut is retried: `bundle` says which one is to be left.

    Args:
        name: the board.
        fleet: its fleet.
        bundle: digest of the bundle that is not to serve.
        deployment: the undo's id.
        on_status: hears every status once, in order.
        pause: waits between attempts, in seconds.

    Raises:
        ConflictError: there is nothing to go back to.
        BusyError: a deployment runs there.
        UnreachableError, IdentityError, BoardError: as everywhere.

    """
    statuses: list[DeploymentStatus] = []
    served: set[str] = set()
    asked = False

    def attempt(session: Session) -> None:
        nonlocal asked
        hello = session.hello
        if not hello.running and asked:
            message = f"{name}: its agent went away in the middle of the undo and is not back yet"
            raise UnreachableError(message)
        if hello.serving is not None:
            served.add(hello.serving.digest)
        asked = True
        # Asked even where the hello names another one: a deployment of this one may be under way.
        for status in session.rollback(deployment, bundle=bundle):
            if status not in statuses:
                statuses.append(status)
                on_status(status)

    started = time.monotonic()
    done = _over_cuts(name, fleet, attempt, pause)
    _judge(name, statuses, changed=True)
    contacts.now_serves(fleet.state, name, statuses[-1].candidate)
    return Outcome(
        board=name,
        deployment=deployment,
        bundle=statuses[-1].candidate,
        title=statuses[-1].title,
        changed=bundle in served,
        bytes_sent=done.bytes_sent,
        cuts=done.cuts,
        duration_s=time.monotonic() - started,
        statuses=tuple(statuses),
        before=bundle,
    )


def _over_cuts(
    name: str, fleet: Fleet, attempt: Callable[[Session], None], pause: Callable[[float], None]
) -> cuts.Done[None]:
    """Attempt it over as many sessions as it takes."""

    def in_session(link: Link) -> None:
        with sessions.open_session(link, fleet.board(name).install) as session:
            fleet.save_hello(name, session.hello)
            attempt(session)
            session.bye()

    return cuts.outlived(name, fleet, in_session, pause=pause)


def status(name: str, fleet: Fleet) -> BoardStatus:
    """Ask a board what serves and how it is. Raises UnreachableError, IdentityError, BoardError."""
    entry = fleet.board(name)
    with ssh.connect(name, entry, fleet) as link, sessions.open_session(link, entry.install) as session:
        hello = session.hello
        state = session.state() if hello.running else None
        session.bye()
    fleet.save_hello(name, hello)
    return BoardStatus(
        board=name,
        agent_version=hello.agent_version,
        running=hello.running,
        serving=hello.serving,
        previous=hello.previous,
        state=state,
    )


def _judge(name: str, statuses: Sequence[DeploymentStatus], *, changed: bool) -> None:
    """Raise what the last status says went wrong."""
    if not changed:
        return
    if not statuses:
        message = f"{name}: its agent ended without a word about the deployment"
        raise BoardError(message)
    last = statuses[-1]
    if last.state is DeploymentState.SUCCEEDED:
        return
    if last.error is not None:
        raise errors.from_wire(last.error, f"{name}: {last.title} {last.state.value}: {last.detail}")
    if last.state.final:
        message = f"{name}: {last.title} {last.state.value}: {last.detail}"
        raise ProbeError(message)
    message = f"{name}: {last.title} stopped at {last.state.value} without a word"
    raise BoardError(message)
