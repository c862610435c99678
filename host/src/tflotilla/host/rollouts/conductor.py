"""Carries one rollout out: asks the engine what follows, keeps it in the journal, has it done, hears what came of it.

    people's events ──▶ journal ──▶ fold ◀── results of jobs, births, evidence
                                     │
                          engine.next_actions ──▶ journal ──▶ executor

Rules it keeps: what is to be done is in the journal before it is done, so a host that dies at any moment does nothing
twice that matters (jobs are idempotent) and forgets nothing; one conductor per rollout, by a lease that is renewed.
What it does NOT do: decide (`engine`, `gates`), connect to boards (`pushing`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tflotilla.host.rollouts.deciding import engine
from tflotilla.host.rollouts.events import Born, Claimed, Resumed, UndoClaimed
from tflotilla.host.rollouts.jobs import Job
from tflotilla.host.rollouts.rollout import BoardPhase, Status
from tflotilla.host.rollouts.watcher import Watcher

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterable, Sequence

    from tflotilla.host.rollouts.events import Event
    from tflotilla.host.rollouts.jobs import Executor, JobProgress, JobResult
    from tflotilla.host.rollouts.journal.port import Journal, Lease, Recorded
    from tflotilla.host.rollouts.rollout import Rollout
    from tflotilla.host.rollouts.watcher import Presence
    from tflotilla.host.telemetry.inbox import Received

#: A conductor that says nothing for so long is gone; longer than any single step of it.
LEASE_S = 30.0
_RENEW_AFTER_S = 10.0


class Conductor:
    """One rollout under way. Used by one thread; `tick` it until it is idle or over."""

    def __init__(
        self,
        journal: Journal,
        name: str,
        executor: Executor,
        *,
        by: str,
        holder: str,
        fleet_file: str,
        clock: Callable[[], float],
        random: random.Random,
        limit_rate: float | None = None,
        on_events: Callable[[Rollout, Sequence[Recorded]], None] = lambda _rollout, _events: None,
        on_presence: Callable[[str, Presence, float], None] = lambda *_heard: None,
    ) -> None:
        """Take the lease and go on where the journal ends.

        Raises:
            BusyError: somebody else conducts this rollout.
            UsageError: there is none of that name.

        """
        self._journal = journal
        self._executor = executor
        self._by = by
        self._fleet_file = fleet_file
        self._clock = clock
        self._random = random
        self._limit_rate = limit_rate
        self._on_events = on_events
        plan = journal.plan(name)
        self._lease: Lease = journal.take(name, holder=holder, at=clock(), for_s=LEASE_S)
        self._renewed = clock()
        self._under_way: set[str] = set()
        self._deaf = False
        self.watcher = Watcher([planned.board for planned in plan.boards], on_presence=on_presence)
        try:
            # What happened before was told by whoever did it.
            self.rollout: Rollout = engine.rebuild(plan, journal.events(name))
            if self.rollout.events and not self.rollout.status.over and self.rollout.status is not Status.PAUSED:
                # Claims of a conductor before are void: nobody waits for their results any more.
                self._record([Resumed()])
        except BaseException:
            self.close()
            raise

    @property
    def name(self) -> str:
        """The rollout's name."""
        return self.rollout.plan.rollout

    @property
    def idle(self) -> bool:
        """Whether no job is under way: it is over, paused, or waits for time, a person or boards that are off."""
        return not self._under_way

    @property
    def rests(self) -> bool:
        """Whether nothing will follow soon by itself: it is over, waits for a person, or for boards that are off."""
        if not self.idle:
            return False
        now = self._clock()
        if self._deaf and engine.next_actions(self.rollout, self.watcher.evidence, now=now, free=1):
            # It will follow when something can be heard again.
            return False
        return engine.wakes_at(self.rollout, now=now) is None or only_waits_for_boards(self.rollout, now=now)

    def tick(self, received: Iterable[Received], *, timeout_s: float, deaf: bool = False) -> Sequence[JobProgress]:
        """Take in what happened, do what follows; wait for results at most `timeout_s` seconds.

        While `deaf`, nothing can be heard of boards: what they did is taken in, nothing follows from it.

        Raises:
            ConflictError: the lease was lost to another conductor; nothing more may be done here.
            InputError: the journal can't be read or written.

        """
        self._deaf = deaf
        now = self._clock()
        if now - self._renewed > _RENEW_AFTER_S:
            self._lease = self._journal.renew(self._lease, at=now, for_s=LEASE_S)
            self._renewed = now
        born = self.watcher.hear(received)
        self._catch_up()
        self._record([Born(board=board) for board in born if self._waits(board)])
        # Only a job that is under way is worth waiting for here; without one, the caller's telemetry is.
        self._take(self._executor.results(timeout_s=timeout_s if self._under_way else 0.0))
        if not deaf:
            self._follow()
        return self._executor.progress()

    def close(self) -> None:
        """Give the lease back. Jobs under way are left to themselves: whoever resumes asks the boards again."""
        self._journal.release(self._lease)

    def _waits(self, board: str) -> bool:
        progress = self.rollout.boards.get(board)
        if progress is None or progress.again_at <= self._clock():
            return False
        return progress.phase is BoardPhase.QUEUED or progress.undo

    def _take(self, results: Iterable[JobResult]) -> None:
        """Write down what came of jobs, at once: each append is a write that waits for the disk."""
        ours = [result for result in results if result.job.rollout == self.name]
        self._under_way -= {result.job.deployment for result in ours}
        now = self._clock()
        self._record([engine.heard(self.rollout, result, now=now, random=self._random) for result in ours])

    def _follow(self) -> None:
        """Do what the engine says until it says nothing more."""
        while True:
            free = max(0, self._executor.capacity - len(self._under_way))
            actions = engine.next_actions(self.rollout, self.watcher.evidence, now=self._clock(), free=free)
            if not actions:
                return
            self._record(actions)
            for action in actions:
                # A person's word may have come in between, and voided the claim.
                if isinstance(action, (Claimed, UndoClaimed)) and engine.under_way(self.rollout, action):
                    self._begin(action)

    def _begin(self, action: Claimed | UndoClaimed) -> None:
        if isinstance(action, Claimed):
            # What the bundle did there in an earlier attempt is no evidence for this one.
            self.watcher.forget(action.board, self.rollout.plan.bundle)
        self._under_way.add(action.deployment)
        self._executor.submit(self._job(action))

    def _job(self, action: Claimed | UndoClaimed) -> Job:
        plan = self.rollout.plan
        return Job(
            kind="push" if isinstance(action, Claimed) else "undo",
            rollout=plan.rollout,
            board=action.board,
            deployment=action.deployment,
            bundle=plan.bundle,
            bundle_file=plan.bundle_file,
            fleet_file=self._fleet_file,
            shadow=plan.policy.shadow if isinstance(action, Claimed) else 0,
            limit_rate=self._limit_rate,
        )

    def _record(self, events: Sequence[Event]) -> None:
        if not events:
            return
        recorded = self._journal.append(self.name, events, by=self._by, at=self._clock(), lease=self._lease)
        if recorded[0].number == self.rollout.events + 1:
            self._fold(recorded)
        else:
            # A person's word came in between: theirs first.
            self._catch_up()

    def _catch_up(self) -> None:
        """Take in what people decided meanwhile."""
        self._fold(self._journal.events(self.name, after=self.rollout.events))

    def _fold(self, recorded: Sequence[Recorded]) -> None:
        if recorded:
            self.rollout = engine.fold_all(self.rollout, ((each.event, each.at) for each in recorded))
            self._on_events(self.rollout, recorded)


def only_waits_for_boards(rollout: Rollout, *, now: float) -> bool:
    """Whether whatever is left to do is on boards that could not be reached, and must be waited for."""
    soaking = rollout.phase == "soaking" and rollout.wave < len(rollout.plan.waves)
    if soaking and rollout.status is Status.RUNNING:
        return False
    waiting = False
    for progress in rollout.boards.values():
        if progress.phase in (BoardPhase.PUSHING, BoardPhase.UNDOING):
            return False
        if progress.phase is BoardPhase.SERVING and not progress.judged and not progress.undo:
            return False
        if progress.phase is BoardPhase.QUEUED or progress.undo:
            if progress.again_at <= now:
                return False
            waiting = True
    return waiting
