"""A rollout over a simulated fleet, from its plan to its end: the engine as the conductor drives it, in no time.

The host may be killed anywhere: then it goes on from its events alone, as a real one does from its journal.
What it does NOT do: keep a journal on a disk, hold a lease; see `conductor`.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tflotilla.host.rollouts.deciding import engine, waves
from tflotilla.host.rollouts.events import Born, Claimed, Resumed, UndoClaimed, WaveBegan
from tflotilla.host.rollouts.jobs import Job
from tflotilla.host.rollouts.journal.port import Recorded
from tflotilla.host.rollouts.plan import Plan, PlannedBoard
from tflotilla.host.rollouts.rollout import BoardPhase, Rollout
from tflotilla.host.rollouts.simulation.fleet import NEW, OLD, World

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tflotilla.host.rollouts.events import Event
    from tflotilla.host.rollouts.policy import Policy

#: A conductor looks so often.
TICK_S = 0.25


def plan(boards: Sequence[str], *, off: Sequence[str] = (), sizes: str = "1,10%,50%,100%", policy: Policy) -> Plan:
    """Return the plan of a rollout of the new bundle to a fleet that serves the old one."""
    away = frozenset(off)
    planned = tuple(
        PlannedBoard(board=name, disposition="offline")
        if name in away
        else PlannedBoard(board=name, disposition="ready", serving=OLD, serving_title="model-1.0.0")
        for name in boards
    )
    return Plan(
        rollout="model-2.0.0-0000",
        fleet="simulated",
        bundle=NEW,
        title="model-2.0.0",
        release=2,
        bundle_file="model-2.0.0.tflb",
        selector="all",
        created=0.0,
        by="simulation",
        boards=planned,
        waves=waves.split(waves.parse(sizes), planned, select=lambda _selector: ()),
        policy=policy,
    )


@dataclass(slots=True)
class Host:
    """A process that conducts a rollout until it is killed; `events` is its journal and outlives it."""

    plan: Plan
    world: World
    forks: int = 50
    #: The chance that it is killed, at each of the moments in which it can be.
    kills: float = 0.0
    seed: int = 0
    tick_s: float = TICK_S
    events: list[Recorded] = field(default_factory=list)
    deaths: int = 0
    rollout: Rollout = field(init=False)
    _under_way: set[str] = field(init=False, default_factory=set)
    _dice: random.Random = field(init=False)

    def __post_init__(self) -> None:
        """Begin, or go on where the events end."""
        self.rollout = engine.rebuild(self.plan, self.events)
        self._dice = random.Random(self.seed)  # noqa: S311 - a simulation

    def run(self, *, until_s: float = 7 * 86400.0) -> Rollout:
        """Conduct it until nothing follows by itself, or for so long; return where it is then."""
        end = self.world.now + until_s
        while not engine.at_rest(self.rollout) and self.world.now < end:
            if self._follow():
                continue
            tick = self.world.now + self.tick_s
            wakes = [at for at in (self.world.next_at, self._wakes_at(tick)) if at is not None]
            if not wakes:
                # It waits for a person.
                break
            self._listen(min(max(min(wakes), tick), end))
        return self.rollout

    def _wakes_at(self, tick: float) -> float | None:
        """Return when the engine wants to be asked, unless the world has something before the next tick."""
        happens_at = self.world.next_at
        if happens_at is not None and happens_at <= tick:
            return happens_at
        return engine.wakes_at(self.rollout, now=self.world.now)

    def record(self, *events: Event) -> None:
        """Append events and fold them."""
        new = [
            Recorded(number=len(self.events) + number, at=self.world.now, by="simulation", event=event)
            for number, event in enumerate(events, 1)
        ]
        self.events += new
        self.rollout = engine.fold_all(self.rollout, ((each.event, each.at) for each in new))

    def _follow(self) -> bool:
        free = self.forks - len(self._under_way)
        actions = engine.next_actions(self.rollout, self.world.evidence, now=self.world.now, free=free)
        if not actions:
            return False
        self.record(*actions)
        for action in actions:
            if isinstance(action, (Claimed, UndoClaimed)) and engine.under_way(self.rollout, action):
                if self._dies():
                    return True
                self._under_way.add(action.deployment)
                self.world.submit(self._job(action))
        return True

    def _listen(self, until: float) -> None:
        results, births = self.world.advance(until)
        if self._dies():
            # What came was never written down.
            return
        heard: list[Event] = []
        for result in results:
            self._under_way.discard(result.job.deployment)
            heard.append(engine.heard(self.rollout, result, now=self.world.now, random=self._dice))
        heard += [Born(board=board) for board in births if self._waits(board)]
        self.record(*heard)

    def _waits(self, board: str) -> bool:
        progress = self.rollout.boards[board]
        return progress.again_at > self.world.now and (progress.phase is BoardPhase.QUEUED or progress.undo)

    def _dies(self) -> bool:
        if self._dice.random() >= self.kills:
            return False
        self.deaths += 1
        self.world.forget_listeners()
        self._under_way.clear()
        self.rollout = engine.rebuild(self.plan, self.events)
        if self.events and not self.rollout.status.over:
            self.record(Resumed())
        return True

    def _job(self, claim: Claimed | UndoClaimed) -> Job:
        push = isinstance(claim, Claimed)
        return Job(
            kind="push" if push else "undo",
            rollout=self.plan.rollout,
            board=claim.board,
            deployment=claim.deployment,
            bundle=self.plan.bundle,
            bundle_file=self.plan.bundle_file,
            fleet_file="/fleet.toml",
            shadow=self.plan.policy.shadow if push else 0,
        )

    @property
    def waves_begun(self) -> int:
        """How many waves began."""
        return len({each.event.wave for each in self.events if isinstance(each.event, WaveBegan)})
