"""Rollouts and benchmarks to look at: real ones in a real journal and history, made in a folder.

`Conductor` carries the one that waits for approval on, so that words said on the page have an effect.
"""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING

from tests.host.benchmarks import measured
from tflotilla.host.benchmarks.sqlite import FILE, History
from tflotilla.host.rollouts import events
from tflotilla.host.rollouts.journal import database, register
from tflotilla.host.rollouts.plan import Plan, PlannedBoard, Wave
from tflotilla.host.rollouts.policy import Policy
from tflotilla.host.rollouts.rollout import BoardPhase, Status

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tflotilla.host.rollouts.events import Event
    from tflotilla.host.rollouts.journal.port import Journal

OLD, NEW = "cd" * 32, "ab" * 32
DONE, HALTED, RUNNING = "digits-1.0.0-11aa", "digits-1.9.0-22bb", "digits-2.0.0-7f3a"
_BY = "anna@desk"


def plan(name: str, boards: Sequence[str], *, created: float, approval: bool = False) -> Plan:
    """Return a plan with a canary, a tenth, and the rest."""
    tenth = max(2, len(boards) // 10 + 1)
    return Plan(
        rollout=name,
        fleet="greenhouse",
        bundle=NEW,
        title=name.rsplit("-", 1)[0],
        release=2,
        bundle_file=f".tflotilla/bundles/{NEW}.tflb",
        selector="all",
        created=created,
        by=_BY,
        boards=tuple(
            PlannedBoard(
                board=board, disposition="ready", serving=OLD, serving_title="digits-1.0.0", send_bytes=300_000
            )
            for board in boards
        ),
        waves=(
            Wave(size="1", boards=tuple(boards[:1])),
            Wave(size="10%", boards=tuple(boards[1:tenth]), approval=approval),
            Wave(size="100%", boards=tuple(boards[tenth:])),
        ),
        policy=Policy(soak_s=5.0),
    )


def served(board: str, *, before: str = OLD) -> list[Event]:
    """Return a push that went well."""
    return [
        events.Claimed(board=board, deployment=f"{board}-d", attempt=1),
        events.Deployed(board=board, changed=True, bytes_sent=298_112, duration_s=3.4, before=before),
    ]


def judged(wave: int, boards: Sequence[str], *, ok: bool = True) -> events.Judged:
    """Return a verdict with figures."""
    results = (
        events.GateResult(
            gate="latency",
            board=boards[0],
            ok=ok,
            figure="p99 5.9 ms against 5.4 ms, ×1.09 (at most ×1.5)"
            if ok
            else "p99 34 ms against 5.4 ms, ×6.30 (at most ×1.5)",
            value=1.09 if ok else 6.3,
            limit=1.5,
        ),
        events.GateResult(
            gate="labels", board=boards[-1], ok=True, figure="PSI 0.04 (at most 0.25)", value=0.04, limit=0.25
        ),
        events.GateResult(
            gate="temperature", board=boards[0], ok=True, figure="51.0 °C (at most 85 °C)", value=51.0, limit=85.0
        ),
    )
    kept = f"wave {wave + 1} of 3: {len(boards) if ok else 0} of {len(boards)} boards keep every gate"
    reason = f"{kept}; closest: latency" if ok else f"{kept} (at least 90.0% must): latency: {boards[0]} ×6.30"
    return events.Judged(
        wave=wave, ok=ok, boards=tuple(boards), misbehaved=() if ok else tuple(boards), results=results, reason=reason
    )


def write_rollouts(folder: Path, boards: Sequence[str]) -> None:
    """Write three rollouts: one that succeeded, one that its gates stopped, one that waits for approval."""
    journal = database.open_journal(f"sqlite:///{folder / database.FILE}", witness=folder / "rollouts.head")
    now = time.time()
    try:
        for name, age, story in (
            (DONE, 86400.0 * 3, _succeeded),
            (HALTED, 7200.0, _stopped),
            (RUNNING, 300.0, _waiting),
        ):
            made = plan(name, boards, created=now - age, approval=name == RUNNING)
            journal.create(made, by=_BY, at=now - age)
            journal.audit("start", by=_BY, at=now - age, rollout=name, detail={"selector": "all"})
            for step, event in enumerate(story(made)):
                journal.append(name, [event], by=_BY, at=now - age + step * 0.5)
    finally:
        journal.close()


def _wave(made: Plan, number: int) -> list[Event]:
    boards = made.waves[number].boards
    told: list[Event] = [events.WaveBegan(wave=number)]
    for board in boards:
        told += served(board)
    return [*told, events.SoakBegan(wave=number, until=made.created + 60), judged(number, boards)]


def _succeeded(made: Plan) -> list[Event]:
    return [event for number in range(len(made.waves)) for event in _wave(made, number)] + [events.Finished()]


def _stopped(made: Plan) -> list[Event]:
    canary = made.waves[0].boards[0]
    told: list[Event] = [events.WaveBegan(wave=0), *served(canary), events.SoakBegan(wave=0, until=made.created + 60)]
    told.append(judged(0, [canary], ok=False))
    told.append(events.Halted(reason=f"wave 1 of 3: latency: {canary} ×6.30 (at most ×1.5)", undo=True))
    told.append(events.UndoClaimed(board=canary, deployment=f"{canary}-u", attempt=1))
    return [*told, events.Undone(board=canary), events.Finished()]


def _waiting(made: Plan) -> list[Event]:
    return _wave(made, 0)


class Conductor:
    """Carries the running rollout on, a board at a step; used by one thread."""

    def __init__(self, folder: Path) -> None:
        self._journal: Journal = database.open_journal(f"sqlite:///{folder / database.FILE}", witness=folder / "head")

    def step(self) -> None:
        """Do the next thing, if a person doesn't have to say something first."""
        found = register.load(self._journal, RUNNING)
        number = found.wave
        if found.status is Status.ROLLING_BACK:
            back = [board for board, each in found.boards.items() if each.phase is BoardPhase.SERVING]
            if not back:
                self._append(events.Finished())
                return
            self._append(events.UndoClaimed(board=back[0], deployment=f"{back[0]}-u", attempt=1))
            self._append(events.Undone(board=back[0]))
            return
        if found.status is not Status.RUNNING or number >= len(found.plan.waves):
            return
        wave = found.plan.waves[number]
        if found.phase == "approval":
            if not wave.approval or number in found.approved:
                self._append(events.WaveBegan(wave=number))
            return
        if found.phase == "soaking":
            if time.time() >= (found.soak_until or 0.0):
                self._append(judged(number, wave.boards))
                if number + 1 == len(found.plan.waves):
                    self._append(events.Finished())
            return
        left = [board for board in wave.boards if found.boards[board].phase in (BoardPhase.WAITING, BoardPhase.QUEUED)]
        if left:
            for event in served(left[0]):
                self._append(event)
        else:
            self._append(events.SoakBegan(wave=number, until=time.time() + 5))

    def close(self) -> None:
        """Let go of the journal."""
        self._journal.close()

    def _append(self, event: Event) -> None:
        self._journal.append(RUNNING, [event], by="feed", at=time.time())


def write_benchmarks(folder: Path, boards: Sequence[str]) -> None:
    """Save three benchmarks of two boards; the newest is slower on one of them."""
    dice = random.Random(7)  # noqa: S311 - a simulation
    history = History(folder / FILE)
    for number, (name, factor) in enumerate((("main", 1.0), ("nightly", 0.98), ("candidate", 1.31))):
        parts = []
        for place, board in enumerate(boards[:2]):
            usual = 4_200_000 * (1.0 if place else factor)
            latencies = [int(usual * dice.lognormvariate(0, 0.05)) for _ in range(800)]
            faster = [int(value * 0.62) for value in latencies]
            cells = (measured.cell(latencies), measured.cell(faster, threads=2))
            parts.append(measured.board_run(cells, board=board))
        identifier = f"{number + 1:08x}{'0' * 24}"
        history.save(measured.run(*parts, name=name, identifier=identifier, created=1.75e9 + number * 86400))
