"""What the journal knows of all rollouts: where each stands, which one a board belongs to, what it should serve.

Read-only but for two things that starting one needs: claiming boards, and taking them over from older rollouts that
still wait for them.
What it does NOT do: carry anything out (`conductor`).
"""

from __future__ import annotations

import getpass
import os
import socket
import time
from typing import TYPE_CHECKING

from tflotilla.host.fleet.inventory.reconciliation import Desired
from tflotilla.host.rollouts.deciding import engine
from tflotilla.host.rollouts.events import Aborted, Superseded
from tflotilla.host.rollouts.rollout import BoardPhase, Rollout, Status
from tflotilla.shared.contract.errors import BusyError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tflotilla.host.rollouts.journal.port import Journal
    from tflotilla.host.rollouts.plan import Plan

#: A board in one of these has the rollout's bundle, is about to get it, or still waits for it.
_WANTING = frozenset({BoardPhase.WAITING, BoardPhase.QUEUED, BoardPhase.PUSHING, BoardPhase.SERVING, BoardPhase.FAILED})
#: One that may be taken over by a newer rollout: nothing has been done to it.
_UNTOUCHED = frozenset({BoardPhase.WAITING, BoardPhase.QUEUED})


def person() -> str:
    """Return who types, as journal and audit log name them: `user@host`."""
    return f"{getpass.getuser()}@{socket.gethostname()}"


def process() -> str:
    """Return who conducts: `user@host pid`."""
    return f"{person()} {os.getpid()}"


def load(journal: Journal, name: str) -> Rollout:
    """Return a rollout as it stands. Raises UsageError when there is none of that name."""
    return engine.rebuild(journal.plan(name), journal.events(name))


def latest(journal: Journal) -> str:
    """Return the name of the newest rollout. Raises UsageError when there is none."""
    names = journal.rollouts()
    if not names:
        message = "there is no rollout yet; `tflotilla rollout start BUNDLE SELECTOR` begins one"
        raise UsageError(message)
    return names[-1]


def under_way(journal: Journal) -> Iterator[Rollout]:
    """Return the rollouts that are not over, oldest first."""
    for name in journal.rollouts():
        rollout = load(journal, name)
        if not rollout.status.over:
            yield rollout


def refuse_overlap(journal: Journal, plan: Plan) -> tuple[Rollout, ...]:
    """Return the rollouts older than this plan that wait for boards of it and may lose them.

    Raises:
        BusyError: a rollout is at work on boards of this plan, named with one of them.

    """
    wanted = {board for wave in plan.waves for board in wave.boards}
    losing = []
    for rollout in under_way(journal):
        if rollout.plan.rollout == plan.rollout:
            # Once it is written down, those that come after it are the ones to give way.
            break
        shared = sorted(wanted & rollout.boards.keys())
        converging = rollout.status is Status.CONVERGING
        busy = [name for name in shared if not converging or _is_busy(rollout, name)]
        if busy:
            raise BusyError(_busy(journal, rollout, busy))
        if any(rollout.boards[name].phase in _UNTOUCHED for name in shared):
            losing.append(rollout)
    return tuple(losing)


def claim(journal: Journal, plan: Plan, *, by: str) -> None:
    """Write a plan down, and take its boards from older rollouts that wait for them: a board gets the newest, once.

    Raises:
        BusyError: another rollout is at work on some of these boards; nothing was begun.
        ConflictError: there is a rollout of this name.

    """
    refuse_overlap(journal, plan)
    now = time.time()
    journal.create(plan, by=by, at=now)
    try:
        # Again: two that begin at once both found nothing. The one that was written down first goes on.
        losing = refuse_overlap(journal, plan)
    except BusyError:
        journal.append(plan.rollout, [Aborted()], by=by, at=now)
        raise
    wanted = {board for wave in plan.waves for board in wave.boards}
    for rollout in losing:
        boards = tuple(
            name
            for name, progress in rollout.boards.items()
            if name in wanted and progress.phase in _UNTOUCHED and progress.wave is not None
        )
        taken = Superseded(boards=boards, by_rollout=plan.rollout)
        journal.append(rollout.plan.rollout, [taken], by=by, at=now)


def desired(journal: Journal) -> Mapping[str, Desired]:
    """Return what each board should serve by the newest rollout that says something about it."""
    found: dict[str, Desired] = {}
    for name in journal.rollouts():
        rollout = load(journal, name)
        plan = rollout.plan
        aborted = rollout.status is Status.ABORTED
        for planned in plan.boards:
            progress = rollout.boards.get(planned.board)
            wants = Desired(digest=plan.bundle, title=plan.title, rollout=name)
            if planned.disposition == "current":
                found[planned.board] = wants
            elif progress is None or progress.wave is None:
                continue
            elif progress.phase in (BoardPhase.UNDOING, BoardPhase.UNDONE) or progress.undo:
                if progress.before is not None:
                    title = planned.serving_title if planned.serving == progress.before else None
                    found[planned.board] = Desired(
                        digest=progress.before, title=title or progress.before[:12], rollout=name
                    )
            elif progress.phase is BoardPhase.SERVING or (progress.phase in _WANTING and not aborted):
                found[planned.board] = wants
    return found


def _is_busy(rollout: Rollout, name: str) -> bool:
    progress = rollout.boards[name]
    return progress.phase in (BoardPhase.PUSHING, BoardPhase.UNDOING) or progress.undo


def _busy(journal: Journal, rollout: Rollout, boards: list[str]) -> str:
    name = rollout.plan.rollout
    conductor = journal.conductor(name, at=time.time())
    who = f"conducted by {conductor}" if conductor else f"by {rollout.plan.by}, nobody conducts it now"
    more = f" and {len(boards) - 1} more" if len(boards) > 1 else ""
    return (
        f"rollout {name} ({rollout.status.value}, {who}) is at work on {boards[0]}{more}; "
        f"wait for it, or `tflotilla rollout abort {name}`"
    )
