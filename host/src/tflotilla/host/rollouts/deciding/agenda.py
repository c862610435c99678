"""What the boards of a rollout that are not settled wait for, found by looking at each of them once.

What it does NOT do: decide (`engine`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tflotilla.host.rollouts.rollout import BoardPhase

if TYPE_CHECKING:
    from tflotilla.host.rollouts.rollout import BoardProgress, Rollout

# Looked up once: that of an enumeration's member costs as much as all the rest of a look.
_QUEUED, _PUSHING = BoardPhase.QUEUED, BoardPhase.PUSHING
_SERVING, _UNDOING = BoardPhase.SERVING, BoardPhase.UNDOING


@dataclass(slots=True, kw_only=True)
class Agenda:
    """Boards by what they wait for, in the order in which they were opened."""

    #: To be undone, and due.
    undo: list[str] = field(default_factory=list)
    #: Queued and due: never missed, and missed.
    fresh: list[str] = field(default_factory=list)
    again: list[str] = field(default_factory=list)
    #: How many boards of the wave that is going on must come to an end before it soaks.
    awaited: int = 0
    #: Serving for as long as they must, and not judged.
    soaked: list[str] = field(default_factory=list)
    #: Wave → how many of its boards are off.
    off: dict[int, int] = field(default_factory=dict)
    #: Whether anything is under way, or to be undone.
    moving: bool = False
    #: When the next of those that wait is due.
    wakes_at: float | None = None

    def put(self, name: str, due: list[str], at: float, now: float) -> None:
        """Add a board to those that are due, or note when it will be."""
        if at <= now:
            due.append(name)
        else:
            self.wait(at)

    def wait(self, until: float) -> None:
        """Note a time to come."""
        if self.wakes_at is None or until < self.wakes_at:
            self.wakes_at = until


def look(rollout: Rollout, now: float) -> Agenda:
    """Look at every board that is not settled. The commonest comes first: of 10,000 boards most wait for a slot."""
    agenda = Agenda()
    boards, current = rollout.boards, rollout.wave
    soak_s, resumed_at = rollout.plan.policy.soak_s, rollout.resumed_at
    fresh, awaited = agenda.fresh, 0
    for name, wave in rollout.open.items():
        board = boards[name]
        phase = board.phase
        if phase is _QUEUED and board.error is None and not board.undo:
            awaited += wave == current
            if board.again_at <= now:
                fresh.append(name)
            else:
                agenda.wait(board.again_at)
        elif phase is _SERVING and not board.undo:
            agenda.put(name, agenda.soaked, max(board.since or 0.0, resumed_at) + soak_s, now)
        elif phase is _UNDOING:
            agenda.moving = True
        elif board.undo:
            agenda.moving = True
            agenda.put(name, agenda.undo, board.again_at, now)
        elif board.error is not None:
            # Missed once: it holds nobody up any more, even while it is tried again.
            agenda.off[wave] = agenda.off.get(wave, 0) + 1
            if phase is _PUSHING:
                agenda.moving = True
            else:
                agenda.put(name, agenda.again, board.again_at, now)
        else:
            agenda.moving = True
            awaited += wave == current
    agenda.awaited = awaited
    return agenda


def listened_since(rollout: Rollout, board: BoardProgress) -> float:
    """Return since when a board's telemetry of the bundle was listened to without a break."""
    return max(board.since or 0.0, rollout.resumed_at)
