"""Conducts rollouts over time: those it is given, or all that nobody else conducts.

    while controller.tick(timeout_s=0.5): ...

Rules it keeps: a rollout that somebody else conducts is left to them; while the broker is away nothing is begun and
nothing is judged, because a host that hears nothing would take every board for silent.
What it does NOT do: decide (`engine`), sleep, or know what a signal is.
"""

from __future__ import annotations

import contextlib
import random
import time
from typing import TYPE_CHECKING

from tflotilla.host.rollouts.conductor import Conductor
from tflotilla.host.rollouts.journal import register
from tflotilla.shared.contract.errors import BusyError, ConflictError, InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tflotilla.host.rollouts.jobs import Executor, JobProgress
    from tflotilla.host.rollouts.journal.port import Journal, Recorded
    from tflotilla.host.rollouts.rollout import Rollout
    from tflotilla.host.rollouts.watcher import Presence, Telemetry

#: Rollouts that others began are looked for so often.
_LOOK_EVERY_S = 2.0
#: After the broker came back, boards get that long to deliver what they kept.
_SETTLE_S = 5.0


class Controller:
    """Conducts; used by one thread."""

    def __init__(
        self,
        journal: Journal,
        telemetry: Telemetry,
        *,
        executor: Callable[[], Executor],
        fleet_file: str,
        limit_rate: float | None = None,
        hears: Callable[[], bool] = lambda: True,
        on_events: Callable[[Rollout, Sequence[Recorded]], None] = lambda _rollout, _events: None,
        on_presence: Callable[[str, Presence, float], None] = lambda *_heard: None,
        tell: Callable[[str], None] = lambda _line: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`hears` says whether the telemetry's connection stands; `executor` makes one per rollout."""
        self._journal = journal
        self._telemetry = telemetry
        self._executor = executor
        self._fleet_file = fleet_file
        self._limit_rate = limit_rate
        self._hears = hears
        self._on_events = on_events
        self._on_presence = on_presence
        self._tell = tell
        self._clock = clock
        self._random = random.Random()  # noqa: S311 - jitter
        self._conductors: dict[str, tuple[Conductor, Executor]] = {}
        #: Rollouts that are over, and of how many events they were made then.
        self._done: dict[str, int] = {}
        self._lost: dict[str, str] = {}
        self._looked = 0.0
        self._deaf_until = 0.0
        self._heard = True

    def conducts(self, name: str) -> bool:
        """Whether that rollout is in our hands."""
        return name in self._conductors

    def lost(self, name: str) -> str | None:
        """Return why that rollout was taken out of our hands by another conductor; None where it was not."""
        return self._lost.get(name)

    def rollout(self, name: str) -> Rollout | None:
        """Return a rollout that is in our hands as it stands."""
        held = self._conductors.get(name)
        return None if held is None else held[0].rollout

    def rests(self, name: str | None = None) -> bool:
        """Whether that rollout (None: every one) waits for nothing but a person, or boards that are off."""
        held = {each: self._conductors[each] for each in self._conductors if name in (None, each)}
        return all(conductor.rests for conductor, _executor in held.values())

    @property
    def idle(self) -> bool:
        """Whether no job is under way."""
        return all(conductor.idle for conductor, _executor in self._conductors.values())

    def conduct(self, name: str) -> Rollout:
        """Take one rollout. Raises BusyError: another one conducts it; UsageError: there is none."""
        executor = self._executor()
        try:
            conductor = Conductor(
                self._journal,
                name,
                executor,
                by=register.person(),
                holder=register.process(),
                fleet_file=self._fleet_file,
                clock=self._clock,
                random=self._random,
                limit_rate=self._limit_rate,
                on_events=self._on_events,
                on_presence=self._on_presence,
            )
        except BaseException:
            executor.close()
            raise
        self._conductors[name] = conductor, executor
        return conductor.rollout

    def look_around(self) -> None:
        """Take every rollout that is not over and that nobody conducts; those that are over are let go."""
        now = self._clock()
        if now - self._looked < _LOOK_EVERY_S:
            return
        self._looked = now
        for name, events in self._journal.lengths().items():
            if name in self._conductors or self._done.get(name) == events:
                continue
            if self._journal.conductor(name, at=now) is not None:
                continue
            rollout = register.load(self._journal, name)
            if rollout.status.over:
                # Until a person says something.
                self._done[name] = rollout.events
                continue
            try:
                self.conduct(name)
            except BusyError:
                continue
            self._tell(f"{name}: conducting it, {rollout.status.value}")

    def tick(self, *, timeout_s: float) -> Sequence[JobProgress]:
        """Do what there is to do, wait for news at most `timeout_s` seconds; return what jobs told."""
        waits = timeout_s if self.idle else 0.0
        received = self._telemetry.receive(timeout_s=waits)
        deaf = self._is_deaf()
        told: list[JobProgress] = []
        each_s = 0.0 if not self._conductors else timeout_s / len(self._conductors)
        for name, (conductor, _executor) in tuple(self._conductors.items()):
            try:
                told += conductor.tick(received, timeout_s=each_s, deaf=deaf)
            except ConflictError as error:
                # Lost to somebody who thought us gone: theirs now.
                self._tell(str(error))
                self._lost[name] = str(error)
                self._let_go(name)
                continue
            if conductor.rollout.status.over and conductor.idle:
                self._let_go(name)
                self._done[name] = conductor.rollout.events
        return told

    def close(self) -> None:
        """Give every rollout back, so that whoever comes next need not wait."""
        for name in tuple(self._conductors):
            self._let_go(name)

    def _let_go(self, name: str) -> None:
        conductor, executor = self._conductors.pop(name)
        executor.close()
        # A journal that is away keeps nobody from going: the lease runs out.
        with contextlib.suppress(InputError):
            conductor.close()

    def _is_deaf(self) -> bool:
        hears = self._hears()
        if hears and not self._heard:
            self._deaf_until = self._clock() + _SETTLE_S
            self._tell("the broker is back")
        elif self._heard and not hears:
            self._tell("the broker is away: nothing new is begun, nothing is judged until it is back")
        self._heard = hears
        return not hears or self._clock() < self._deaf_until
